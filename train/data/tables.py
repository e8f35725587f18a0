"""Read a table from a file: CSV, TSV, JSONL, JSON or parquet, compressed or not.

Cells of a CSV stay texts; train.data.columns converts numbers.
Try it: read_table(Path("my.csv")).column_names
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features

from train.data.csv_table import clean_names, csv_in_parts, read_csv
from train.data.errors import DataError
from train.data.json_table import json_in_parts, read_json
from train.data.table_file import PACKED_ENDINGS, encoding_error, open_bytes, open_text, table_ending
from train.formatting import quoted

# A tiny parquet file of equal values may have any number of rows.
MOST_ROWS = 200_000_000
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
# Rows of a part of a large table; and the variable that says from which size on a table is read in parts.
ROWS_AT_ONCE, IN_MEMORY_MB = 10_000, "SWITCH_IN_MEMORY_MB"
# How many times as large a packed table of texts is, about.
PACKED_TIMES = 4


def read_table(path: Path) -> Dataset:
    """All columns of a file. Raises DataError with what is wrong, in which line, and what to do."""
    with _read_in_words(path):
        ending = table_ending(path)
        if ending == ".parquet":
            with _parquet(path) as parquet:
                rows = _as_rows(parquet.read())
        elif ending in JSON_ENDINGS:
            rows = read_json(path)
        else:
            rows = read_csv(path, ending)
    if not len(rows):
        raise DataError(f"{path} has no rows below its columns ({quoted(rows.column_names)}): add some.")
    return rows


def table_in_parts(path: Path, rows: int = ROWS_AT_ONCE) -> Iterator[Dataset]:
    """`read_table`, about `rows` rows at a time, so that a file may be larger than memory. Raises DataError likewise,
    for what is wrong far below after the parts before it."""
    found = False
    with _read_in_words(path):
        ending = table_ending(path)
        if ending == ".parquet":
            with _parquet(path) as parquet:
                for batch in parquet.iter_batches(rows):
                    found = True
                    yield _as_rows(pa.Table.from_batches([batch]))
        else:
            parts = json_in_parts(path, rows) if ending in JSON_ENDINGS else csv_in_parts(path, ending, rows)
            for part in parts:
                found = True
                yield part
    if not found:
        raise DataError(f"{path} has no rows below its columns: add some.")


def first_rows(path: Path, rows: int) -> Dataset:
    """The first part of a table. Raises DataError as `read_table` does."""
    return next(table_in_parts(path, rows))


def is_large(path: Path) -> bool:
    """Whether a table has too many bytes to be read at once: then its rows go through parts (train/data/stored)."""
    return bytes_of(path) > most_at_once()


def most_at_once() -> int:
    """Bytes of a table, unpacked, that is read into memory as a whole: SWITCH_IN_MEMORY_MB, 100 MB without it."""
    return int(float(os.environ.get(IN_MEMORY_MB) or 100) * 1_000_000)


def bytes_of(path: Path) -> int:
    """About how many bytes of cells a table has; 0 for one that can't be opened, which reading it explains."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PAR1":
            known = pq.read_metadata(path)
            return max(sum(known.row_group(group).total_byte_size for group in range(known.num_row_groups)), 1)
        size = path.stat().st_size
        return size * PACKED_TIMES if path.suffix.lower() in PACKED_ENDINGS else size
    except Exception:  # Versions of parquet fail differently.
        return 0


@contextmanager
def _read_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeError as error:
        raise encoding_error(path) from error


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    with open_bytes(path) as file:
        start = file.read(4)
    if start != b"PAR1":
        with open_text(path):  # Raises DataError for other known kinds.
            raise DataError(
                f"{path} can't be read as parquet: it does not begin like such a file. If it is a CSV or JSONL, rename "
                "it."
            )
    try:
        with open_bytes(path) as file:
            parquet = pq.ParquetFile(file if file.seekable() else io.BytesIO(file.read()))
            if parquet.metadata.num_rows > MOST_ROWS:
                raise DataError(f"{path} has {parquet.metadata.num_rows:,} rows, more than can be read: take a part.")
            yield parquet
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # Versions of the format fail differently.
        reason = str(error).strip().splitlines() or ["the file is damaged"]
        raise DataError(f"{path} can't be read as parquet ({reason[0]}): is it whole? Write it again.") from error


def _as_rows(table: pa.Table) -> Dataset:
    table = table.rename_columns(clean_names(table.column_names))
    columns = [_known(table.column(place)) for place in range(table.num_columns)]
    return Dataset(pa.table(columns, names=table.column_names))


def _known(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in a type that `datasets` supports: categories become their values, bytes that are text become text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    elif pa.types.is_map(kind):
        pairs = pa.struct([("key", kind.key_type), ("value", kind.item_type)])
        return column.cast(pa.list_(pairs))
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return column.cast(pa.large_list(kind.value_type))
    if _is_binary(column.type):
        try:  # Some programs write texts as binary columns.
            texts = column.cast(pa.large_binary()).cast(pa.large_string())
            # With NUL it is valid UTF-8, but not text.
            return column if pc.any(pc.match_substring(texts, "\0")).as_py() else texts
        except pa.ArrowInvalid:
            return column
    try:
        Features.from_arrow_schema(pa.schema([pa.field("column", column.type)]))
        return column
    except ValueError:
        return pa.chunked_array([pa.array(map(str, column.to_pylist()), pa.large_string())])


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )
