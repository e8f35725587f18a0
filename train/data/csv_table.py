"""CSV and TSV in any dialect -> columns of texts. Cells are not converted; an empty one is an empty text.

Try it: read_csv(Path("my.csv"), ".csv").column_names
"""

import csv
import io
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import pyarrow as pa
from datasets import Dataset

from train.data.errors import DataError
from train.data.table_file import SNIFFED_CHARACTERS, open_text

# Possible delimiters, the most likely first.
DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|"}
DELIMITER_NAMES = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
SNIFFED_ROWS = 50
# Excel's line that declares the delimiter.
SEPARATOR_LINE = re.compile(r'"?sep=(?P<delimiter>[,;\t|])"?\s*', re.IGNORECASE)
# Written by PowerShell's Export-Csv above the header.
TYPE_LINE = re.compile(r"\ufeff?#TYPE\s")
# Instead of Python's limit of 131,072 characters per cell; global to the process.
csv.field_size_limit(sys.maxsize)


class _QuoteError(DataError):
    """A quoted cell that is not closed properly."""


@dataclass(frozen=True)
class _Layout:
    """Dialect of a file: delimiter, quote, whether spaces precede quotes, and number of lines above the header."""

    delimiter: str
    quote: str
    blanks: bool
    above: int


def read_csv(path: Path, ending: str) -> Dataset:
    """All columns. Raises DataError with what is wrong, in which line, and what to do."""
    layout = _layout_of(path, ending)
    try:
        records = list(_records(path, layout, quoted=True))
    except _QuoteError as error:
        if layout.delimiter != "\t":
            raise
        # Tab-separated tables are often written without quoting: then every line is a row.
        try:
            records = list(_records(path, layout, quoted=False))
        except DataError:
            raise error from None
    return _as_rows(records[0], records[1:])


def csv_in_parts(path: Path, ending: str, rows: int) -> Iterator[Dataset]:
    """`read_csv`, `rows` rows at a time."""
    layout, quoted = _layout_of(path, ending), True
    if layout.delimiter == "\t":  # Whether quotes are quotes shows in the whole file only: it is read twice.
        try:
            deque(_records(path, layout, quoted), maxlen=0)
        except _QuoteError as error:
            quoted = False
            try:
                deque(_records(path, layout, quoted), maxlen=0)
            except DataError:
                raise error from None
    records = _records(path, layout, quoted)
    header = next(records)
    while part := list(islice(records, rows)):
        yield _as_rows(header, part)


def _as_rows(header: list[str], records: list[list[str]]) -> Dataset:
    columns = zip(*records, strict=True) if records else [()] * len(header)
    return Dataset(pa.table([pa.array(cells, pa.large_string()) for cells in columns], names=header))


def _layout_of(path: Path, ending: str) -> _Layout:
    with open_text(path) as file:
        head = file.read(SNIFFED_CHARACTERS)
    if not head.strip(" \t\r\n,;|\ufeff"):
        raise DataError(f"{path} is empty: its first line must name the columns, such as text,label.")
    if head.lstrip("\ufeff \t\r\n").startswith(('{"', '[{"')):
        raise DataError(f"{path} holds JSON: rename it, so that its name ends in .jsonl or .json.")
    return _layout(head, DELIMITERS.get(ending, DELIMITERS[".csv"]), path)


def clean_names(names: Iterable[str]) -> list[str]:
    """Column names, stripped of spaces and invisible characters, and made unique."""
    cleaned: list[str] = []
    for place, given in enumerate(names, 1):
        name = wanted = str(given).strip(" \t\r\n\v\f\xa0\u200b\u2060\ufeff").strip() or f"column {place}"
        count = 1
        while name in cleaned:
            count += 1
            name = f"{wanted} ({count})"
        cleaned.append(name)
    return cleaned


def _records(path: Path, layout: _Layout, quoted: bool) -> Iterator[list[str]]:
    """The header, then the cells of each row."""
    started = layout.above + 1
    with open_text(path) as file:
        lines = islice(_text_lines(file, path), layout.above, None)
        quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        form = dict(delimiter=layout.delimiter, quotechar=layout.quote, skipinitialspace=layout.blanks, quoting=quoting)
        records = csv.reader(lines, **form, strict=True)
        try:
            header = clean_names(next(records))
            yield header
            started = layout.above + records.line_num + 1
            for cells in records:
                if len(cells) != len(header):
                    where = f"{path}, line {started}"
                    cells = _fitted(cells, len(header), where, layout.delimiter, may_be_short=quoted)
                if cells:
                    yield cells
                started = layout.above + records.line_num + 1
        except csv.Error as error:
            raise _QuoteError(
                f"{path}, line {started}: a cell opens with a double quote and is not closed properly ({error}). Close "
                'it right before the delimiter, and double quotes inside it ("").'
            ) from error


def _fitted(cells: list[str], width: int, where: str, delimiter: str, may_be_short: bool) -> list[str]:
    """A row with fewer or more cells than the header, corrected if that is unambiguous; [] for an empty line."""
    if len(cells) < width and (may_be_short or not cells):
        return cells and cells + [""] * (width - len(cells))
    if len(cells) > width and not any(cells[width:]):
        return cells[:width]
    between = DELIMITER_NAMES[delimiter]
    raise DataError(
        f"{where} has {len(cells)} cells, the header {width}: if {between} is part of a text, put that text in double "
        "quotes."
    )


def _layout(head: str, candidates: str, path: Path) -> _Layout:
    lines = list(io.StringIO(head, newline=""))
    above, comments, named = 0, [], None
    for line in lines:
        if separator := SEPARATOR_LINE.fullmatch(line):
            named = separator["delimiter"]
        elif TYPE_LINE.match(line):
            pass
        elif re.match(r"#(\s|#|$)", line):
            comments.append((above + 1, line))
        elif line.strip(" \t\r\n,;|\ufeff"):
            break
        above += 1
    table = lines[above:]
    if not table:
        raise DataError(f"{path} has no line that names the columns, such as text,label.")
    delimiter = named or _delimiter(table, candidates)
    header = next(csv.reader(table, delimiter=delimiter))
    width = len(header)
    for number, comment in comments:
        if width > 1 and len(next(csv.reader([comment], delimiter=delimiter))) == width:
            raise DataError(
                f"{path}, line {number} begins with #: is it a comment, or does it name the columns? Remove the line, "
                "or the # alone."
            )
    single = all(re.fullmatch(r"\s*'.+'\s*", cell) for cell in header)
    return _Layout(delimiter, "'" if single else '"', _blanks_before_quotes(table, delimiter), above)


def _delimiter(lines: list[str], candidates: str) -> str:
    """The delimiter that splits most of the first rows into as many cells as the header."""
    fitting = {}
    for delimiter in candidates:
        share, width = _regularity(lines, delimiter)
        if width > 1:
            fitting[delimiter] = share
    return max(fitting, key=fitting.__getitem__, default=candidates[0])


def _regularity(lines: list[str], delimiter: str, **form: bool) -> tuple[float, int]:
    """The share of the first rows that have as many cells as the header, and how many that is."""
    widths = []
    try:
        for record in csv.reader(lines, delimiter=delimiter, **form):
            widths += [len(record)] if record else []
            if len(widths) > SNIFFED_ROWS:
                break
    except csv.Error as error:
        if "end of data" not in str(error):  # The last row may be cut.
            return 0.0, 0
    return (widths.count(widths[0]) / len(widths), widths[0]) if widths else (0.0, 0)


def _blanks_before_quotes(lines: list[str], delimiter: str) -> bool:
    """Whether spaces precede quotes, as in "text", "label": then the quotes would be read as part of the cells."""
    rows = islice(csv.reader(lines, delimiter=delimiter), SNIFFED_ROWS)
    if not any(cell.startswith(" ") and cell.lstrip(" ").startswith('"') for row in rows for cell in row):
        return False
    skipped, _ = _regularity(lines, delimiter, skipinitialspace=True, strict=True)
    return skipped > 0 and skipped >= _regularity(lines, delimiter)[0]


def _text_lines(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise DataError(f"{path}, line {number} holds a NUL byte: the file is damaged, or not text. Save it again.")
        yield line
