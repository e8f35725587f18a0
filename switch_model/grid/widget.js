// The grid in a notebook, as anywidget runs it. Before this stand draw (the page's script as a function), STYLE and TEMPLATE.

const isDark = () => {
  const { body, documentElement: page } = document;
  return body.dataset.jpThemeLight === "false" // Jupyter
    || body.classList.contains("vscode-dark") || page.getAttribute("theme") === "dark"; // VS Code, Colab
};

function render({ model, el }) {
  // In a shadow root: a notebook has classes of the same names, and neither's rules may reach the other.
  const shadow = el.attachShadow({ mode: "open" });
  const sheet = document.createElement("style"), card = document.createElement("div");
  sheet.textContent = STYLE;
  card.className = isDark() ? "dark" : "";
  card.style.cssText = "background: var(--sx-card); color: var(--sx-ink); border-radius: 10px; padding: 12px;"
    + "font: 15px/1.5 system-ui, sans-serif";
  card.innerHTML = TEMPLATE;
  shadow.append(sheet, card);
  const props = { get value() { return model.get("value"); } };
  const look = (_, place) => {
    model.set("looked", place);
    model.save_changes();
  };
  draw(card, props, look, (name, then) => model.on(`change:${name}`, then));
}

export default { render };
