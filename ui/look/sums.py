"""Cells of a table whose columns add up: a number with its class, and a bar right for it and left against it.

Try it: cells_of([0.5, -0.2], [0, 1], ["Sports", "World"], 0.5, 2)
"""

from collections.abc import Iterable, Sequence
from typing import Any

from train.formatting import signed


def cells_of(
    values: Sequence[float], columns: Iterable[int], names: Sequence[str], widest: float | None, digits: int
) -> list[dict[str, Any]]:
    """For the macro `cell` of pieces.html. `widest`: the value whose bar fills its half; None = no bars."""
    return [_cell(values[c], c, names[c], widest, digits) for c in columns]


def _cell(value: float, index: int, name: str, widest: float | None, digits: int) -> dict[str, Any]:
    cell = {"index": index, "name": name, "number": signed(value, digits), "side": ""}
    if widest is not None:
        side, at = ("helps", "left") if value >= 0 else ("harms", "right")
        cell |= {"side": side, "at": at, "width": f"{50 * min(abs(value) / widest, 1):.1f}"}
    return cell
