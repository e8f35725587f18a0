"""What the Train tab hands to its handlers."""

from train.arguments.arguments import Arguments
from train.arguments.presets import default_task
from ui.training.argument_form import NAMES, values_of
from ui.training.data_choice import NONE_CHOSEN

# Where the form begins among the tab's inputs: after the data, the preset and the name.
FIRST = 8


def inputs(dataset: str = "toy", preset: str = "none", name: str = "", **form) -> list:
    values = dict(zip(NAMES, values_of(Arguments.resolve({"dataset": dataset, "preset": preset})), strict=True))
    data = [dataset, default_task(dataset), *NONE_CHOSEN]
    return [*data, preset, name, *(values | form).values()]
