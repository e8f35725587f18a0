// The film of layers with several experts for each token: its dot splits into one for each, as bright as its weight; they
// come back and are summed. There are no buffers. Experts that every token goes through have a row below. After film_one.js.

const severalExperts = {
  formulas: { router: [0], choice: [1], buffer: [2], expert: [3], gate: [4], residual: [4] },
  joint: "sum", sign: "Σ",
  prepared: preparedSeveral,
  parts: sharesOf,
  lost: (layer, token) => !layer.shared && !sharesOf(layer, token).length,
  dots: dotsOfSeveral, draw: drawShared, fan: drawChosen, said: saidOfSeveral,
};

// Choices come packed, those of a layer in a row: numbers of experts, and weights in thousandths.
function preparedSeveral(value) {
  const unpacked = (packed) => new Uint16Array(Uint8Array.from(atob(packed), (one) => one.charCodeAt(0)).buffer);
  const experts = unpacked(value.packed.experts), weights = unpacked(value.packed.weights), many = value.tokens.length * value.choices;
  const layers = value.layers.map((layer, l) => {
    const own = weights.subarray(l * many, (l + 1) * many);
    const choices = value.tokens.map((_, t) => {
      const found = [];
      for (let i = t * value.choices; i < (t + 1) * value.choices; i++) if (own[i]) found.push([experts[l * many + i], own[i] / 1000]);
      return found;
    });
    return { ...layer, choices, heaviest: own.reduce((one, other) => Math.max(one, other), 1) / 1000 };
  });
  return { ...value, packed: null, layers };
}

function sharesOf(layer, token) {
  const choices = layer.choices[token], sum = choices.reduce((all, [, weight]) => all + weight, 0);
  return choices.map(([expert, weight]) => [expert, weight / sum]);
}

// As bright as its weight, beside the largest one of this layer.
const lightOf = (layer, weight) => 0.2 + (0.8 * weight) / layer.heaviest;

// Where a token's parts are on their way; none when it is not in this layer.
function dotsOfSeveral(place, film, layer, token, way) {
  const phase = phaseOf(way), name = PHASES[phase];
  if (phase < 0 || phase >= PHASES.length) return [];
  const share = eased(within(way, phase)), choices = layer.choices[token], split = place.router + 30;
  const shared = layer.shared && phase > 0 ? [sharedDot(place, way, name, share)] : [];
  const arrives = arriving(place, film, token, way);
  if (arrives) return [arrives, ...shared];
  if (!choices.length && !layer.shared) {
    // No expert is left: the residual alone goes on.
    const along = eased((way - ENDS[1]) / (1 - ENDS[1]));
    return [{ x: between(place.router + 14, place.leave, along), y: between(place.middle, place.lane, Math.min(1, along * 3)), light: 1, dropped: true }];
  }
  if (name === "residual") return [{ x: between(place.gate, place.leave, share), y: place.middle, light: 1 }];
  if (name === "choice") return choices.length ? [{ x: between(place.router + 14, split, share), y: place.middle, light: 1 }, ...shared] : shared;
  const dots = [];
  for (const [expert, weight] of choices) {
    const y = rowOf(place, expert), light = lightOf(layer, weight);
    if (name === "buffer") dots.push({ x: between(split, place.expert - 8, share), y: between(place.middle, y, share), light, expert });
    else if (name === "expert") dots.push({ x: between(place.expert - 8, place.expertEnd, share), y, light, expert });
    else dots.push({ x: between(place.expertEnd, place.gate, share), y: between(y, place.middle, share), light, expert });
  }
  return [...dots, ...shared];
}

// The part of a token that goes past the router to the shared experts.
function sharedDot(place, way, name, share) {
  const y = place.shared;
  if (name === "gate") return { x: between(place.expertEnd, place.gate, share), y: between(y, place.middle, share), light: 0.8 };
  if (name === "expert") return { x: between(place.expert - 8, place.expertEnd, share), y, light: 0.8 };
  return { x: between(place.enter, place.expert - 8, eased((way - ENDS[0]) / (ENDS[3] - ENDS[0]))), y, light: 0.8 };
}

function drawShared(g, film, place, layer, inLayer, look) {
  if (!layer.shared) return;
  const width = place.expertEnd - place.expert;
  box(g, place.enter, place.shared - 0.5, place.expert - place.enter, 1, 0, look.line);
  box(g, place.expert, place.shared - 10, width, 20, 5, look.track);
  g.fillStyle = look.ink;
  g.font = `600 11px ${FONT}`;
  g.textAlign = "center";
  g.fillText("shared", (place.expert + place.expertEnd) / 2, place.shared + 1, width - 4);
  g.textAlign = "left";
}

// The chosen token's lines: to every expert while it is scored, then to the chosen ones, as wide as their weights.
function drawChosen(g, film, place, layer, chosen, way, look, tints) {
  const phase = phaseOf(way), end = place.expert - (place.narrow ? 62 : 78);
  if (phase < 1 || phase > 4) return;
  g.save();
  const grown = phase === 1 ? eased(within(way, 1)) : 1, others = phase === 1 ? 1 : phase === 2 ? 1 - within(way, 2) : 0;
  g.beginPath();
  g.rect(0, 0, between(place.router + 16, place.expert, grown), place.height);
  g.clip();
  g.strokeStyle = look.dim;
  g.globalAlpha = 0.35 * others;
  g.lineWidth = 0.75;
  for (let e = 0; others && e < film.experts; e++) if (!layer.off.includes(e)) curve(g, place, end, rowOf(place, e));
  g.globalAlpha = phase === 1 ? 0 : phase === 2 ? within(way, 2) : phase === 4 ? 1 - within(way, 4) : 1;
  const told = [];
  g.font = `600 11px ${FONT}`;
  g.textAlign = "right";
  for (const [expert, weight] of layer.choices[chosen]) {
    const y = rowOf(place, expert);
    g.strokeStyle = tints[expert];
    g.lineWidth = Math.max(1, (8 * weight) / layer.heaviest);
    curve(g, place, end, y);
    if (told.some((other) => Math.abs(other - y) < 12)) continue; // Beside a heavier one there is no room.
    told.push(y);
    g.fillStyle = look.ink;
    g.fillText(place.row < 12 ? `${expert}: ${weight.toFixed(2)}` : weight.toFixed(2), place.expert - 14, y + 1);
  }
  g.restore();
}

// Numbers of experts in words, the first ones.
function named(experts) {
  const first = experts.slice(0, 8).join(", ");
  return experts.length === 1 ? `expert ${first}` : `experts ${first}${experts.length > 8 ? ", …" : ""}`;
}

function saidOfSeveral(film, layer, token, phase, name) {
  const choices = layer.choices[token], experts = choices.map(([expert]) => expert), shared = layer.shared;
  if (phase === "router") return `The router scores ${layer.off.length ? `the ${film.experts - layer.off.length} experts that are on` : `all ${film.experts} experts`}${
    shared ? "; past it, every token goes to the shared experts too" : ""}.`;
  if (!choices.length && phase !== "residual") return `No expert is left for ${name}${shared ? " but the shared ones" : ": only the residual goes on"}.`;
  if (phase === "choice") {
    if (layer.forced.includes(token)) return `You sent ${name} to expert ${experts[0]}${experts.length > 1 ? `; the router chooses the others: ${experts.slice(1, 8).join(", ")}` : ""}.`;
    return `It chooses ${choices.length} of them: ${named(experts)}. Experts have no buffers here: nothing is dropped.`;
  }
  if (phase === "buffer") return `${name} goes to ${choices.length > 1 ? "all of them, each" : "it,"} with a weight, the dot’s brightness: ${
    choices.slice(0, 4).map(([expert, weight]) => `expert ${expert} ${weight.toFixed(2)}`).join(", ")}${choices.length > 4 ? ", …" : "."}`;
  if (phase === "expert") return `Each expert of ${layer.title} is a network of its own; ${choices.length > 1 ? `${choices.length} work` : "one works"} on ${name}${
    shared ? ", and the shared ones, which work on every token" : ""}.`;
  const sum = choices.reduce((all, [, weight]) => all + weight, 0).toFixed(2);
  if (phase === "gate") return `What they write is weighted and summed${shared ? ", that of the shared experts with it" : ""}. The weights sum to ${sum}.`;
  return choices.length || shared ? `The sum is added to the residual, and ${name} goes on.` : `Only the residual of ${name} goes on.`;
}
