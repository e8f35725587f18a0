"""Write a table with added columns, in the format of the file's ending, or as CSV to standard output.

Try it: write_table(read_table(Path("my.csv")), [{"predicted": "good"}], "out.parquet")
"""

import csv
import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from switch_model.storage.whole_files import STREAMS, write_atomically, written_aside
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


def write_table(rows: Dataset, added: list[dict[str, Any]], output: str | None) -> None:
    """Write the rows with the added columns, which replace columns of the same names: to a file in the format of its
    ending, or as CSV to standard output. Numbers stay numbers, except in CSV and TSV."""
    new = list(added[0]) if added else []
    kept = [name for name in rows.column_names if name not in new]
    ending = Path(output).suffix.lower() if output else ""
    if ending == ".parquet":
        table = rows.with_format("arrow").select_columns(kept)[:] if kept else None
        columns = {name: table.column(name) for name in kept}
        columns |= {name: _column([own[name] for own in added]) for name in new}
        with written_aside(output) as aside:
            Dataset(pa.table(columns)).to_parquet(aside)
    else:
        pairs = zip(rows.select_columns(kept) if kept else [{}] * len(rows), added, strict=True)
        copy = io.StringIO(newline="")
        if ending in JSON_ENDINGS:
            lines = [json.dumps(_without_nan(row | own), ensure_ascii=False, default=str) for row, own in pairs]
            copy.write("".join(f"{line}\n" for line in lines) if ending in JSON_LINES else _array(lines))
        else:
            writer = csv.DictWriter(copy, [*kept, *new], delimiter="\t" if ending == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(_cells(row) | _rounded(own) for row, own in pairs)
        if not output:
            print(copy.getvalue(), end="")
            return
        write_atomically(output, copy.getvalue())
    print(f"{counted(len(rows), 'row', 'rows')} with {listed(new)} added: {output}", file=sys.stderr)


def _column(values: list[Any]) -> pa.Array:
    """An added column: numbers if no value is a text, even if all are missing."""
    given = [value for value in values if value is not None]
    return pa.array(values, pa.float64() if all(isinstance(value, float) for value in given) else pa.string())


def _array(lines: list[str]) -> str:
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """NaN as None, because JSON has no NaN."""
    return {name: None if value != value else value for name, value in row.items()}


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a CSV: lists and objects as JSON."""
    nested = {name: value for name, value in row.items() if isinstance(value, (list, dict))}
    return row | {name: json.dumps(value, ensure_ascii=False, default=str) for name, value in nested.items()}


def _rounded(own: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in own.items()}
