"""Cells of a table -> texts or classes; other values are rejected instead of being converted.

Try it: text_of(["he", "hated", "it"], "text", "my.jsonl", 0), class_of(b"good", "label", "my.parquet", 0),
look("Good\\u200b") == look("good")
"""

import datetime
import unicodedata
import uuid
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from switch_model.checkpoint import check_labels
from train.data.errors import DataError
from train.formatting import quoted, shortened

# Types that are converted to text: numbers, dates, times.
WRITTEN = (int, float, Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
SHOWN = 60
# How pandas, R, databases, spreadsheets and people write missing values.
WORDS_FOR_MISSING = {
    "nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "null", "<null>", "\\n", "none", "nil", "nat", "-", "--", "–",
    "?", ".", "#value!", "#ref!", "undefined",
}  # fmt: skip
# Letters of other scripts, dashes and quotes that look like ASCII ones.
_TWINS = str.maketrans(
    "авекмнорстухіѕјԁԛԝһӏ" "αβεικνορτυχ" "‐‑‒–—−" "‘’‚`´" "“”„«»",
    "abekmhopctyxisjdqwhl" "abeiknoptux" "------" "'''''" '"""""',
)  # fmt: skip


def texts_in(values: Iterable[Any], column: str, dataset: str, first: int = 0) -> list[str]:
    """The text of every cell of a column, "" if missing; `first`: the number of the first row, for errors. Raises
    DataError as `text_of` does."""
    return [
        value if isinstance(value, str) else text_of(value, column, dataset, row)
        for row, value in enumerate(values, first)
    ]


def text_of(value: Any, column: str, dataset: str, row: int) -> str:
    """The text of a cell: a list of words is joined with spaces, bytes are decoded as UTF-8.

    Raises DataError for objects, lists of numbers, and bytes that are not UTF-8.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    if isinstance(value, bytes):
        return _decoded(value, column, dataset, row)
    if isinstance(value, (list, tuple)):
        return " ".join(_words(value, column, dataset, row))
    if isinstance(value, WRITTEN):
        return str(value)
    field = f"One of them is named as in {column}.{next(iter(value))}. " if isinstance(value, dict) and value else ""
    raise DataError(f"{_where(column, dataset)} holds no texts but {_kind(value)} (row {row + 1}). {field}{_REMEDY}")


def class_of(value: Any, column: str, dataset: str, row: int) -> str | int | float | None:
    """The class of a cell as a word or a number; None if missing.

    Raises DataError for any other value.
    """
    if isinstance(value, bytes):
        value = _decoded(value, column, dataset, row)
    if isinstance(value, (list, tuple)):
        if len(value) > 1:
            raise DataError(
                f"{_where(column, dataset)} holds a list of {len(value)} in row {row + 1} "
                f"({shortened(str(value), SHOWN)}): several classes, or one for each word. The models here choose one "
                "class for a whole text: write one into each row, or name another column with --label_column."
            )
        return class_of(value[0], column, dataset, row) if value else None
    if isinstance(value, Decimal):
        value = float(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise DataError(
        f"{_where(column, dataset)} holds no classes but {_kind(value)} (row {row + 1}): each must be a word or a "
        "number. Name another column with --label_column."
    )


_REMEDY = (
    "Write the text into a column of its own, or name another column with --text_column (for translation targets, "
    "--target_column)."
)


def _words(values: list[Any] | tuple[Any, ...], column: str, dataset: str, row: int) -> list[str]:
    words = [value for value in values if value is not None]
    odd = next((word for word in words if not isinstance(word, (str, bytes))), None)
    if odd is not None:
        kind = "numbers" if isinstance(odd, (int, float)) else _kind(odd, "lists", "objects")
        hints = {
            "numbers": " Are they the numbers of tokens? A run learns a tokenizer of its own.",
            "lists": " Are they vectors? --features_column trains on those.",
        }
        hint = hints.get(kind, "")
        raise DataError(f"{_where(column, dataset)} holds lists of {kind} (row {row + 1}), no texts.{hint} {_REMEDY}")
    return [word if isinstance(word, str) else _decoded(word, column, dataset, row) for word in words]


def _decoded(value: bytes, column: str, dataset: str, row: int) -> str:
    try:
        text = value.decode("utf-8")
        reason = "a NUL byte, as in UTF-16 or binary files" if "\0" in text else None
    except UnicodeDecodeError as error:
        reason = f"the byte 0x{value[error.start]:02x}, which is not UTF-8"
    if reason:
        raise DataError(
            f"{_where(column, dataset)} holds bytes instead of texts, and in row {row + 1} {reason}. Write the column "
            "as text, decoded with its encoding."
        )
    return text


def _kind(value: Any, several: str = "a list", objects: str = "an object") -> str:
    if isinstance(value, dict):
        return f"{objects} with the fields {quoted(list(map(str, value)))}"
    if isinstance(value, (list, tuple)):
        return several
    return f"{type(value).__name__} values"


def _where(column: str, dataset: str) -> str:
    return f"The column '{column}' of {dataset}"


def is_word_for_missing(name: str) -> bool:
    """Whether a cell is one of the ways to write a missing value."""
    return name.strip().casefold() in WORDS_FOR_MISSING


def look(name: str) -> str:
    """A key that is equal for names that look alike: ignores case, width, composition, invisible characters, and
    look-alike letters."""
    plain = unicodedata.normalize("NFKC", name).casefold().translate(_TWINS)
    seen = "".join(character for character in plain if unicodedata.category(character) not in ("Cf", "Cc", "Mn"))
    return " ".join(seen.split())


def spelled(name: str) -> str:
    """A name with the code points of its non-ASCII characters, to distinguish look-alikes: goo\\u200bd (U+200B)."""
    odd = dict.fromkeys(character for character in name if not 0x20 <= ord(character) < 0x7F)
    codes = ", ".join(f"U+{ord(character):04X}" for character in list(odd)[:3])
    return f"{name} ({codes})" if odd else name


def check_names(names: list[str], column: str, dataset: str) -> None:
    """Raise DataError for class names with which a checkpoint could not be opened again."""
    try:
        check_labels(names)
    except ValueError as error:
        raise DataError(
            f"The column '{column}' of {dataset} can't be learned as classes: {error} Is it the column of classes? "
            "Name another one with --label_column, or shorten the names."
        ) from error
