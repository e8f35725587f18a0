"""The form of all training arguments, made from the dataclasses that the command line is made from.

Try it: values_of(Arguments.resolve({"dataset": "toy"}))
"""

import types
import typing
from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

import gradio as gr

from train.arguments.arguments import GROUPS, Arguments, DataArguments, ModelArguments, TrainArguments
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
# Whole numbers beyond it are slips of the finger, and more than torch can count.
LARGEST = 2**48
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
    for (name, item), value in zip(_FIELDS.items(), values, strict=True):
        kinds = _kinds(item)
        if isinstance(value, str) and not (value := value.strip()):
            value = None
        if value is None and types.NoneType not in kinds:
            raise ValueError(f"--{name} is empty: it needs a value.")
        if value is not None and (float in kinds or int in kinds):
            value = _number(name, value, int if int in kinds else float)
        if bool in kinds and types.NoneType in kinds:
            value = {"auto": None, "on": True, "off": False}.get(value, value)
        found[name] = value
    return found


def as_typed(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments from a file: YAML takes 1e-3 for text, which a flag would take for a number."""
    typed = {}
    for name, value in values.items():
        kinds = _kinds(_FIELDS[name]) if name in _FIELDS else ()
        number = isinstance(value, str) and (int in kinds or float in kinds) and value not in ("inf", "none")
        typed[name] = _number(name, value, int if int in kinds else float) if number else value
    return typed


def _number(name: str, value: Any, kind: type) -> Any:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"--{name} {value} is not a number.") from None
    if kind is int and abs(number) > LARGEST:
        raise ValueError(f"--{name} {value} is too large.")
    if kind is int and not number.is_integer():
        raise ValueError(f"--{name} {value} must be a whole number.")
    return kind(number)


_HINTS = {name: hint for group in GROUPS for name, hint in typing.get_type_hints(group).items()}
_FIELDS = {item.name: item for _, items in FORM for item in items}


def _kinds(item: Field) -> tuple[type, ...]:
    # From the annotation: HfArgumentParser rewrites the types of the fields themselves.
    hint = _HINTS[item.name]
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _shown(name: str, value: Any) -> Any:
    kinds = _kinds(_FIELDS[name])
    if bool in kinds and types.NoneType in kinds:
        return {None: "auto", True: "on", False: "off"}[value]
    if float in kinds or int in kinds or str in kinds:
        return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)
    return value


def _component(item: Field, value: Any, visible: bool) -> gr.components.Component:
    kinds = _kinds(item)
    common = {
        # A long one breaks at its underscores, which only a space without width allows.
        "label": item.name.replace("_", "_\u200b"),
        "info": item.metadata["help"],
        "visible": visible,
        "min_width": 150,
        "elem_classes": "argument",
        "elem_id": f"argument-{item.name}",
    }
    choices = [choice for kind in kinds for choice in typing.get_args(kind) if choice is not None]
    shown = _shown(item.name, value)
    if choices:
        return gr.Dropdown(choices, value=shown, filterable=False, **common)
    if bool in kinds and types.NoneType in kinds:
        return gr.Dropdown(["auto", "on", "off"], value=shown, filterable=False, **common)
    if bool in kinds:
        return gr.Checkbox(value=shown, **common)
    # A box of text for numbers too: a number's own box knows neither "inf" nor 1e-3.
    return gr.Textbox(shown, placeholder="none" if types.NoneType in kinds else None, max_lines=1, **common)
