// The film of layers with one expert for each token: its buffer, where it may be full, and its gate. After film_stage.js.

const oneExpert = {
  // The formulas, as they stand below, that a phase is about.
  formulas: { enter: [0], router: [1, 2], choice: [3], buffer: [4], expert: [5], gate: [6], residual: [6] },
  joint: "gate", sign: "×",
  // What is drawn, from the component's value.
  prepared: (value) => ({ ...value, layers: value.layers.map((layer) => ({ ...layer, most: Math.max(...layer.slot) + 1 })) }),
  // The experts of a token and their shares, for its place in the strip; and whether none of them works on it.
  parts: (layer, token) => [[layer.expert[token], 1]],
  lost: (layer, token) => Boolean(layer.dropped[token]),
  dots: dotsOfOne, draw: drawBuffers, fan: drawLikeliest, said: saidOfOne,
};

// Squares of a buffer: how many there are, how large, and how many tokens each of them stands for.
function slotsOf(place, layer) {
  const many = Math.max(layer.capacity || layer.most, 1), room = place.bufferEnd - place.buffer - 4;
  const side = clamp(Math.floor(Math.min(place.row - 4, room / many - 1)), 3, 13);
  const shown = Math.min(many, Math.floor(room / (side + 1)));
  return { side, shown, many };
}
const slotAt = (place, slots, slot) => place.buffer + 2 + (slots.side + 1) * Math.min(slot, slots.shown - 1) + slots.side / 2;

// Where a token is on its way; nothing when it is not in this layer.
function dotsOfOne(place, film, layer, token, way) {
  const phase = phaseOf(way);
  if (phase < 0 || phase >= PHASES.length) return [];
  return [arriving(place, film, token, way) || placedOfOne(place, film, layer, token, way, phase)];
}

function placedOfOne(place, film, layer, token, way, phase) {
  const expert = layer.expert[token], dropped = Boolean(layer.dropped[token]), y = rowOf(place, expert);
  const share = eased(within(way, phase)), slot = slotAt(place, slotsOf(place, layer), layer.slot[token]);
  const name = PHASES[phase], gate = layer.gate[token] / 1000;
  if (name === "choice") return { x: between(place.router + 14, place.buffer - 6, share), y: between(place.middle, y, share), light: 1, expert };
  if (dropped) {
    // Turned away at the buffer: back along the residual, which is all that is left of it.
    const rest = (way - ENDS[2]) / (1 - ENDS[2]), residual = film.residual, lost = residual === 0;
    if (rest < 0.25) return { x: place.buffer - 6 + 4 * Math.sin(rest * 50), y, light: 1, expert, dropped };
    const along = eased((rest - 0.25) / 0.75);
    return { x: between(place.buffer - 6, place.leave, along), y: between(y, place.lane, Math.min(1, along * 3)),
      light: lost ? 1 - along : clamp(residual, 0.3, 1), expert, dropped };
  }
  if (name === "buffer") return { x: between(place.buffer - 6, slot, share), y, light: 1, expert };
  if (name === "expert") return { x: between(slot, place.expertEnd, share), y, light: 1, expert };
  const light = 0.2 + 0.8 * gate;
  if (name === "gate") return { x: between(place.expertEnd, place.gate, share), y: between(y, place.middle, share), light: between(1, light, share), expert };
  return { x: between(place.gate, place.leave, share), y: place.middle, light, expert };
}

// Each expert's buffer, on the way to it.
function drawBuffers(g, film, place, layer, inLayer, look, tints) {
  const tokens = film.tokens.length, slots = slotsOf(place, layer);
  const limit = layer.capacity === null ? ", no limit" : ` of ${layer.capacity}`;
  g.textAlign = "center";
  g.font = `11px ${FONT}`;
  g.fillStyle = look.dim;
  g.fillText(place.narrow ? "buffers" : `buffers${limit}`, (place.buffer + place.bufferEnd) / 2, place.bottom + 10);
  for (let e = 0; e < film.experts; e++) {
    const y = rowOf(place, e);
    box(g, place.buffer, y - 0.5, place.expert - place.buffer, 1, 0, look.line);
    for (let s = 0; s < slots.shown; s++) {
      const x = slotAt(place, slots, s) - slots.side / 2;
      if (layer.capacity !== null && slots.side > 3) frame(g, x, y - slots.side / 2, slots.side, slots.side, 2, look.line, 1);
    }
  }
  for (let t = 0; t < tokens; t++) {
    if (layer.dropped[t] || wayOf(t, tokens, inLayer) < ENDS[3]) continue;
    const x = slotAt(place, slots, layer.slot[t]), y = rowOf(place, layer.expert[t]);
    box(g, x - slots.side / 2, y - slots.side / 2, slots.side, slots.side, 2, tints[layer.expert[t]], 0.55);
  }
}

// While the chosen token is with the router: a line to each likely expert, as wide as its probability.
function drawLikeliest(g, film, place, layer, chosen, way, look, tints) {
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
    curve(g, place, place.buffer - 40, y);
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

// What happens in the router and after it.
function saidOfOne(film, layer, token, phase, name) {
  const slot = layer.slot[token] + 1, gate = (layer.gate[token] / 1000).toFixed(2), dropped = layer.dropped[token];
  const expert = layer.expert[token];
  const likeliest = layer.likeliest[token].filter(([e]) => !layer.off.includes(e)).slice(0, 3).map(([e, p]) => `expert ${e} ${(p / 1000).toFixed(2)}`).join(", ");
  if (phase === "router") return `The router gives each expert a probability: ${likeliest}${film.experts - layer.off.length > 3 ? ", …" : ""}${
    layer.off.length ? `. Off: expert ${layer.off.join(", ")}` : ""}`;
  if (phase === "choice") {
    if (expert !== layer.likeliest[token][0][0]) return `Expert ${expert} is chosen${film.biased ? ", once each expert’s bias is added" : ": you changed the routing"}.`;
    return `One expert alone works on a token: the likeliest, expert ${expert}.`;
  }
  if (phase === "buffer" && dropped) return `The buffer of expert ${expert} is full: position ${slot}, but ${layer.capacity} slots. The token is dropped.`;
  if (dropped) return film.residual ? `Dropped: only the residual of ${name} goes on.` : `Dropped: nothing of ${name} goes on from this layer.`;
  if (phase === "buffer") return layer.capacity === null
    ? `Position ${slot} in the buffer of expert ${expert}, which has no limit here.`
    : `Position ${slot} of ${layer.capacity} in the buffer of expert ${expert}.`;
  if (phase === "expert") return `Expert ${expert} of ${layer.title} is a network of its own: expert ${expert} of another layer is a different one.`;
  if (phase === "gate") return `Its output is multiplied by the gate, ${gate}: the dot’s brightness.`;
  return film.residual === 1 ? `It is added to the residual, and ${name} goes on.`
    : film.residual ? `It is added to ${film.residual} × the residual, and ${name} goes on.`
    : `It takes the place of ${name}: nothing goes around the experts of this model.`;
}
