"""The form of all training arguments, made from the dataclasses that the command line is made from.

Try it: values_of(Arguments.resolve({"dataset": "toy"}))
"""

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

import gradio as gr

from train.arguments.arguments import Arguments
from train.arguments.groups import GROUPS, DataArguments, ModelArguments, TrainArguments
from train.arguments.values import HINTS, choices_of, kinds_of, read_value, takes_none, takes_number
from ui.components.outputs import outputs
from ui.server.limits import LOCAL_ONLY

TITLES = {DataArguments: "Texts and tokens", ModelArguments: "Model and routing", TrainArguments: "Training"}
# Asked for elsewhere in the tab: the data, the task, the preset, the name of the run, the text to watch.
ELSEWHERE = (
    "dataset", "data_dir", "task", "text_column", "label_column", "target_column", "language", "preset", "output_dir",
    "probe",
)  # fmt: skip
FORM: tuple[tuple[type, tuple[Field, ...]], ...] = tuple(
    (group, tuple(item for item in fields(group) if item.name not in ELSEWHERE)) for group in GROUPS
)
# How the form shows what is on, off, or left open.
SWITCH = {"auto": None, "on": True, "off": False}
NAMES = tuple(item.name for _, items in FORM for item in items)
# A component, or a value, of each argument that the form asks for.
Form = outputs("Form", *NAMES)


def create_form(start: Arguments, public: bool) -> Form:
    """One component per argument, below a heading per group. Its help is a tool tip."""
    values, made = start.to_dict(), []
    for group, items in FORM:
        with gr.Accordion(TITLES[group], open=False, elem_classes="argument-group"), gr.Row(elem_classes="arguments"):
            for item in items:
                made.append(_component(item, values[item.name], visible=not (public and item.name in LOCAL_ONLY)))
    return Form(*made)


def values_of(arguments: Arguments) -> Form:
    """What the form's components show for these arguments."""
    values = arguments.to_dict()
    return Form(**{name: _shown(name, values[name]) for name in NAMES})


def given(values: Sequence[Any]) -> dict[str, Any]:
    """The form's values as arguments. Raises ValueError naming the field that holds no number."""
    found = {}
    for name, value in zip(NAMES, values, strict=True):
        if isinstance(value, str) and not value.strip():
            value = None
        if value is None and not takes_none(name):
            raise ValueError(f"--{name} is empty: it needs a value.")
        found[name] = _read(name, SWITCH.get(value, value) if _is_switch(name) else value)
    return found


def as_typed(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments from a file: YAML takes 1e-3 for text, which a flag would take for a number."""
    return {name: _read(name, value) if name in HINTS else value for name, value in values.items()}


def _read(name: str, value: Any) -> Any:
    try:
        return read_value(name, value)
    except ValueError as error:
        raise ValueError(f"--{name} {error}.") from error


def _is_switch(name: str) -> bool:
    """Whether it is on, off, or left open."""
    return bool in kinds_of(name) and takes_none(name)


def _shown(name: str, value: Any) -> Any:
    if _is_switch(name):
        return next(shown for shown, meant in SWITCH.items() if meant is value)
    if takes_number(name) or str in kinds_of(name):
        return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)
    return value


def _component(item: Field, value: Any, visible: bool) -> gr.components.Component:
    common = {
        # A long one breaks at its underscores, which only a space without width allows.
        "label": item.name.replace("_", "_\u200b"),
        "info": item.metadata["help"],
        "visible": visible,
        "min_width": 150,
        "elem_classes": "argument",
        "elem_id": f"argument-{item.name}",
    }
    shown = _shown(item.name, value)
    if choices := choices_of(item.name):
        return gr.Dropdown(choices, value=shown, filterable=False, **common)
    if _is_switch(item.name):
        return gr.Dropdown(list(SWITCH), value=shown, filterable=False, **common)
    if bool in kinds_of(item.name):
        return gr.Checkbox(value=shown, **common)
    # A box of text for numbers too: a number's own box knows neither "inf" nor 1e-3.
    return gr.Textbox(shown, placeholder="none" if takes_none(item.name) else None, max_lines=1, **common)
