// The switches of many experts as one picture: a line or more for each layer, a square for each expert, the darker the
// more tokens chose it. Runs before expert_panel.js, in the same scope, and uses its `make` when it is called.

const MAP = { most: 16, label: 56, side: 22, touch: 40, gap: 8, still: 8 }; // still: pixels that a finger may move.
let cursor = { l: 0, e: 0 }; // the square under the keys
let scrolled = 0;            // how far, for the picture after the next answer
let pressed = null;          // the square under a finger or the mouse's button
let release = null;          // what a press does in the picture that is there now

// A press counts though the picture is drawn anew before its release: a browser clicks only what lies under both.
addEventListener("pointerup", (event) => {
  const one = pressed;
  pressed = null;
  if (one && Math.hypot(event.clientX - one.x, event.clientY - one.y) <= MAP.still) release?.(one.l, one.e);
});
addEventListener("pointercancel", () => (pressed = null));

const needsMap = (data) => data.layers.some((layer) => layer.off.length > MAP.most);

// `wish.off` as in expert_panel.js; `most`: the largest change that an expert makes; `toggle(l, e)` switches one.
function expertMap(data, wish, most, toggle) {
  const node = make("div", "expert-map"), frame = make("div", "expert-map-frame"), canvas = make("canvas"), said = make("p", "facts");
  const side = matchMedia("(pointer: coarse)").matches ? MAP.touch : MAP.side;
  let columns = 1, placed = false;
  cursor = { l: Math.min(cursor.l, data.layers.length - 1), e: cursor.e };
  cursor.e = Math.min(cursor.e, data.layers[cursor.l].off.length - 1);
  frame.tabIndex = 0;
  frame.dataset.key = "map";
  frame.setAttribute("role", "application");
  frame.setAttribute("aria-label", "Experts of all layers. Arrow keys move, Enter switches one off or on.");
  said.setAttribute("role", "status");

  const isOff = (l, e) => wish.off.has(`${l} ${e}`);
  const lines = (l) => Math.ceil(data.layers[l].off.length / columns);
  const top = (l) => data.layers.slice(0, l).reduce((sum, _, before) => sum + lines(before) * side + MAP.gap, 0);
  const place = (l, e) => [MAP.label + (e % columns) * side, top(l) + Math.floor(e / columns) * side];

  function describe(l, e) {
    const { title, tokens, matters } = data.layers[l], count = `${tokens[e]} token${tokens[e] === 1 ? "" : "s"}`;
    const change = matters ? `, without it ${data.label} ${points(matters[e])} points` : "";
    return `${title}, expert ${e}: ${isOff(l, e) ? "off" : count}${change}`;
  }
  function draw() {
    const wide = frame.clientWidth;
    if (!wide) return;
    columns = Math.max(1, Math.floor((wide - MAP.label - 4) / side));
    const last = data.layers.length - 1, tall = top(last) + lines(last) * side + 4, dots = devicePixelRatio || 1;
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${tall}px`;
    canvas.width = wide * dots;
    canvas.height = tall * dots;
    const paint = canvas.getContext("2d"), style = getComputedStyle(node), colour = (name) => style.getPropertyValue(name).trim();
    const [ink, dim, accent, line] = ["--sx-ink", "--sx-dim", "--sx-accent", "--sx-line"].map(colour);
    paint.scale(dots, dots);
    paint.textBaseline = "middle";
    data.layers.forEach((layer, l) => {
      const all = layer.tokens.reduce((sum, one) => sum + one, 0) || 1, size = side - 2;
      paint.textAlign = "left";
      paint.font = "12px ui-monospace, monospace";
      paint.fillStyle = dim;
      paint.fillText(layer.label, 2, top(l) + side / 2);
      paint.textAlign = "center";
      paint.font = "10px ui-monospace, monospace";
      layer.off.forEach((_, e) => {
        const [x, y] = place(l, e), off = isOff(l, e);
        // The fullest colour is four times an even share; numbers stay readable on it.
        paint.globalAlpha = off ? 0 : 0.05 + 0.4 * Math.min(1, (layer.tokens[e] / all) * layer.off.length / 4);
        paint.fillStyle = accent;
        paint.fillRect(x + 1, y + 1, size, size);
        paint.globalAlpha = 1;
        paint.strokeStyle = line;
        paint.strokeRect(x + 1.5, y + 1.5, size - 1, size - 1);
        paint.fillStyle = off ? dim : ink;
        paint.fillText(e, x + side / 2, y + side / 2);
        if (off) {
          paint.strokeStyle = ink;
          paint.beginPath();
          paint.moveTo(x + 2, y + size);
          paint.lineTo(x + size, y + 2);
          paint.stroke();
        }
        const change = layer.matters?.[e];
        if (change) {
          paint.fillStyle = change < 0 ? accent : "#c98a2b";
          paint.fillRect(x + 2, y + size - 2, (Math.abs(change) / most) * (size - 2), 3);
        }
      });
    });
    if (!placed) frame.scrollTop = scrolled;
    placed = true;
    if (document.activeElement === frame) {
      const [x, y] = place(cursor.l, cursor.e);
      paint.strokeStyle = ink;
      paint.lineWidth = 2;
      paint.strokeRect(x + 1, y + 1, side - 2, side - 2);
    }
  }
  function at(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const l = data.layers.findIndex((_, one) => y >= top(one) && y < top(one) + lines(one) * side);
    const column = Math.floor((x - MAP.label) / side), e = l < 0 ? -1 : Math.floor((y - top(l)) / side) * columns + column;
    return column >= 0 && column < columns && e >= 0 && e < data.layers[l]?.off.length ? { l, e } : null;
  }
  function press(l, e) {
    toggle(l, e);
    draw();
    list();
    said.textContent = describe(l, e);
  }
  canvas.addEventListener("pointermove", (event) => {
    const one = at(event);
    canvas.title = one ? describe(one.l, one.e) : "";
    canvas.style.cursor = one ? "pointer" : "";
  });
  canvas.addEventListener("pointerdown", (event) => {
    const one = event.button === 0 && at(event);
    pressed = one ? { ...one, x: event.clientX, y: event.clientY } : null;
  });
  release = (l, e) => {
    if (e >= (data.layers[l]?.off.length ?? 0)) return; // Another model came meanwhile.
    cursor = { l, e };
    press(l, e);
  };
  frame.addEventListener("keydown", (event) => {
    const last = (l) => data.layers[l].off.length - 1, { l, e } = cursor;
    const moves = {
      ArrowRight: [l, e + 1], ArrowLeft: [l, e - 1], Home: [l, 0], End: [l, last(l)],
      ArrowDown: e + columns <= last(l) ? [l, e + columns] : [l + 1, e % columns],
      ArrowUp: e >= columns ? [l, e - columns] : [l - 1, e],
    };
    if (event.key === "Enter" || event.key === " ") press(l, e);
    else if (moves[event.key]) {
      const layer = Math.min(Math.max(moves[event.key][0], 0), data.layers.length - 1);
      cursor = { l: layer, e: Math.min(Math.max(moves[event.key][1], 0), last(layer)) };
      const [, y] = place(cursor.l, cursor.e);
      if (y < frame.scrollTop) frame.scrollTop = y;
      else if (y + side > frame.scrollTop + frame.clientHeight) frame.scrollTop = y + side - frame.clientHeight;
      draw();
      said.textContent = describe(cursor.l, cursor.e);
    } else return;
    event.preventDefault();
  });
  frame.addEventListener("scroll", () => (scrolled = placed ? frame.scrollTop : scrolled), { passive: true });
  frame.addEventListener("focus", draw);
  frame.addEventListener("blur", draw);

  // Those that are off, by name: a click switches one on again.
  const off = make("div", "panel-experts");
  function list() {
    off.replaceChildren(...[...wish.off].map((one) => {
      const [l, e] = one.split(" ").map(Number), chip = make("button", "panel-act", `${data.layers[l].label} · ${e}`);
      chip.type = "button";
      chip.title = `${data.layers[l].title}, expert ${e} is off: click to switch it on`;
      chip.setAttribute("aria-label", chip.title);
      chip.addEventListener("click", (event) => {
        event.stopPropagation();
        press(l, e);
      });
      return chip;
    }));
  }
  frame.append(canvas);
  node.append(frame, said, off);
  list();
  new ResizeObserver(draw).observe(frame);
  return node;
}
