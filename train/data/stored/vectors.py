"""Rows of continuous vectors instead of texts, from a parquet file: (T, width) numbers and a class each.

Try it: read_vectors(rows, DataSource("my.parquet", features_column="vectors"))
"""

import hashlib

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value

from train.data.columns import ROW_NUMBERS, Columns, classes_of, column_named, usual_label
from train.data.errors import DataError, UnclearColumns
from train.data.source import DataSource
from train.formatting import quoted

# Column of vectors; `text` then has a digest of them, by which rows are recognised.
VECTORS = "vectors"


def read_vectors(rows: Dataset, source: DataSource, names: list[str] | None) -> tuple[Dataset, list[str], int, int]:
    """(rows with `text`, `label` and VECTORS, class names, rows without vectors, rows without a class).

    Raises DataError for a column that does not hold lists of equally long lists of finite numbers.
    """
    found, dataset = rows.column_names, source.dataset
    own = column_named(source.features_column, found, dataset)
    others = [name for name in found if name != own and name.lower() not in ROW_NUMBERS]
    label = source.label_column and column_named(source.label_column, found, dataset)
    label = label or usual_label(found, other_than=(own,)) or (others[0] if len(others) == 1 else None)
    if label is None:
        raise UnclearColumns(
            f"Which column of {dataset} is the label? Name one of {quoted(others)} with --label_column."
        )
    cells = [_vectors(cell, row, own, dataset) for row, cell in enumerate(rows[own][:])]
    widths = {cell.shape[1] for cell in cells if len(cell)}
    if len(widths) != 1:
        said = f"vectors of {len(widths)} widths ({quoted(sorted(map(str, widths)))})" if widths else "no vectors"
        raise DataError(f"The column '{own}' of {dataset} holds {said}: each row must be (T, width), of one width.")
    texts = [hashlib.blake2b(cell.tobytes(), digest_size=16).hexdigest() if len(cell) else "" for cell in cells]
    indices, names = classes_of(rows, texts, Columns(dataset, (own,), label), names)
    kept = [row for row, index in enumerate(indices) if index is not None]
    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=names), VECTORS: List(List(Value("float32")))}
    )
    chosen = {"text": [texts[row] for row in kept], "label": [indices[row] for row in kept]}
    chosen[VECTORS] = [cells[row].tolist() for row in kept]
    empty = texts.count("")
    return Dataset.from_dict(chosen, features=features), names, empty, len(texts) - len(kept) - empty


def _vectors(cell: object, row: int, column: str, dataset: str) -> np.ndarray:
    """(T, width) float32; (0, 0) for a missing cell."""
    where = f"The column '{column}' of {dataset}"
    if cell is None or (isinstance(cell, list) and not cell):
        return np.zeros((0, 0), np.float32)
    try:
        vectors = np.asarray(cell, dtype=np.float32)
    except (TypeError, ValueError):
        vectors = np.zeros(0, np.float32)
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise DataError(
            f"{where} does not hold rows of vectors (row {row + 1}): each cell must be a list of "
            "lists of as many numbers."
        )
    if not np.isfinite(vectors).all():
        raise DataError(f"{where} has a number in row {row + 1} that is not finite: leave such rows out.")
    return vectors


def vector_rows(rows: Dataset, most: int) -> Dataset:
    """Rows of `read_vectors` -> VECTORS, labels, length, row; of each at most the first `most` vectors."""
    cut = [cell[:most] for cell in rows[VECTORS]]
    lengths = list(map(len, cut))
    made = {VECTORS: cut, "labels": rows["label"][:], "length": lengths, "row": list(range(len(cut)))}
    types = {VECTORS: List(List(Value("float32"))), **dict.fromkeys(("labels", "length", "row"), Value("int64"))}
    return Dataset.from_dict(made, features=Features(types))
