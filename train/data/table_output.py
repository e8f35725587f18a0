"""Write a table with added columns, in the format of the file's ending, or as CSV to standard output.

Try it: write_table([(read_table(Path("my.csv")), [{"predicted": "good"}])], "out.parquet")
"""

import csv
import io
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from switch_model.storage.whole_files import STREAMS, written_aside
from train.data.errors import DataError
from train.data.json_table import is_rows_alone
from train.data.table_file import FILE_ENDINGS, table_ending
from train.formatting import counted, listed

JSON_LINES, JSON_ENDINGS = (".jsonl", ".ndjson"), (".jsonl", ".ndjson", ".json")


def check_output(output: str | None, source: str) -> None:
    """Raise ValueError if `output` has an unsupported ending, or would replace `source` and lose data around its
    rows."""
    if output is None or _is_stream(output):
        return
    path = Path(output)
    if path.suffix.lower() not in FILE_ENDINGS:
        endings = f"{', '.join(FILE_ENDINGS[:-1])} or {FILE_ENDINGS[-1]}"
        raise ValueError(f"--output {output} must end in {endings}: other formats and compression are not supported.")
    given = Path(source)
    if not (path.exists() and given.exists() and os.path.samefile(path, given)):
        return
    if table_ending(given) in JSON_ENDINGS and not is_rows_alone(given):
        raise ValueError(f"{source} contains more than rows, which a copy would lose: give another --output.")


def _is_stream(output: str) -> bool:
    """Whether it is a pipe or a device, whose name has no format."""
    if STREAMS.fullmatch(os.path.abspath(output)):
        return True
    return os.path.exists(output) and not stat.S_ISREG(os.stat(output).st_mode)


# Rows of a table, and for each its new columns.
Part = tuple[Dataset, list[dict[str, Any]]]


def write_table(parts: Iterable[Part], output: str | None) -> None:
    """Write rows with added columns, which replace columns of the same names: to a file in the format of its ending, or
    as CSV to standard output; each part as it comes. Numbers stay numbers, except in CSV and TSV.

    Raises DataError where a part does not fit a parquet file's first one.
    """
    if not output:
        return _write_lines(_lines_of_csv(parts, ",", []), sys.stdout)
    ending, new, count = Path(output).suffix.lower(), [], [0]

    def counted_parts() -> Iterator[Part]:
        for rows, added in parts:
            count[0] += len(rows)
            yield rows, added

    with written_aside(output) as aside:
        if ending == ".parquet":
            _write_parquet(counted_parts(), aside, new, output)
        else:
            if ending in JSON_ENDINGS:
                lines = _lines_of_json(counted_parts(), ending in JSON_LINES, new)
            else:
                lines = _lines_of_csv(counted_parts(), "\t" if ending == ".tsv" else ",", new)
            with aside.open("w", encoding="utf-8", newline="") as file:
                _write_lines(lines, file)
    print(f"{counted(count[0], 'row', 'rows')} with {listed(new)} added: {output}", file=sys.stderr)


def _write_lines(lines: Iterator[str], file: TextIO) -> None:
    for line in lines:
        file.write(line)


def _merged(part: Part, new: list[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each row, without the columns that are replaced, and its new columns; `new` gets their names."""
    rows, added = part
    new.extend(name for name in (added[0] if added else ()) if name not in new)
    kept = [name for name in rows.column_names if name not in new]
    return zip(rows.select_columns(kept) if kept else [{}] * len(rows), added, strict=True)


def _lines_of_csv(parts: Iterable[Part], delimiter: str, new: list[str]) -> Iterator[str]:
    copy, writer = io.StringIO(newline=""), None
    for rows, added in parts:
        pairs = _merged((rows, added), new)
        if writer is None:
            writer = csv.DictWriter(
                copy, [*(name for name in rows.column_names if name not in new), *new], delimiter=delimiter
            )
            writer.writeheader()
        writer.writerows(_cells(row) | _rounded(own) for row, own in pairs)
        yield copy.getvalue()
        copy.seek(0)
        copy.truncate()


def _lines_of_json(parts: Iterable[Part], lines: bool, new: list[str]) -> Iterator[str]:
    """An object on each line; of a list of them with what a list needs."""
    pairs = (pair for part in parts for pair in _merged(part, new))
    found = (json.dumps(_without_nan(row | own), ensure_ascii=False, default=str) for row, own in pairs)
    if lines:
        yield from (f"{line}\n" for line in found)
        return
    yield "[\n"
    yield from (f",\n{line}" if number else line for number, line in enumerate(found))
    yield "\n]\n"


def _write_parquet(parts: Iterator[Part], path: Path, new: list[str], output: str) -> None:
    writer = None
    try:
        for rows, added in parts:
            new.extend(name for name in (added[0] if added else ()) if name not in new)
            kept = [name for name in rows.column_names if name not in new]
            whole = rows.with_format("arrow").select_columns(kept)[:] if kept else None
            columns = {name: whole.column(name) for name in kept}
            columns |= {name: _column(name, [own[name] for own in added]) for name in new}
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(path, Dataset(table).features.arrow_schema)
            try:
                writer.write_table(table.select(writer.schema.names).cast(writer.schema))
            except (pa.ArrowException, KeyError, ValueError) as error:
                raise DataError(
                    f"{output} can't be written: the table's columns change their kind in the middle ({error}). Write "
                    "a .csv or .jsonl instead."
                ) from error
    finally:
        if writer is not None:
            writer.close()


def _column(name: str, values: list[Any]) -> pa.Array:
    """An added column: numbers if no value is a text; where all are missing, by its name."""
    given = [value for value in values if value is not None]
    numbers = all(isinstance(value, float) for value in given) if given else name.startswith("p(")
    return pa.array(values, pa.float64() if numbers else pa.string())


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """NaN as None, because JSON has no NaN."""
    return {name: None if value != value else value for name, value in row.items()}


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a CSV: lists and objects as JSON."""
    nested = {name: value for name, value in row.items() if isinstance(value, (list, dict))}
    return row | {name: json.dumps(value, ensure_ascii=False, default=str) for name, value in nested.items()}


def _rounded(own: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in own.items()}
