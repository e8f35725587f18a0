// Fields are hidden by rules, not by attributes of their own: whoever draws them anew knows nothing of this search.
const flat = (text) => text.toLowerCase().replace(/[-_\s\u200b]+/g, " ");

const search = () => {
  const root = element.querySelector(".field-search");
  const words = flat(root.querySelector("input").value).trim().split(" ").filter(Boolean);
  const holder = document.getElementById(root.dataset.within);
  const hidden = [];
  let fields = 0, found = 0;
  for (const group of holder.querySelectorAll(".argument-group")) {
    let inGroup = 0;
    for (const field of group.querySelectorAll(".argument")) {
      if (field.classList.contains("hide") || field.classList.contains("hidden")) continue;
      fields += 1;
      // Label, flag and help; not what was typed, nor the choices of an open list.
      const said = flat([...field.querySelectorAll("[data-testid=block-info], .label-text, .info-text")].map((one) => one.textContent).join(" "));
      if (words.every((word) => said.includes(word))) inGroup += 1;
      else hidden.push(`#${CSS.escape(field.id)}`);
    }
    found += inGroup;
    group.toggleAttribute("data-none", !inGroup);
  }
  root.querySelector("style").textContent = words.length && hidden.length ? `${hidden.join(",")}{display:none!important}` : "";
  root.querySelector("[role=status]").textContent =
    !words.length ? "" : found ? `${found} of ${fields} arguments` : "No argument matches. Try fewer or other words.";
};

element.addEventListener("input", search);
