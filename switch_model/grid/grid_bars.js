// Bars at each word of the grid: above it what the class would be without it, below it its vote (see votes.py).
// Runs before routing_grid.js, in the same scope.

let chosenClass = null; // name of the class that a person chose to see the votes for, or null
let votersText = null;  // the text that it was chosen for
let voted = 0;          // the class whose votes stand below the words, as data.votes.classes counts

// ---- without this token -------------------------------------------------------------------------------------------

function mattering(token) {
  const change = data.matters?.[token];
  if (change === undefined) return "";
  const sign = change > 0 ? "+" : change < 0 ? "−" : "±";
  return `without this token: ${data.label} ${sign}${(Math.abs(change) / 10).toFixed(1)} points`;
}

// Bars end at 5, 20 or 100 points, in thousandths: a small change looks small.
function matterScale() {
  const largest = Math.max(0, ...(data.matters || []).map(Math.abs));
  return [50, 200, 1000].find((scale) => largest <= scale) || 1000;
}

function matterBar(tokens, most) {
  const box = make("span", "grid-matter"), bar = make("i");
  const strongest = tokens.reduce((a, b) => (Math.abs(data.matters[b]) > Math.abs(data.matters[a]) ? b : a));
  const change = data.matters[strongest];
  bar.className = change < 0 ? "helps" : "harms";
  bar.style.height = `${Math.round((20 * Math.abs(change)) / most)}px`;
  bar.hidden = !change;
  box.title = mattering(strongest);
  box.append(bar);
  return box;
}

function matterKeys() {
  const helps = make("span", "grid-key"), harms = make("span", "grid-key");
  helps.append(make("s", "swatch helps"), ` without this token ${data.label} is less likely`);
  harms.append(make("s", "swatch harms"), ` more likely; a full bar is ${matterScale() / 10} points`);
  return [helps, harms];
}

// ---- votes --------------------------------------------------------------------------------------------------------

// The class that a person chose stays chosen for this text, where it is shown.
function voteForChosen() {
  if (data.text !== votersText) chosenClass = null;
  votersText = data.text;
  voted = Math.max(data.votes?.classes.findIndex((one) => one.name === chosenClass) ?? 0, 0);
}

// What a token's vote for the class is, in words; nothing at another layer than the one that votes.
function voting(tokens, layer) {
  if (!data.votes || layer !== data.votes.layer) return "";
  const { name } = data.votes.classes[voted], vote = voteOf(tokens);
  if (vote === null) return `no vote: ${whyNone()}`;
  const sign = vote > 0 ? "+" : vote < 0 ? "−" : "±";
  return `vote for ${name} ${sign}${Math.abs(vote).toFixed(data.votes.digits)}`;
}

function whyNone() {
  return data.layers[data.votes.layer].capacity === 0 ? "every expert is off" : "dropped";
}

// Pieces of a word vote together; null where all of them were dropped.
function voteOf(tokens) {
  const own = tokens.map((t) => data.votes.classes[voted].votes[t]).filter((vote) => vote !== null);
  return own.length ? own.reduce((a, b) => a + b) : null;
}

function voteBar(tokens) {
  const box = make("span", "grid-vote"), vote = voteOf(tokens);
  box.title = voting(tokens, data.votes.layer);
  if (vote === null) box.classList.add("none");
  else {
    const most = Math.max(1e-9, ...data.votes.classes[voted].votes.map(Math.abs)), bar = make("i", vote < 0 ? "harms" : "helps");
    bar.style[vote < 0 ? "top" : "bottom"] = "50%";
    bar.style.height = `${Math.min((11 * Math.abs(vote)) / most, 11).toFixed(1)}px`;
    box.append(bar);
  }
  return box;
}

function voteLabels(word, base) {
  const vote = word.querySelector(".grid-vote");
  if (!vote) return [];
  const label = make("span", "grid-label", "votes"), box = vote.getBoundingClientRect();
  label.dataset.short = "V";
  label.style.top = box.top - base + "px";
  label.style.lineHeight = box.height + "px";
  return [label];
}

function voteKeys() {
  const { name, votes } = data.votes.classes[voted], pro = make("span", "grid-key"), con = make("span", "grid-key");
  pro.append(make("s", "swatch helps"), ` below a word: its vote for ${name}`);
  con.append(make("s", "swatch harms"), " against it");
  if (!votes.includes(null)) return [pro, con];
  const none = make("span", "grid-key");
  none.append(make("span", "grid-vote none"), ` ${whyNone()}: no vote`);
  return [pro, con, none];
}

// What the card of votes asks for: an expert's tokens, and of a class the votes; the strongest of them is looked at.
function showVotes({ expert, name }) {
  if (!data?.votes || typeof data.text !== "string") return;
  const { layer, classes } = data.votes;
  if (name !== null && classes[voted].name !== name) {
    chosenClass = name;
    draw();
  }
  const votes = classes[voted].votes, own = data.tokens.map((_, t) => t).filter((t) => votes[t] !== null && data.layers[layer].expert[t] === expert);
  if (!own.length) return;
  const side = Math.sign(own.reduce((sum, t) => sum + votes[t], 0)) || 1;
  lit = null;
  light(expert, layer);
  choose(own.reduce((a, b) => (side * votes[b] > side * votes[a] ? b : a)), layer);
  const cell = cells[data.selected.token][layer];
  cell.focus({ preventScroll: true });
  cell.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

document.addEventListener("show-votes", (event) => showVotes(event.detail));
