"""Long work that reports progress: a generator of (done, total) that returns its result."""

from collections.abc import Callable, Generator
from typing import TypeVar

Result = TypeVar("Result")


def to_the_end(
    steps: Generator[tuple[int, int], None, Result], progress: Callable[[int, int], None] | None = None
) -> Result:
    """Run the generator to its end and return its result; `progress` is called with each (done, total)."""
    while True:
        try:
            now = next(steps)
        except StopIteration as end:
            return end.value
        if progress:
            progress(*now)
