// The card of votes (see votes.py): what is clicked in it is told to the grid, which shows the tokens behind the number.
// gr.HTML gives: element, trigger.

element.addEventListener("click", (event) => {
  if (event.target.closest("[data-measure]")) return trigger("measure", { kind: "measure" });
  const button = event.target.closest("button[data-expert]");
  if (!button) return;
  const detail = { expert: Number(button.dataset.expert), name: button.dataset.name ?? null };
  document.dispatchEvent(new CustomEvent("show-votes", { detail }));
});

// One tab stop for each expert; arrow keys move through its row and between rows.
element.addEventListener("keydown", (event) => {
  const button = event.target.closest("button[data-expert]");
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  if (!button || !step) return;
  event.preventDefault();
  const rows = [...element.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("button[data-expert]")]);
  const y = rows.findIndex((row) => row.includes(button)), x = rows[y].indexOf(button);
  rows[y + step[0]]?.[x + step[1]]?.focus();
});
