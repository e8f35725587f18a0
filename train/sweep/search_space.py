"""The search space of a sweep: "lr=1e-4..1e-2:log,num_experts=2|4|8".

Try it: parse_search(["lr=1e-4..1e-2:log,num_experts=2|4|8"], Arguments.resolve({}))
"""

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from switch_model.commands import command
from train.arguments.arguments import PRIVATE, Arguments
from train.arguments.model_config import SHAPE
from train.arguments.values import HINTS, anchored, read_value, takes_number
from train.tasks.registry import TASKS

SYNTAX = """\
  name=a|b|c      one of these values
  name=a..b       any value from a to b; integers for an integer argument
  name=a..b:log   the same, log-uniform
  name=a..b:5     five evenly spaced values from a to b (a..b:log:5: on a logarithmic scale)
Separate several arguments by commas, or use several --search."""
# They change the evaluated rows, or do not affect the model: trials could not be compared, or would be equal.
NOT_SEARCHED = {
    "dataset", "text_column", "label_column", "validation_size", "num_samples", "num_classes", "task", "preset",
    "device", "max_minutes", "logging_steps", *PRIVATE,
}  # fmt: skip
# The toy data depend on these.
TOY_DATA = {"vocab_size", "seq_len", "seed"}
# Without classes, trials are compared by the loss, which depends on these.
LOSS = {"mlm_probability", "aux_loss_coef", "z_loss_coef", "seq_len", "seed"}
LOSS |= {"vocab_size", "tokenizer", "target_tokenizer"}
LARGEST_GRID = 1000


@dataclass(frozen=True)
class Dimension:
    """One argument that a sweep varies.

    Attributes:
        name: of the argument.
        text: the values as given.
        choices: the values; None = a range.
        low, high, log: the range.
    """

    name: str
    text: str
    choices: tuple[Any, ...] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        """Optuna's distribution."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        kind = IntDistribution if isinstance(self.low, int) else FloatDistribution
        return kind(self.low, self.high, log=self.log)

    def values(self) -> tuple[Any, ...]:
        """All values, for a grid. Raises ValueError for a continuous range."""
        if self.choices is not None:
            return self.choices
        if isinstance(self.low, int) and not self.log:
            return tuple(range(self.low, self.high + 1))
        raise ValueError(
            f"--search {self.name}={self.text} is a continuous range: for a grid, give the number of values, as in "
            f"{self.name}={self.text}:4"
        )


def parse_search(texts: list[str], arguments: Arguments) -> list[Dimension]:
    """The dimensions in `--search`. Raises ValueError with what is wrong and what would be accepted.

    Args:
        arguments: of every trial; data set and task restrict what can be searched.
    """
    # Values may contain commas: a comma separates dimensions only before another name.
    parts = [part.strip() for text in texts for part in re.split(r",(?=\s*\w+\s*=)", text)]
    dimensions = [_dimension(part, arguments) for part in parts]
    names = [dimension.name for dimension in dimensions]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"--search names {', '.join(sorted(twice))} twice.")
    return dimensions


def grid(dimensions: list[Dimension]) -> list[dict[str, Any]]:
    """All combinations, the last dimension changing fastest. Raises ValueError when there are far too many."""
    values = [dimension.values() for dimension in dimensions]
    size = math.prod(len(own) for own in values)
    if size > LARGEST_GRID:
        raise ValueError(f"This grid has {size:,} combinations: try --sampler random, or fewer values.")
    names = [dimension.name for dimension in dimensions]
    return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]


def _dimension(part: str, arguments: Arguments) -> Dimension:
    name, equals, text = (piece.strip() for piece in part.partition("="))
    if not equals or not text:
        raise ValueError(f"--search {part!r} is not valid: write name=values, such as lr=1e-4..1e-2:log or seed=0|1")
    if name not in HINTS:
        raise ValueError(f"--search {name}: there is no such argument. See {command()} --help")
    _refuse(name, arguments)
    found = _range(name, text) if ".." in text else None
    dimension = found or Dimension(name, text, tuple(_read(name, value) for value in text.split("|")))
    if dimension.choices and len(set(dimension.choices)) < len(dimension.choices):
        raise ValueError(f"--search {name}={text} names a value twice.")
    for value in dimension.choices or (dimension.low, dimension.high):
        _check(name, value, arguments)
    return dimension


def _refuse(name: str, arguments: Arguments) -> None:
    reason = None
    if name in NOT_SEARCHED:
        reason = "trials that differ in it can't be compared; give it as a flag for all of them"
    elif arguments.data.dataset == "toy" and name in TOY_DATA:
        reason = "the toy data set depends on it, so that trials could not be compared"
    elif name == "seed" and arguments.data.num_samples is not None:
        reason = "with --num_samples it also selects the rows, so that trials could not be compared"
    elif not TASKS[arguments.train.task].labelled and name in LOSS:
        reason = (
            f"with --task {arguments.train.task} it changes the validation loss itself, by which trials are compared"
        )
    elif arguments.train.init_from and name in {*SHAPE, "tokenizer", "target_tokenizer", "vocab_size"}:
        reason = "with --init_from the initial model determines it"
    if reason:
        raise ValueError(f"--search {name}: {reason}.")


def _range(name: str, text: str) -> Dimension | None:
    matched = re.fullmatch(r"(.+?)\.\.([^:|]+)(:log)?(?::(\d+))?", text.replace(" ", ""))
    if not takes_number(name):
        return None  # Paths and names may contain dots.
    if matched is None:
        raise ValueError(f"--search {name}={text} is not valid: write {name}=low..high, {name}=low..high:log or a|b|c")
    low, high = (_read(name, end) for end in matched.group(1, 2))
    log, count = matched.group(3) is not None, matched.group(4)
    if not low < high or math.isinf(high):
        raise ValueError(f"--search {name}={text}: the first number must be below the second.")
    if log and low <= 0:
        raise ValueError(f"--search {name}={text}: a logarithmic range must start above 0.")
    if count is None:
        return Dimension(name, text, low=low, high=high, log=log)
    return Dimension(name, text, choices=_evenly(low, high, log, int(count), name, text), log=log)


def _evenly(low: float, high: float, log: bool, count: int, name: str, text: str) -> tuple[float, ...]:
    if not 2 <= count <= LARGEST_GRID:
        raise ValueError(f"--search {name}={text}: a range has from 2 to {LARGEST_GRID} values.")
    shares = [step / (count - 1) for step in range(count)]
    values = [low * (high / low) ** share if log else low + (high - low) * share for share in shares]
    if isinstance(low, int):
        return tuple(dict.fromkeys(round(value) for value in values))
    # Rounded to six digits, so that a tenth reads 0.1.
    return low, *(float(f"{value:.6g}") for value in values[1:-1]), high


def _read(name: str, text: str) -> Any:
    """A value as the argument's type, with absolute paths. Raises ValueError."""
    try:
        return anchored({name: read_value(name, text.strip())})[name]
    except ValueError as error:
        raise ValueError(f"--search {name}: {error}.") from error


def _check(name: str, value: Any, arguments: Arguments) -> None:
    """Raise ValueError for a value that is never allowed. Values that fail only in combination are accepted here."""
    try:
        with_values(arguments, {name: value}).check()
    except ValueError as error:
        if str(error).startswith(f"--{name} "):
            raise ValueError(f"--search {name}: {error}") from error


def with_values(arguments: Arguments, values: dict[str, Any]) -> Arguments:
    """A copy of the arguments with some values replaced."""
    return Arguments.from_dict(arguments.to_dict() | values)


def chosen_values(dimensions: list[Dimension], arguments: Arguments) -> Iterator[tuple[str, Any]]:
    """A trial's values of each dimension."""
    for dimension in dimensions:
        for group in (arguments.data, arguments.model, arguments.train):
            if hasattr(group, dimension.name):
                yield dimension.name, getattr(group, dimension.name)


def written(value: Any) -> str:
    """A value as text, with four digits."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
