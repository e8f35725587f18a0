"""The number of optimizer steps of a run, and of steps between two lines of its metrics.

Try it: planned_steps(TrainArguments(epochs=3, max_steps=100), updates_per_epoch=50)
"""

import math

from train.arguments.groups import TrainArguments

# Minimum number of lines of training metrics (if a run has as many steps), and maximum steps between two.
FEWEST_LINES, MOST_BETWEEN = 50, 50


def planned_steps(settings: TrainArguments, updates_per_epoch: int) -> tuple[int, str | None]:
    """(number of steps, the flag that determines it, None for --epochs)."""
    if settings.total_iters is not None:
        return settings.total_iters, "total_iters"
    steps, decided_by = math.ceil(updates_per_epoch * settings.epochs), None
    if steps < settings.min_steps:
        steps, decided_by = settings.min_steps, "min_steps"
    if settings.max_steps is not None and settings.max_steps < steps:
        steps, decided_by = settings.max_steps, "max_steps"
    return steps, decided_by


def logging_interval(settings: TrainArguments, steps: int, updates_per_epoch: int) -> int:
    """Steps between two lines of training metrics: as asked for, or a share of the run's steps.

    One that divides the steps between two evaluations is preferred, so that both have lines at the same steps.
    """
    if settings.logging_steps is not None:
        return settings.logging_steps
    most = min(max(steps // FEWEST_LINES, 1), MOST_BETWEEN)
    evaluated = settings.eval_steps or updates_per_epoch
    return next((each for each in range(most, most // 2, -1) if evaluated % each == 0), most)
