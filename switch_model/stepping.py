"""Long work that says how far it is: a generator of (done, in all) that returns what it found."""

from collections.abc import Callable, Generator
from typing import TypeVar

Found = TypeVar("Found")


def to_the_end(
    steps: Generator[tuple[int, int], None, Found], progress: Callable[[int, int], None] | None = None
) -> Found:
    """What the generator returns; `progress` is called with each of its steps."""
    while True:
        try:
            now = next(steps)
        except StopIteration as end:
            return end.value
        if progress:
            progress(*now)
