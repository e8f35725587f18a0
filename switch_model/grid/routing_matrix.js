// The grid of models with several choices, many experts or many layers: a table that scrolls, of which only the cells in
// view exist. Runs before routing_grid.js, in the same scope, and uses its `make` and `button` when it is called.
// value.matrix (see matrix.py): k, and as base64 for each layer, token and choice the expert (two bytes, low one
// first) and its share of the token's weights (one byte, 255 = all); colours: of the experts, where they are few enough to be told apart by colour.

const MATRIX = { height: 24, thin: 9, side: 74, head: 30, around: 3, chips: 24 };

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// Everything of one matrix; `pick(token, layer)` is told of a choice. Returns { node, choose }.
function matrixOf(value, pick) {
  const { k } = value.matrix, wide = k > 4 ? 76 : 56, layers = value.layers.length, tokens = value.tokens.length;
  const experts = new Uint16Array(bytesOf(value.matrix.experts).buffer), weights = bytesOf(value.matrix.weights);
  const few = Boolean(value.matrix.colours);
  let chosen = { ...value.selected }, at = { ...value.selected };
  let firstOnly = false, thin = false, lit = null, wanted = "";
  const rows = new Map(); // layer → its row in view

  const place = (token, layer) => (layer * tokens + token) * k;
  const known = (token, layer) => weights[place(token, layer)] > 0 || experts[place(token, layer)] > 0;
  const share = (i) => weights[i] / 255;
  const heightOf = (layer) => (thin && layer !== chosen.layer ? MATRIX.thin : MATRIX.height);
  const topOf = (layer) => {
    if (!thin) return layer * MATRIX.height;
    return layer * MATRIX.thin + (layer > chosen.layer ? MATRIX.height - MATRIX.thin : 0);
  };

  // ---- words

  function choicesOf(token, layer) {
    const start = place(token, layer), found = [];
    for (let c = 0; c < k; c++) if (share(start + c) > 0 || c === 0) found.push([experts[start + c], share(start + c)]);
    return found;
  }
  function describe(token, layer) {
    const found = choicesOf(token, layer).map(([expert, part]) => `expert ${expert} ${inPercent(part)}`).join(", ");
    return `${value.tokens[token]}, ${value.layers[layer].title}: ${found}`;
  }

  // ---- one cell

  function fill(expert, part) {
    if (value.matrix.colours) return value.matrix.colours[expert];
    return `color-mix(in srgb, var(--sx-accent) ${Math.round(10 + 38 * Math.min(1, part * Math.min(k, 3)))}%, var(--sx-card))`;
  }
  function paint(cell, token, layer) {
    const found = firstOnly ? choicesOf(token, layer).slice(0, 1).map(([expert]) => [expert, 1]) : choicesOf(token, layer);
    const total = found.reduce((sum, [, part]) => sum + part, 0) || 1, stops = [];
    let from = 0, free = 0;
    cell.replaceChildren();
    for (const [expert, part] of found) {
      const to = from + part / total, colour = fill(expert, part / total);
      stops.push(`${colour} ${(100 * from).toFixed(1)}% calc(${(100 * to).toFixed(1)}% - ${to < 1 ? 1 : 0}px)`);
      if (to < 1) stops.push(`var(--sx-card) calc(${(100 * to).toFixed(1)}% - 1px) ${(100 * to).toFixed(1)}%`);
      // The first choice has its number in any case, the others where there is room.
      const room = (to - from) * (wide - 2) >= 7 * String(expert).length + 4;
      if (heightOf(layer) === MATRIX.height && from >= free && (room || from === 0)) {
        const number = make("i", "", expert);
        number.style.left = `${100 * from}%`;
        number.style.width = room ? `${100 * (to - from)}%` : "auto";
        number.style.paddingLeft = room ? 0 : "3px";
        cell.append(number);
        free = from + (room ? to - from : (7 * String(expert).length + 5) / (wide - 2));
      }
      from = to;
    }
    cell.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    mark(cell, token, layer);
  }
  // The lit expert's part of a cell, above what is there: so a click on an expert touches one row, and no other cell.
  function mark(cell, token, layer) {
    cell.querySelector("u")?.remove();
    if (!lit || lit.layer !== layer || !known(token, layer)) return;
    const found = firstOnly ? choicesOf(token, layer).slice(0, 1).map(([expert]) => [expert, 1]) : choicesOf(token, layer);
    const total = found.reduce((sum, [, part]) => sum + part, 0) || 1, index = found.findIndex(([expert]) => expert === lit.expert);
    if (index < 0) return;
    const from = found.slice(0, index).reduce((sum, [, part]) => sum + part, 0), one = make("u", "", heightOf(layer) === MATRIX.height ? lit.expert : "");
    one.style.left = `${(100 * from) / total}%`;
    one.style.width = `${(100 * found[index][1]) / total}%`;
    cell.append(one);
  }
  function cellFor(token, layer) {
    const cell = make("div", "matrix-cell");
    cell.id = `${uid}-${layer}-${token}`;
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-colindex", token + 2);
    cell.dataset.t = token;
    cell.dataset.l = layer;
    cell.style.left = `${MATRIX.side + token * wide}px`;
    if (known(token, layer)) paint(cell, token, layer);
    else cell.classList.add("none");
    cell.classList.toggle("selected", token === chosen.token && layer === chosen.layer);
    cell.setAttribute("aria-selected", String(token === chosen.token && layer === chosen.layer));
    if (token === at.token && layer === at.layer) {
      cell.classList.add("current");
      cell.setAttribute("aria-label", describe(token, layer)); // The one that a screen reader is led to.
    }
    return cell;
  }

  // ---- what is in view

  const uid = `m${Math.random().toString(36).slice(2, 8)}`;
  const node = make("div", `matrix-box${few ? " matrix-few" : ""}`), frame = make("div", "matrix-frame"), inner = make("div", "matrix-inner");
  const head = make("div", "matrix-head"), tip = make("div", "grid-tip");
  frame.style.setProperty("--wide", `${wide}px`);
  frame.setAttribute("role", "grid");
  frame.setAttribute("aria-label", "Experts by layer and token. Arrow keys move, Enter looks closer.");
  frame.setAttribute("aria-rowcount", layers + 1);
  frame.setAttribute("aria-colcount", tokens + 1);
  frame.tabIndex = 0;
  head.setAttribute("role", "row");
  head.setAttribute("aria-rowindex", 1);
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  inner.append(head);
  frame.append(inner);

  function windowNow() {
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = frame;
    const first = Math.max(0, Math.floor(scrollLeft / wide) - MATRIX.around);
    const last = Math.min(tokens, Math.ceil((scrollLeft + clientWidth) / wide) + MATRIX.around);
    const seen = [];
    for (let layer = 0; layer < layers; layer++) {
      const top = topOf(layer);
      if (top + heightOf(layer) >= scrollTop - 60 && top <= scrollTop + clientHeight + 60) seen.push(layer);
    }
    return { first, last, seen };
  }
  let drawn = "";
  function render(anew = false) {
    const { first, last, seen } = windowNow(), key = [first, last, seen[0], seen.length].join(" ");
    if (!anew && key === drawn) return;
    drawn = key;
    const names = [corner()];
    for (let t = first; t < last; t++) {
      const name = make("div", "matrix-token" + (value.unknown[t] ? " unknown" : "") + (value.special[t] ? " special" : ""), value.tokens[t]);
      name.setAttribute("role", "columnheader");
      name.setAttribute("aria-colindex", t + 2);
      name.title = value.tokens[t];
      name.dataset.t = t;
      name.classList.toggle("selected", t === chosen.token);
      name.classList.toggle("written", t >= (value.written ?? tokens));
      name.style.left = `${MATRIX.side + t * wide}px`;
      names.push(name);
    }
    head.replaceChildren(...names);
    rows.clear();
    const bodies = seen.map((layer) => {
      const row = make("div", "matrix-row"), label = make("div", "matrix-label", heightOf(layer) === MATRIX.height ? value.layers[layer].label : "");
      row.setAttribute("role", "row");
      row.setAttribute("aria-rowindex", layer + 2);
      label.setAttribute("role", "rowheader");
      label.setAttribute("aria-label", value.layers[layer].title);
      label.title = value.layers[layer].title;
      label.dataset.layer = layer;
      label.classList.toggle("chosen", layer === chosen.layer);
      row.style.top = `${MATRIX.head + topOf(layer)}px`;
      row.style.height = `${heightOf(layer)}px`;
      row.append(label);
      for (let t = first; t < last; t++) row.append(cellFor(t, layer));
      rows.set(layer, row);
      return row;
    });
    inner.replaceChildren(head, ...bodies);
    frame.setAttribute("aria-activedescendant", `${uid}-${at.layer}-${at.token}`);
  }
  const corner = () => {
    const one = make("div", "matrix-corner");
    one.setAttribute("role", "columnheader");
    one.setAttribute("aria-label", "Layer");
    return one;
  };
  function size() {
    inner.style.width = `${MATRIX.side + tokens * wide}px`;
    inner.style.height = `${MATRIX.head + topOf(layers - 1) + heightOf(layers - 1)}px`;
  }
  function intoView({ token, layer }) {
    const left = token * wide, top = topOf(layer), right = frame.clientWidth - MATRIX.side - wide;
    if (left < frame.scrollLeft) frame.scrollLeft = left;
    else if (left > frame.scrollLeft + right) frame.scrollLeft = left - right;
    const bottom = frame.clientHeight - MATRIX.head - MATRIX.height - 14;
    if (top < frame.scrollTop) frame.scrollTop = top;
    else if (top > frame.scrollTop + bottom) frame.scrollTop = top - bottom;
  }
  let asked = 0;
  frame.addEventListener("scroll", () => {
    tip.hidden = true;
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(() => render());
  }, { passive: true });

  // ---- what is chosen

  function choose(token, layer) {
    const folded = thin && layer !== chosen.layer, of = layer === chosen.layer;
    chosen = { token, layer };
    at = { token, layer };
    if (folded) size();
    intoView(at);
    if (folded) render(true);
    else remark();
    if (!of) afterPaint(list);
  }
  // Only what is marked: to draw every cell in view again would take longer than a click may.
  function remark() {
    for (const cell of inner.querySelectorAll(".matrix-cell.selected, .matrix-cell.current")) {
      cell.classList.remove("selected", "current");
      cell.setAttribute("aria-selected", "false");
      cell.removeAttribute("aria-label");
    }
    const cellAt = ({ token, layer }) => document.getElementById(`${uid}-${layer}-${token}`);
    const here = cellAt(at), picked = cellAt(chosen);
    if (!here) return void render(true); // It was not in view.
    here.classList.add("current");
    here.setAttribute("aria-label", describe(at.token, at.layer));
    frame.setAttribute("aria-activedescendant", here.id);
    picked?.classList.add("selected");
    picked?.setAttribute("aria-selected", "true");
    for (const one of head.children) one.classList.toggle("selected", Number(one.dataset.t) === chosen.token);
    for (const one of inner.querySelectorAll(".matrix-label")) one.classList.toggle("chosen", Number(one.dataset.layer) === chosen.layer);
  }
  // What a person need not see at once, and the page's own work, wait until the mark is on screen.
  function afterPaint(act) {
    requestAnimationFrame(() => setTimeout(act));
  }
  const tellPage = () => afterPaint(() => pick(chosen.token, chosen.layer));
  frame.addEventListener("click", (event) => {
    const cell = event.target.closest(".matrix-cell"), label = event.target.closest(".matrix-label");
    if (cell && !cell.classList.contains("none")) {
      choose(Number(cell.dataset.t), Number(cell.dataset.l));
      tellPage();
    } else if (label) {
      choose(chosen.token, Number(label.dataset.layer));
      tellPage();
    }
  });
  frame.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor((frame.clientWidth - MATRIX.side) / wide) - 1);
    const moves = {
      ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [-tokens, 0], End: [tokens, 0],
      PageDown: [page, 0], PageUp: [-page, 0],
    };
    if (event.key === "Enter" || event.key === " ") {
      choose(at.token, at.layer);
      tellPage();
    } else if (event.key === "Escape") {
      tip.hidden = true;
      if (lit) light(lit.expert);
      return;
    } else if (moves[event.key]) {
      const [right, down] = moves[event.key];
      at = {
        token: Math.min(Math.max(at.token + right, 0), tokens - 1),
        layer: Math.min(Math.max(at.layer + down, 0), layers - 1),
      };
      intoView(at);
      remark();
      tell(frame.querySelector(".matrix-cell.current"));
    } else return;
    event.preventDefault();
  });

  // ---- tooltip: all choices of a cell

  function tell(cell) {
    if (!cell || cell.classList.contains("none")) return void (tip.hidden = true);
    const token = Number(cell.dataset.t), layer = Number(cell.dataset.l), name = make("b", "", value.tokens[token]);
    name.dir = "auto";
    const lines = choicesOf(token, layer).map(([expert, part]) => make("span", "", `expert ${expert} · ${inPercent(part)}`));
    tip.replaceChildren(name, make("span", "", value.layers[layer].title), ...lines);
    tip.hidden = false;
    const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(Math.max(box.left + box.width / 2 - own.width / 2, 8), innerWidth - own.width - 8)}px`;
    tip.style.top = `${box.top - own.height - 8 > 4 ? box.top - own.height - 8 : box.bottom + 8}px`;
  }
  frame.addEventListener("pointerover", (event) => tell(event.target.closest(".matrix-cell")));
  frame.addEventListener("pointerleave", () => (tip.hidden = true));
  addEventListener("scroll", () => (tip.hidden = true), { passive: true, capture: true });
  frame.addEventListener("focusout", () => (tip.hidden = true));

  // ---- below the table: how it is shown, and the experts of the chosen layer

  const bar = make("div", "grid-legend matrix-bar"), found = make("div", "grid-legend matrix-experts");
  function toggle(text, on, act, title) {
    const one = button("layer-choice", text);
    one.setAttribute("aria-pressed", String(on()));
    one.title = title;
    one.addEventListener("click", () => {
      act();
      one.setAttribute("aria-pressed", String(on()));
      size();
      render(true);
    });
    return one;
  }
  if (k > 1) bar.append(toggle("First choice only", () => firstOnly, () => (firstOnly = !firstOnly), `Show the largest of the ${k} weights alone`));
  if (layers > 8) bar.append(toggle("Fold layers", () => thin, () => (thin = !thin), "Show all layers but the chosen one as thin rows"));

  const counted = new Map(); // layer → its experts, the one with the most weight first
  function shares(layer) {
    if (counted.has(layer)) return counted.get(layer);
    const mass = new Float64Array(value.experts), seen = new Uint32Array(value.experts);
    let all = 0;
    for (let i = place(0, layer); i < place(0, layer + 1); i++) {
      if (!weights[i]) continue;
      mass[experts[i]] += weights[i];
      seen[experts[i]] += 1;
      all += weights[i];
    }
    const ranked = Array.from(mass, (sum, expert) => ({ expert, share: all ? sum / all : 0, tokens: seen[expert] }));
    counted.set(layer, ranked.sort((a, b) => b.share - a.share));
    return ranked;
  }
  function light(expert) {
    lit = lit && lit.expert === expert && lit.layer === chosen.layer ? null : { expert, layer: chosen.layer };
    node.classList.toggle("matrix-lit", Boolean(lit));
    for (const one of inner.querySelectorAll(".matrix-cell u")) one.remove();
    for (const cell of (lit && rows.get(lit.layer)?.querySelectorAll(".matrix-cell:not(.none)")) || []) mark(cell, Number(cell.dataset.t), lit.layer);
    const pressed = (chip) => Boolean(lit && lit.layer === chosen.layer && Number(chip.dataset.e) === lit.expert);
    for (const chip of chips.querySelectorAll(".matrix-chip")) chip.setAttribute("aria-pressed", String(pressed(chip)));
    if (lit && !chips.querySelector('[aria-pressed="true"]')) list();
    afterPaint(map.draw);
  }

  const isLit = (layer, expert) => Boolean(lit && lit.layer === layer && lit.expert === expert);
  const map = mapOf(value, shares, isLit, (layer, expert) => {
    choose(chosen.token, layer);
    tellPage();
    lit = null;
    light(expert);
  });
  const search = make("input", "matrix-search");
  search.type = "search";
  search.inputMode = "numeric";
  search.placeholder = "Find expert";
  search.setAttribute("aria-label", "Find an expert of the chosen layer by its number");
  search.addEventListener("input", () => {
    wanted = search.value.trim();
    list();
  });
  const chips = make("span", "grid-chips matrix-chips"), title = make("span", "grid-hint");
  found.append(title, ...(value.experts > MATRIX.chips ? [search] : []), chips);
  function list() {
    const all = shares(chosen.layer), matching = wanted ? all.filter(({ expert }) => String(expert).startsWith(wanted)) : all;
    title.textContent = `Experts of ${value.layers[chosen.layer].title} by weight in this text; click one to see where it is:`;
    const shown = matching.slice(0, wanted ? matching.length : MATRIX.chips);
    const marked = lit && lit.layer === chosen.layer && matching.find(({ expert }) => expert === lit.expert);
    if (marked && !shown.includes(marked)) shown.push(marked);
    chips.replaceChildren(...shown.map((one) => {
      const chip = button("matrix-chip" + (few ? ` x${one.expert}` : ""), "", `Show only expert ${one.expert}: ${inPercent(one.share)} of the weight, ${one.tokens} tokens`);
      chip.append(make("b", "", one.expert), make("span", "", inPercent(one.share)));
      chip.dataset.e = one.expert;
      chip.setAttribute("aria-pressed", String(isLit(chosen.layer, one.expert)));
      chip.addEventListener("click", () => light(one.expert));
      return chip;
    }));
    if (!wanted && all.length > MATRIX.chips) chips.append(make("span", "grid-hint", `and ${all.length - shown.length} more`));
    if (wanted && !matching.length) chips.append(make("span", "grid-hint", `no expert ${wanted}: they are 0 to ${value.experts - 1}`));
  }

  node.append(frame, bar, found, map.node, tip);
  size();
  list();
  new ResizeObserver(() => {
    render(true);
    map.draw();
  }).observe(frame);
  requestAnimationFrame(() => {
    intoView(chosen);
    render(true);
  });
  return { node, choose };
}
