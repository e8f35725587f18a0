"""A table in a file -> its columns: CSV, TSV, JSONL, JSON or parquet, or a sentence that says what is wrong with it.

Cells of a CSV stay as they are written, and an empty cell is an empty text: what is a number, train.columns finds out.
Try it: read_table(Path("my.csv")).column_names
"""

import codecs
import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
# What may stand between two cells, the likeliest first.
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
DELIMITER_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
# How files begin that are often taken for a CSV.
OTHER_KINDS = {b"PK\x03\x04": "an Excel or zip", b"PAR1": "a parquet", b"\x1f\x8b": "a gzip", b"%PDF": "a PDF"}
# What no text holds: control characters other than those from backspace to carriage return, and escape.
CONTROL_BYTES = {*range(8), *range(14, 32)} - {0x1B}
SNIFFED_CHARACTERS, SNIFFED_ROWS = 65_536, 50
MAX_NAME = 40
SAVE_AS_UTF8 = "Save it again as UTF-8 (in Excel: Save As, CSV UTF-8)."
# Python's own limit of 131,072 characters for a cell has no use here. It holds for the whole process.
csv.field_size_limit(sys.maxsize)


class DataError(Exception):
    """Says which data could not be had, why, and what to do."""


class _QuoteError(DataError):
    """A cell that opens with a double quote and is not closed as it should be."""


def is_table(name: str) -> bool:
    """Whether a data set's name is that of a file."""
    return Path(name).suffix.lower() in FILE_ENDINGS


def read_table(path: Path) -> Dataset:
    """All columns of a file. Raises DataError with what is wrong, in which line, and what to do."""
    ending = path.suffix.lower()
    read = {".parquet": _read_parquet, ".jsonl": _read_json, ".json": _read_json}.get(ending, _read_csv)
    try:
        rows = read(path)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise _encoding_error(path) from error
    if not len(rows):
        raise DataError(f"{path} has no rows below its columns ({quoted(rows.column_names)}): add some.")
    return rows


def listed(names: list[str]) -> str:
    """Names for a sentence: the first ten, none too long."""
    shown = ", ".join(shortened(name, MAX_NAME + 2) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def quoted(names: list[str]) -> str:
    """`listed` for names of columns, which may be words of the sentence as well."""
    return listed([f"'{shortened(name, MAX_NAME)}'" for name in names])


def counted(count: int, one: str, several: str) -> str:
    """A number with what it counts."""
    return f"{count:,} {one if count == 1 else several}"


def shortened(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    line = " ".join(text[: 2 * length].split())
    return line if len(line) <= length and len(text) <= 2 * length else line[: length - 1].rstrip() + "…"


# CSV and TSV


def _read_csv(path: Path) -> Dataset:
    with _open_text(path) as file:
        head = file.read(SNIFFED_CHARACTERS)
    if not head.strip():
        raise DataError(f"{path} is empty: its first line must name the columns, such as text,label.")
    delimiter = _delimiter(head, DELIMITERS[path.suffix.lower()])
    try:
        return _read_cells(path, delimiter, quoted=True)
    except _QuoteError as error:
        if delimiter != "\t":
            raise
        # Tables between tabs are often written without quoting: then every line is a row.
        try:
            return _read_cells(path, delimiter, quoted=False)
        except DataError:
            raise error from None


def _read_cells(path: Path, delimiter: str, quoted: bool) -> Dataset:
    rows, started = [], 1
    with _open_text(path) as file:
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        records = csv.reader(_text_lines(file, path), delimiter=delimiter, quoting=quoting, strict=True)
        try:
            header = _header(next(records))
            started = records.line_num + 1
            for cells in records:
                if len(cells) != len(header):
                    cells = _fitted(cells, len(header), f"{path}, line {started}", delimiter, may_be_short=quoted)
                if cells:
                    rows.append(cells)
                started = records.line_num + 1
        except csv.Error as error:
            raise _QuoteError(
                f"{path}, line {started}: a cell opens with a double quote and is not closed as it should be "
                f'({error}). Close it, and write a quote inside of it twice ("").'
            ) from error
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return Dataset(pa.table([pa.array(cells, pa.large_string()) for cells in columns], names=header))


def _header(cells: list[str]) -> list[str]:
    """Column names: without blanks around them, and each only once."""
    names: list[str] = []
    for place, cell in enumerate(cells, 1):
        name = wanted = cell.strip() or f"column {place}"
        count = 1
        while name in names:
            count += 1
            name = f"{wanted} ({count})"
        names.append(name)
    return names


def _fitted(cells: list[str], width: int, where: str, delimiter: str, may_be_short: bool) -> list[str]:
    """A row that has fewer or more cells than the header, where it is clear what it means; [] for an empty line."""
    if len(cells) < width and (may_be_short or not cells):
        return cells and cells + [""] * (width - len(cells))
    if len(cells) > width and not any(cells[width:]):
        return cells[:width]
    between = DELIMITER_NAMES[delimiter]
    raise DataError(
        f"{where} has {len(cells)} cells, the header {width}: where {between} is part of a text, put that text in "
        "double quotes."
    )


def _delimiter(head: str, candidates: str) -> str:
    """What stands between cells: what cuts most of the first rows into as many cells as the header."""
    fitting = {}
    for delimiter in candidates:
        widths = []
        for record in csv.reader(head.splitlines(keepends=True), delimiter=delimiter):
            widths += [len(record)] if record else []
            if len(widths) > SNIFFED_ROWS:
                break
        if widths and widths[0] > 1:
            fitting[delimiter] = widths.count(widths[0]) / len(widths)
    return max(fitting, key=fitting.__getitem__, default=candidates[0])


# Text and its encoding


def _open_text(path: Path) -> TextIO:
    with path.open("rb") as file:
        start = file.read(4)
    kind = next((kind for magic, kind in OTHER_KINDS.items() if start.startswith(magic)), None)
    if kind:
        raise DataError(
            f"{path} is {kind} file under the name of a {path.suffix} file: rename it, or save its table as CSV UTF-8."
        )
    wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return path.open(encoding="utf-16" if wide else "utf-8-sig", newline="")


def _text_lines(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise DataError(f"{path}, line {number} holds a NUL byte: the file is damaged, or not text. Save it again.")
        yield line


def _encoding_error(path: Path) -> DataError:
    """Says in which line the bytes stop being UTF-8. A guess at the encoding could go wrong without a sign."""
    with path.open("rb") as file:
        binary = bool(set(file.read(SNIFFED_CHARACTERS)) & CONTROL_BYTES)
        file.seek(0)
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                if binary:
                    break
                return DataError(
                    f"{path} is not UTF-8: line {number} holds the byte 0x{line[error.start]:02x}, as files in Latin-1 "
                    f"or Windows-1252 do. {SAVE_AS_UTF8}"
                )
    return DataError(f"{path} holds bytes that are no text: is it a {path.suffix} file? {SAVE_AS_UTF8}")


# JSON and parquet


def _read_json(path: Path) -> Dataset:
    """A line per row, or one array of rows; a row's missing values are None."""
    columns: dict[str, list[Any]] = {}
    count = 0
    for where, row in _json_rows(path):
        if not isinstance(row, dict):
            raise DataError(f'{where} is no row: each must be an object such as {{"text": "…", "label": "…"}}.')
        for name in [name for name in row if name not in columns]:
            columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
        count += 1
    if not count:
        raise DataError(f'{path} is empty: each line must be an object such as {{"text": "…", "label": "…"}}.')
    return Dataset.from_dict({name: _column(values) for name, values in columns.items()})


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with _open_text(path) as file:
        start = file.read(SNIFFED_CHARACTERS).lstrip()
        file.seek(0)
        if start.startswith("["):
            for number, row in enumerate(_parsed("".join(file), str(path)), 1):
                yield f"{path}, row {number}", row
        else:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield where, _parsed(line, where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f'{where} is not JSON ({error}): each line must be an object such as {{"text": "…", "label": "…"}}.'
        ) from error


def _read_parquet(path: Path) -> Dataset:
    try:
        table = pq.read_table(path)
        for place, field in enumerate(table.schema):
            if pa.types.is_dictionary(field.type):
                table = table.set_column(place, field.name, table.column(place).cast(field.type.value_type))
        return Dataset(table)
    except FileNotFoundError:
        raise
    except Exception as error:  # Each version of the format fails in its own way.
        reason = str(error).strip().splitlines() or ["the file is damaged"]
        raise DataError(f"{path} can't be read as parquet ({reason[0]}): is it whole? Write it again.") from error


def _column(values: list[Any]) -> pa.Array | list[Any]:
    """Values as they are, or as text where they are of several kinds or no valid text."""
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
        texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        return [text and text.encode("utf-8", "replace").decode("utf-8") for text in texts]
