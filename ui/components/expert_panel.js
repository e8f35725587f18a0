// Draws the expert panel from props.value (see expert_panel.py) and reports what a person wishes.
// gr.HTML gives: element, props, trigger, watch. The template never changes, so Gradio leaves these elements alone.

const root = element.querySelector(".panel-root"), title = element.querySelector(".panel-title");
let data = null;    // the value being drawn
let wish = null;    // {off: Set of "layer expert", at: stop}: what the switches show, ahead of the answer
let sent = 0;       // number of the last message
let awaited = 0;    // number of the one that is on its way, 0 = none
let waiting = [];   // what is to be sent once that is answered: each click, and of a sliding capacity the last place
let held = false;   // whether the slider has moved since it was taken hold of: what follows is the same step back
let patience = null;

const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const act = (name, text, enabled = true) => {
  const node = make("button", "panel-act", text);
  node.type = "button";
  node.dataset.act = name;
  node.disabled = !enabled;
  return node;
};
const points = (change) => `${change > 0 ? "+" : change < 0 ? "−" : "±"}${(Math.abs(change) / 10).toFixed(1)}`;

function draw() {
  const focused = document.activeElement?.dataset?.key;
  const sliding = root.querySelector("input:active") !== null;
  data = props.value;
  root.toggleAttribute("data-writes", Boolean(data?.writes));
  title.textContent = data?.writes ? "Break the model" : "Change the routing";
  // Without a number it is no answer: there is another text, and what waits was about the one before.
  if (!data?.serial || !data.layers?.length) settled();
  if (!data?.layers?.length) {
    wish = null;
    root.replaceChildren(make("p", "grid-empty", data?.said || "Run a text with a sparse model to change its routing."));
    return;
  }
  // While a newer wish waits to be sent, an older answer does not take it back.
  if (!waiting.length) {
    const off = data.layers.flatMap((layer, l) => layer.off.flatMap((isOff, e) => (isOff ? [`${l} ${e}`] : [])));
    wish = { off: new Set(off), at: sliding ? wish.at : data.at, k: data.choices?.at ?? null };
  }
  const most = Math.max(1, ...data.layers.flatMap((layer) => (layer.matters || []).map(Math.abs)));
  const rows = needsMap(data) ? expertMap(data, wish, most, toggle) : make("div", "panel-rows");
  if (!needsMap(data)) data.layers.forEach((layer, l) => rows.append(row(layer, l, most)));
  if (sliding) slider(root.querySelector(".panel-capacity"));
  const capacity = sliding ? root.querySelector(".panel-capacity") : slider(make("div", "panel-capacity"));
  capacity.hidden = data.stops.length < 2; // Where nothing is ever dropped there is nothing to slide.
  const parts = [rows, ...(data.layers[0].matters ? [key()] : []), capacity, ...(data.choices ? [choices()] : []), acts()];
  if (sliding) {
    // The slider under the finger must stay the same element.
    [...root.children].forEach((child) => child !== capacity && child.remove());
    const place = parts.indexOf(capacity);
    parts.slice(0, place).forEach((part) => capacity.before(part));
    capacity.after(...parts.slice(place + 1));
  } else {
    root.replaceChildren(...parts);
  }
  if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  if (data.serial === awaited) answered();
}

function row(layer, l, most) {
  const node = make("div", "panel-row");
  const label = make("span", "panel-label", layer.label);
  label.title = layer.title;
  label.dataset.short = layer.label[0].toUpperCase() + layer.label.replace(/\D+/g, "");
  const experts = make("div", "panel-experts");
  layer.off.forEach((_, e) => {
    const chip = make("button", `cell chip switch x${e}`, e);
    chip.type = "button";
    chip.dataset.l = l;
    chip.dataset.e = e;
    chip.dataset.key = `${l} ${e}`;
    show(chip, wish.off.has(`${l} ${e}`), layer.tokens[e]);
    const holder = make("span", "panel-expert");
    holder.append(chip);
    if (layer.matters) {
      const change = layer.matters[e], bar = make("i", change < 0 ? "helps" : "harms");
      bar.style.height = `${Math.round((16 * Math.abs(change)) / most)}px`;
      if (!change) bar.hidden = true;
      const box = make("span", "panel-bar");
      box.append(bar);
      box.title = `without expert ${e}: ${data.label} ${points(change)} points`;
      chip.setAttribute("aria-label", `${chip.getAttribute("aria-label")}; ${box.title}`);
      holder.append(box);
    } else if (data.writes) {
      // Switching off what the text hardly uses changes little.
      const used = make("i", "panel-used");
      used.style.width = `${(100 * layer.tokens[e]) / Math.max(1, ...layer.tokens)}%`;
      holder.append(used);
    }
    experts.append(holder);
  });
  node.append(label, experts);
  return node;
}

function show(chip, off, tokens) {
  const { l, e } = chip.dataset;
  chip.setAttribute("aria-pressed", String(!off));
  chip.classList.toggle("off", off);
  const count = `${tokens} token${tokens === 1 ? "" : "s"}`;
  chip.title = off ? `expert ${e} is off: click to switch it on` : `expert ${e}: ${count}. Click to switch it off`;
  chip.setAttribute("aria-label", `${data.layers[l].title}, expert ${e}, ${off ? "off" : `on, ${count}`}`);
}

function key() {
  const node = make("p", "facts key");
  const helps = make("span"), harms = make("span");
  helps.append(make("s", "swatch helps"), `without it ${data.label} is less likely`);
  harms.append(make("s", "swatch harms"), "more likely");
  node.append(helps, harms);
  return node;
}

function slider(node) {
  const own = data.own, stop = (at) => (data.stops[at] === "none" ? "no limit" : String(data.stops[at]));
  if (!node.firstChild) {
    const input = make("input");
    input.type = "range";
    input.dataset.key = "capacity";
    input.min = 0;
    input.max = data.stops.length - 1;
    input.setAttribute("aria-label", "capacity factor");
    node.append(make("span", "panel-label", "capacity"), input, make("output"));
    if (data.capacity_note) node.append(make("p", "facts", data.capacity_note));
  }
  const input = node.querySelector("input");
  if (!input.matches(":active")) input.value = wish.at;
  const say = (at) => {
    const slots = at === data.at && data.slots !== null ? `: ${data.slots} slots` : "";
    const words = stop(at) + slots + (at === own ? " (the model’s own)" : "");
    node.querySelector("output").textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  say(Number(input.value));
  input.onpointerdown = () => (held = false);
  input.oninput = () => {
    wish.at = Number(input.value);
    say(wish.at);
    const sliding = held;
    sendWish({ sliding });
    held = true;
  };
  return node;
}

// How many experts a token has, in all layers.
function choices() {
  const { own, at, most } = data.choices, node = make("div", "panel-capacity panel-choices"), input = make("input"), output = make("output");
  input.type = "range";
  input.dataset.key = "choices";
  input.min = 1;
  input.max = most;
  input.value = wish.k ?? own;
  input.setAttribute("aria-label", "experts for each token");
  const say = (number) => {
    const words = number === null ? "by layer" : `${number} for each token${number === own ? " (the model’s own)" : ""}`;
    output.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  say(wish.k ?? (at === null ? null : own));
  input.oninput = () => say(Number(input.value));
  input.onchange = () => {
    wish.k = Number(input.value);
    sendWish({ top_k: wish.k });
  };
  node.append(make("span", "panel-label", "experts"), input, output);
  return node;
}

function acts() {
  const node = make("div", "panel-acts"), said = make("p", "facts");
  said.setAttribute("role", "status");
  said.textContent = data.said.length
    ? `Changed: ${data.said.join(" · ")}.`
    : `Click an expert to switch it off${data.stops.length > 1 ? ", or move the capacity" : ""}${data.choices ? ", or choose another number of them" : ""}`
      + `${data.writes ? ": the text is written again, beside the one before" : ""}. `
      + `${data.writes && !needsMap(data) ? "The longer the line below it, the more tokens of this text it read. " : ""}`
      + "The Token tab sends a single token elsewhere.";
  const buttons = make("div", "panel-buttons");
  buttons.append(
    act("undo", "Undo", data.undo),
    act("reset", "Reset", data.said.length > 0),
  );
  node.append(said, buttons);
  return node;
}

function sendWish(more) {
  const off = [...wish.off].map((place) => place.split(" ").map(Number));
  const chosen = data.choices && wish.k !== null ? { top_k: wish.k } : {};
  send({ kind: "change", off, capacity: wish.at === data.own ? null : data.stops[wish.at], ...chosen, ...more });
}

function send(message) {
  held = false;
  const last = waiting.at(-1);
  if (awaited && message.sliding && last?.sliding !== undefined) {
    waiting.splice(-1, 1, { ...message, sliding: last.sliding });
  } else if (awaited) {
    waiting.push(message);
  } else {
    dispatch(message);
  }
}

function dispatch(message) {
  awaited = ++sent;
  trigger(data.writes ? "rewrite" : "intervene", { ...message, serial: sent });
  // An answer that got lost must not silence the panel. A late one must not be taken for lost: the last of a full
  // queue waits ten seconds.
  patience = setTimeout(lost, 20000);
}

function lost() {
  const newer = waiting.length > 0;
  answered(); // What waits goes out in its place: a change tells the whole wish, so that nothing of it is lost.
  if (!newer) draw(); // The switches show again what holds.
}

function answered() {
  const next = waiting.shift();
  clearTimeout(patience);
  awaited = 0;
  if (next) dispatch(next);
}

function settled() {
  waiting = [];
  answered();
}

function toggle(l, e) {
  const place = `${l} ${e}`, off = !wish.off.has(place);
  if (off) wish.off.add(place);
  else wish.off.delete(place);
  sendWish();
  return off;
}

root.addEventListener("click", (event) => {
  const chip = event.target.closest("button.switch"), button = event.target.closest("button.panel-act");
  if (chip) {
    const { l, e } = chip.dataset;
    show(chip, toggle(l, e), data.layers[l].tokens[e]);
  } else if (button) {
    // A quick click starts from there.
    if (button.dataset.act === "reset") wish = { off: new Set(), at: data.own, k: data.choices?.own ?? null };
    send({ kind: button.dataset.act });
  }
});

watch("value", draw);
draw();
