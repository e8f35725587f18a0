// Draws one moment of the routing film on a canvas: the text, a layer, and where each token is on its way.
// film_one.js and film_several.js have what differs between layers with one expert for each token and with several; they
// and routing_film.js run in the same scope, this first. Time counts in layers: 1.5 is the middle of the second layer.

const PHASES = ["enter", "router", "choice", "buffer", "expert", "gate", "residual"];
// When each phase of a token's way through a layer ends, as a share of that way.
const ENDS = [0.1, 0.32, 0.44, 0.6, 0.78, 0.9, 1];
// A token's way takes this share of a layer's time; the last token starts that much after the first.
const WAY = 0.74, LAST_START = 1 - WAY;
// Dots that are drawn at once: of a longer text those of the tokens around the chosen one.
const MOST_DOTS = 3000;
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

// A colour per expert, as the style sheet has it: the number of each one's colour is known.
function expertColours(host, shades) {
  const probe = document.createElement("i"), found = [];
  probe.hidden = true;
  host.append(probe);
  for (const shade of shades) {
    probe.className = "x" + (shade % 256);
    found.push(getComputedStyle(probe).getPropertyValue("--c").trim());
  }
  probe.remove();
  return found;
}

// The places of everything at a width: a phone's stage is narrower and taller, not smaller.
function placesFor(width, film) {
  const narrow = width < 560, top = 92, least = clamp(Math.floor(512 / film.experts), 2, narrow ? 9 : 8);
  const row = clamp(Math.floor(264 / film.experts), least, 44);
  // Shared experts have a row of their own below the others.
  const end = top + row * film.experts, shared = film.layers.some((layer) => layer.shared) ? end + 18 : null;
  const bottom = shared === null ? end : end + 32, at = (share) => Math.round(width * share);
  return {
    width, narrow, top, end, shared, bottom, row, height: bottom + (narrow ? 120 : 78),
    lane: bottom + 26, // The residual's.
    said: bottom + 62,
    enter: at(narrow ? 0.05 : 0.06), router: at(narrow ? 0.2 : 0.2),
    buffer: at(narrow ? 0.42 : 0.42), bufferEnd: at(narrow ? 0.64 : 0.68), expert: at(narrow ? 0.67 : 0.71),
    expertEnd: at(narrow ? 0.79 : 0.81), gate: at(narrow ? 0.87 : 0.88), leave: at(narrow ? 0.95 : 0.95),
    middle: Math.round((top + end) / 2),
  };
}

const rowOf = (place, expert) => place.top + place.row * (expert + 0.5);

// Where a token is on its way to the router and into it; null where it is elsewhere.
function arriving(place, film, token, way) {
  const phase = phaseOf(way), tokens = film.tokens.length;
  if (phase < 0 || phase > 1) return null;
  const share = eased(within(way, phase)), from = between(place.top, place.end, tokens > 1 ? token / (tokens - 1) : 0.5);
  if (phase) return { x: between(place.router - 14, place.router + 14, share), y: place.middle, light: 1 };
  return { x: between(place.enter, place.router - 14, share), y: between(from, place.middle, share), light: 1 };
}

// ---- drawing -------------------------------------------------------------------------------------------------------

// One moment. Returns where each token of the strip stands, for clicks.
function drawMoment(g, film, place, time, chosen, look, tints) {
  const index = Math.min(Math.floor(time), film.layers.length - 1), layer = film.layers[index], kind = kindOf(film);
  const inLayer = time - index, tokens = film.tokens.length, ended = time >= film.layers.length;
  g.clearRect(0, 0, place.width, place.height);
  g.fillStyle = look.card;
  g.fillRect(0, 0, place.width, place.height);
  g.textBaseline = "middle";
  const areas = drawStrip(g, film, place, index, inLayer, chosen, look, tints);
  drawLayer(g, film, place, index, look, tints);
  kind.draw(g, film, place, layer, inLayer, look, tints);
  const way = wayOf(chosen, tokens, inLayer);
  kind.fan(g, film, place, layer, chosen, way, look, tints);
  const beside = Math.floor(MOST_DOTS / ((film.choices || 1) + 1) / 2);
  for (let t = Math.max(0, chosen - beside); t < Math.min(tokens, chosen + beside); t++) {
    if (t === chosen) continue;
    for (const dot of kind.dots(place, film, layer, t, wayOf(t, tokens, inLayer))) drawDot(g, dot, 3, look, tints);
  }
  const own = kind.dots(place, film, layer, chosen, way);
  own.forEach((dot, i) => {
    const named = own.length === 1 || (!i && dot.expert === undefined);
    drawDot(g, dot, 7, look, tints, true);
    if (named) drawName(g, film.tokens[chosen], dot, place, look);
  });
  if (!kind.lost(layer, chosen)) drawResidual(g, film, place, way, look, tints);
  drawSaid(g, place, ended && film.answer ? film.answer : said(film, index, chosen, phaseOf(way)), look);
  return areas;
}

// The text as tokens in the colours of the experts that had them last, the chosen one framed; a part of a long text.
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
    const parts = seen >= 0 ? kindOf(film).parts(film.layers[seen], t) : [];
    const dropped = seen >= 0 && kindOf(film).lost(film.layers[seen], t);
    drawParts(g, x, y - height / 2, widths[t], height, parts, tints, look, dropped ? 0.35 : 1);
    if (t === chosen) frame(g, x, y - height / 2, widths[t], height, 5, look.accent, 2);
    g.fillStyle = !parts.length || dropped ? look.ink : look.onCell;
    g.fillText(film.tokens[t], x + 5, y + 1, widths[t] - 10);
    areas.push({ token: t, x, y: y - height / 2, width: widths[t], height });
    x += widths[t] + gap;
  }
  if (last < tokens - 1) more(last + 1, `${tokens - 1 - last} more ›`);
  return areas;
}

// A token's box, divided among its experts by their shares; without any it is empty.
function drawParts(g, x, y, width, height, parts, tints, look, light) {
  g.save();
  rounded(g, x, y, width, height, 5);
  g.clip();
  if (!parts.length) box(g, x, y, width, height, 0, look.track);
  for (const [expert, share] of parts) {
    box(g, x, y, width * share + 0.5, height, 0, tints[expert], light);
    x += width * share;
  }
  g.restore();
}

// Router and experts of a layer, the residual below them, and how far through the model this is.
function drawLayer(g, film, place, index, look, tints) {
  const layer = film.layers[index], kind = kindOf(film), layers = film.layers.length;
  g.font = `600 13px ${FONT}`;
  g.fillStyle = look.ink;
  g.textAlign = "left";
  g.fillText(layer.title[0].toUpperCase() + layer.title.slice(1), 12, 72);
  const mark = Math.min(18, Math.floor((place.width - 160) / layers));
  for (let l = 0; l < layers; l++) box(g, place.width - 12 - mark * (layers - l), 69, Math.max(mark - 4, 2), 6, 3, l === index ? look.accent : l < index ? look.dim : look.track);
  g.font = `11px ${FONT}`;
  g.textAlign = "center";
  box(g, place.router - 16, place.top, 32, place.end - place.top, 8, look.track);
  g.fillStyle = look.dim;
  g.fillText("router", place.router, place.bottom + 10);
  g.fillText("experts", (place.expert + place.expertEnd) / 2, place.bottom + 10);
  g.fillText(kind.joint, place.gate, place.bottom + 10);
  for (let e = 0; e < film.experts; e++) drawExpert(g, place, e, layer.off.includes(e), look, tints);
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
  node(g, place.gate, place.middle, kind.sign, look);
  if (film.residual) node(g, place.leave, place.middle, "+", look);
}

// An expert; one that is switched off is an empty frame with its number struck through.
function drawExpert(g, place, expert, off, look, tints) {
  const y = rowOf(place, expert), height = clamp(place.row - 3, 1, 30), width = place.expertEnd - place.expert;
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

// From the router to a row.
function curve(g, place, end, y) {
  const bend = (place.router + 16 + end) / 2;
  g.beginPath();
  g.moveTo(place.router + 16, place.middle);
  g.bezierCurveTo(bend, place.middle, bend, y, end, y);
  g.stroke();
}

function drawDot(g, dot, radius, look, tints, framed = false) {
  if (!dot) return;
  g.save();
  g.globalAlpha = clamp(dot.light, 0, 1);
  g.fillStyle = dot.expert === undefined ? look.dim : tints[dot.expert];
  g.beginPath();
  g.arc(dot.x, dot.y, radius, 0, 2 * Math.PI);
  g.fill();
  g.globalAlpha = 1;
  if (framed || dot.dropped) {
    g.strokeStyle = dot.dropped ? look.bad : look.ink;
    g.lineWidth = framed ? 2 : 1.25;
    g.stroke();
  }
  g.restore();
}

// A token's name above its dot; before the experts, whose boxes it would hide.
function drawName(g, name, dot, place, look) {
  g.save();
  g.font = `600 12px ${FONT}`;
  g.textAlign = "left";
  const width = Math.min(g.measureText(name).width, 120), inside = dot.x > place.expert - 12 && dot.x < place.expertEnd + 12;
  const x = inside ? place.expert - width - 20 : clamp(dot.x - width / 2, 4, place.width - width - 4);
  const y = inside ? dot.y + 1 : dot.y - 21;
  // An outline, not a box: what lies behind stays whole.
  g.strokeStyle = look.card;
  g.lineJoin = "round";
  g.lineWidth = 4;
  g.strokeText(name, x, y, 120);
  g.fillStyle = look.ink;
  g.fillText(name, x, y, 120);
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
  const layer = film.layers[index], name = `“${film.tokens[token]}”`;
  if (layer.capacity === 0) return `Every expert of ${layer.title} is off.`;
  if (phase < 0) return `${name} is about to enter ${layer.title}.`;
  if (phase >= PHASES.length) return `${name} is through ${layer.title}; other tokens are still on their way.`;
  if (PHASES[phase] === "enter") return `${name} enters ${layer.title}${film.width ? ` as ${film.width} numbers` : ""}.`;
  return kindOf(film).said(film, layer, token, PHASES[phase], name);
}
