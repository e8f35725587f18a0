"""New run, laid out and connected: the data, the form, what the run will take, and the buttons.

Try it: python app.py, then the tab “Train”
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import gradio as gr

from train.arguments.arguments import Arguments
from ui.components.events import LAST, ONCE
from ui.look.html import heading, note
from ui.server.downloads import hand_over
from ui.server.workspace import Workspace
from ui.training.argument_form import Form, create_advanced, create_basics, field_of
from ui.training.data_choice import START, Chosen, LookedAt, create_data_choice
from ui.training.new_run import PRESETS, Followed, Inputs, NewRun, Started

# Help of what is asked for otherwise than on the command line.
SIZES = "sets all fields at once; change any of them afterwards"
NAME = "its folder; if empty, the name of the data"
# At once, so that a slow server starts no run on what was chosen before.
_WAIT = "() => ({ __type__: 'update', interactive: false })"


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
        with gr.Column(scale=5, min_width=280, elem_id="new-run"):
            asked, form, actions = _create_arguments(handlers, start_with)
    inputs = Inputs(**data._asdict(), **asked, **form._asdict())
    following = _following(handlers, inputs, data, known, actions)
    _connect_data(handlers, inputs, known, upload, form, actions, following)
    _connect_actions(handlers, [*inputs], actions, tabs, watched, following)
    looked, shown, timed = following
    columns = [getattr(data, name) for name in Chosen._fields[2:]]
    gr.on(_edits(columns), **looked).then(**shown).then(**timed)
    gr.on(_edits([inputs.name]), **shown)
    gr.on(_edits(form), **shown).then(**timed)
    opened.select(handlers.data.refresh, [data.dataset], [data.dataset], **LAST)
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


def _create_arguments(handlers: NewRun, start_with: Arguments) -> tuple[dict[str, Any], Form, _Actions]:
    """A card of size, basic arguments, name and buttons; below it the drawer of all other arguments. Size and name come
    by their names."""
    with gr.Column(elem_classes="card"):
        gr.HTML(heading("Model and training"), apply_default_css=False)
        preset = gr.Radio(
            PRESETS, value=start_with.train.preset or "none", elem_id="preset", **field_of("preset", SIZES)
        )
        with gr.Row(elem_classes="arguments"):
            basics = create_basics(start_with)
            name = gr.Textbox(
                "", placeholder="that of the data", max_lines=1, elem_id="run-name", **field_of("output_dir", NAME)
            )
        actions = _create_actions(handlers.workspace)
    form = Form(**basics, **create_advanced(start_with, handlers.workspace.public))
    return {"preset": preset, "name": name}, form, actions


def _create_actions(workspace: Workspace) -> _Actions:
    estimated = gr.HTML("", apply_default_css=False, elem_id="estimate")
    wrong = gr.HTML("", apply_default_css=False, elem_id="wrong")
    command = gr.Textbox(
        label="Equivalent command",
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
    looked = {"fn": handlers.data.look_at, "inputs": [*data], "outputs": [*known], **LAST}
    shown = {
        "fn": handlers.preview,
        "inputs": [*inputs],
        "outputs": [actions.command, actions.wrong],
        **LAST,
    }
    timed = {
        "fn": handlers.estimate_in_turn,
        "inputs": [known.facts, *inputs],
        "outputs": [actions.estimate],
        "concurrency_id": "estimate",
        "concurrency_limit": 1,
        **LAST,
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
    ready = {"fn": handlers.ready, "inputs": [known.facts], "outputs": [actions.go], **LAST}
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
        event(None, None, [actions.go], js=_WAIT, **LAST)
        begun = event(handlers.begin, None, [actions.estimate, actions.go], **LAST)
        answered = begun.then(handlers.in_turn(handler), given_to, [*followed], **LAST)
        answered.then(**ready).then(**shown).then(**timed)
    chosen = [preset, dataset, task, start_from]
    preset.input(None, None, [actions.go], js=_WAIT, **LAST)
    begun = preset.input(handlers.begin_size, [preset], [actions.go], **LAST)
    filled = begun.then(handlers.preset_in_turn, chosen, [preset, *form], **LAST)
    filled.then(**ready).then(**shown).then(**timed)
    known.facts.change(**ready)


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
    actions.go.click(handlers.start, inputs, [*started], **ONCE)
    hand_over(actions.save, handlers.save, inputs, "arguments")
    loaded = actions.load.upload(handlers.load, [actions.load], inputs, **LAST)
    loaded.success(**looked).then(**shown).then(**timed)


def _edits(items: Iterable[gr.components.Component]) -> list[Any]:
    """What tells that a person changed one of them. Pasting into a box of text sends no `input`, leaving it `blur`."""
    return [event for item in items for event in (item.input, getattr(item, "blur", None)) if event is not None]
