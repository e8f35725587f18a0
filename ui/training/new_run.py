"""New run: choose data, a size and arguments, see what it will take and the command it stands for, and start it.

Handlers take values and return values. Try it: NewRun(Workspace(Path("runs"))).choose_data("toy")
"""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import yaml
from markupsafe import Markup

from switch_model import CheckpointError
from train.arguments.arguments import Arguments
from train.arguments.groups import DataArguments
from train.arguments.presets import default_preset
from train.data.errors import DataError
from train.preflight.estimate import Estimate, estimate
from train.runs.process import start, train_command
from train.runs.run import Run, RunError
from ui.components.outputs import outputs
from ui.look.html import heading, note, notice, part, quiet
from ui.server.downloads import fresh_path, hand_over
from ui.server.workspace import Workspace, visitor_of
from ui.training.argument_form import Form, as_typed, create_form, given, values_of
from ui.training.data_choice import START, Chosen, DataChoice, LookedAt, create_data_choice, task_update
from ui.training.run_summary import PIECES, duration

PRESETS = [
    ("tiny · a first look", "tiny"),
    ("small · the default", "small"),
    ("base · larger", "base"),
    ("none · no preset", "none"),
]
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}
# Until the new estimate is there, the old one would be wrong.
TIMING = quiet("Timing a few steps …")


# What the page asks for: the data, the preset, name and text to watch, and every argument of the form.
Inputs = outputs("Inputs", *Chosen._fields, "preset", "name", "probe", *Form._fields)
# Other data, or another task: what is known of it, and what follows from it.
Followed = outputs("Followed", "dataset", "task", *LookedAt._fields, "estimate", "preset", *Form._fields)
# What is wrong, the inner tabs, the run to watch, and the command of the next one, whose folder is another.
Started = outputs("Started", "wrong", "tabs", "watched", "command")


class NewRun:
    """The handlers of the tab."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.data = DataChoice(workspace)

    # -- data and size ------------------------------------------------------------------------------------------------

    def choose_data(self, dataset: str, start_from: str = "") -> Followed:
        """Another data set.

        Args:
            start_from: the form's --init_from, which stays; likewise below.
        """
        name, task = default_preset(dataset) or "none", self.data.task_of(dataset)
        return self._followed(dataset, task, name, start_from)

    def choose_task(self, task: str, dataset: str, preset: str, start_from: str = "") -> Followed:
        """Another task on the same data, with the preset that was chosen."""
        return self._followed(dataset, task, preset, start_from)

    def upload(self, path: str, start_from: str = "") -> Followed:
        """A file of the visitor's own. Raises gr.Error for one too large."""
        try:
            kept = str(self.workspace.keep_upload(path))
        except DataError as error:
            raise gr.Error(str(error).replace(path, Path(path).name)) from error
        picker = gr.update(choices=self.data.choices(kept), value=kept)
        return self.choose_data(kept, start_from)._replace(dataset=picker)

    def choose_preset(self, preset: str, dataset: str, task: str, start_from: str = "") -> Form:
        """The form's values for a preset."""
        values = values_of(Arguments.resolve({"dataset": dataset, "preset": preset, "task": task}))
        return values._replace(init_from=start_from)

    def _followed(self, dataset: str, task: str, preset: str, start_from: str) -> Followed:
        looked, form = self.data.choose(dataset, task), self.choose_preset(preset, dataset, task, start_from)
        return Followed(task=task_update(task), **looked._asdict(), estimate=TIMING, preset=preset, **form._asdict())

    # -- arguments ----------------------------------------------------------------------------------------------------

    def arguments(self, *inputs: Any) -> Arguments:
        """What the page asks for. Raises ValueError with what is wrong."""
        asked = Inputs(*inputs)
        data = self.data.values(*(getattr(asked, name) for name in Chosen._fields))
        form = given(Form(**{name: getattr(asked, name) for name in Form._fields}))
        arguments = Arguments.from_dict(
            form | data | {"preset": asked.preset, "probe": (asked.probe or "").strip() or None}
        )
        arguments.check()
        if self.workspace.limits is not None:
            start = arguments.train.init_from
            if start and start not in [
                (self.workspace.root / run / "best").as_posix() for run in self.workspace.names()
            ]:
                raise ValueError("--init_from must be a run of this page.")
            arguments = self.workspace.limits.apply(arguments)
        arguments.train.output_dir = self.workspace.folder_for(asked.name, asked.dataset).as_posix()
        return arguments

    def preview(self, *inputs) -> tuple[str, str]:
        """(the command, what is wrong with the arguments)."""
        try:
            return self.command(self.arguments(*inputs)), ""
        except ValueError as error:
            return "", notice(str(error))

    def command(self, arguments: Arguments) -> str:
        return shlex.join([*train_command(arguments), "--max_runs", str(self.workspace.max_runs)])

    def estimate(self, facts: dict[str, Any] | None, *inputs) -> str:
        """What the run will take, in a line. Timed only while nothing trains: both would be slower for it."""
        try:
            arguments = self.arguments(*inputs)
        except ValueError:
            return ""  # The preview says what is wrong.
        if facts is None:
            return ""
        busy = any(Run(self.workspace.root / name).state().active for name in self.workspace.names())
        try:
            return estimate_html(estimate(arguments, **facts, timed=not busy))
        except (ValueError, CheckpointError) as error:  # As of a model to start from that has another shape.
            return notice(str(error))
        except (OverflowError, RuntimeError, MemoryError):
            return ""

    # -- starting -----------------------------------------------------------------------------------------------------

    def start(self, request: gr.Request, *inputs) -> Started:
        """Start the run as a process of its own. A refusal is the button's only answer: nothing may follow that clears
        it."""
        try:
            arguments = self.arguments(*inputs)
            self.workspace.check_may_start(visitor_of(request))
            folder = Path(arguments.train.output_dir)
            run = start(arguments, folder.parent, folder.name, self.workspace.max_runs)
        except (ValueError, RunError) as error:
            return Started(wrong=notice(str(error)))
        self.workspace.started(run.name, visitor_of(request))
        watched = gr.update(choices=self.workspace.names(), value=run.name)
        return Started("", gr.Tabs(selected="live"), watched, self.preview(*inputs)[0])

    # -- arguments as a file ------------------------------------------------------------------------------------------

    def save(self, *inputs) -> str:
        """The arguments as a file to download. Raises gr.Error when they are wrong."""
        try:
            arguments = self.arguments(*inputs)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        path = fresh_path(f"{Path(arguments.train.output_dir).name}.json")
        path.write_text(json.dumps(arguments.to_dict(), indent=2) + "\n", encoding="utf-8")
        return str(path)

    def load(self, path: str) -> Inputs:
        """A file of arguments into the tab's inputs."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it holds no arguments")
            arguments = Arguments.resolve(as_typed(values))
            arguments.check()
            self.data.allowed(arguments.data.dataset)
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise gr.Error(f"This file can't be used: {error}", print_exception=False) from error
        return self.fill(arguments)

    def fill(self, arguments: Arguments) -> Inputs:
        """The page's inputs for given arguments; the run's name stays open."""
        return Inputs(
            **self.data.fill(arguments)._asdict(),
            preset=arguments.train.preset or "none",
            name="",
            probe=arguments.train.probe or "",
            **values_of(arguments)._asdict(),
        )

    def go_on_from(self, name: str | None) -> list[Any]:
        """The arguments of a run, to start another from its weights: what `fill` returns, then the inner tabs."""
        try:
            run = self.workspace.run(name)
            if not run.best.is_dir():
                raise RunError(f"{name} has no checkpoint to start from yet.")
            arguments = run.arguments()
        except (RunError, CheckpointError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        arguments.train.init_from = run.best.as_posix()
        # The model brings its tokenizer and its shape along.
        for brought in ("vocab_size", "tokenizer", "target_tokenizer"):
            setattr(arguments.data, brought, getattr(DataArguments(), brought))
        arguments.train.preset = "none"
        return [*self.fill(arguments), gr.Tabs(selected="new")]


def estimate_html(found: Estimate) -> Markup:
    """parameters, steps and time in one line."""
    epochs = f"{found.epochs:,.0f}" if found.epochs >= 10 else f"{found.epochs:.2g}"
    return part(PIECES, "estimate", found, epochs, duration(found.seconds) if found.seconds else None)


# -- layout -----------------------------------------------------------------------------------------------------------


def create_new_run(
    handlers: NewRun, opened: gr.Tab, tabs: gr.Tabs, watched: gr.Dropdown
) -> tuple[Inputs, list[dict[str, Any]]]:
    """Lay it out and connect it. Returns the inputs, and the events that follow when someone has filled them.

    Args:
        opened: the tab that it is in: nothing is asked for before somebody opens it.
    """
    start_with = Arguments.resolve({"dataset": START})
    with gr.Row(elem_classes="pair"):
        with gr.Column(elem_classes="card", scale=4, min_width=280):
            data, known, upload = create_data_choice(handlers.data, start_with)
        with gr.Column(elem_classes="card", scale=5, min_width=280):
            asked, form = _create_arguments(handlers, start_with)
            actions = _create_actions(handlers.workspace)
    inputs = Inputs(**data._asdict(), **asked, **form._asdict())
    following = _following(handlers, inputs, data, known, actions)
    _connect_data(handlers, inputs, known, upload, form, actions, following)
    _connect_actions(handlers, [*inputs], actions, tabs, watched, following)
    looked, shown, timed = following
    columns = [getattr(data, name) for name in Chosen._fields[2:]]
    gr.on(_edits(columns), **looked).then(**shown).then(**timed)
    gr.on(_edits((inputs.name, inputs.probe)), trigger_mode="always_last", **shown)
    gr.on(_edits(form), trigger_mode="always_last", **shown).then(trigger_mode="always_last", **timed)
    opened.select(handlers.data.refresh, [data.dataset], [data.dataset], **_QUIET)
    opened.select(**shown).then(**timed)
    return inputs, following


class _Actions(NamedTuple):
    """Below the form: what the run will take, what is wrong, the command, and the buttons."""

    estimate: gr.HTML
    wrong: gr.HTML
    command: gr.Textbox
    go: gr.Button
    save: gr.Button
    load: gr.UploadButton


def _create_arguments(handlers: NewRun, start_with: Arguments) -> tuple[dict[str, Any], Form]:
    """Preset, name and text to watch by their names, and the form."""
    gr.HTML(heading("Model and training"), apply_default_css=False)
    preset = gr.Radio(PRESETS, value=start_with.train.preset or "none", label="Size", elem_id="preset")
    with gr.Row(elem_classes="columns"):
        name = gr.Textbox("", label="Name of the run", placeholder="that of the data", max_lines=1, elem_id="run-name")
        probe = gr.Textbox(
            "",
            label="A text to watch",
            placeholder="routed anew at every evaluation",
            lines=2,
            max_lines=6,
            elem_id="probe",
        )
    return {"preset": preset, "name": name, "probe": probe}, create_form(start_with, handlers.workspace.public)


def _create_actions(workspace: Workspace) -> _Actions:
    estimated = gr.HTML("", apply_default_css=False, elem_id="estimate")
    wrong = gr.HTML("", apply_default_css=False, elem_id="wrong")
    command = gr.Textbox(
        label="The command it stands for",
        interactive=False,
        lines=2,
        max_lines=20,
        buttons=["copy"],
        elem_id="command",
    )
    small = {"min_width": 0, "scale": 0}
    with gr.Row(elem_classes="buttons"):
        go = gr.Button("Train", variant="primary", elem_id="start", **small)
        save = gr.Button("Save arguments", size="lg", elem_id="save-arguments", **small)
        load = gr.UploadButton(
            "Load arguments",
            file_types=[".json", ".yaml", ".yml"],
            type="filepath",
            size="lg",
            elem_id="load-arguments",
            **small,
        )
    if workspace.limits is not None:
        gr.HTML(note(workspace.limits.words()), apply_default_css=False)
    return _Actions(estimated, wrong, command, go, save, load)


def _following(
    handlers: NewRun, inputs: Inputs, data: Chosen, known: LookedAt, actions: _Actions
) -> list[dict[str, Any]]:
    """The events that follow a change: the data looked at, the command shown, the run timed."""
    looked = {"fn": handlers.data.look_at, "inputs": [*data], "outputs": [*known], **_QUIET}
    shown = {
        "fn": handlers.preview,
        "inputs": [*inputs],
        "outputs": [actions.command, actions.wrong],
        **_QUIET,
    }
    timed = {
        "fn": handlers.estimate,
        "inputs": [known.facts, *inputs],
        "outputs": [actions.estimate],
        "concurrency_id": "estimate",
        "concurrency_limit": 1,
        **_QUIET,
    }
    return [looked, shown, timed]


def _connect_data(
    handlers: NewRun,
    inputs: Inputs,
    known: LookedAt,
    upload: gr.UploadButton,
    form: Form,
    actions: _Actions,
    following: list[dict[str, Any]],
) -> None:
    """Other data, another task, another preset: what was known anew, the command, the time."""
    _, shown, timed = following
    dataset, task, preset, start_from = inputs.dataset, inputs.task, inputs.preset, form.init_from
    followed = Followed(
        dataset=dataset,
        task=task,
        **known._asdict(),
        estimate=actions.estimate,
        preset=preset,
        **form._asdict(),
    )
    for event, handler, given_to in (
        (dataset.input, handlers.choose_data, [dataset, start_from]),
        (task.input, handlers.choose_task, [task, dataset, preset, start_from]),
        (upload.upload, handlers.upload, [upload, start_from]),
    ):
        event(handler, given_to, [*followed], **_QUIET).then(**shown).then(**timed)
    chosen = [preset, dataset, task, start_from]
    preset.input(handlers.choose_preset, chosen, [*form], **_QUIET).then(**shown).then(**timed)
    # No run is started on data that are known not to work; the card says why.
    known.facts.change(lambda facts: gr.update(interactive=facts is not None), [known.facts], [actions.go], **_QUIET)


def _connect_actions(
    handlers: NewRun,
    inputs: list[Any],
    actions: _Actions,
    tabs: gr.Tabs,
    watched: gr.Dropdown,
    following: list[dict[str, Any]],
) -> None:
    looked, shown, timed = following
    started = Started(actions.wrong, tabs, watched, actions.command)
    actions.go.click(handlers.start, inputs, [*started], **_QUIET)
    hand_over(actions.save, handlers.save, inputs, "arguments")
    loaded = actions.load.upload(handlers.load, [actions.load], inputs, **_QUIET)
    loaded.success(**looked).then(**shown).then(**timed)


def _edits(items: Iterable[gr.components.Component]) -> list[Any]:
    """What tells that a person changed one of them. Pasting into a box of text sends no `input`, leaving it `blur`."""
    return [event for item in items for event in (item.input, getattr(item, "blur", None)) if event is not None]
