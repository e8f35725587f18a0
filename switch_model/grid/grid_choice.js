// What a person chooses in the routing grid: a token and layer, an expert that stays lit, the details on a phone.
// Runs before routing_grid.js, in the same scope, and uses what that declares when it is called.

function mark() {
  root.querySelectorAll(".cell.selected").forEach((cell) => {
    cell.classList.remove("selected");
    cell.removeAttribute("aria-current");
  });
  root.querySelectorAll('.cell[tabindex="0"]').forEach((cell) => (cell.tabIndex = -1));
  const chosen = cells[data.selected.token][data.selected.layer];
  if (!data.still) {
    chosen.classList.add("selected");
    chosen.setAttribute("aria-current", "true");
  }
  cells[current[0]][current[1]].tabIndex = 0;
  for (const choice of root.querySelectorAll(".layer-choice[data-layer]")) {
    choice.setAttribute("aria-pressed", String(Number(choice.dataset.layer) === data.selected.layer));
  }
  markLabels();
}

function markLabels() {
  for (const label of root.querySelectorAll(".grid-label")) {
    label.classList.toggle("chosen", !data.still && Number(label.dataset.layer) === data.selected.layer);
  }
}

function choose(token, layer) {
  if (data.still) return; // A grid to compare with: nothing below follows it.
  // Another stack's layer: the first token that it wrote, or read.
  if (!cells[token][layer]) token = Math.max(cells.findIndex((column, t) => column[layer] && t >= writtenBy(layer)), 0);
  data.selected = { token, layer };
  current = [token, layer];
  mark();
  note();
  trigger("look", { token, layer });
}

// What is looked at, for the page's address.
function note() {
  if (data && "run" in data) window.tabAddress?.viewed(data);
}

function writtenBy(layer) {
  const own = stacks().find(({ start }) => data.layers[layer].expert[start] !== null);
  return own.written < own.end ? own.written : own.start;
}

function light(expert, layer = null) {
  lit = expert === lit && layer === litLayer ? null : expert;
  litLayer = lit === null ? null : layer;
  cells.forEach((column, t) => column.forEach((cell, l) => {
    const other = data.layers[l].expert[t] !== lit || (litLayer !== null && l !== litLayer);
    cell.classList.toggle("dim", lit !== null && other);
  }));
  for (const chip of root.querySelectorAll("button.chip")) {
    const on = Number(chip.dataset.expert) === lit;
    chip.setAttribute("aria-pressed", String(on));
    chip.classList.toggle("dim", lit !== null && !on);
  }
}

function focusCell(token, layer) {
  cells[current[0]][current[1]].tabIndex = -1;
  current = [token, layer];
  cells[token][layer].tabIndex = 0;
  cells[token][layer].focus();
}

// What is asked about a cell stands in the detail panel. On a phone that is far away: it comes up over the page's end.
function openDetails() {
  const panel = document.getElementById("detail");
  if (data.still || !panel) return;
  // The experts are all of a layer's, whatever is clicked.
  const tab = (name) => [...panel.querySelectorAll("[role=tab]")].find((one) => one.textContent.trim() === name);
  if (tab("Experts")?.ariaSelected === "true") tab("Token").click();
  if (!matchMedia("(max-width: 640px)").matches) return;
  if (!panel.querySelector(".sheet-close")) {
    const close = button("sheet-close", "×", "Close the details");
    close.addEventListener("click", () => panel.classList.remove("sheet"));
    panel.append(close);
  }
  panel.classList.add("sheet");
  // The tapped cell stays in view, above the sheet, which may come to cover 62 % of the screen (style.css).
  const chosen = cells[current[0]]?.[current[1]]?.getBoundingClientRect(), free = 0.38 * window.innerHeight;
  if (chosen && chosen.bottom > free) window.scrollBy({ top: chosen.bottom - 0.8 * free, behavior: "instant" });
}
