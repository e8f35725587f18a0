// Plays the routing film from props.value (see routing_film.py), and saves it as a video.
// gr.HTML gives: element, props, trigger, watch. The template never changes, so Gradio leaves these elements alone.

const film = element.querySelector(".film"), canvas = element.querySelector("canvas"), empty = element.querySelector(".grid-empty");
const time = element.querySelector(".film-time"), speed = element.querySelector(".film-speed"), words = element.querySelector(".film-said");
const act = (name) => element.querySelector(`[data-do="${name}"]`);
const SECONDS = 9;      // A layer's, at normal speed.
const STEP_SECONDS = 2; // A step's, for those who asked for less motion.
const kindOf = (film) => (film.choices ? severalExperts : oneExpert);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let data = null;    // the value being drawn
let now = 0;        // in layers
let chosen = 0;     // the token that is followed
let areas = [];     // where tokens stand in the strip
let playing = null; // handle of the next frame, or null
let last = 0;       // when the last frame was drawn
let recorder = null;
let look = null, tints = [], told = "";

function show() {
  data = null;
  stop();
  if (props.value) data = kindOf(props.value).prepared(props.value);
  film.hidden = !data;
  empty.hidden = Boolean(data);
  if (!data) return;
  chosen = data.selected.token;
  told = `${chosen} ${data.selected.layer}`; // The formulas below come with the value.
  tints = [];
  drawnAnew.observe(document.querySelector("#how-steps"), { childList: true, subtree: true });
  time.max = data.layers.length;
  at(momentOf(chosen, data.tokens.length, data.selected.layer, 1));
  tell();
  if (window.filmWanted) playWanted();
}

// Who came by the button that plays the film (see WANT_FILM in routing_film.py) sees it from its beginning.
function playWanted() {
  window.filmWanted = false;
  stop();
  at(0);
  play();
}

function draw() {
  if (!data || !canvas.clientWidth) return; // In a tab that is not open.
  const place = placesFor(canvas.clientWidth, data), density = window.devicePixelRatio || 1;
  const size = [Math.round(place.width * density), Math.round(place.height * density)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) {
    // A canvas forgets everything when its size is set.
    [canvas.width, canvas.height] = size;
    canvas.style.height = place.height + "px";
  }
  const g = canvas.getContext("2d");
  g.setTransform(density, 0, 0, density, 0, 0);
  look = colours(element);
  if (!tints.length) tints = expertColours(element, data.shades);
  areas = drawMoment(g, data, place, now, chosen, look, tints);
}

// A moment, and what is said of it where nothing moves.
function at(moment) {
  now = clamp(moment, 0, data.layers.length);
  time.value = now;
  draw();
  followSteps();
  time.setAttribute("aria-valuetext", describe());
}

const layerNow = () => Math.min(Math.floor(now), data.layers.length - 1);
const phaseNow = () => phaseOf(wayOf(chosen, data.tokens.length, now - layerNow()));
const describe = () => `${data.layers[layerNow()].title}: ` +
  (now >= data.layers.length && data.answer ? data.answer : said(data, layerNow(), chosen, phaseNow()));

// The formulas below follow the film when it stands still.
function tell() {
  if (!data) return;
  words.textContent = describe();
  canvas.setAttribute("aria-label", `Film of the routing; the arrow keys follow another token. ${describe()}`);
  const key = `${chosen} ${layerNow()}`;
  if (key !== told) trigger("look", { token: chosen, layer: layerNow() });
  told = key;
  followSteps();
}

// The formulas of the phase that the film shows are marked.
function followSteps() {
  if (!data) return;
  const steps = kindOf(data).formulas[PHASES[phaseNow()]] || [];
  document.querySelectorAll("#how-steps .steps:first-of-type > li").forEach((one, i) => one.classList.toggle("now", steps.includes(i)));
}

// Formulas that come for another token or layer have no mark yet.
const drawnAnew = new MutationObserver(followSteps);

function play() {
  if (now >= data.layers.length) at(0);
  act("play").textContent = "Pause";
  words.textContent = "";
  last = performance.now();
  playing = requestAnimationFrame(frameAt);
}

function frameAt(moment) {
  const rate = Number(speed.value), passed = (moment - last) / 1000;
  if (calm.matches && !recorder) {
    if (passed * rate >= STEP_SECONDS) {
      last = moment;
      step(1);
    }
  } else {
    last = moment;
    at(now + (Math.min(passed, 0.1) * rate) / SECONDS);
  }
  if (now >= data.layers.length) return stop();
  playing = requestAnimationFrame(frameAt);
}

function stop() {
  if (playing !== null) cancelAnimationFrame(playing);
  playing = null;
  act("play").textContent = "Play";
  if (recorder?.state === "recording") setTimeout(() => recorder?.stop(), 1500); // The last picture stays a moment.
  if (data) tell();
}

// Another token, at the router of this layer.
function follow(token) {
  chosen = token;
  at(momentOf(chosen, data.tokens.length, layerNow(), 1));
  if (playing === null) tell();
}

// To the next or the last phase of the chosen token.
function step(by) {
  const moments = data.layers.flatMap((_, l) => PHASES.map((_, p) => momentOf(chosen, data.tokens.length, l, p)));
  moments.push(data.layers.length);
  const next = by > 0 ? moments.find((one) => one > now + 1e-6) : moments.findLast((one) => one < now - 1e-6);
  at(next ?? (by > 0 ? data.layers.length : 0));
}

// ---- a video ---------------------------------------------------------------------------------------------------------

const FORMATS = ["video/webm;codecs=vp9", "video/webm", "video/mp4"];
const format = () => window.MediaRecorder && canvas.captureStream && FORMATS.find((one) => MediaRecorder.isTypeSupported(one));

function record() {
  const type = format(), parts = [];
  stop();
  at(0);
  const made = (recorder = new MediaRecorder(canvas.captureStream(30), { mimeType: type, videoBitsPerSecond: 4e6 }));
  made.addEventListener("dataavailable", (event) => parts.push(event.data));
  made.addEventListener("stop", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(parts, { type }));
    link.download = `routing.${type.includes("mp4") ? "mp4" : "webm"}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    recorder = null;
    act("save").textContent = "Save as video";
  });
  made.start(500);
  act("save").textContent = "Stop and save";
  play();
}

// ---- events ----------------------------------------------------------------------------------------------------------

element.addEventListener("click", (event) => {
  const does = event.target.closest?.("[data-do]")?.dataset.do;
  if (does === "play") playing === null ? play() : stop();
  else if (does === "back" || does === "on") {
    stop();
    step(does === "on" ? 1 : -1);
    tell();
  } else if (does === "save") recorder ? stop() : record();
  else if (event.target === canvas) {
    const own = canvas.getBoundingClientRect(), x = event.clientX - own.left, y = event.clientY - own.top;
    const hit = areas.find((one) => x >= one.x && x <= one.x + one.width && y >= one.y && y <= one.y + one.height);
    if (!hit) return playing === null ? play() : stop();
    follow(hit.token);
  }
});
// Another token by the keys, as in the grid.
canvas.addEventListener("keydown", (event) => {
  const last = data.tokens.length - 1;
  const wanted = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: last }[event.key];
  if (wanted === undefined) return;
  event.preventDefault();
  follow(clamp(wanted, 0, last));
});
time.addEventListener("input", () => {
  const moment = Number(time.value);
  if (playing !== null) stop();
  at(moment);
});
time.addEventListener("change", tell);
if (!format()) act("save").hidden = true;
new ResizeObserver(draw).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
watch("value", show);
show();
