"""The form of all training arguments, made from the dataclasses that the command line is made from.

What a run cannot do without is always in view; all others stand in a drawer with a search.
Try it: values_of(Arguments.resolve({"dataset": "toy"}))
"""

from collections.abc import Sequence
from dataclasses import Field, fields
from typing import Any

import gradio as gr

from train.arguments.arguments import Arguments
from train.arguments.groups import GROUPS, DataArguments, ModelArguments, TrainArguments
from train.arguments.values import HINTS, choices_of, kinds_of, read_value, takes_none, takes_number
from ui.components.field_search import create_field_search
from ui.components.outputs import outputs
from ui.look.html import heading
from ui.look.page_words import LABELS, in_labels
from ui.server.limits import LOCAL_ONLY

TITLES = {DataArguments: "Data and tokenizer", ModelArguments: "Model", TrainArguments: "Training"}
# Fields that belong together, below a heading of their own.
SECTIONS = {
    "Routers": (
        "router", "top_k", "norm_topk_prob", "routed_scaling_factor", "num_shared_experts", "expert_granularity",
        "d_expert", "expert_groups", "top_groups", "router_bias", "router_jitter_noise", "router_noise_eps",
    ),
    "Capacity and balance": (
        "router_priority", "capacity_factor", "capacity_factor_eval", "expert_capacity", "min_expert_capacity",
        "capacity_group", "balance", "balance_rate", "aux_loss_coef", "sequence_balance_coef", "z_loss_coef",
        "layer_loss_coef",
    ),
    "From another model": (
        "init_from", "upcycle", "train_only", "hot_share", "freeze_router", "lora_rank", "lora_alpha", "lora_on",
        "teachers", "teacher_coef",
    ),
    "Device and processes": ("device", "precision", "compile", "liger", "expert_parallel", "fsdp"),
    "Checkpoints and reports": (
        "logging_steps", "eval_steps", "eval_iters", "save_total_limit", "metrics", "probe", "report_to", "run_name",
        "wandb_project", "wandb_entity",
    ),
}  # fmt: skip
# Asked for elsewhere in the tab: the data, the task, the size, the name of the run.
ELSEWHERE = (
    "dataset", "data_dir", "task", "text_column", "label_column", "target_column", "language", "preset", "output_dir",
)  # fmt: skip
FORM: tuple[tuple[type, tuple[Field, ...]], ...] = tuple(
    (group, tuple(item for item in fields(group) if item.name not in ELSEWHERE)) for group in GROUPS
)
# How the form shows what is on, off, or left open.
SWITCH = {"auto": None, "on": True, "off": False}
NAMES = tuple(item.name for _, items in FORM for item in items)
BASIC = tuple(item.name for _, items in FORM for item in items if item.metadata["basic"])
HELP = {item.name: item.metadata["help"] for group in GROUPS for item in fields(group)}
# A component, or a value, of each argument that the form asks for.
Form = outputs("Form", *NAMES)


def create_basics(start: Arguments) -> dict[str, gr.components.Component]:
    """The arguments that are always in view, by name."""
    values = start.to_dict()
    return {name: _component(name, values[name]) for name in BASIC}


def create_advanced(start: Arguments, public: bool) -> dict[str, gr.components.Component]:
    """A drawer with all others, below a heading per group, by name."""
    values, made = start.to_dict(), {}
    with gr.Accordion(
        f"Advanced · {len(NAMES) - len(BASIC)} more arguments", open=False, elem_id="advanced", elem_classes="card"
    ):
        create_field_search("advanced", "Search by name, flag or help")
        for title, names in _sections():
            with gr.Column(elem_classes="argument-group"):
                gr.HTML(heading(title), apply_default_css=False)
                with gr.Row(elem_classes="arguments"):
                    for name in names:
                        made[name] = _component(name, values[name], visible=not (public and name in LOCAL_ONLY))
    return made


def _sections() -> list[tuple[str, list[str]]]:
    """Headings with their fields: of each group those without a section, and behind the group's the sections."""
    found = []
    for group, items in FORM:
        names = [item.name for item in items if item.name not in BASIC]
        own = [(title, [name for name in some if name in names]) for title, some in SECTIONS.items()]
        sectioned = {name for _, some in own for name in some}
        found.append((TITLES[group], [name for name in names if name not in sectioned]))
        found += [(title, some) for title, some in own if some]
    return found


def field_of(name: str, help: str | None = None) -> dict[str, Any]:
    """What every field of the form has: its label, with the flag and the help in view.

    Args:
        help: in place of the argument's own.
    """
    # Markdown: the style sheet puts what is code beside the label, and what is emphasised below the box.
    said = in_labels(help or HELP[name]).rstrip(".").replace("*", r"\*")
    info = f"`{name}` *{said}*"
    return {"label": LABELS[name], "info": info, "elem_classes": "argument"}


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


def _component(name: str, value: Any, visible: bool = True) -> gr.components.Component:
    common = field_of(name) | {"visible": visible, "min_width": 150, "elem_id": f"argument-{name}"}
    shown = _shown(name, value)
    if choices := choices_of(name):
        return gr.Dropdown(choices, value=shown, filterable=False, **common)
    if _is_switch(name):
        return gr.Dropdown(list(SWITCH), value=shown, filterable=False, **common)
    if bool in kinds_of(name):
        return gr.Checkbox(value=shown, **common)
    # A box of text for numbers too: a number's own box knows neither "inf" nor 1e-3.
    lines = {"lines": 2, "max_lines": 6} if name == "probe" else {"max_lines": 1}
    return gr.Textbox(shown, placeholder="none" if takes_none(name) else None, **lines, **common)
