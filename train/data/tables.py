"""Read a table from a file: CSV, TSV, JSONL, JSON or parquet, compressed or not.

Cells of a CSV stay texts; train.data.columns converts numbers.
Try it: read_table(Path("my.csv")).column_names
"""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features

from train.data.csv_table import clean_names, read_csv
from train.data.errors import DataError
from train.data.json_table import read_json
from train.data.table_file import encoding_error, open_bytes, open_text, table_ending
from train.formatting import quoted

# A tiny parquet file of equal values may have any number of rows.
MOST_ROWS = 200_000_000


def read_table(path: Path) -> Dataset:
    """All columns of a file. Raises DataError with what is wrong, in which line, and what to do."""
    try:
        ending = table_ending(path)
        if ending == ".parquet":
            rows = _read_parquet(path)
        elif ending in (".jsonl", ".ndjson", ".json"):
            rows = read_json(path)
        else:
            rows = read_csv(path, ending)
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    except UnicodeError as error:
        raise encoding_error(path) from error
    if not len(rows):
        raise DataError(f"{path} has no rows below its columns ({quoted(rows.column_names)}): add some.")
    return rows


def _read_parquet(path: Path) -> Dataset:
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
            table = parquet.read()
        table = table.rename_columns(clean_names(table.column_names))
        columns = [_known(table.column(place)) for place in range(table.num_columns)]
        return Dataset(pa.table(columns, names=table.column_names))
    except DataError:
        raise
    except Exception as error:  # Versions of the format fail differently.
        reason = str(error).strip().splitlines() or ["the file is damaged"]
        raise DataError(f"{path} can't be read as parquet ({reason[0]}): is it whole? Write it again.") from error


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
