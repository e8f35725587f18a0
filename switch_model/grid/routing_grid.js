// Draws the routing grid from props.value (see plain.py) and reports what a person picks.
// gr.HTML gives: element, props, trigger, watch. The template never changes, so Gradio leaves these elements alone.

const root = element.querySelector(".grid-root");
let data = null;      // the value being drawn
let cells = [];       // cells[token][layer] = button
let current = [0, 0]; // (token, layer) under the one tab stop
let lit = null;       // the only expert that stays lit, or null
let litLayer = null;  // the only layer in which it does; null = in all
let together = false; // whether a word's pieces are one column
let lines = null;     // watches the width, which decides where lines break
const stale = element.querySelector(".notice");
const BOX = "#text textarea";

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const button = (className, text, label) => {
  const node = make("button", className, text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  return node;
};
// As shade_of in palette.py.
const shade = (expert) => "x" + (data.experts > 16 ? Math.floor((expert * 8) / data.experts) : expert);

// ---- words for one cell ------------------------------------------------------------------------------------------

function facts(token, layer) {
  const of = data.layers[layer], expert = of.expert[token], dropped = Boolean(of.dropped[token]);
  const slot = of.slot[token] + 1;
  return {
    title: of.title, expert, dropped,
    // With every expert off there is none, and no probability.
    route: of.capacity === 0 ? "no expert" : `expert ${expert}`,
    probability: of.capacity === 0 ? "" : `probability ${(of.gate[token] / 1000).toFixed(2)}`,
    place: of.capacity === 0 ? "every expert is off: none reads it"
      : of.capacity === null ? `slot ${slot}, no limit`
      : dropped ? `place ${slot}, but only ${of.capacity} slots: dropped` : `slot ${slot} of ${of.capacity}`,
    before: before(token, layer),
  };
}

// Where a token went before the routing was changed; nothing where that is the same.
function before(token, layer) {
  const route = data.layers[layer].before?.[token];
  return route ? `${data.otherwise || "before"}: expert ${route[0]}${route[1] ? ", dropped" : ""}` : "";
}

function describe(token, layer) {
  const f = facts(token, layer);
  const unknown = data.unknown[token] ? ", not in the vocabulary" : "";
  const more = [f.before, voting([token], layer), mattering(token)].filter(Boolean).map((words) => ", " + words).join("");
  return `${data.tokens[token]}${unknown}, ${f.title}: ${[f.route, f.probability, f.place].filter(Boolean).join(", ")}${more}`;
}

// ---- drawing -----------------------------------------------------------------------------------------------------

function draw() {
  data = props.value;
  lit = litLayer = null;
  cells = [];
  if (lines) lines.disconnect();
  note();
  if (!data || !data.layers || !data.layers.length) {
    root.replaceChildren(make("p", "grid-empty", props.value?.said || "Run a text to see where its tokens go."));
    return;
  }
  current = [data.selected.token, data.selected.layer];
  if (data.matrix) {
    root.replaceChildren(matrixOf(data, (token, layer) => {
      if (data.still) return; // Nothing below follows it.
      trigger("look", { token, layer });
      openDetails();
    }).node);
    return;
  }
  voteForChosen();
  const words = [];
  data.tokens.forEach((_, t) => (data.joined[t] && words.length ? words[words.length - 1].push(t) : words.push([t])));
  const most = matterScale();
  const tip = make("div", "grid-tip");
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  const drawn = stacks().map((one) => stackOf(one, words.filter(([t]) => t >= one.start && t < one.end), most));
  root.replaceChildren(...drawn.flatMap((one) => one.parts), legend(), ...(data.still ? [] : [layerBar()]), tip);
  mark();
  lines = new ResizeObserver(() => drawn.forEach((one) => labelLines(one.gutter, one.flow)));
  drawn.forEach((one) => lines.observe(one.flow));
}

// The stacks and which tokens are theirs, counted through all of them.
const stacks = () => data.stacks || [{ title: "", start: 0, end: data.tokens.length, written: data.tokens.length }];

// One stack: its tokens as they wrap, below a title where there is one.
function stackOf({ title, written }, words, most) {
  const flow = make("div", "grid-flow");
  flow.dir = "auto"; // Right-to-left text reads right to left.
  words.forEach((pieces) => {
    const word = make("div", "grid-word");
    (together ? [pieces] : pieces.map((t) => [t])).forEach((tokens) => {
      const node = column(tokens, most);
      if (tokens[0] >= written) node.classList.add("written");
      word.append(node);
    });
    flow.append(word);
  });
  const body = make("div", "grid-body");
  body.setAttribute("role", "group");
  body.setAttribute("aria-label", `${title ? title + ". " : ""}Experts by token and layer. Arrow keys move, Enter shows details.`);
  const gutter = make("div", "grid-gutter");
  gutter.setAttribute("aria-hidden", "true");
  body.append(gutter, flow);
  return { parts: title ? [make("h3", "grid-stack", title), body] : [body], gutter, flow };
}

// A column of the given tokens: one, or the pieces of a word, whose neighbours with the same route share a cell.
function column(tokens, most) {
  const node = make("div", "grid-column"), text = make("span", "grid-token");
  text.textContent = tokens.map((t) => data.tokens[t]).join("");
  if (tokens.every((t) => data.special[t])) text.classList.add("special");
  if (tokens.some((t) => data.unknown[t])) {
    text.classList.add("unknown");
    text.title = "not in the vocabulary: the model sees only “unknown word”";
  }
  if (data.matters) node.append(matterBar(tokens, most));
  node.append(text);
  if (data.votes) node.append(voteBar(tokens));
  tokens.forEach((t) => (cells[t] = []));
  data.layers.forEach((layer, l) => {
    if (layer.expert[tokens[0]] === null) return; // Another stack's layer.
    const parts = make("div", "grid-parts");
    let last = null;
    for (const t of tokens) {
      const route = [layer.expert[t], layer.dropped[t], Boolean(layer.before?.[t])].join(" ");
      if (!last || last.route !== route) {
        last = { cell: cellFor(layer, t, l), route, size: 0 };
        parts.append(last.cell);
      }
      last.cell.style.flexGrow = ++last.size;
      cells[t][l] = last.cell;
    }
    node.append(parts);
  });
  return node;
}

function cellFor(layer, t, l) {
  const marks = (layer.dropped[t] ? " dropped" : "") + (layer.before?.[t] ? " changed" : "");
  const cell = layer.capacity === 0 ? button("cell" + marks, "–")
    : button("cell " + shade(layer.expert[t]) + marks, layer.expert[t]);
  cell.setAttribute("aria-label", describe(t, l));
  cell.dataset.t = t;
  cell.dataset.l = l;
  cell.tabIndex = -1;
  return cell;
}

// Each line of the wrapped flow gets its own layer labels, level with its cells.
function labelLines(gutter, flow) {
  const labels = [];
  let last = -1;
  const base = gutter.getBoundingClientRect().top;
  for (const word of flow.children) {
    if (word.offsetTop === last) continue;
    last = word.offsetTop;
    labels.push(...voteLabels(word, base));
    for (const cell of word.querySelectorAll(".grid-column:first-child .grid-parts > .cell:first-child")) {
      const label = make("span", "grid-label", data.layers[cell.dataset.l].label);
      const box = cell.getBoundingClientRect();
      label.dataset.layer = cell.dataset.l;
      label.dataset.short = label.textContent[0].toUpperCase() + label.textContent.replace(/\D+/g, "");
      label.style.top = box.top - base + "px";
      label.style.lineHeight = box.height + "px";
      labels.push(label);
    }
  }
  gutter.replaceChildren(...labels);
  markLabels();
}

function legend() {
  const node = make("div", "grid-legend");
  node.append(make("span", "grid-hint", "expert"));
  const chips = make("span", "grid-chips");
  for (let e = 0; e < data.experts; e++) {
    const chip = button("cell chip " + shade(e), e, `Show only expert ${e}`);
    chip.dataset.expert = e;
    chip.setAttribute("aria-pressed", "false");
    chips.append(chip);
  }
  node.append(chips);
  if (data.layers.some((layer) => layer.capacity)) {
    const dropped = make("span", "grid-key");
    dropped.append(make("span", "cell chip dropped x2", "2"), " dropped: the expert’s buffer was full, no expert reads the token");
    node.append(dropped);
  }
  if (stacks().some(({ written, end }) => written < end)) {
    const own = make("span", "grid-key written");
    own.append(make("span", "grid-token", "word"), " written by the model");
    node.append(own);
  }
  if (data.layers.some((layer) => layer.before)) {
    const changed = make("span", "grid-key");
    changed.append(make("span", "cell chip changed x2", "2"), ` another route than ${data.otherwise || "before"}`);
    node.append(changed);
  }
  if (data.matters) node.append(...matterKeys());
  if (data.votes) node.append(...voteKeys());
  if (data.unknown.some(Boolean)) {
    const unknown = make("span", "grid-key");
    unknown.append(make("span", "grid-token unknown", "word"), " not in the vocabulary");
    node.append(unknown);
  }
  if (data.joined.some(Boolean)) {
    const whole = button("layer-choice", "whole words");
    whole.dataset.together = "";
    whole.setAttribute("aria-pressed", String(together));
    node.append(whole);
  }
  return node;
}

function layerBar() {
  const node = make("div", "grid-layers");
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "Layer to look at below");
  node.append(make("span", "grid-hint", "Layer"));
  data.layers.forEach((layer, l) => {
    const choice = button("layer-choice", layer.title);
    choice.dataset.layer = l;
    node.append(choice);
  });
  return node;
}

// ---- tooltip -----------------------------------------------------------------------------------------------------

function showTip(cell) {
  const tip = root.querySelector(".grid-tip");
  const t = Number(cell.dataset.t), l = Number(cell.dataset.l), f = facts(t, l);
  const head = make("b", "", data.tokens[t]);
  head.dir = "auto";
  const rows = [head, make("span", "", `${f.title} · ${f.route}`),
    make("span", "", [f.probability, f.place].filter(Boolean).join(" · "))];
  if (f.before) rows.push(make("span", "", f.before));
  if (voting([t], l)) rows.push(make("span", "", voting([t], l)));
  if (mattering(t)) rows.push(make("span", "", mattering(t)));
  if (data.unknown[t]) rows.push(make("span", "", "not in the vocabulary"));
  tip.replaceChildren(...rows);
  tip.hidden = false;
  const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(box.left + box.width / 2 - own.width / 2, 8), innerWidth - own.width - 8);
  const above = box.top - own.height - 8;
  tip.style.left = left + "px";
  tip.style.top = (above > 4 ? above : box.bottom + 8) + "px";
}

function hideTip() {
  if (data?.matrix) return; // Its own.
  const tip = root.querySelector(".grid-tip");
  if (tip) tip.hidden = true;
}

// ---- a text edited since: what is drawn still belongs to the old one ----------------------------------------------

const sameLines = (text) => text.replace(/\r\n?/g, "\n"); // As a browser's box holds it.

// The button that starts the model, by its name.
const act = () => document.querySelector("#route, #generate")?.textContent.trim() || "Run";

function markStale() {
  const box = typeof data?.text === "string" && document.querySelector(BOX);
  const edited = Boolean(box) && sameLines(box.value) !== sameLines(data.text);
  if (edited === !stale.hidden) return;
  stale.hidden = !edited;
  stale.textContent = edited ? `You changed the text: press ${act()} (Ctrl+Enter) to see its routing.` : "";
}

// ---- events: one listener of each kind for the whole grid ---------------------------------------------------------

const cellOf = (event) => event.target.closest?.(".cell[data-t]");

root.addEventListener("click", (event) => {
  if (data?.matrix) return; // It listens for itself.
  const cell = cellOf(event), chip = event.target.closest("button.chip"), choice = event.target.closest(".layer-choice");
  if (cell) {
    choose(Number(cell.dataset.t), Number(cell.dataset.l));
    openDetails();
  }
  else if (chip) light(Number(chip.dataset.expert));
  else if (choice && "together" in choice.dataset) {
    together = !together;
    draw();
    root.querySelector("[data-together]").focus();
  } else if (choice) choose(data.selected.token, Number(choice.dataset.layer));
});
root.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    hideTip();
    document.getElementById("detail")?.classList.remove("sheet");
    if (lit !== null) light(lit);
    return;
  }
  const cell = cellOf(event);
  if (!cell) return;
  const tokens = cells.length, layers = data.layers.length;
  let t = current[0], l = current[1];
  const own = stacks().find(({ start, end }) => t >= start && t < end);
  // Keys follow the eye: in right-to-left text the next token is on the left.
  const forward = getComputedStyle(cell.closest(".grid-flow")).direction === "rtl" ? -1 : 1;
  if (event.key === "ArrowRight") t += forward;
  else if (event.key === "ArrowLeft") t -= forward;
  else if (event.key === "ArrowDown") l += 1;
  else if (event.key === "ArrowUp") l -= 1;
  else if (event.key === "Home") t = own.start;
  else if (event.key === "End") t = own.end - 1;
  else return;
  event.preventDefault();
  // Pieces that share a cell are one step.
  const step = Math.sign(t - current[0]), inside = (token) => token >= 0 && token < tokens;
  while (step && Math.abs(t - current[0]) < tokens && inside(t) && cells[t][l] === cell) t += step;
  t = Math.min(Math.max(t, 0), tokens - 1);
  l = Math.min(Math.max(l, 0), layers - 1);
  if (!cells[t][l]) {
    // Into another stack: sideways to its first layer, up or down to its first token.
    if (t !== current[0]) l = data.layers.findIndex((_, other) => cells[t][other]);
    else t = cells.findIndex((column) => column[l]);
    if (!cells[t]?.[l]) return; // A stack without experts has no cells.
  }
  focusCell(t, l);
});
root.addEventListener("pointerover", (event) => (cellOf(event) ? showTip(cellOf(event)) : hideTip()));
root.addEventListener("pointerleave", hideTip);
root.addEventListener("focusin", (event) => cellOf(event)?.matches(":focus-visible") && showTip(cellOf(event)));
root.addEventListener("focusout", hideTip);
addEventListener("scroll", hideTip, { passive: true, capture: true });

document.addEventListener("input", (event) => event.target.matches?.(BOX) && markStale());
watch("value", () => {
  draw();
  if (!stale.hidden) markStale();
  // A sample's text may reach its box after its routes.
  [50, 500].forEach((wait) => setTimeout(markStale, wait));
});
draw();
