"""Suggest a task for a data set: classification if a column holds classes, else pairs, else texts.

Try it: fitting_task(DataSource("my.csv")), columns_by_content(DataSource("my.csv"))
"""

from typing import Any

from datasets import Dataset

from train.arguments.groups import DEFAULT_TASK
from train.arguments.presets import default_task
from train.data.columns import (
    ROW_NUMBERS,
    cells_of,
    choose_columns,
    choose_pair,
    classes_of,
    names_in,
    texts_of,
    usual_label,
    usual_texts,
)
from train.data.errors import DataError
from train.data.loading import read_rows
from train.data.source import DataSource
from train.tasks.registry import TASKS

# With more distinct values than this share of rows, a column holds texts rather than classes.
OWN_CLASS = 0.5
# A column without a usual name holds classes if it has at most this many values, each in this many rows on average.
FEW_CLASSES, ROWS_PER_CLASS = 20, 10
# Rows of a table too large for memory that are looked at.
LOOKED_AT = 20_000


def fitting_task(source: DataSource) -> str:
    """The task of a known data set, or the first that the columns of any other one allow."""
    named = default_task(source.dataset)
    if source.known or not TASKS[named].labelled:
        return named
    try:
        rows, names = read_rows(source.at("train"), LOOKED_AT)
    except DataError:
        return named
    columns = None
    try:
        columns = choose_columns(source, names_in(rows))
        classes, found = classes_of(rows, texts_of(rows, columns), columns, names)
        # A few rows of pairs look like a few rows with many classes.
        if len(found) <= OWN_CLASS * (len(classes) - classes.count(None)) or names or len(columns.texts) > 1:
            return named
    except DataError:
        if columns and _few_values(cells_of(rows, columns.label)):
            return named  # If classification fails after all, its error message says why.
    if columns_by_content(source):
        return DEFAULT_TASK
    try:
        choose_pair(source, names_in(rows))
        return next(name for name, task in TASKS.items() if task.paired)
    except DataError:
        streamed = next(name for name, task in TASKS.items() if task.streamed)
        return streamed if len(rows.column_names) == 1 else named


def columns_by_content(source: DataSource) -> tuple[str, str] | None:
    """(column of texts, column of classes) of a table with two columns without usual names, found by content: many
    distinct values in one, few in the other. None for any other data set."""
    if not source.is_own:
        return None
    try:
        rows, _ = read_rows(source.at("train"), LOOKED_AT)
    except DataError:
        return None
    own = [name for name in rows.column_names if name.lower() not in ROW_NUMBERS]
    if len(own) != 2 or _named(source, rows.column_names):
        return None
    values = {name: [str(value).strip() for value in rows[name][:] if value is not None] for name in own}
    distinct = {name: len({value for value in values[name] if value}) for name in own}
    classes, texts = sorted(own, key=distinct.__getitem__)
    few = 2 <= distinct[classes] <= min(FEW_CLASSES, len(values[classes]) / ROWS_PER_CLASS)
    return (texts, classes) if few and distinct[texts] > OWN_CLASS * len(values[texts]) else None


def likely_columns(source: DataSource) -> tuple[str, str | None] | None:
    """(the column of texts, the one of classes) of a data set whose names leave a doubt: what a name does not say, the
    content does: the longest texts, and few values. None of one without texts."""
    if (read := _texts_by_length(source)) is None:
        return None
    rows, names, longest = read
    texts = next(iter(usual_texts(names)), longest[0])
    others = ((name, rows[name][:]) for name in names if name != texts)
    few = (name for name, cells in others if _few_values(cells) and len(set(map(str, cells))) > 1)
    return texts, usual_label(names, other_than=(texts,)) or next(few, None)


def likely_pair(source: DataSource) -> tuple[str, str] | None:
    """The two columns with the longest texts, in the order of the table; None where there are not two."""
    read = _texts_by_length(source)
    if read is None or len(read[2]) < 2:
        return None
    text, target = sorted(read[2][:2], key=read[1].index)
    return text, target


def _texts_by_length(source: DataSource) -> tuple[Dataset, list[str], list[str]] | None:
    """(the training rows, their columns but for row numbers, those with texts, the longest first), if there are any."""
    try:
        rows, _ = read_rows(source.at("train"), LOOKED_AT)
    except DataError:
        return None
    names = [name for name in rows.column_names if name.lower() not in ROW_NUMBERS]
    lengths = {name: sum(len(cell) for cell in rows[name][:] if isinstance(cell, str)) for name in names}
    longest = sorted(filter(lengths.get, names), key=lengths.get, reverse=True)
    return (rows, names, longest) if longest else None


def _few_values(cells: list[Any]) -> bool:
    return len(set(map(str, cells))) <= min(FEW_CLASSES, OWN_CLASS * len(cells))


def _named(source: DataSource, names: list[str]) -> bool:
    """Whether the columns can be selected by name."""
    try:
        choose_columns(source, names)
        return True
    except DataError:
        return False
