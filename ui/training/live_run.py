"""Watch a run: how far it is, its curves, the health of its routing, a text being routed anew, and its log.

The run is another process: this page only reads its folder, so that it can be closed, reloaded, or opened by others.
Try it: LiveRun(Workspace(Path("runs"))).tick("toy", "")
"""

import math
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from switch_model.analysis.layer_names import layer_titles
from train.arguments.arguments import ModelArguments
from train.runs.history import best_of
from train.runs.process import go_on, start
from train.runs.run import Run, RunError, State
from train.tasks.registry import TASKS, Task
from ui.server.workspace import Workspace, visitor_of
from ui.training.partners import LESSON, TWIN, dense, first_of, may_have, unbalanced
from ui.training.run_summary import Records, dead_experts, probe_words, progress_html, state_badge
from ui.training.written_samples import NONE_YET, samples_html

POLL_SECONDS = 2.0
# Between two drawings of a run that goes on: at first, and after some minutes.
DRAW_SECONDS = (4.0, 32.0)
# What a run's partner is called: the same run without experts, and without the loss that keeps them busy.
NOTHING_YET = '<p class="facts">No run yet. Start one under “New run”.</p>'
_NO_PROBE = (
    '<p class="facts">No text is watched. Give one under “New run” (“A text to watch”) to see its routing settle.</p>'
)
_LOSSES = "Training loss lies higher by what only training has: dropout, hidden tokens, label smoothing."
LOG_LINES = 40
_HIDDEN = gr.update(visible=False)


class Pictures(NamedTuple):
    """What is drawn from a run's metrics, one field for each output of `LiveRun.draw`; without a run, blanks.

    Fields ending in `words` and `note` are HTML; load … with_it are plotly figures; the rest updates of what holds
    them: the card of written texts, the row of load and health, the layer picker, the card of the run's partners, the
    row of the lesson.
    """

    words: str = ""
    curves: Any = None
    note: str = ""
    written: Any = _HIDDEN
    samples: str = NONE_YET
    routing: Any = _HIDDEN
    load: Any = None
    health: Any = None
    layer: Any = _HIDDEN
    probe_words: str = _NO_PROBE
    probe: Any = None
    partners: Any = _HIDDEN
    by_step: Any = None
    by_time: Any = None
    by_tokens: Any = None
    lesson: Any = _HIDDEN
    without_words: str = ""
    without: Any = None
    with_words: str = ""
    with_it: Any = None


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

    def tick(self, name: str | None, seen: str, request: gr.Request = None) -> tuple[Any, ...]:
        """What may have changed since `seen`: (head, progress, log, five buttons, seen, drawn); nothing if it has not.

        `drawn` changes with the metrics, though not at once while they grow: pictures are drawn anew then.
        """
        try:
            run = self.workspace.run(name)
            state, progress, _ = run.state(), run.progress(), run.arguments()
        except RunError as error:
            if seen == str(error):
                return (gr.skip(),) * 10
            head = NOTHING_YET if not self.workspace.names() else _facts(str(error))
            return head, "", "", *(gr.update(interactive=False),) * 5, str(error), str(error)
        now = f"{name} {state.name} {progress.get('phase')} {progress.get('step')} {_stamp(run, 'log_path')}"
        if now == seen:
            return (gr.skip(),) * 10
        mine = self.workspace.may_change(name, visitor_of(request))
        idle = not state.active
        buttons = (
            gr.update(interactive=mine and state.name in ("running", "queued")),
            gr.update(interactive=mine and idle and state.name != "finished" and run.can_resume()),
            gr.update(interactive=run.best.is_dir()),
            *(gr.update(interactive=may_have(run, suffix)) for suffix in (TWIN, LESSON)),
        )
        family = (self.workspace.root / f"{first_of(name)}{suffix}" for suffix in ("", TWIN, LESSON))
        stamps = [_stamp(Run(folder), "metrics_path") for folder in family]
        pace = int(1e9 * _draw_seconds(progress.get("seconds", 0.0))) if state.active else 1
        drawn = f"{name} {[stamp // pace for stamp in stamps]}"
        return (
            head_html(run, state),
            progress_html(progress, state.name),
            "\n".join(run.log_tail().splitlines()[-LOG_LINES:]),
            *buttons,
            now,
            drawn,
        )

    def draw(self, name: str | None, layer: str | None) -> "Pictures":
        """The pictures of a run's metrics; blanks when there is no such run."""
        from ui.training import learning_curves, routing_curves

        try:
            run = self.workspace.run(name)
            task = TASKS[run.arguments().train.task]
        except RunError:
            return Pictures()
        records = run.metrics()
        layers = _layers(records)
        layer = layer if layer in layers else next(iter(layers), None)
        watched = [record for record in records if record["kind"] == "probe"]
        partners = self._partners(name)
        lesson = next((one for one in partners if one.endswith(LESSON) and _layers(partners[one])), None)
        pictures = Pictures(
            words=_facts(dead_experts(records)),
            curves=learning_curves.learning_curves(records, task.figures),
            note=_note(records, task) if records else "",
            written=gr.update(visible=task.writes and task.rows != "texts"),
            samples=samples_html(records),
            probe_words=_facts(probe_words(records, layer)) if watched else _no_probe(run),
        )
        if layers:
            choices = [(title, one) for one, title in layer_titles(layers).items()]
            pictures = pictures._replace(
                routing=gr.update(visible=True),
                load=routing_curves.load_heat_map(records),
                health=learning_curves.routing_health(records),
                layer=gr.update(choices=choices, value=layer, visible=bool(watched)),
            )
        if watched and watched[-1].get("layers"):
            pictures = pictures._replace(probe=routing_curves.probe_figure(records, layer))
        if len(partners) > 1:
            by_step, by_time, by_tokens = learning_curves.twin_curves(partners)
            pictures = pictures._replace(
                partners=gr.update(visible=True), by_step=by_step, by_time=by_time, by_tokens=by_tokens
            )
        if lesson:
            without, with_it = partners[lesson], next(iter(partners.values()))
            pictures = pictures._replace(
                lesson=gr.update(visible=True),
                without_words=_facts(dead_experts(without)),
                without=routing_curves.load_heat_map(without),
                with_words=_facts(dead_experts(with_it)),
                with_it=routing_curves.load_heat_map(with_it),
            )
        return pictures

    def draw_probe(self, name: str | None, layer: str | None) -> tuple[Any, ...]:
        """Another layer of the text being watched: (words, picture)."""
        from ui.training import routing_curves

        try:
            records = self.workspace.run(name).metrics()
        except RunError:
            return "", None
        return _facts(probe_words(records, layer)), routing_curves.probe_figure(records, layer)

    def _partners(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """The run with its dense twin and its lesson, whichever there are, by name."""
        family, known = [first_of(name) + suffix for suffix in ("", TWIN, LESSON)], self.workspace.names()
        return {one: self.workspace.run(one).metrics() for one in family if one in known}

    # -- changing -----------------------------------------------------------------------------------------------------

    def stop(self, name: str | None, request: gr.Request = None) -> str:
        """Ask the run to end after its step. Returns what is wrong, "" when nothing is."""
        try:
            self._changeable(name, request).request_stop()
        except RunError as error:
            return _notice(error)
        return ""

    def resume(self, name: str | None, request: gr.Request = None) -> str:
        """Let a stopped run go on, or begin again, in a process of its own. Returns what is wrong."""
        try:
            go_on(self._changeable(name, request), self.workspace.max_runs)
        except RunError as error:
            return _notice(error)
        return ""

    def start_twin(self, name: str | None, request: gr.Request = None) -> tuple[str, Any]:
        """The same run with dense MLPs: the same work per token, data, seed and steps. (What is wrong, picker)."""
        return self._start_partner(name, TWIN, request, dense)

    def start_lesson(self, name: str | None, request: gr.Request = None) -> tuple[str, Any]:
        """The same run with nothing that keeps loads even, to see experts collapse. (What is wrong, picker)."""
        return self._start_partner(name, LESSON, request, unbalanced)

    def _start_partner(
        self,
        name: str | None,
        suffix: str,
        request: gr.Request | None,
        change: Callable[[ModelArguments], ModelArguments],
    ) -> tuple[str, Any]:
        visitor = visitor_of(request)
        try:
            arguments = self.workspace.run(name).arguments()
            partner = f"{name}{suffix}"
            if partner in self.workspace.names():
                return "", gr.update(value=partner)
            self.workspace.check_may_start(visitor)
            arguments = replace(arguments, model=change(arguments.model))
            folder = self.workspace.root / partner
            run = start(arguments, folder.parent, folder.name, self.workspace.max_runs)
        except (RunError, ValueError) as error:
            return _notice(error), gr.skip()
        partner = run.folder.relative_to(self.workspace.root).as_posix()
        self.workspace.started(partner, visitor)
        return "", gr.update(choices=self.workspace.names(), value=partner)

    def _changeable(self, name: str | None, request: gr.Request | None) -> Run:
        if not self.workspace.may_change(name or "", visitor_of(request)):
            raise RunError("On a public page only who started a run may change it.")
        return self.workspace.run(name)


def head_html(run: Run, state: State) -> str:
    """The run's state, what it trains on, and why it ended."""
    arguments = run.arguments()
    said = _facts(state.message) if state.message else ""
    data = escape(arguments.data.dataset.rsplit("/", 1)[-1])
    width = "dense" if arguments.model.is_dense else f"{arguments.model.num_experts} experts"
    size = f"{arguments.model.num_layers} layers · {width}"
    name = f"{state_badge(state.name)} <b>{escape(run.name)}</b>"
    return f'<p class="run-head">{name} <span>{data} · {TASKS[arguments.train.task].title} · {size}</span></p>{said}'


def _note(records: Records, task: Task) -> str:
    """The best figure so far, and how to read the losses."""
    best = best_of(records, task)
    said = "" if best is None else f"Best on validation: <b>{escape(task.describe(best))}</b>. "
    return f'<p class="facts">{said}{_LOSSES}</p>'


def _facts(sentence: str) -> str:
    return f'<p class="facts">{escape(sentence)}</p>'


def _no_probe(run: Run) -> str:
    """Why there is no picture of a watched text."""
    arguments = run.arguments()
    if arguments.train.probe is None:
        return _NO_PROBE
    dense = arguments.model.is_dense
    return _facts(f"Its {'prediction is told' if dense else 'routing is drawn'} at the first evaluation.")


def _notice(error: Exception) -> str:
    return f'<p class="notice" role="alert">{escape(str(error))}</p>'


def _stamp(run: Run, which: str) -> int:
    try:
        return getattr(run, which).stat().st_mtime_ns
    except OSError:
        return 0


def _draw_seconds(seconds: float) -> float:
    """How long pictures of a run that trained so long may stand: drawing costs a browser more than all the rest, often
    on the training's own cores, and curves change ever more slowly. In steps, so that it rarely changes itself."""
    least, most = DRAW_SECONDS
    return min(least * 2 ** int(math.log2(max(seconds, 30.0) / 30.0)), most)


def _layers(records: list[dict[str, Any]]) -> list[str]:
    return [layer["layer"] for layer in next((r["routing"] for r in reversed(records) if r.get("routing")), [])]


# -- layout -----------------------------------------------------------------------------------------------------------


def create_live_run(demo: gr.Blocks, handlers: LiveRun, tab: gr.Tab, watched: gr.Dropdown) -> gr.Button:
    """Lay it out and connect it. Returns the button that opens the run in Explore, for who owns that tab."""
    seen = gr.State("")
    # No State: without the queue, whose stream costs both sides more than the answers, Gradio sees no State change.
    drawn = gr.Textbox(visible="hidden", elem_id="drawn")
    with gr.Column(elem_classes="card", elem_id="live"):
        with gr.Row(elem_classes="card-head"):
            head = gr.HTML(NOTHING_YET, apply_default_css=False, elem_id="run-head")
            watched.render()
        progress = gr.HTML("", apply_default_css=False, elem_id="progress")
        problem = gr.HTML("", apply_default_css=False)
        with gr.Row(elem_classes="buttons"):
            small = {"min_width": 0, "scale": 0, "interactive": False}
            stop = gr.Button("Stop", elem_id="stop", **small)
            resume = gr.Button("Resume", elem_id="resume", **small)
            explore = gr.Button("Open in Explore", elem_id="open-in-explore", **small)
            twin = gr.Button("Train its dense twin", elem_id="twin", **small)
            lesson = gr.Button("Train it without the balance loss", elem_id="lesson", **small)
        words = gr.HTML("", apply_default_css=False, elem_id="run-words")
    with gr.Column(elem_classes="card run-plots"):
        gr.HTML("<h2>Learning</h2>", apply_default_css=False)
        curves = _plot("curves")
        note = gr.HTML("", apply_default_css=False)
    with gr.Column(elem_classes="card", visible=False, elem_id="written") as written:
        gr.HTML("<h2>What it writes</h2>", apply_default_css=False)
        samples = gr.HTML(NONE_YET, apply_default_css=False, elem_id="samples-written")
    with gr.Row(elem_classes="pair run-plots", visible=False) as routing:
        with gr.Column(elem_classes="card", min_width=300):
            gr.HTML("<h2>Load per expert over time (1 = an even share)</h2>", apply_default_css=False)
            load = _plot("load-over-time")
        with gr.Column(elem_classes="card", min_width=300):
            gr.HTML("<h2>Health of the routing</h2>", apply_default_css=False)
            health = _plot("health")
    with gr.Column(elem_classes="card run-plots"):
        with gr.Row(elem_classes="card-head"):
            gr.HTML("<h2>A text being watched</h2>", apply_default_css=False)
            layer = gr.Dropdown(
                [],
                label="Layer",
                show_label=False,
                container=False,
                filterable=False,
                visible=False,
                min_width=140,
                elem_id="probe-layer",
            )
        probe_said = gr.HTML(_NO_PROBE, apply_default_css=False)
        probe = _plot("probe-plot")
    with gr.Column(elem_classes="card run-plots", visible=False, elem_id="partners") as partners:
        gr.HTML(
            "<h2>Beside its twins: validation loss against steps, time and tokens</h2>",
            apply_default_css=False,
        )
        with gr.Row(elem_id="partners-plots"):
            together = [_plot(f"partners-by-{over}", min_width=260) for over in ("step", "time", "tokens")]
        with gr.Row(elem_classes="pair", visible=False, elem_id="lesson-loads") as lesson_row:
            with gr.Column(min_width=300):
                gr.HTML("<h3>Load without the balance loss</h3>", apply_default_css=False)
                without_said = gr.HTML("", apply_default_css=False)
                without = _plot("load-without")
            with gr.Column(min_width=300):
                gr.HTML("<h3>Load with it</h3>", apply_default_css=False)
                with_said = gr.HTML("", apply_default_css=False)
                with_it = _plot("load-with")
    with gr.Accordion("Log", open=False, elem_classes="card", elem_id="log"):
        log = gr.Textbox(
            show_label=False, container=False, lines=12, max_lines=24, interactive=False, elem_id="log-text"
        )

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    buttons = [stop, resume, explore, twin, lesson]
    looking = {
        "fn": handlers.tick,
        "inputs": [watched, seen],
        "outputs": [head, progress, log, *buttons, seen, drawn],
        "queue": False,
        **quiet,
    }
    pictures = [words, curves, note, written, samples, routing, load, health, layer, probe_said, probe]
    pictures += [partners, *together, lesson_row, without_said, without, with_said, with_it]
    gr.Timer(POLL_SECONDS).tick(trigger_mode="once", **looking)
    watched.change(**looking)
    tab.select(handlers.list_runs, [watched], [watched], **quiet)
    drawn.change(handlers.draw, [watched, layer], pictures, trigger_mode="always_last", **quiet)
    layer.input(handlers.draw_probe, [watched, layer], [probe_said, probe], **quiet)
    demo.load(handlers.attach, None, [watched], **quiet).then(**looking)

    stop.click(handlers.stop, [watched], [problem], **quiet).then(**looking)
    resume.click(handlers.resume, [watched], [problem], **quiet).then(**looking)
    twin.click(handlers.start_twin, [watched], [problem, watched], **quiet)
    lesson.click(handlers.start_lesson, [watched], [problem, watched], **quiet)
    return explore


def _plot(name: str, **size: int) -> gr.Plot:
    return gr.Plot(show_label=False, container=False, buttons=[], elem_id=name, **size)
