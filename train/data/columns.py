"""Select the columns of texts and classes of a table, and read them.

Try it: choose_columns(DataSource("my.csv"), ["id", "text", "label"])
"""

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets

from train.data.cells import check_names, class_of, is_word_for_missing, spelled, texts_in
from train.data.errors import DataError, UnclearColumns
from train.data.source import DataSource
from train.data.table_file import has_first_line
from train.formatting import listed, one_line, quoted

# Columns found by name: the first of these that a file has, case-insensitive.
TEXT_COLUMNS = (
    "text", "sentence", "content", "review", "question", "message", "title", "description", "utterance", "query",
    "comment", "body", "document", "headline", "tweet", "instruction", "prompt", "input", "tokens",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "category", "intent", "target", "sentiment", "topic", "tag", "label_text",
    "label_name", "class_name", "coarse_label", "emotion", "output",
)  # fmt: skip
# Instruction data: instruction and optional input, concatenated.
INSTRUCTION = ("instruction", "input")
# The two columns found by name: the first pair that a table has.
PAIR_COLUMNS = (("src", "tgt"), ("source", "target"), ("text", "target"), ("input", "output"), ("question", "answer"))
# Columns of row numbers.
ROW_NUMBERS = ("id", "idx", "index", "column 1", "unnamed: 0", "__index_level_0__")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
# Between the two texts of a pair: the separator token of tokenizers trained here; replaced for other tokenizers.
SEPARATOR_TOKEN = "[SEP]"
PAIR_SEPARATOR = f" {SEPARATOR_TOKEN} "


@dataclass(frozen=True)
class Columns:
    """The selected columns of a data set: one of texts or two of a pair, and one of classes or None."""

    dataset: str
    texts: tuple[str, ...]
    label: str | None


def choose_columns(source: DataSource, names: list[str], labelled: bool = True) -> Columns:
    """The requested columns, else the known data set's text columns, else those found by name.

    Raises DataError if the choice is ambiguous.
    """
    dataset, label_column = source.dataset, source.label_column
    usual = source.known.text_columns if source.known else ()
    texts = split_columns(source.text_column, names, dataset)
    label_column = label_column and column_named(label_column, names, dataset)
    if not texts and usual and set(usual) <= set(names):
        texts = usual
    texts = texts or usual_texts(names, other_than=label_column)
    if not labelled:
        label = None
        own = [name for name in names if name.lower() not in ROW_NUMBERS]
        texts = texts or (tuple(own) if len(own) == 1 else ())
    else:
        label = label_column or usual_label(names, other_than=texts)
        # Of two columns, the one that is not the other.
        left = [name for name in names if name not in (*texts, label) and name.lower() not in ROW_NUMBERS]
        if len(left) == 1 and bool(texts) != bool(label):
            texts, label = texts or (left[0],), label or left[0]
    missing = "text" if not texts else "label" if labelled and not label else None
    if missing:
        hint = " Does its first line name the columns? If not, write one above: text,label."
        hint = hint if has_first_line(dataset) else ""
        left = [name for name in names if name != label and name.lower() not in ROW_NUMBERS]
        if missing == "text" and len(left) == 2 and not left[1].startswith(f"{left[0]}."):
            hint = f" If a row's text is both of a pair: --text_column {shlex.quote(','.join(left))}.{hint}"
        raise UnclearColumns(
            f"Which column of {dataset} is the {missing}? Name one of {quoted(names)} with --{missing}_column.{hint}"
        )
    # `clean_names` renames a duplicate column so.
    twice = next((name for name in (*texts, label) if name and f"{name} (2)" in names), None)
    if twice:
        raise DataError(f"{dataset} has several columns named '{twice}': rename all but one.")
    return Columns(dataset, texts, label)


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


def column_named(wanted: str, names: list[str], dataset: str) -> str:
    """The column of that name, or the only one that matches without case and surrounding spaces. Raises DataError."""
    if wanted in names:
        return wanted
    alike = [name for name in names if name.strip().casefold() == wanted.strip().casefold()]
    if len(alike) != 1:
        raise DataError(f"{dataset} has no column {wanted!r}: it has {quoted(names)}.")
    return alike[0]


def split_columns(wanted: str | None, names: list[str], dataset: str) -> tuple[str, ...]:
    """The requested columns: one, whose name may contain a comma, or two, comma-separated. Raises DataError."""
    if wanted is None:
        return ()
    parts = [wanted] if wanted in names else wanted.split(",")
    return tuple(column_named(part, names, dataset) for part in parts)


def usual_label(names: list[str], other_than: Sequence[str]) -> str | None:
    """The column with the most usual name for classes."""
    return next(iter(_first_of(LABEL_COLUMNS, names, other_than=other_than)), None)


def usual_texts(names: list[str], other_than: str | None = None) -> tuple[str, ...]:
    """The column with the most usual name for texts; for instruction data both columns."""
    found = _first_of(TEXT_COLUMNS, names, other_than=(other_than,))
    task = instruction_columns(names)
    return task if found[:1] == task[:1] else found[:1]


def instruction_columns(names: list[str]) -> tuple[str, ...]:
    """The columns of instruction and input; none unless a table has both."""
    found = _first_of(INSTRUCTION, names, other_than=())
    return found if len(found) == len(INSTRUCTION) else ()


def _first_of(usual: tuple[str, ...], names: list[str], other_than: Sequence[str | None]) -> tuple[str, ...]:
    """The columns with usual names, the most usual first."""
    lowered = {name.strip().lower(): name for name in reversed(names) if name not in other_than}
    return tuple(lowered[name] for name in usual if name in lowered)


def names_in(rows: Dataset) -> list[str]:
    """The columns that can be selected: those of a table, and the fields of object columns, as in data.text."""
    fields = [(name, kind) for name, kind in rows.features.items() if isinstance(kind, dict)]
    return [*rows.column_names, *(f"{name}.{field}" for name, kind in fields for field in kind)]


def cells_of(rows: Dataset, name: str) -> list[Any]:
    """The cells of a column, or of a field, named as in `names_in`."""
    if name in rows.column_names:
        return rows[name][:]
    column = next(own for own in rows.column_names if name.startswith(f"{own}."))
    field = name[len(column) + 1 :]
    return [cell and cell[field] for cell in rows[column][:]]


def texts_of(rows: Dataset, columns: Columns, first: int = 0) -> list[str]:
    """The text of every row, "" if missing; for pairs, both texts joined. `first`: the number of the first row.

    Raises DataError if a column does not hold texts.
    """
    return joined([texts_in(cells_of(rows, column), column, columns.dataset, first) for column in columns.texts])


def joined(columns: Sequence[Sequence[str]]) -> list[str]:
    """Columns of texts -> one text per row: its non-empty texts, joined by the separator."""
    if len(columns) == 1:
        return list(columns[0])
    return [PAIR_SEPARATOR.join(text for text in row if text.strip()) for row in zip(*columns, strict=True)]


def classes_of(
    rows: Dataset, texts: list[str], columns: Columns, names: list[str] | None
) -> tuple[list[int | None], list[str]]:
    """The class index of every row, and the class names: those given, the table's own, or its distinct values.

    None for a row without a text or a class. Raises DataError if the column does not hold classes.
    """
    return classes_in(cells_of(rows, columns.label), texts, columns, names or names_of_column(rows, columns), rows)


def names_of_column(rows: Dataset, columns: Columns) -> list[str] | None:
    """The class names that a table has for its column of classes, if any."""
    return getattr(rows.features.get(columns.label), "names", None)


def classes_in(
    cells: list[Any], texts: list[str], columns: Columns, names: list[str] | None, rows: Dataset, count: int = 0
) -> tuple[list[int | None], list[str]]:
    """`classes_of` for the cells of the column of classes.

    Args:
        rows: for errors: the table, or a part of it.
        count: where `cells` are distinct ones, the rows with a class.
    """
    where, label = columns.dataset, columns.label
    check_names(names or [], label, where)
    values = _class_values(cells, texts, columns, hidden=-1 if names else None)
    distinct = set(values) - {None}
    if not distinct:
        hidden = (
            " Its labels are hidden: take the validation split." if names and all(cell == -1 for cell in cells) else ""
        )
        raise DataError(
            f"{where} has no row with both a text ({quoted(list(columns.texts))}) and a class ('{label}').{hidden} If "
            f"others of its columns ({quoted(names_in(rows))}) hold them, name these with --text_column and "
            "--label_column."
        )
    if names and all(isinstance(value, int) for value in distinct):
        if not all(0 <= value < len(names) for value in distinct):
            raise DataError(f"{where} has labels beyond its {len(names)} class names ({listed(names)}).")
        return values, names
    count = count or len(values) - values.count(None)
    _check_classes(distinct, count, columns)
    # Numbers sort as numbers ("10" after "9"), everything else as text.
    numeric = all(isinstance(value, (int, float)) for value in distinct)
    name_of = {value: _label_name(value) for value in sorted(distinct, key=None if numeric else str)}
    own = list(dict.fromkeys(name_of.values()))
    names = names if names and set(own) <= set(names) else own
    index_of = {value: names.index(name) for value, name in name_of.items()}
    return [index_of.get(value) for value in values], names


def _class_values(cells: Iterable[Any], texts: list[str], columns: Columns, hidden: int | None) -> list[Any]:
    """The values of the class column: numbers as numbers, None if class or text is missing.

    Args:
        hidden: value of hidden labels, where classes are numbered.
    """
    values = []
    for row, (cell, text) in enumerate(zip(cells, texts, strict=True)):
        value = class_of(cell, columns.label, columns.dataset, row)
        if isinstance(value, str):
            value = one_line(value) or None
        missing = not text.strip() or value != value or (hidden is not None and value == hidden)
        values.append(None if missing else value)
    distinct = {value for value in values if isinstance(value, str)}
    # Among words, numbers are words too, but 0.0 equals 0.
    same = {f"{value}.0": value for value in distinct} if any(value.endswith(".0") for value in distinct) else {}
    values = [same.get(value, value) if isinstance(value, str) else value for value in values]
    distinct = {same.get(value, value) for value in distinct}
    # Among numbers, a word such as NA is a missing value.
    words = {value for value in distinct if is_word_for_missing(value)}
    if not all(NUMBER.fullmatch(value) for value in distinct - words) or len(distinct) == len(words):
        return values
    numbers = {value: float(value) if "." in value else int(value) for value in distinct - words}
    return [numbers.get(value) if isinstance(value, str) else value for value in values]


def _check_classes(distinct: set[Any], count: int, columns: Columns) -> None:
    where, label = columns.dataset, columns.label
    check_names([_label_name(value) for value in distinct], label, where)
    fraction = next((value for value in distinct if isinstance(value, float) and not value.is_integer()), None)
    if fraction is not None:
        raise DataError(
            f"The column '{label}' of {where} holds fractions, such as {fraction}: predicting them would be "
            "regression; the models here choose among classes. If another column holds classes, name it with "
            "--label_column."
        )
    if len(distinct) > max(20, count // 2):
        raise DataError(
            f"The column '{label}' of {where} has {len(distinct):,} classes in {count:,} rows: is it the column of "
            "classes? Name that with --label_column."
        )


def _label_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def label_features(labels: list[str]) -> Features:
    """The types of rows with `text` and `label`, for classes with these names."""
    return Features({"text": Value("string"), "label": ClassLabel(names=labels)})


def align_labels(rows: Dataset, names: list[str], model_labels: list[str]) -> Dataset:
    """`rows` with the model's class indices, matched by name.

    Raises:
        DataError: when the model lacks a class of the rows.
    """
    if names == model_labels:
        return rows
    index_of = indices_in(names, model_labels)
    moved = Dataset.from_dict({"label": [index_of[label] for label in rows["label"][:]]})
    moved = moved.cast(Features({"label": ClassLabel(names=model_labels)}))
    return concatenate_datasets([rows.remove_columns("label").flatten_indices(), moved], axis=1)


def indices_in(names: list[str], model_labels: list[str]) -> list[int]:
    """The model's index of each class. Raises DataError when the model lacks one."""
    # Names are read as one line; a model's may contain line breaks or several spaces.
    known = {one_line(label): index for index, label in enumerate(model_labels)}
    known |= {label: index for index, label in enumerate(model_labels)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"The data has classes that the model does not know: {listed(list(map(spelled, unknown)))}. "
            f"The model's are {listed(model_labels[:20])}."
        )
    return [known[name] for name in names]
