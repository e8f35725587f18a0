// Draws one moment of the routing film on a canvas: where each token is, and what happens to the chosen one.
// Runs before routing_film.js, in the same scope. Time counts in layers: 1.5 is the middle of the second layer.

const PHASES = ["enter", "router", "choice", "buffer", "expert", "gate", "residual"];
// When each phase of a token's way through a layer ends, as a share of that way.
const ENDS = [0.1, 0.32, 0.44, 0.6, 0.78, 0.9, 1];
// A token's way takes this share of a layer's time; the last token starts that much after the first.
const WAY = 0.74, LAST_START = 1 - WAY;
const FONT = '"Inter", "Segoe UI", "DejaVu Sans", system-ui, sans-serif';

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const between = (from, to, share) => from + (to - from) * share;
const eased = (share) => (share < 0.5 ? 2 * share * share : 1 - (2 - 2 * share) ** 2 / 2);
const start = (token, tokens) => (tokens > 1 ? (LAST_START * token) / (tokens - 1) : LAST_START / 2);
// Where in its way through this layer a token is: below 0 = not yet in, above 1 = through.
const wayOf = (token, tokens, inLayer) => (inLayer - start(token, tokens)) / WAY;
const phaseOf = (way) => (way < 0 ? -1 : way >= 1 ? PHASES.length : ENDS.findIndex((end) => way < end));
const within = (way, phase) => (way - (phase ? ENDS[phase - 1] : 0)) / (ENDS[phase] - (phase ? ENDS[phase - 1] : 0));
// The time at which the token is in the middle of a phase.
const momentOf = (token, tokens, layer, phase) =>
  layer + start(token, tokens) + WAY * ((ENDS[phase] + (phase ? ENDS[phase - 1] : 0)) / 2);

function colours(host) {
  const style = getComputedStyle(host), read = (name) => style.getPropertyValue(name).trim();
  return { card: read("--sx-card"), ink: read("--sx-ink"), dim: read("--sx-dim"), line: read("--sx-line"),
    track: read("--sx-track"), accent: read("--sx-accent"), bad: read("--sx-bad"), onCell: read("--cell-ink") || "#16181b" };
}

// A colour per expert, as the style sheet has it.
function expertColours(host, experts) {
  const probe = document.createElement("i"), found = [];
  probe.hidden = true;
  host.append(probe);
  for (let e = 0; e < experts; e++) {
    probe.className = "x" + (e % 256);
    found.push(getComputedStyle(probe).getPropertyValue("--c").trim());
  }
  probe.remove();
  return found;
}

// The places of everything at a width: a phone's stage is narrower and taller, not smaller.
function placesFor(width, experts) {
  const narrow = width < 560, top = 92, row = clamp(Math.floor(264 / experts), narrow ? 9 : 8, 44);
  const bottom = top + row * experts, at = (share) => Math.round(width * share);
  return {
    width, narrow, top, bottom, row, height: bottom + (narrow ? 120 : 78),
    lane: bottom + 26, // The residual's.
    said: bottom + 62,
    enter: at(narrow ? 0.05 : 0.06), router: at(narrow ? 0.2 : 0.2),
    buffer: at(narrow ? 0.42 : 0.42), bufferEnd: at(narrow ? 0.64 : 0.68), expert: at(narrow ? 0.67 : 0.71),
    expertEnd: at(narrow ? 0.79 : 0.81), gate: at(narrow ? 0.87 : 0.88), leave: at(narrow ? 0.95 : 0.95),
    middle: Math.round((top + bottom) / 2),
  };
}

const rowOf = (place, expert) => place.top + place.row * (expert + 0.5);

// Squares of a buffer: how many there are, how large, and how many tokens each of them stands for.
function slotsOf(place, capacity, most) {
  const many = Math.max(capacity ?? most, 1), room = place.bufferEnd - place.buffer - 4;
  const side = clamp(Math.floor(Math.min(place.row - 4, room / many - 1)), 3, 13);
  const shown = Math.min(many, Math.floor(room / (side + 1)));
  return { side, shown, many };
}
const slotAt = (place, slots, slot) => place.buffer + 2 + (slots.side + 1) * Math.min(slot, slots.shown - 1) + slots.side / 2;

// Where a token is on its way; nothing when it is not in this layer.
function dotAt(place, slots, layer, token, tokens, way, residual) {
  const phase = phaseOf(way);
  if (phase < 0 || phase >= PHASES.length) return null;
  const expert = layer.expert[token], dropped = Boolean(layer.dropped[token]), y = rowOf(place, expert);
  const into = between(place.top, place.bottom, tokens > 1 ? token / (tokens - 1) : 0.5);
  const share = eased(within(way, phase)), slot = slotAt(place, slots, layer.slot[token]);
  const name = PHASES[phase], gate = layer.gate[token] / 1000;
  if (name === "enter") return { x: between(place.enter, place.router - 14, share), y: between(into, place.middle, share), light: 1 };
  if (name === "router") return { x: between(place.router - 14, place.router + 14, share), y: place.middle, light: 1 };
  if (name === "choice") return { x: between(place.router + 14, place.buffer - 6, share), y: between(place.middle, y, share), light: 1, expert };
  if (dropped) {
    // Turned away at the buffer: back along the residual, which is all that is left of it.
    const rest = (way - ENDS[2]) / (1 - ENDS[2]), lost = residual === 0;
    if (rest < 0.25) return { x: place.buffer - 6 + 4 * Math.sin(rest * 50), y, light: 1, expert, dropped };
    const along = eased((rest - 0.25) / 0.75);
    return { x: between(place.buffer - 6, place.leave, along), y: between(y, place.lane, Math.min(1, along * 3)),
      light: lost ? 1 - along : clamp(residual, 0.3, 1), expert, dropped };
  }
  if (name === "buffer") return { x: between(place.buffer - 6, slot, share), y, light: 1, expert };
  if (name === "expert") return { x: between(slot, place.expertEnd, share), y, light: 1, expert, inside: true };
  const light = 0.2 + 0.8 * gate;
  if (name === "gate") return { x: between(place.expertEnd, place.gate, share), y: between(y, place.middle, share), light: between(1, light, share), expert };
  return { x: between(place.gate, place.leave, share), y: place.middle, light, expert };
}

// ---- drawing -------------------------------------------------------------------------------------------------------

// One moment. Returns where each token of the strip stands, for clicks.
function drawMoment(g, film, place, time, chosen, look, tints) {
  const index = Math.min(Math.floor(time), film.layers.length - 1), layer = film.layers[index];
  const inLayer = time - index, tokens = film.tokens.length, ended = time >= film.layers.length;
  const slots = slotsOf(place, layer.capacity || null, Math.max(...layer.slot) + 1);
  g.clearRect(0, 0, place.width, place.height);
  g.fillStyle = look.card;
  g.fillRect(0, 0, place.width, place.height);
  g.textBaseline = "middle";
  const areas = drawStrip(g, film, place, index, inLayer, chosen, look, tints);
  drawLayer(g, film, place, slots, index, inLayer, look, tints);
  const ways = film.tokens.map((_, t) => wayOf(t, tokens, inLayer));
  drawFan(g, place, layer, chosen, ways[chosen], look, tints);
  film.tokens.forEach((_, t) => t !== chosen && drawDot(g, dotAt(place, slots, layer, t, tokens, ways[t], film.residual), 3, look, tints));
  const own = dotAt(place, slots, layer, chosen, tokens, ways[chosen], film.residual);
  drawDot(g, own, 7, look, tints, film.tokens[chosen]);
  if (!layer.dropped[chosen]) drawResidual(g, film, place, ways[chosen], look, tints);
  drawSaid(g, place, ended && film.answer ? film.answer : said(film, index, chosen, phaseOf(ways[chosen])), look);
  return areas;
}

// The text as tokens in the colour of the expert that had them last, the chosen one framed; a part of a long text.
function drawStrip(g, film, place, index, inLayer, chosen, look, tints) {
  const areas = [], height = 20, gap = 4, tokens = film.tokens.length;
  g.font = `12px ${FONT}`;
  const widths = film.tokens.map((token) => Math.min(g.measureText(token).width, 150) + 10);
  // From the chosen one to both sides, as long as two lines hold them.
  const room = (place.width - 24) * 2 - 240;
  let first = chosen, last = chosen, used = widths[chosen];
  for (let grew = true; grew; ) {
    grew = false;
    if (first > 0 && used + widths[first - 1] + gap < room) (used += widths[--first] + gap), (grew = true);
    if (last < tokens - 1 && used + widths[last + 1] + gap < room) (used += widths[++last] + gap), (grew = true);
  }
  let x = 12, y = 18;
  // What is left out on a side can be paged to.
  const more = (token, words) => {
    const end = note(g, words, x, y + 1, look);
    areas.push({ token, x, y: y - height / 2, width: end - x, height });
    x = end + 2 * gap;
  };
  if (first > 0) more(first - 1, `‹ ${first} more`);
  for (let t = first; t <= last; t++) {
    if (x + widths[t] > place.width - 12) (x = 12), (y += height + gap);
    const through = wayOf(t, tokens, inLayer) >= ENDS[2], seen = through ? index : index - 1;
    const expert = seen >= 0 ? film.layers[seen].expert[t] : null;
    const dropped = seen >= 0 && film.layers[seen].dropped[t];
    box(g, x, y - height / 2, widths[t], height, 5, expert === null ? look.track : tints[expert], dropped ? 0.35 : 1);
    if (t === chosen) frame(g, x, y - height / 2, widths[t], height, 5, look.accent, 2);
    g.fillStyle = expert === null || dropped ? look.ink : look.onCell;
    g.fillText(film.tokens[t], x + 5, y + 1, widths[t] - 10);
    areas.push({ token: t, x, y: y - height / 2, width: widths[t], height });
    x += widths[t] + gap;
  }
  if (last < tokens - 1) more(last + 1, `${tokens - 1 - last} more ›`);
  return areas;
}

// Router, buffers and experts of a layer, the residual below them, and how far through the model this is.
function drawLayer(g, film, place, slots, index, inLayer, look, tints) {
  const layer = film.layers[index], tokens = film.tokens.length;
  g.font = `600 13px ${FONT}`;
  g.fillStyle = look.ink;
  g.textAlign = "left";
  g.fillText(layer.title[0].toUpperCase() + layer.title.slice(1), 12, 72);
  film.layers.forEach((_, l) => box(g, place.width - 12 - 18 * (film.layers.length - l), 69, 14, 6, 3, l === index ? look.accent : l < index ? look.dim : look.track));
  g.font = `11px ${FONT}`;
  g.textAlign = "center";
  box(g, place.router - 16, place.top, 32, place.bottom - place.top, 8, look.track);
  g.fillStyle = look.dim;
  g.fillText("router", place.router, place.bottom + 10);
  const limit = layer.capacity === null ? ", no limit" : ` of ${layer.capacity}`;
  g.fillText(place.narrow ? "buffers" : `buffers${limit}`, (place.buffer + place.bufferEnd) / 2, place.bottom + 10);
  g.fillText("experts", (place.expert + place.expertEnd) / 2, place.bottom + 10);
  g.fillText("gate", place.gate, place.bottom + 10);
  for (let e = 0; e < film.experts; e++) {
    const y = rowOf(place, e);
    // The way to the expert, on which its buffer lies.
    box(g, place.buffer, y - 0.5, place.expert - place.buffer, 1, 0, look.line);
    const inBuffer = [];
    for (let t = 0; t < tokens; t++) {
      const way = wayOf(t, tokens, inLayer);
      if (layer.expert[t] === e && !layer.dropped[t] && way >= ENDS[3]) inBuffer.push(layer.slot[t]);
    }
    for (let s = 0; s < slots.shown; s++) {
      const x = slotAt(place, slots, s) - slots.side / 2;
      if (layer.capacity !== null && slots.side > 3) frame(g, x, y - slots.side / 2, slots.side, slots.side, 2, look.line, 1);
    }
    inBuffer.forEach((slot) => box(g, slotAt(place, slots, slot) - slots.side / 2, y - slots.side / 2, slots.side, slots.side, 2, tints[e], 0.55));
    drawExpert(g, place, e, layer.off.includes(e), look, tints);
  }
  // The residual goes around the router and its experts.
  g.save();
  g.strokeStyle = look.dim;
  g.globalAlpha = film.residual ? clamp(film.residual, 0.35, 1) : 0.35;
  g.setLineDash(film.residual ? [] : [2, 5]);
  g.lineWidth = 1.5;
  g.beginPath();
  g.moveTo(place.enter, place.middle);
  g.lineTo(place.enter, place.lane);
  g.lineTo(place.leave, place.lane);
  g.lineTo(place.leave, place.middle + 8);
  g.stroke();
  g.restore();
  g.font = `11px ${FONT}`;
  g.textAlign = "left";
  g.fillStyle = look.dim;
  const share = film.residual === 1 ? "residual" : film.residual ? `residual × ${film.residual}` : "no residual around the experts";
  g.fillText(share, place.enter + 8, place.lane + 12);
  node(g, place.gate, place.middle, "×", look);
  if (film.residual) node(g, place.leave, place.middle, "+", look);
}

// An expert; one that is switched off is an empty frame with its number struck through.
function drawExpert(g, place, expert, off, look, tints) {
  const y = rowOf(place, expert), height = Math.min(place.row - 3, 30), width = place.expertEnd - place.expert;
  const small = place.row < 16, radius = small ? 3 : 7, middle = place.expert + width / 2;
  if (off) {
    g.setLineDash([3, 3]);
    frame(g, place.expert, y - height / 2, width, height, radius, look.dim, 1);
    g.setLineDash([]);
  } else box(g, place.expert, y - height / 2, width, height, radius, tints[expert]);
  if (place.row < 9) return;
  const name = off && !small ? `${expert} off` : String(expert);
  g.fillStyle = off ? look.dim : look.onCell;
  g.font = `600 ${small ? 9 : 12}px ${FONT}`;
  g.textAlign = "center";
  g.fillText(name, middle, y + 1);
  if (off) box(g, middle - g.measureText(name).width / 2 - 2, y - 0.5, g.measureText(name).width + 4, 1.5, 0, look.dim);
}

// While the chosen token is with the router: a line to each likely expert, as wide as its probability.
function drawFan(g, place, layer, chosen, way, look, tints) {
  const phase = phaseOf(way);
  if (phase < 1 || phase > 3 || layer.capacity === 0) return;
  const grown = phase === 1 ? eased(within(way, 1)) : 1, fade = phase === 3 ? 1 - within(way, 3) : 1;
  g.font = `11px ${FONT}`;
  for (const [expert, thousandths] of layer.likeliest[chosen]) {
    if (layer.off.includes(expert)) continue;
    const share = thousandths / 1000, y = rowOf(place, expert), won = expert === layer.expert[chosen];
    g.save();
    g.globalAlpha = (phase === 1 || won ? 0.9 : 0.35) * fade;
    g.strokeStyle = tints[expert];
    g.lineWidth = Math.max(0.75, share * Math.min(place.row, 14));
    g.beginPath();
    g.rect(0, 0, between(place.router + 16, place.buffer, grown), place.height);
    g.clip();
    const end = place.buffer - 40, bend = (place.router + 16 + end) / 2;
    g.beginPath();
    g.moveTo(place.router + 16, place.middle);
    g.bezierCurveTo(bend, place.middle, bend, y, end, y);
    g.stroke();
    if (grown > 0.8 && (place.row >= 11 || won)) {
      g.fillStyle = won ? look.ink : look.dim;
      g.textAlign = "right";
      g.font = `${won ? "600 " : ""}11px ${FONT}`;
      g.fillText(share.toFixed(2), place.buffer - 10, y + 1);
      g.textAlign = "left";
    }
    g.restore();
  }
}

function drawDot(g, dot, radius, look, tints, name = "") {
  if (!dot) return;
  g.save();
  g.globalAlpha = clamp(dot.light, 0, 1);
  g.fillStyle = dot.expert === undefined ? look.dim : tints[dot.expert];
  g.beginPath();
  g.arc(dot.x, dot.y, radius, 0, 2 * Math.PI);
  g.fill();
  g.globalAlpha = 1;
  if (name || dot.dropped) {
    g.strokeStyle = dot.dropped ? look.bad : look.ink;
    g.lineWidth = name ? 2 : 1.25;
    g.stroke();
  }
  if (name) {
    g.font = `600 12px ${FONT}`;
    const width = Math.min(g.measureText(name).width, 120), x = clamp(dot.x - width / 2, 4, g.canvas.clientWidth - width - 4);
    box(g, x - 5, dot.y - radius - 24, width + 10, 18, 5, look.card, 0.92);
    g.fillStyle = look.ink;
    g.fillText(name, x, dot.y - radius - 14, 120);
  }
  g.restore();
}

// What goes along the residual while the experts work.
function drawResidual(g, film, place, way, look, tints) {
  if (!film.residual || way < ENDS[0] || way >= 1) return;
  const share = (way - ENDS[0]) / (1 - ENDS[0]);
  drawDot(g, { x: between(place.enter, place.leave, share), y: place.lane, light: 0.6 * film.residual }, 4, look, tints);
}

function drawSaid(g, place, words, look) {
  g.fillStyle = look.ink;
  g.font = `14px ${FONT}`;
  g.textAlign = "left";
  let line = "", y = place.said;
  for (const word of words.split(" ")) {
    if (line && g.measureText(`${line} ${word}`).width > place.width - 24) {
      g.fillText(line, 12, y);
      line = word;
      y += 19;
    } else line = line ? `${line} ${word}` : word;
  }
  g.fillText(line, 12, y);
}

// A small circle in which two things meet.
function node(g, x, y, sign, look) {
  box(g, x - 9, y - 9, 18, 18, 9, look.card);
  frame(g, x - 9, y - 9, 18, 18, 9, look.dim, 1.25);
  g.textAlign = "center";
  g.font = `13px ${FONT}`;
  g.fillStyle = look.dim;
  g.fillText(sign, x, y + 1);
  g.textAlign = "left";
}

function note(g, text, x, y, look) {
  g.fillStyle = look.dim;
  g.fillText(text, x, y);
  return x + g.measureText(text).width;
}

function rounded(g, x, y, width, height, radius) {
  g.beginPath();
  g.roundRect(x, y, width, height, radius);
}

function box(g, x, y, width, height, radius, colour, light = 1) {
  const before = g.globalAlpha;
  g.globalAlpha = light;
  g.fillStyle = colour;
  rounded(g, x, y, width, height, radius);
  g.fill();
  g.globalAlpha = before;
}

function frame(g, x, y, width, height, radius, colour, line) {
  g.strokeStyle = colour;
  g.lineWidth = line;
  rounded(g, x, y, width, height, radius);
  g.stroke();
}

// ---- words ---------------------------------------------------------------------------------------------------------

// What happens to a token in a phase, in one or two sentences.
function said(film, index, token, phase) {
  const layer = film.layers[index], name = `“${film.tokens[token]}”`, expert = layer.expert[token];
  const slot = layer.slot[token] + 1, gate = (layer.gate[token] / 1000).toFixed(2), dropped = layer.dropped[token];
  if (layer.capacity === 0) return `Every expert of ${layer.title} is off.`;
  if (phase < 0) return `${name} is about to enter ${layer.title}.`;
  if (phase >= PHASES.length) return `${name} is through ${layer.title}; other tokens are still on their way.`;
  const likeliest = layer.likeliest[token].filter(([e]) => !layer.off.includes(e)).slice(0, 3).map(([e, p]) => `expert ${e} ${(p / 1000).toFixed(2)}`).join(", ");
  if (PHASES[phase] === "enter") return `${name} enters ${layer.title}${film.width ? ` as ${film.width} numbers` : ""}.`;
  if (PHASES[phase] === "router") return `The router gives each expert a probability: ${likeliest}${film.experts - layer.off.length > 3 ? ", …" : ""}${
    layer.off.length ? `. Off: expert ${layer.off.join(", ")}` : ""}`;
  if (PHASES[phase] === "choice") {
    if (expert !== layer.likeliest[token][0][0]) return `Expert ${expert} is chosen${film.biased ? ", once each expert’s bias is added" : ": you changed the routing"}.`;
    return `One expert alone works on a token: the likeliest, expert ${expert}.`;
  }
  if (PHASES[phase] === "buffer" && dropped) return `The buffer of expert ${expert} is full: position ${slot}, but ${layer.capacity} slots. The token is dropped.`;
  if (dropped) return film.residual ? `Dropped: only the residual of ${name} goes on.` : `Dropped: nothing of ${name} goes on from this layer.`;
  if (PHASES[phase] === "buffer") return layer.capacity === null
    ? `Position ${slot} in the buffer of expert ${expert}, which has no limit here.`
    : `Position ${slot} of ${layer.capacity} in the buffer of expert ${expert}.`;
  if (PHASES[phase] === "expert") return `Expert ${expert} of ${layer.title} is a network of its own: expert ${expert} of another layer is a different one.`;
  if (PHASES[phase] === "gate") return `Its output is multiplied by the gate, ${gate}: the dot’s brightness.`;
  return film.residual === 1 ? `It is added to the residual, and ${name} goes on.`
    : film.residual ? `It is added to ${film.residual} × the residual, and ${name} goes on.`
    : `It takes the place of ${name}: nothing goes around the experts of this model.`;
}
