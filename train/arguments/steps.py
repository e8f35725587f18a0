"""How many steps of the optimizer a run takes.

Try it: planned_steps(TrainArguments(epochs=3, max_steps=100), updates_per_epoch=50)
"""

import math

from train.arguments.groups import TrainArguments


def planned_steps(settings: TrainArguments, updates_per_epoch: int) -> tuple[int, str | None]:
    """(steps, the flag that decides their number where that is not --epochs)."""
    if settings.total_iters is not None:
        return settings.total_iters, "total_iters"
    steps, decided_by = math.ceil(updates_per_epoch * settings.epochs), None
    if steps < settings.min_steps:
        steps, decided_by = settings.min_steps, "min_steps"
    if settings.max_steps is not None and settings.max_steps < steps:
        steps, decided_by = settings.max_steps, "max_steps"
    return steps, decided_by
