"""Read a table from a file: CSV, TSV, JSONL, JSON or parquet, compressed or not.

Cells of a CSV stay texts; train.data.columns converts numbers.
Try it: read_table(Path("my.csv")).column_names
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, concatenate_datasets

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


def read_parts(path: Path) -> Iterator[Dataset]:
    """`read_table`, of a large table part by part, unless its layout, such as a JSON list, has to be read whole."""
    if is_large([path]):
        parts = table_in_parts(path)
        try:
            first = next(parts)
        except DataError:
            first = None
        if first is not None:
            yield first
            yield from parts
            return
    yield read_table(path)


def read_files(files: Sequence[Path]) -> Dataset:
    """`read_table` of one table after the other. Raises DataError where they have other columns than the first."""
    tables: list[Dataset] = []
    for file in files:
        rows = read_table(file)
        tables.append(_like(tables[0].column_names, rows, files[0], file) if tables else rows)
    try:
        return tables[0] if len(tables) == 1 else concatenate_datasets(tables)
    except (ValueError, pa.ArrowException) as error:
        raise DataError(f"{files[0].parent}: the files have columns of different kinds ({error}).") from error


def files_in_parts(files: Sequence[Path], rows: int = ROWS_AT_ONCE) -> Iterator[Dataset]:
    """`table_in_parts` of one table after the other. Raises DataError as `read_files`."""
    names = None
    for file in files:
        for part in table_in_parts(file, rows):
            names = names or part.column_names
            yield part if part.column_names == names else _like(names, part, files[0], file)


def _like(names: list[str], rows: Dataset, first: Path, file: Path) -> Dataset:
    """The rows with their columns in this order."""
    if set(names) != set(rows.column_names):
        raise DataError(
            f"{file} has the columns {quoted(rows.column_names)}, {first} has {quoted(names)}: the files of a split "
            "must have the same."
        )
    return rows.select_columns(names)


def first_rows(files: Sequence[Path], rows: int) -> Dataset:
    """The first part of a table in one or several files. Raises DataError as `read_table` does."""
    return next(files_in_parts(files, rows))


def count_rows(files: Sequence[Path]) -> int | None:
    """The rows of parquet files, as they say; None for others."""
    try:
        return sum(pq.read_metadata(file).num_rows for file in files)
    except Exception:  # Versions of the format fail differently.
        return None


def is_large(files: Sequence[Path]) -> bool:
    """Whether a table in one or several files has too many bytes to be read at once: then its rows go through parts
    (train/data/stored)."""
    return sum(map(bytes_of, files)) > most_at_once()


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
