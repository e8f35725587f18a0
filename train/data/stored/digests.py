"""A digest of each text, from which it can't be recovered.

Try it: among(prints(["a", "b"]), np.unique(prints(["b"])))
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset

# Texts, and digests, that are looked at together.
AT_ONCE, LOOKED_AT_ONCE = 10_000, 500_000


def prints(texts: Iterable[str]) -> np.ndarray:
    """(N,) uint64 hash of each text, the same in every process; surrounding spaces are ignored."""
    texts, parts = iter(texts), []
    while some := list(islice(texts, AT_ONCE)):
        digests = (hashlib.blake2b(text.strip().encode("utf-8", "replace"), digest_size=8).digest() for text in some)
        parts.append(np.frombuffer(b"".join(digests), dtype="<u8"))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def column(rows: Dataset, name: str) -> Iterator[Any]:
    """The values of a column, read in chunks."""
    rows = rows.select_columns([name])
    for start in range(0, len(rows), AT_ONCE):
        yield from rows[start : start + AT_ONCE][name]


def among(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) bool: which of the values are in the sorted array `known`."""
    if not len(known):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


def found_in(values: np.ndarray, others: Iterable[np.ndarray]) -> np.ndarray:
    """(N,) bool: which of the values are in the other arrays, in any order, of which a part is looked at at once."""
    known = np.unique(values)
    seen = np.zeros(len(known), bool)
    for other in others if len(known) else ():
        for start in range(0, len(other), LOOKED_AT_ONCE):
            part = other[start : start + LOOKED_AT_ONCE]
            seen[np.searchsorted(known, part[among(part, known)])] = True
    return seen[np.searchsorted(known, values)] if len(known) else np.zeros(len(values), bool)
