"""Drift: one text under the checkpoints of a run, from early to late. All are routed once; a slider looks through them.

Try it: list(Drift(Workspace(Path("runs"))).route("toy", "a text"))[-1]
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from switch_model import CheckpointError, Prediction, Predictor
from switch_model.analysis.statistics import saturation
from switch_model.grid.layer_names import layer_title
from switch_model.grid.plain import grid_value
from switch_model.storage.paths import local_path
from train.formatting import percent
from train.runs.run import Run, RunError
from train.weights.kept import open_run, predictions, spread, weight_bytes
from ui.cards.prediction import prediction_card
from ui.catalog.checkpoints import kept_runs
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.run_samples import validation_samples
from ui.components.events import LAST
from ui.components.outputs import SKIP
from ui.components.routing_grid import create_routing_grid
from ui.look.html import facts, heading, note, notice, quiet
from ui.look.page_words import LABELS, page_words
from ui.server.workspace import Workspace

# Runs on offer; checkpoints of one, evenly chosen; bytes of weights to read; cells of all grids, which a browser holds.
MAX_RUNS, MAX_CHECKPOINTS = 50, 50
MAX_BYTES, MAX_CELLS = 4 * 10**9, 100_000
# Unasked, when the tab opens: a run with so many checkpoints, of which so many are read, of so many bytes.
FIRST_STEPS, FIRST_CHECKPOINTS, FIRST_BYTES = 3, 8, 300 * 10**6

_HINT = (
    "How a text’s routes and classes settled while a run trained. Saturation: the share of tokens that a checkpoint "
    "sends to the same expert as the last one does, beside what chance would give."
)
_HOW_TO_KEEP = (
    "A run keeps its two newest checkpoints unless told otherwise. To look back further, ask for more in the form of "
    f"the Train tab: “{LABELS['save_total_limit']}” says how many, “{LABELS['eval_steps']}” how often one is saved."
)
_NO_RUNS = f"No run has a checkpoint to look at yet: a recorded training shows the same. {_HOW_TO_KEEP}"
# To the recorded training of How it works, once it is drawn there.
_TO_RECORD = """() => {
  let tries = 100;
  const look = () => {
    const record = document.getElementById("training-record");
    if (record?.offsetHeight) record.scrollIntoView({ block: "center" });
    else if (tries--) setTimeout(look, 100);
  };
  look();
}"""

_HIDDEN = gr.update(visible=False)
# What is shown of the checkpoint nearest to a step.
_NEAREST = """(step, shown) => {
  const near = shown.reduce((best, one) => Math.abs(one.step - step) < Math.abs(best.step - step) ? one : best);
  return [near.said, near.card, near.grid];
}"""


@dataclass(frozen=True)
class Trail:
    """A text under some checkpoints of a run: steps, ascending, and a prediction for each. Two at least."""

    steps: list[int]
    predictions: list[Prediction]


@dataclass
class Asked:
    """One visitor's: whether a run was chosen or shown already, and the texts that were filled in for them."""

    begun: bool = False
    filled: set[str] = field(default_factory=set)


class Drift:
    """The handlers of the card."""

    def __init__(self, workspace: Workspace, device: str | None = None):
        self.workspace = workspace
        self.device = device

    def refresh(self, chosen: str | None) -> tuple[Any, str, Any, Any, Any]:
        """(picker of runs, the one with most checkpoints chosen; how to get more, where no run has more than two; what
        is asked, and the button that starts, where there is a run; the one to a recorded training, where there is
        none)."""
        kept = {name: len(run.kept_checkpoints()) for name, run in kept_runs(self.workspace, MAX_RUNS)}
        if not kept:
            return gr.update(choices=[], value=None), facts(_NO_RUNS), _HIDDEN, _HIDDEN, gr.update(visible=True)
        choices = [(f"{name} ({count} checkpoint{'s' if count != 1 else ''})", name) for name, count in kept.items()]
        value = chosen if chosen in kept else max(kept, key=kept.get)
        said = "" if max(kept.values()) > 2 else facts(_HOW_TO_KEEP)
        shown = gr.update(visible=True)
        return gr.update(choices=choices, value=value), said, shown, shown, _HIDDEN

    def first_text(self, name: str | None, text: str) -> str:
        """The text that the card opens with: one that the run held out, which its model can read; "" where there is
        none, or nothing worth opening unasked: few checkpoints, large ones, or a public page, which many open."""
        if (text or "").strip() or not name or self.workspace.limits:
            return ""
        try:
            kept = self.workspace.run(name).kept_checkpoints()
        except RunError:
            return ""
        if len(kept) < FIRST_STEPS or FIRST_CHECKPOINTS * max(map(weight_bytes, kept.values())) > FIRST_BYTES:
            return ""
        return self._held_out(name)

    def fill(self, name: str | None, text: str, asked: "Asked") -> str:
        """The text, or where nobody typed one a text that the run held out."""
        asked.begun = True
        if (text or "").strip() and text not in asked.filled:
            return text
        found = self._held_out(name)
        asked.filled.add(found)
        return found

    def _held_out(self, name: str | None) -> str:
        """The first text that a run held out; "" where there is none, or it may be another visitor's."""
        try:
            run = self.workspace.run(name)
            if self.workspace.limits and run.arguments().data.source.is_own:
                return ""
            samples = validation_samples(run, name, CLASSIFIER)
        except RunError:
            return ""
        return samples[0].text if samples else ""

    def route(
        self, name: str | None, text: str, other: str = "", most: int = MAX_CHECKPOINTS
    ) -> Iterator[tuple[str, Trail | None]]:
        """(what to say, the trail once it is whole): a text, or where it is empty the other, under every checkpoint,
        of many under `most`."""
        text = text if (text or "").strip() else other
        try:
            run = self.workspace.run(name)
            trail = Trail([], [])
            for step, prediction, progress in self._followed(run, text or "", most):
                trail.steps.append(step)
                trail.predictions.append(prediction)
                yield facts(progress), None
        except (RunError, CheckpointError, ValueError) as error:
            yield notice(page_words(error)), None
            return
        if len(trail.steps) < 2:
            kept = f"{name} has one checkpoint, of step {trail.steps[0]:,}" if trail.steps else f"{name} has none"
            yield facts(f"{kept}: there is nothing to compare it with. {_HOW_TO_KEEP}"), None
            return
        yield _in_words(trail, len(run.kept_checkpoints())), trail

    def _followed(self, run: Run, text: str, most: int) -> Iterator[tuple[int, Prediction, str]]:
        """(step, prediction, how far it is), as many checkpoints as a page should read and hold."""
        kept = run.kept_checkpoints()
        if not kept:
            return
        predictor = open_run(run, self.device)
        config = predictor.model.config
        cells = len(predictor.token_ids(text)) * max(len(config.sparse_layers), 1)
        size = max(map(weight_bytes, kept.values()))
        most = min(most, MAX_CELLS // cells, MAX_BYTES // max(size, 1))
        steps = spread(list(kept), max(most, 2))
        if start := self._at_the_start(run, text, predictor):
            yield 0, start, "Routed by the initial model …"
        for step, prediction in predictions(run, text, steps, predictor):
            yield step, prediction, f"Routed by {steps.index(step) + 1} of {len(steps)} checkpoints …"

    def _at_the_start(self, run: Run, text: str, predictor: Predictor) -> Prediction | None:
        """What the model makes of the text that the run began with; None where there is none or it has other tokens,
        classes or experts, and on a public page, where it may be another visitor's."""
        source = local_path(run.arguments().train.init_from or "")
        if not source or self.workspace.limits or not Path(source).exists():
            return None
        try:
            start = Predictor.from_checkpoint(source, self.device)
        except CheckpointError:
            return None
        mine, theirs = predictor.model.config, start.model.config
        same = all(getattr(mine, name) == getattr(theirs, name) for name in ("labels", "sparse_layers", "num_experts"))
        return start(text) if same and start.token_ids(text) == predictor.token_ids(text) else None


class Followed(NamedTuple):
    """What is shown of a text under the checkpoints of a run; without one, blanks.

    Attributes:
        results: whether anything is shown.
        place: the slider over the steps.
        saturated, classes: curves of saturation, and of the classes' probabilities.
        shown: what the slider chooses from.
        step, card, grid: the first of it.
        trail: none: what is shown is all that is still needed of it.
    """

    results: Any = _HIDDEN
    place: Any = SKIP
    saturated: Any = None
    classes: Any = None
    shown: Any = ()
    step: str = ""
    card: str = ""
    grid: Any = None
    trail: Any = None


def show(trail: Trail | None) -> Followed:
    """The curves, and a card and a grid for each checkpoint."""
    if trail is None:
        return Followed()
    from switch_model.plots.drift import saturation_curves, score_curves

    records = [prediction.routing for prediction in trail.predictions]
    first, last = trail.steps[0], trail.steps[-1]
    between = math.gcd(*(step - first for step in trail.steps))
    shown = plots(trail)
    return Followed(
        results=gr.update(visible=True),
        place=gr.update(minimum=first, maximum=last, step=between, value=first),
        saturated=saturation_curves(trail.steps, records) if records[-1] else None,
        classes=score_curves(trail.steps, [prediction.scores for prediction in trail.predictions]),
        shown=shown,
        step=shown[0]["said"],
        card=shown[0]["card"],
        grid=shown[0]["grid"],
    )


def plots(trail: Trail) -> list[dict[str, Any]]:
    """For each checkpoint its step, a sentence (said), the prediction (card), and the grid, in which those cells are
    framed that differ from the last checkpoint's."""
    last, end = trail.predictions[-1], trail.steps[-1]
    found = []
    for step, here in zip(trail.steps, trail.predictions, strict=True):
        shares = zip(here.routing, saturation(here.routing, last.routing), strict=True)
        alike = ", ".join(f"{percent(share)} in {layer_title(record.name)}" for record, (share, _) in shares)
        said = f"Step {step:,}." if step else "Step 0: the model that the run began with."
        said = f"Step {step:,}, the last one: what the others are compared with." if here is last else said
        said += f" Routed as at step {end:,}: {alike}." if alike and here is not last else ""
        grid = grid_value(here.trace, (0, 0), last.trace) | {"still": True, "otherwise": "at the last step"}
        found.append({"step": step, "said": facts(said), "card": prediction_card(here, None, None), "grid": grid})
    return found


def _in_words(trail: Trail, kept: int) -> str:
    first, last = trail.predictions[0], trail.predictions[-1]
    number = len(trail.steps) - (trail.steps[0] == 0)
    count = f"{number} checkpoint{'s' * (number != 1)}"
    count += f", evenly chosen of {kept}" if kept > number else ""
    count += " and the initial model" if trail.steps[0] == 0 else ""
    said = f"{count}, step {trail.steps[0]:,} to {trail.steps[-1]:,}. "
    before = first.scores.get(last.label, 0.0)
    said += f"{last.label} went from {percent(before)} to {percent(last.scores[last.label])}. "
    said += "The text was longer than the model reads: its start was routed. " if last.truncated else ""
    said += "" if last.routing else "This model has no sparse layer: there are no routes to follow. "
    if len(last.tokens) < 20 and last.routing:
        said += f"With {len(last.tokens)} tokens, a share moves by much with each of them."
    return facts(said)


# -- layout -----------------------------------------------------------------------------------------------------------


def create_drift(drift: Drift, other: gr.Textbox, tab: gr.Tab, pages: gr.Tabs) -> None:
    """Lay the card out and connect it.

    Args:
        pages: the page's tabs, to move to a recorded training where there is no run.
        other: holds the text that is routed where none is typed here.
        tab: the tab it is in; the runs are listed anew when it is chosen. The first time one of them is shown, where
            that is quick.
    """
    trail, asked_for = gr.State(None), gr.State()
    asked_for.value = lambda: Asked()  # Not the class: Gradio takes dataclasses apart.
    plain = {"apply_default_css": False}
    with gr.Column(elem_classes="card", elem_id="drift"):
        gr.HTML(heading("Drift") + quiet(_HINT), **plain)
        with gr.Row() as asked:
            run = gr.Dropdown([], label="Run", filterable=False, min_width=280, elem_id="drift-run")
            text = gr.Textbox(
                label="Text",
                lines=3,
                max_lines=8,
                placeholder="a text that the run held out",
                min_width=280,
                elem_id="drift-text",
            )
        kept = gr.HTML("", elem_id="drift-note", **plain)
        with gr.Row(elem_classes="buttons"):
            go = gr.Button("Run at every checkpoint", variant="primary", min_width=0, scale=0, elem_id="drift-go")
            recorded = gr.Button(
                "Watch a recorded training", visible=False, min_width=0, scale=0, elem_id="drift-record"
            )
        said = gr.HTML("", elem_id="drift-said", **plain)
    followed = _create_results()._replace(trail=trail)
    listing = tab.select(drift.refresh, [run], [run, kept, asked, go, recorded], **LAST)
    leaving = recorded.click(lambda: gr.Tabs(selected="how"), None, [pages], **LAST)
    leaving.then(None, None, None, js=_TO_RECORD, **LAST)
    first = [text, said, *followed]
    listing.then(_first_look(drift), [run, text, asked_for], first, concurrency_limit=1, **LAST)
    filling = {"fn": drift.fill, "inputs": [run, text, asked_for], "outputs": [text], **LAST}
    run.input(**filling)
    # One after the other: each reads many files, and holds a model of its own.
    routed = go.click(**filling).then(drift.route, [run, text, other], [said, trail], concurrency_limit=1, **LAST)
    routed.then(show, [trail], [*followed], **LAST)
    # In the browser: nothing to wait for, and no move is lost.
    followed.place.input(
        None, [followed.place, followed.shown], [followed.step, followed.card, followed.grid], js=_NEAREST, **LAST
    )


def _create_results() -> Followed:
    """Where curves, and what the slider chooses, are shown."""
    plain = {"apply_default_css": False}
    with gr.Column(visible=False, elem_id="drift-results") as results:
        with gr.Row(elem_classes="pair", equal_height=True):
            with gr.Column(elem_classes="card run-plots", min_width=300):
                gr.HTML(heading("Saturation"), **plain)
                saturated = gr.Plot(show_label=False, container=False, buttons=[], elem_id="drift-saturation")
                gr.HTML(note("Thin and dotted: what chance would give, by the experts’ loads."), **plain)
            with gr.Column(elem_classes="card run-plots", min_width=300):
                gr.HTML(heading("Class probabilities"), **plain)
                classes = gr.Plot(show_label=False, container=False, buttons=[], elem_id="drift-classes")
                gr.HTML(note("What the model said of the text at each checkpoint."), **plain)
        with gr.Column(elem_classes="card prediction"):
            gr.HTML(heading("One checkpoint"), **plain)
            # Holds what is shown, and draws nothing.
            shown = gr.HTML([], html_template="<i></i>", visible="hidden", elem_id="drift-shown", **plain)
            place = gr.Slider(0, 1, value=0, label="Step", buttons=[], elem_id="drift-place")
            step = gr.HTML("", elem_id="drift-step", **plain)
            card = gr.HTML("", elem_id="drift-card", **plain)
            grid = create_routing_grid(None, elem_id="drift-grid")
    return Followed(results, place, saturated, classes, shown, step, card, grid)


def _first_look(drift: Drift) -> Callable[..., Iterator[Any]]:
    def look(name: str | None, text: str, asked: Asked) -> Iterator[Any]:
        """(text, what to say, what is shown): what the card opens with, once, and not over what was asked meanwhile."""
        unchanged = Followed(*[gr.skip()] * len(Followed._fields))
        found = "" if asked.begun else drift.first_text(name, text)
        if found:
            asked.filled.add(found)
            for said, trail in drift.route(name, found, most=FIRST_CHECKPOINTS):
                if asked.begun:
                    break
                yield found, said, *(show(trail) if trail else unchanged)
            else:
                asked.begun = True
        yield gr.skip(), gr.skip(), *unchanged

    return look
