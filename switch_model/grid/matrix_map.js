// The map below the matrix: a row per layer, a column per expert, as strong as the expert's share of the text's weight.
// Runs before routing_matrix.js, in the same scope.

const inPercent = (part) => (part > 0 && part < 0.01 ? "< 1 %" : `${Math.round(100 * part)} %`);

// `shares(layer)`: its experts with their shares; `isLit(layer, expert)`; `pick(layer, expert)` is told of a click.
// Returns { node, draw }.
function mapOf(value, shares, isLit, pick) {
  const node = make("details", "matrix-map"), canvas = make("canvas");
  const tall = 11, layers = value.layers.length;
  let across = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Share of the weight of each expert, a row per layer; the list above has the numbers of the chosen layer");
  node.append(make("summary", "", "Map: all layers and experts"), canvas);
  function draw() {
    if (!node.open || !canvas.parentNode.clientWidth) return;
    const dots = devicePixelRatio || 1, style = getComputedStyle(node), paint = canvas.getContext("2d");
    across = Math.min(26, Math.max(3, Math.floor((node.clientWidth - 4) / value.experts)));
    canvas.style.width = `${across * value.experts}px`;
    canvas.width = across * value.experts * dots;
    canvas.height = tall * layers * dots;
    canvas.style.height = `${tall * layers}px`;
    paint.scale(dots, dots);
    for (let layer = 0; layer < layers; layer++) {
      for (const one of shares(layer)) {
        const on = isLit(layer, one.expert);
        // A full colour is four times an even share.
        paint.globalAlpha = on ? 1 : 0.05 + 0.95 * Math.min(1, (one.share * value.experts) / 4);
        paint.fillStyle = style.getPropertyValue(on ? "--sx-lit" : "--sx-accent");
        paint.fillRect(one.expert * across, layer * tall, across - 1, tall - 1);
      }
    }
  }
  function at(event) {
    const box = canvas.getBoundingClientRect();
    const layer = Math.min(layers - 1, Math.floor((event.clientY - box.top) / tall));
    return { layer, ...shares(layer).find(({ expert }) => expert === Math.min(value.experts - 1, Math.floor((event.clientX - box.left) / across))) };
  }
  canvas.addEventListener("pointermove", (event) => {
    const one = at(event);
    canvas.title = `${value.layers[one.layer].title}, expert ${one.expert}: ${inPercent(one.share)} of the weight, ${one.tokens} tokens`;
  });
  canvas.addEventListener("click", (event) => {
    const one = at(event);
    pick(one.layer, one.expert);
  });
  node.addEventListener("toggle", draw);
  return { node, draw };
}
