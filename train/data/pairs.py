"""Pairs of source and target texts, in the columns `text` and `target`.

Try it: load_pairs(DataSource("en_hi", "folder/of/data", split="test"))
"""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from train.data.cells import texts_in
from train.data.columns import (
    PAIR_COLUMNS,
    Columns,
    cells_of,
    choose_pair,
    names_in,
    split_columns,
    texts_of,
    usual_texts,
)
from train.data.errors import DataError
from train.data.loading import FEW, Split, TrainingData, cut_parts, large_table, read_rows, sampled
from train.data.source import DataSource, Selection
from train.data.splits import cut

# Approximate, for two languages that share a vocabulary of some thousands of tokens.
TOKENS_PER_WORD = 1.9


def usual_source(source: DataSource) -> str | None:
    """The source column of a data set whose columns have the names of a pair's; None where a column was asked for, or
    one has a usual name for texts."""
    if source.text_column:
        return None
    names = names_in(read_rows(source, FEW)[0])
    if usual_texts(names):
        return None
    lowered = {name.lower(): name for name in reversed(names)}
    return next((lowered[first] for first, second in PAIR_COLUMNS if {first, second} <= set(lowered)), None)


def pair_texts(rows: Dataset, dataset: str, source: str, target: str) -> tuple[list[str], list[str]]:
    """The texts of the two columns of `choose_pair`, "" if missing. Raises DataError."""
    read = Columns(dataset, split_columns(source, names_in(rows), dataset), None)
    return texts_of(rows, read), texts_in(cells_of(rows, target), target, dataset)


def too_long(words: Sequence[int], target_words: Sequence[int], seq_len: int) -> np.ndarray:
    """(N,) bool: whether a side of each pair probably has more than `seq_len` tokens, by its number of words."""
    return TOKENS_PER_WORD * np.maximum(words, target_words) + 1 > seq_len


def load_pairs(source: DataSource) -> Dataset:
    """One split as rows of `text` and `target`, without incomplete rows.

    Raises DataError when it can't be read.
    """
    return read_pairs(source).rows


def read_pairs(source: DataSource) -> Split:
    """`load_pairs`, with where the rows are on disk."""
    if table := large_table(source, "pairs"):
        return Split.stored(table.usable)
    rows, _ = read_rows(source)
    text, target = choose_pair(source, names_in(rows))
    texts, answers = pair_texts(rows, source.dataset, text, target)
    pairs = [pair for pair in zip(texts, answers, strict=True) if all(side.strip() for side in pair)]
    if not pairs:
        raise DataError(f"{source.dataset} has no row with both a text ('{text}') and its translation ('{target}').")
    texts, answers = zip(*pairs, strict=True)
    return Split(Dataset.from_dict({"text": list(texts), "target": list(answers)}), [])


def load_training_pairs(chosen: Selection) -> TrainingData:
    """The training pairs and validation pairs; never rows of the test split.

    Raises DataError when they can't be read.
    """
    if table := large_table(chosen.source.at("train"), "pairs"):
        return cut_parts(table.usable, chosen, "pairs")
    rows = sampled(load_pairs(chosen.source.at("train")), chosen)
    if chosen.source.has_own_validation:
        return TrainingData(rows, load_pairs(chosen.source.at("validation")), [])
    return TrainingData(*cut(rows, chosen.validation_size), [])
