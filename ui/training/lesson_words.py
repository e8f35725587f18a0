"""What a training without a balance loss costs, and one with two experts for each token, in words: pure functions of a
run's metrics, and a table of both.

Try it: cost_of_load([0.5, 0.4, 0.1, 0.0])
"""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from train.formatting import percent
from train.tasks.metrics import MEASURES, SHARE, noted
from train.tasks.registry import Task
from ui.look.html import part
from ui.training.run_summary import PIECES, Records, finite, lines_of, recent_drops, recent_loads

# Of an even share: an expert with less is hardly used.
USED_SHARE = 0.1
_PURPOSE = (
    "The balance loss is not there to lower this number: it keeps every expert at work, so that none is stored for "
    "nothing and buffers of an even share hold the tokens. Where few experts suffice, as for the toy, a model without "
    "it learns as well."
)

_SAME_WORK = (
    "With two experts for each token, of half the width, out of twice as many, both runs do the same work for a token "
    "that is not dropped; a dropped token skips its expert. Two experts are more combinations, each token’s weights "
    "say how much of either it takes, and none is dropped; one expert is the simpler choice, and easier to read."
)
UNKNOWN = "–"
_OF_FIGURES = (
    "Loss and accuracy or perplexity: of the last evaluation. Loads and drops: of the last lines of training. {dropped}"
)
_DROPPED = "A token is dropped where its expert is full{counted}: it skips the expert."
_TOLD = (
    " What an expert tells: how much of a text’s class one expert of one of its tokens gives away, beyond chance (mean "
    "of layers; best checkpoint, at most {texts} validation texts; measured once a run has finished)."
)


def cost_of_load(load_E: Sequence[float]) -> str:
    """What uneven loads of a layer cost where room and time are bounded."""
    even = 1 / len(load_E)
    used = sum(share >= USED_SHARE * even for share in load_E)
    over = sum(max(share - even, 0.0) for share in load_E)
    some = "" if used == len(load_E) else f"{used} of {len(load_E)} experts get a tenth of an even share or more, and "
    return (
        f"{some}the busiest expert gets {max(load_E) / even:.1f} times an even share: with each expert on a device of "
        f"its own, all others would wait for it. If each expert had room for an even share of a whole batch and no "
        f"more, {percent(over)} of the tokens would find it full; within one text loads are less even."
    )


def last_cost(records: Records) -> str:
    """The same of a run's last lines, in its least even layer; "" where nothing is known yet."""
    loads = recent_loads(records).values()
    return f"In the least even layer {cost_of_load(max(loads, key=max))}" if loads else ""


class Side(NamedTuple):
    """One of two runs: its heading, its metrics, and what its experts tell of the class (`kept_class_told`)."""

    title: str
    records: Records
    told: float | None = None


def table_of_two(sides: Sequence[Side], task: Task, by_text: bool, texts: int) -> Markup:
    """Both runs' figures beside each other; "–" where one is not known yet.

    Args:
        by_text: whether an expert's room is counted text by text, not over a batch.
        texts: on how many `told` is measured.
    """
    measures = ["loss"] if task.best == "loss" else ["loss", task.best]
    rows = [(f"{MEASURES[one].word} on validation", [_last(side, one) for side in sides]) for one in measures]
    rows += [
        ("experts with less than a tenth of an even share", [_idle(side) for side in sides]),
        ("busiest expert, times an even share, in the least even layer", [_busiest(side) for side in sides]),
        ("tokens dropped in training, mean of layers", [_share(recent_drops(side.records)) for side in sides]),
    ]
    if task.labelled:
        rows.append(("what a token’s expert tells of the class", [_share(side.told) for side in sides]))
    dropped = _DROPPED.format(counted=", counted in each text by itself" if by_text else ", counted over a batch")
    note = _OF_FIGURES.format(dropped=dropped) + (_TOLD.format(texts=texts) if task.labelled else "")
    return part(PIECES, "figures_of_two", [side.title for side in sides], rows, note)


def _last(side: Side, name: str) -> str:
    """A measure in the last evaluation."""
    evaluated = lines_of(side.records, "eval")
    value = _last_loss(side.records) if name == "loss" else finite(noted(evaluated[-1], name)) if evaluated else None
    measure = MEASURES[name]
    return UNKNOWN if value is None else percent(value) if measure.number == SHARE else f"{value:.3f}"


def _idle(side: Side) -> str:
    loads = recent_loads(side.records).values()
    idle = sum(share < USED_SHARE / len(load_E) for load_E in loads for share in load_E)
    return f"{idle} of {sum(map(len, loads))}" if loads else UNKNOWN


def _busiest(side: Side) -> str:
    loads = recent_loads(side.records).values()
    return f"{max(max(load_E) * len(load_E) for load_E in loads):.1f}" if loads else UNKNOWN


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else percent(max(value, 0.0))


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
    """What differs between a run with two experts for each token and one with one; "" until both have a loss."""
    losses = [_last_loss(records) for records in (two, one)]
    if None in losses:
        return ""
    return _SAME_WORK


def _last_loss(records: Records) -> float | None:
    evaluated = lines_of(records, "eval")
    if not evaluated or not any("task_loss" in line for line in lines_of(records, "train")):
        return None
    return finite(noted(evaluated[-1], "loss"))
