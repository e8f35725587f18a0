"""Pairs of source and target texts, in the columns `text` and `target`.

Try it: load_pairs(DataSource("en_hi", "folder/of/data", split="test"))
"""

from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from train.data.cells import texts_in
from train.data.columns import (
    Columns,
    cells_of,
    column_named,
    instruction_columns,
    names_in,
    split_columns,
    texts_of,
    usual_texts,
)
from train.data.errors import DataError, UnclearColumns
from train.data.loading import TrainingData, read_rows, sampled
from train.data.source import DataSource, Selection
from train.data.splits import cut
from train.formatting import quoted

# The two columns found by name: the first pair that a table has.
PAIR_COLUMNS = (("src", "tgt"), ("source", "target"), ("text", "target"), ("input", "output"), ("question", "answer"))
# Approximate, for two languages that share a vocabulary of some thousands of tokens.
TOKENS_PER_WORD = 1.9


def choose_pair(source: DataSource, names: list[str]) -> tuple[str, str]:
    """The requested source and target columns, else those found by name, else the only two; two source columns are
    comma-separated.

    Raises DataError if the choice is ambiguous.
    """
    if source.is_toy:
        raise DataError(
            "toy has no pairs of texts, only texts with classes: for --task translation use en_hi, or a file with two "
            "columns of texts."
        )
    texts = split_columns(source.text_column, names, source.dataset)
    target = source.target_column and column_named(source.target_column, names, source.dataset)
    known = source.known.text_columns if source.known else ()
    lowered = {name.lower(): name for name in reversed(names)}
    candidates = [pair for pair in (known, *PAIR_COLUMNS) if len(pair) == 2 and set(pair) <= set(lowered)]
    found = [lowered[name] for name in candidates[0]] if candidates else names if len(names) == 2 else (None, None)
    text, target = ",".join(texts) or found[0], target or found[1]
    task = instruction_columns(names)
    if not texts and text in task and target not in task:
        text = ",".join(task)  # Instruction and optional input.
    if text is None or target is None or text == target:
        raise UnclearColumns(
            f"Which columns of {source.dataset} hold the text and its translation? Name two of {quoted(names)} with "
            "--text_column and --target_column."
        )
    return text, target


def usual_source(source: DataSource) -> str | None:
    """The source column of a data set whose columns have the names of a pair's; None where a column was asked for, or
    one has a usual name for texts."""
    if source.text_column:
        return None
    names = names_in(read_rows(source)[0])
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
    rows, _ = read_rows(source)
    text, target = choose_pair(source, names_in(rows))
    texts, answers = pair_texts(rows, source.dataset, text, target)
    pairs = [pair for pair in zip(texts, answers, strict=True) if all(side.strip() for side in pair)]
    if not pairs:
        raise DataError(f"{source.dataset} has no row with both a text ('{text}') and its translation ('{target}').")
    texts, answers = zip(*pairs, strict=True)
    return Dataset.from_dict({"text": list(texts), "target": list(answers)})


def load_training_pairs(chosen: Selection) -> TrainingData:
    """The training pairs and validation pairs; never rows of the test split.

    Raises DataError when they can't be read.
    """
    rows = sampled(load_pairs(chosen.source.at("train")), chosen)
    if chosen.source.has_own_validation:
        return TrainingData(rows, load_pairs(chosen.source.at("validation")), [])
    return TrainingData(*cut(rows, chosen.validation_size), [])
