"""What a training without a balance loss costs, and one with two experts for each token, in words: pure functions of a
run's metrics.

Try it: cost_of_load([0.5, 0.4, 0.1, 0.0])
"""

from collections.abc import Sequence

from train.formatting import percent
from train.tasks.metrics import noted
from ui.training.run_summary import Records, finite, layer_load, lines_of, routing_lines

# Of an even share: an expert with less is hardly used.
USED_SHARE = 0.1
_PURPOSE = (
    "The balance loss is not there to lower this number: it keeps every expert at work, so that none is stored for "
    "nothing and buffers of an even share hold the tokens. Where few experts suffice, as for the toy, a model without "
    "it learns as well."
)

_SAME_WORK = (
    "Both do the same work for a token: two experts of half the width instead of one, of twice as many. Two experts "
    "are more combinations, each token’s weights say how much of either it takes, and none is dropped; one expert is "
    "the simpler choice, and easier to read."
)


def cost_of_load(load_E: Sequence[float]) -> str:
    """What uneven loads of a layer cost where room and time are bounded."""
    even = 1 / len(load_E)
    used = sum(share >= USED_SHARE * even for share in load_E)
    over = sum(max(share - even, 0.0) for share in load_E)
    return (
        f"{used} of {len(load_E)} experts are in use. With room for an even share each (a capacity factor of 1) "
        f"{percent(over)} of the tokens would be dropped; with a device for each expert, a step would wait for one "
        f"with {max(load_E) / even:.1f} times an even share."
    )


def last_cost(records: Records) -> str:
    """The same of a run's last line, in its least even layer; "" where nothing is known yet."""
    lines = routing_lines(records)
    loads = [load for layer in lines[-1]["routing"] if (load := layer_load(layer))] if lines else []
    return f"In its least even layer {cost_of_load(max(loads, key=max))}" if loads else ""


def verdict(without: Records, with_it: Records) -> str:
    """Both runs' losses, and what they do not tell; "" until both are known.

    Earlier versions counted the balance loss itself into the validation loss, which can't be compared then.
    """
    losses = [_last_loss(records) for records in (without, with_it)]
    if None in losses:
        return ""
    ends = f"{losses[0]:.3f} without the balance loss, {losses[1]:.3f} with it"
    return f"Validation loss of the task alone: {ends}. {_PURPOSE}"


def verdict_of_two(two: Records, one: Records) -> str:
    """The losses of a run with two experts for each token and of one with one; "" until both are known."""
    losses = [_last_loss(records) for records in (two, one)]
    if None in losses:
        return ""
    ends = f"{losses[0]:.3f} with two experts for each token, {losses[1]:.3f} with one"
    return f"Validation loss of the task alone: {ends}. {_SAME_WORK}"


def _last_loss(records: Records) -> float | None:
    evaluated = lines_of(records, "eval")
    if not evaluated or not any("task_loss" in line for line in lines_of(records, "train")):
        return None
    return finite(noted(evaluated[-1], "loss"))
