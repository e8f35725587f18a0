// Draws a recorded training from props.value (see training_record.py): two tracks at one checkpoint, in one layer.
// gr.HTML gives: element, props, trigger, watch. The template never changes, so Gradio leaves these elements alone.

const root = element.querySelector(".born"), time = element.querySelector(".film-time"), step = element.querySelector(".born-step");
const layers = element.querySelector(".born-layers"), tracks = element.querySelector(".born-tracks"), play = element.querySelector("[data-do]");
const FRAME = 250; // Milliseconds that a checkpoint is shown.
const USED = 0.1; // Of an even share: an expert with less is hardly used.
const NAMES = { balanced: "With the balance loss", unbalanced: "Without it" };
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
// As train.formatting.percent.
const percent = (share) => {
  if (share === 0 || share === 1) return `${100 * share}\u00a0%`;
  if (share < 0.0005 || share >= 0.9995) return share < 0.5 ? "<\u00a00.1\u00a0%" : ">\u00a099.9\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
};
let data = null, layer = 0, timer = null, parts = [];

function show() {
  data = props.value;
  stop();
  root.hidden = !data;
  if (!data) return;
  layer = data.model.layers.length - 1;
  time.max = data.steps.length - 1;
  layers.replaceChildren(...data.model.layers.map((name, l) => {
    const choice = make("button", "layer-choice", `layer ${l}`);
    choice.type = "button";
    choice.dataset.layer = l;
    return choice;
  }));
  tracks.replaceChildren();
  parts = data.tracks.map(build);
  draw();
}

// A track's elements, made once: what changes from checkpoint to checkpoint is their colours and numbers.
function build(track) {
  const card = make("div", "born-track"), said = make("dl", "born-facts"), bars = make("div", "born-bars");
  const loads = Array.from({ length: data.model.experts }, (_, e) => {
    const bar = make("span", `born-bar x${e % 256}`), fill = make("u"), name = make("b", "", e);
    bar.append(fill, name);
    bars.append(bar);
    return { bar, fill };
  });
  bars.setAttribute("role", "img");
  const sentences = data.sentences.map((sentence) => {
    const line = make("p", "born-text");
    line.append(make("span", "born-class", sentence.class));
    return [line, sentence.tokens.map((token) => {
      const cell = make("span", "cell born-token", token.trim() || "␣");
      line.append(cell);
      return cell;
    })];
  });
  card.append(make("h3", "", NAMES[track.name] || track.name), bars, said, ...sentences.map(([line]) => line));
  tracks.append(card);
  return { track, said, bars, loads, cells: sentences.map(([, cells]) => cells) };
}

function draw() {
  const at = Number(time.value), count = data.steps[at];
  step.textContent = `step ${count.toLocaleString("en")}${at ? "" : ": random weights"}`;
  time.setAttribute("aria-valuetext", step.textContent);
  layers.querySelectorAll("button").forEach((one, l) => one.setAttribute("aria-pressed", String(l === layer)));
  for (const { track, said, bars, loads, cells } of parts) {
    const load = track.load[at][layer], busiest = load.indexOf(Math.max(...load));
    loads.forEach(({ bar, fill }, e) => {
      fill.style.height = `${100 * load[e]}%`;
      bar.title = `expert ${e}: ${percent(load[e])} of the tokens`;
    });
    bars.setAttribute("aria-label", `Load: ${load.map((share, e) => `expert ${e} ${percent(share)}`).join(", ")}`);
    // What uneven loads cost, as ui/training/lesson_words.py has it.
    const even = 1 / load.length, over = load.reduce((sum, share) => sum + Math.max(share - even, 0), 0);
    const rows = [
      ["experts in use", `${load.filter((share) => share >= USED * even).length} of ${load.length}`],
      ["busiest", `expert ${busiest}, ${percent(load[busiest])} of the tokens`],
      ["dropped, had each room for an even share", percent(over)],
      ["loss · accuracy", `${track.loss[at].toFixed(3)} · ${percent(track.accuracy[at])}`],
      ["mutual information of a token’s expert with its text’s class (normalised)", percent(track.told[at][layer])],
    ];
    said.replaceChildren(...rows.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
    cells.forEach((line, s) => line.forEach((cell, t) => {
      const expert = Number(track.experts[at][layer][s][t]), gate = track.gates[at][layer][s][t];
      cell.className = `cell born-token x${expert % 256}`;
      cell.style.setProperty("--gate", `${30 + 0.7 * gate}%`);
      cell.title = `expert ${expert}, gate ${(gate / 100).toFixed(2)}`;
    }));
  }
}

function stop() {
  clearInterval(timer);
  timer = null;
  play.textContent = "Play";
}

play.addEventListener("click", () => {
  if (timer !== null) return stop();
  if (Number(time.value) >= data.steps.length - 1) time.value = 0;
  play.textContent = "Pause";
  timer = setInterval(() => {
    time.value = Number(time.value) + 1;
    draw();
    if (Number(time.value) >= data.steps.length - 1) stop();
  }, FRAME);
});
time.addEventListener("input", () => {
  stop();
  draw();
});
layers.addEventListener("click", (event) => {
  const choice = event.target.closest("[data-layer]");
  if (!choice) return;
  layer = Number(choice.dataset.layer);
  draw();
});
watch("value", show);
show();
