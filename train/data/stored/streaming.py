"""Rows as they come: read in parts, shuffled in a buffer, never kept. One pass after the other, without an end.

Which row comes when depends on the data, the seed and the size of the buffer alone, so that a resumed run goes on with
the row behind the last one.
Try it: python -m train --dataset my.csv --streaming true --max_steps 100
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import IterableDataset

from train.data.cells import class_of
from train.data.columns import Columns, cells_of, classes_in, names_of_column, texts_of
from train.data.errors import DataError
from train.data.stored.digests import prints
from train.formatting import one_line

# Rows that are looked at beforehand, for classes and tokenizer; and the most of them to validate on.
FIRST_ROWS, MOST_HELD_OUT = 50_000, 2_000
# In place of a row that a resumed run has trained on already.
PASSED: dict[str, Any] = {}


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a stream with a text (and class), and what the others are read by."""

    texts: list[str]
    labels: list[int]
    names: list[str]
    classes: dict[Any, int | None]


def first_rows_of(parts: Iterator[Dataset], columns: Columns, names: list[str] | None) -> FirstRows:
    """Raises DataError when they can't be read."""
    texts: list[str] = []
    cells: list[Any] = []
    first = None
    for part in parts:
        first = part if first is None else first
        texts += texts_of(part, columns, len(texts))
        cells += cells_of(part, columns.label) if columns.label else []
        if len(texts) >= FIRST_ROWS:
            break
    if not columns.label:
        return FirstRows([text for text in texts if text.strip()], [], [], {})
    indices, names = classes_in(cells, texts, columns, names or names_of_column(first, columns), first)
    classes = {_key(cell, columns, row): index for row, (cell, index) in enumerate(zip(cells, indices, strict=True))}
    # A class of an empty text counts as none above.
    classes |= {_key(cells[row], columns, row): index for row, index in enumerate(indices) if index is not None}
    kept = [row for row, index in enumerate(indices) if index is not None]
    return FirstRows([texts[row] for row in kept], [indices[row] for row in kept], names, classes)


def _key(cell: Any, columns: Columns, row: int) -> Any:
    value = class_of(cell, columns.label, columns.dataset, row)
    return one_line(value) or None if isinstance(value, str) else None if value != value else value


class Stream(IterableDataset):
    """Training rows {"text", "label", "row"}, `row` being their number over all passes; PASSED for the first `skip`.

    Args:
        parts: reads the rows anew, part by part.
        columns: of texts and classes.
        classes: value of the column of classes -> class index, None = a row without a class.
        held_out: digests of the texts that are validated on.
        buffer: rows among which the next one is drawn.
        most: rows of a pass; None = all.
        seed: of the order.
    """

    def __init__(
        self,
        parts: Callable[[], Iterator[Dataset]],
        columns: Columns,
        classes: dict[Any, int | None],
        held_out: frozenset[int],
        buffer: int,
        most: int | None,
        seed: int,
    ):
        self.parts, self.columns, self.classes, self.held_out = parts, columns, classes, held_out
        self.buffer, self.most, self.seed, self.skip = buffer, most, seed, 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = 0
        for one_pass in count():
            begun = number
            for row in self._shuffled(np.random.default_rng((self.seed, one_pass))):
                yield row | {"row": number} if number >= self.skip else PASSED
                number += 1
            if number == begun:
                raise DataError(f"{self.columns.dataset} has no row to train on beside those to validate on.")

    def _shuffled(self, random: np.random.Generator) -> Iterator[dict[str, Any]]:
        """The rows of a pass: each new one takes the place of one of the buffer, which comes out."""
        waiting: list[dict[str, Any]] = []
        for row in islice(self._rows(), self.most):
            if len(waiting) < self.buffer:
                waiting.append(row)
                continue
            place = int(random.integers(self.buffer))
            waiting[place], row = row, waiting[place]
            yield row
        yield from (waiting[place] for place in random.permutation(len(waiting)).tolist())

    def _rows(self) -> Iterator[dict[str, Any]]:
        read = 0
        for part in self.parts():
            texts = texts_of(part, self.columns, read)
            labels = cells_of(part, self.columns.label) if self.columns.label else [None] * len(texts)
            for place, (text, cell, own) in enumerate(zip(texts, labels, prints(texts).tolist(), strict=True), read):
                if not text.strip() or own in self.held_out:
                    continue
                if not self.columns.label:
                    yield {"text": text}
                elif (index := self._class(cell, place)) is not None:
                    yield {"text": text, "label": index}
            read += len(texts)

    def _class(self, cell: Any, place: int) -> int | None:
        key = _key(cell, self.columns, place)
        if key is not None and key not in self.classes:
            raise DataError(
                f"{self.columns.dataset}, row {place + 1}: the class {key!r} is not among those of its first "
                f"{FIRST_ROWS:,} rows. Shuffle the file, or train without --streaming, which finds all classes first."
            )
        return self.classes.get(key)
