"""Watch a run: how far it is, its curves, the health of its routing, a text being routed anew, and its log.

The run is another process: this page only reads its folder, so that it can be closed, reloaded, or opened by others.
Try it: LiveRun(Workspace(Path("runs"))).tick("toy", "")
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
from markupsafe import Markup

from switch_model.grid.layer_names import layer_titles
from train.arguments.arguments import Arguments
from train.runs.history import best_of
from train.runs.process import go_on, start
from train.runs.run import Run, RunError, State
from train.tasks.registry import TASKS, Task
from ui.components.outputs import outputs
from ui.look.html import heading, notice, part, quiet
from ui.look.page_words import page_words
from ui.server.workspace import Workspace, visitor_of
from ui.training.lesson_words import Side, last_cost, table_of_two, verdict, verdict_of_two
from ui.training.partners import (
    LESSON,
    ON_EDGE,
    PARTNERS,
    TWIN,
    TWO,
    dense,
    first_of,
    may_have,
    on_edge,
    stays_even,
    two_experts,
    unbalanced,
)
from ui.training.run_summary import PIECES, STARTING, Records, dead_experts, probe_words, progress_html, state_badge
from ui.training.written_samples import NONE_YET, samples_html

# Between two drawings of a run that goes on: at first, and after some minutes.
DRAW_SECONDS = (4.0, 32.0)
# With this the style sheet shows nothing else of the tab.
NOTHING_YET = Markup('<p class="facts no-run">No run yet. Start one under “New run”.</p>')
NO_PROBE = quiet("No probe text. Set one under “New run” (“Probe text”) to see its routing settle.")
# Which of the two lies higher depends on the run: dropout raises the training loss, memorised texts lower it.
_LOSSES = (
    "Should the validation loss rise while the training loss falls, the model begins to overfit: it memorises its "
    "training texts."
)
LOG_LINES = 40
# What is said of a partner beside its run, the headings over their loads, and in the table of both.
_SIDES = {
    LESSON: (verdict, "Load without the balance loss", "Load with it"),
    TWO: (verdict_of_two, "Load with two experts for each token", "Load with one"),
}
_COLUMNS = {LESSON: ("without balance loss", "with it"), TWO: ("two experts", "one")}
_HIDDEN = gr.update(visible=False)


class Plots(NamedTuple):
    """What is drawn from a run's metrics, one field for each output of `LiveRun.draw`; without a run, blanks.

    Fields ending in `words`, `note` and figures are HTML; load … with_it are plots; the rest updates of what holds
    them: the card of written texts, the row of load and health, the card of load (not where it stands beside a
    partner's), the layer picker, the card of the run's partners, the row of the lesson.
    """

    words: str = ""
    curves: Any = None
    note: str = ""
    written: Any = _HIDDEN
    samples: str = NONE_YET
    routing: Any = _HIDDEN
    load_card: Any = _HIDDEN
    load: Any = None
    health: Any = None
    layer: Any = _HIDDEN
    probe_words: str = NO_PROBE
    probe: Any = None
    partners: Any = _HIDDEN
    by_step: Any = None
    by_time: Any = None
    by_tokens: Any = None
    lesson: Any = _HIDDEN
    lesson_words: str = ""
    figures: str = ""
    without_words: str = ""
    without: Any = None
    with_words: str = ""
    with_it: Any = None


# What may have changed since a run was looked at: head, progress, log, six buttons, what was seen, and what changes as
# the metrics do, though not at once while they grow: plots are drawn anew then.
Tick = outputs("Tick", "head", "progress", "log", "stop", "resume", "explore", "twin", "lesson", "two", "seen", "drawn")


class LiveRun:
    """The handlers of the tab."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace

    # -- looking ------------------------------------------------------------------------------------------------------

    def attach(self) -> Any:
        """For a page just opened: the picker with the run at work, or the newest."""
        return gr.update(choices=self.workspace.names(), value=self.workspace.to_attach_to())

    def list_runs(self, name: str | None) -> Any:
        """The picker with the runs there are by now."""
        names = self.workspace.names()
        return gr.update(choices=names, value=name if name in names else self.workspace.to_attach_to())

    def tick(self, name: str | None, seen: str, request: gr.Request = None) -> Tick:
        """What may have changed since `seen`; nothing if it has not."""
        try:
            run = self.workspace.run(name)
            state, progress, _ = run.state(), run.progress(), run.arguments()
        except RunError as error:
            if seen == str(error):
                return Tick()
            off = dict.fromkeys(("stop", "resume", "explore", "twin", "lesson", "two"), gr.update(interactive=False))
            head = NOTHING_YET if not self.workspace.names() else quiet(page_words(error))
            return Tick(head=head, progress="", log="", **off, seen=str(error), drawn=str(error))
        shown = STARTING if state.name == "queued" and not self.workspace.waits(run) else state.name
        now = f"{name} {shown} {progress.get('phase')} {progress.get('step')} {_stamp(run, 'log_path')}"
        if now == seen:
            return Tick()
        mine, idle = self.workspace.may_change(name, visitor_of(request)), not state.active
        family = (self.workspace.root / f"{first_of(name)}{suffix}" for suffix in ("", *PARTNERS))
        stamps = [_stamp(Run(folder), "metrics_path") for folder in family]
        pace = int(1e9 * _draw_seconds(progress.get("seconds", 0.0))) if state.active else 1
        return Tick(
            head=head_html(run, state, shown),
            progress=progress_html(progress, shown, state.began),
            log="\n".join(run.log_tail().splitlines()[-LOG_LINES:]),
            stop=gr.update(interactive=mine and state.name in ("running", "queued")),
            resume=gr.update(interactive=mine and idle and state.name != "finished" and run.can_resume()),
            explore=gr.update(interactive=run.best.is_dir()),
            twin=gr.update(interactive=may_have(run, TWIN)),
            lesson=gr.update(interactive=may_have(run, LESSON)),
            two=gr.update(interactive=may_have(run, TWO)),
            seen=now,
            drawn=f"{name} {[stamp // pace for stamp in stamps]}",
        )

    def draw(self, name: str | None, layer: str | None) -> "Plots":
        """The plots of a run's metrics; blanks when there is no such run."""
        from ui.training import learning_curves, routing_curves

        try:
            run = self.workspace.run(name)
            arguments = run.arguments()
        except RunError:
            return Plots()
        task, records = TASKS[arguments.train.task], run.metrics()
        layers = _layers(records)
        layer = layer if layer in layers else next(iter(layers), None)
        watched = [record for record in records if record["kind"] == "probe"]
        partners = self._partners(name)
        plots = Plots(
            words=quiet(dead_experts(records)),
            curves=learning_curves.learning_curves(records, task.curves),
            note=_note(records, task) if records else "",
            written=gr.update(visible=task.writes_samples),
            samples=samples_html(records),
            probe_words=quiet(probe_words(records, layer)) if watched else _no_probe(run),
        )
        if layers:
            choices = [(title, one) for one, title in layer_titles(layers).items()]
            plots = plots._replace(
                routing=gr.update(visible=True),
                load_card=gr.update(visible=True),
                load=routing_curves.load_heat_map(records),
                health=learning_curves.routing_health(records, arguments.model.drops_in_training),
                layer=gr.update(choices=choices, value=layer, visible=bool(watched)),
            )
        if watched and watched[-1].get("layers"):
            plots = plots._replace(probe=routing_curves.probe_plot(records, layer))
        if len(partners) > 1:
            by_step, by_time, by_tokens = learning_curves.twin_curves(partners)
            plots = plots._replace(
                partners=gr.update(visible=True), by_step=by_step, by_time=by_time, by_tokens=by_tokens
            )
        return self._with_lesson(plots, name, partners)

    def _with_lesson(self, plots: Plots, name: str, partners: dict[str, Records]) -> Plots:
        """The loads of the run and of one of its partners beside each other: the one in view, or the first."""
        from ui.training.routing_curves import load_heat_maps

        side, pair = _pair(name, partners)
        if not pair:
            return plots
        other, own = (partners[one] for one in pair)
        of_other, of_own = load_heat_maps(other, own)
        said, *titles = _SIDES[side]
        other_words, own_words = (
            heading(title, 3) + quiet(f"{dead_experts(records)} {last_cost(records)}")
            for title, records in zip(titles, (other, own), strict=True)
        )
        return plots._replace(
            load_card=_HIDDEN,
            load=None,
            lesson=gr.update(visible=True),
            lesson_words=quiet(said(other, own)),
            figures=self.figures_of_two(name, measure=False),
            without_words=other_words,
            without=of_other,
            with_words=own_words,
            with_it=of_own,
        )

    def figures_of_two(self, name: str | None, measure: bool = True) -> str:
        """The table of the two runs whose loads are drawn; "" where there is no such pair.

        Args:
            measure: what experts tell, of runs that have finished, if it was not measured before: takes seconds.
        """
        from train.evaluation.class_told import FEW_TEXTS, kept_class_told

        try:
            partners = self._partners(self.workspace.run(name).name)
            side, pair = _pair(name, partners)
            if not pair:
                return ""
            runs = [self.workspace.run(one) for one in pair]
            arguments = runs[1].arguments()
            told = [kept_class_told(run, measure) if run.state().name == "finished" else None for run in runs]
        except RunError:
            return ""
        sides = [
            Side(title, partners[one], share) for title, one, share in zip(_COLUMNS[side], pair, told, strict=True)
        ]
        by_text = arguments.model.capacity_group != "batch"
        return table_of_two(sides, TASKS[arguments.train.task], by_text, FEW_TEXTS)

    def draw_probe(self, name: str | None, layer: str | None) -> tuple[Any, ...]:
        """Another layer of the text being watched: (words, plot)."""
        from ui.training import routing_curves

        try:
            records = self.workspace.run(name).metrics()
        except RunError:
            return "", None
        return quiet(probe_words(records, layer)), routing_curves.probe_plot(records, layer)

    def _partners(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """The run with its partners, whichever there are, by name."""
        family, known = [first_of(name) + suffix for suffix in ("", *PARTNERS)], self.workspace.names()
        return {one: self.workspace.run(one).metrics() for one in family if one in known}

    # -- changing -----------------------------------------------------------------------------------------------------

    def stop(self, name: str | None, request: gr.Request = None) -> str:
        """Ask the run to end after its step. Returns what is wrong, "" when nothing is."""
        try:
            self._changeable(name, request).request_stop()
        except RunError as error:
            return notice(page_words(error))
        return ""

    def resume(self, name: str | None, request: gr.Request = None) -> str:
        """Let a stopped run go on, or begin again, in a process of its own. Returns what is wrong."""
        try:
            go_on(self._changeable(name, request), self.workspace.max_runs)
        except RunError as error:
            return notice(page_words(error))
        return ""

    def start_twin(self, name: str | None, request: gr.Request = None) -> tuple[str, Any]:
        """The same run with dense MLPs: the same work per token, data, seed and steps. (What is wrong, picker)."""
        return self._start_partner(name, TWIN, request, dense)

    def start_lesson(self, name: str | None, request: gr.Request = None) -> tuple[str, Any]:
        """The same run with nothing that keeps loads even, to see experts collapse; of the toy, both at a size at which
        they do. (What is wrong, picker)."""
        try:
            toy = stays_even(self.workspace.run(name).arguments())
        except (RunError, ValueError) as error:
            return notice(page_words(error)), gr.skip()
        if toy:
            wrong, picker = self._start_partner(name, ON_EDGE, request, on_edge)
            if wrong:
                return wrong, picker
            name = f"{name}{ON_EDGE}"
        return self._start_partner(name, LESSON, request, unbalanced)

    def start_two(self, name: str | None, request: gr.Request = None) -> tuple[str, Any]:
        """The same run with two experts for each token, at the same work. (What is wrong, picker)."""
        return self._start_partner(name, TWO, request, two_experts)

    def _start_partner(
        self,
        name: str | None,
        suffix: str,
        request: gr.Request | None,
        change: Callable[[Arguments], Arguments],
    ) -> tuple[str, Any]:
        visitor = visitor_of(request)
        try:
            arguments = self.workspace.run(name).arguments()
            partner = f"{name}{suffix}"
            if partner in self.workspace.names():
                return "", gr.update(value=partner)
            self.workspace.check_may_start(visitor)
            folder = self.workspace.root / partner
            run = start(change(arguments), folder.parent, folder.name, self.workspace.max_runs)
        except (RunError, ValueError) as error:
            return notice(page_words(error)), gr.skip()
        partner = run.folder.relative_to(self.workspace.root).as_posix()
        self.workspace.started(partner, visitor)
        return "", gr.update(choices=self.workspace.names(), value=partner)

    def _changeable(self, name: str | None, request: gr.Request | None) -> Run:
        if not self.workspace.may_change(name or "", visitor_of(request)):
            raise RunError("On a public page only who started a run may change it.")
        return self.workspace.run(name)


def head_html(run: Run, state: State, shown: str) -> Markup:
    """The run's state, as it is shown, what it trains on, and why it ended."""
    arguments = run.arguments()
    said = quiet(page_words(state.message, arguments.data.dataset)) if state.message else ""
    data = arguments.data.dataset.rsplit("/", 1)[-1]
    model = arguments.model
    width = "dense" if model.is_dense else f"{model.num_experts * model.expert_granularity} experts"
    if model.router in ("topk", "sigmoid_bias") and not model.is_dense:
        width += f", {model.top_k} for each token"
    size = f"{model.num_layers} layers · {width}"
    about = f"{data} · {TASKS[arguments.train.task].title} · {size}"
    return part(PIECES, "run_head", run.name, about, state_badge(shown)) + said


def _note(records: Records, task: Task) -> Markup:
    """The best metric so far, and how to read the losses."""
    best = best_of(records, task)
    return part(PIECES, "best_and_losses", None if best is None else task.describe(best), _LOSSES)


def _no_probe(run: Run) -> Markup:
    """Why there is no plot of a probe text."""
    arguments = run.arguments()
    if arguments.train.probe is None:
        return NO_PROBE
    dense = arguments.model.is_dense
    return quiet(f"Its {'prediction is told' if dense else 'routing is drawn'} at the first evaluation.")


def _stamp(run: Run, which: str) -> int:
    try:
        return getattr(run, which).stat().st_mtime_ns
    except OSError:
        return 0


def _draw_seconds(seconds: float) -> float:
    """How long plots of a run that trained so long may stand: drawing costs a browser more than all the rest, often
    on the training's own cores, and curves change ever more slowly. In steps, so that it rarely changes itself."""
    least, most = DRAW_SECONDS
    return min(least * 2 ** int(math.log2(max(seconds, 30.0) / 30.0)), most)


def _pair(name: str, partners: dict[str, Records]) -> tuple[str, list[str]]:
    """(suffix, names) of the partner in view, or the first that has loads, and of the first run; no names without."""
    sides = [suffix for suffix in (LESSON, TWO) if _layers(partners.get(first_of(name) + suffix, []))]
    if not sides:
        return "", []
    side = next((suffix for suffix in sides if name.endswith(suffix)), sides[0])
    return side, [first_of(name) + side, next(iter(partners))]


def _layers(records: list[dict[str, Any]]) -> list[str]:
    return [layer["layer"] for layer in next((r["routing"] for r in reversed(records) if r.get("routing")), [])]
