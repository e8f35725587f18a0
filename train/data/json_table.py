"""JSON of any layout -> columns: a row per line, an array of rows, rows in a field, or pandas' layouts.

Try it: read_json(Path("my.json")).column_names
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from switch_model.inference.pipeline import replace_surrogates
from train.data.csv_table import clean_names
from train.data.errors import DataError
from train.data.table_file import open_text
from train.formatting import quoted

AN_OBJECT = 'each must be an object such as {"text": "…", "label": "…"}'
WRITE_LINES = 'Write it as JSON lines, a row such as {"text": "…", "label": "…"} on each line (.jsonl).'
# Fields around each row of the Hub's data set server.
SERVED_ROW = {"row_idx", "row", "truncated_cells"}


def read_json(path: Path) -> Dataset:
    """All columns; a row's missing values are None. Raises DataError with what is wrong, where, and what to do."""
    columns: dict[str, list[Any]] = {}
    count = 0
    for where, row in _rows(path):
        if not isinstance(row, dict):
            raise DataError(f"{where} is not a row: {AN_OBJECT}.")
        for name in [name for name in row if name not in columns]:
            columns[name] = [None] * count
        for name, values in columns.items():
            values.append(row.get(name))
        count += 1
    if not count:
        raise DataError(f"{path} is empty: {AN_OBJECT.replace('each', 'each line')}.")
    names = clean_names(columns)
    return Dataset.from_dict(dict(zip(names, map(_column, columns.values()), strict=True)))


def json_in_parts(path: Path, rows: int) -> Iterator[Dataset]:
    """JSON lines, an object on each, `rows` rows at a time.

    Raises DataError for other layouts, which have to be read whole, and for a field that the first part lacks, because
    the columns are chosen by then.
    """
    with open_text(path) as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if line.strip("\ufeff \t\r\n"))
        names: list[str] = []
        while part := list(islice(lines, rows)):
            try:
                objects = [(f"{path}, line {number}", _parsed(line, path, number)) for number, line in part]
            except DataError as error:
                raise DataError(f"{error} {WRITE_LINES}") from error
            if not names and (_are_served(objects[:1]) or not isinstance(objects[0][1], dict)):
                raise DataError(f"{path} is too large to be read whole, and its lines are not rows. {WRITE_LINES}")
            names = names or _fields_of(objects)
            columns: dict[str, list[Any]] = {name: [] for name in names}
            for where, row in objects:
                if not isinstance(row, dict):
                    raise DataError(f"{where} is not a row: {AN_OBJECT}.")
                if new := [name for name in row if name not in columns]:
                    raise DataError(
                        f"{where} has the field {new[0]!r}, which the first {rows:,} rows lack: in a table this large, "
                        "write every field into its first row (null where it has no value)."
                    )
                for name, values in columns.items():
                    values.append(row.get(name))
            yield Dataset.from_dict(dict(zip(clean_names(names), map(_column, columns.values()), strict=True)))


def _fields_of(objects: list[tuple[str, Any]]) -> list[str]:
    """The names of all fields, in the order in which they appear."""
    return list(dict.fromkeys(name for _, row in objects if isinstance(row, dict) for name in row))


def is_rows_alone(path: Path) -> bool:
    """Whether a JSON file is a row per line or an array of rows, without further data around them."""
    try:
        with open_text(path) as file:
            whole = json.loads(file.read().strip("\ufeff \t\r\n"))
        if isinstance(whole, dict) and _unfolded(whole, str(path)) is not None:
            return False
    except (ValueError, RecursionError):
        pass
    return not _are_served(_stored(path))


def _are_served(values: list[tuple[str, Any]]) -> bool:
    """Whether each row is in an object with its number, as from the Hub's data set server."""
    return bool(values) and all(
        isinstance(row, dict) and row.keys() <= SERVED_ROW and "row" in row for _, row in values
    )


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row, with its location."""
    values = _stored(path)
    yield from ((where, row["row"]) for where, row in values) if _are_served(values) else values


def _stored(path: Path) -> list[tuple[str, Any]]:
    """The rows as stored in the file, with their locations."""
    with open_text(path) as file:
        lines = [(number, line) for number, line in enumerate(file, 1) if line.strip("\ufeff \t\r\n")]
    if not lines:
        return []
    if not lines[0][1].lstrip("\ufeff \t").startswith("["):
        values = []
        try:
            for number, line in lines:
                values.append((f"{path}, line {number}", _parsed(line, path, number)))
        except DataError as error:
            try:
                values = _documents(path, lines)
            except DataError:
                if not values:  # A document over several lines: its error is more precise than its first line's.
                    raise
                raise error from None
        if len(values) == 1 and isinstance(values[0][1], dict):
            values = _unfolded(values[0][1], str(path)) or values
    else:
        documents = _documents(path, lines)
        if len(documents) > 1:
            raise DataError(f"{path} holds lists whose values have no names: {AN_OBJECT}.")
        values = [(f"{path}, row {number}", row) for number, row in enumerate(documents[0][1], 1)]
    return values


def _parsed(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise _no_json(path, number, text, error) from error


def _documents(path: Path, lines: list[tuple[int, str]]) -> list[tuple[str, Any]]:
    """Concatenated values, each over one or more lines."""
    text = "".join(line for _, line in lines)
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        if text[place] in "\ufeff \t\r\n":
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(text, place)
        except ValueError as error:
            line = text.count("\n", 0, error.pos) if isinstance(error, json.JSONDecodeError) else 0
            # Too deeply nested: report the first line.
            raise _no_json(path, *lines[min(line, len(lines) - 1)], error) from error
        except RecursionError as error:
            raise _no_json(path, *lines[0], error) from error
        found.append((f"{path}, row {len(found) + 1}", value))
    return found


def _no_json(path: Path, number: int, line: str, error: Exception) -> DataError:
    reason = getattr(error, "msg", None) or str(error)
    hint = " If it is a CSV, let its name say so." if not line.lstrip().startswith(("{", "[")) else ""
    return DataError(f"{path}, line {number} is not JSON ({reason}): {AN_OBJECT.replace('each', 'each line')}.{hint}")


# One object that is a whole table


def _unfolded(value: dict[str, Any], where: str) -> list[tuple[str, Any]] | None:
    """The rows of an object that is a whole table; None for an object that is a single row.

    Raises DataError if it is ambiguous which of its fields holds the rows.
    """
    if isinstance(value.get("text"), str):
        return None
    if isinstance(value.get("columns"), list) and _lists(value.get("data")):
        return _named(value["columns"], value["data"], f"{where}, 'data'")
    of_rows = [name for name, rows in value.items() if _objects(rows)]
    if "rows" in of_rows and all("row" in row for row in value["rows"]):
        of_rows = ["rows"]
    if len(of_rows) > 1:
        raise DataError(
            f"{where} holds rows in several fields ({quoted(of_rows)}): save the rows to train on as a separate file, "
            "one per line."
        )
    if of_rows:
        return _numbered(value[of_rows[0]], f"{where}, '{of_rows[0]}'")
    if value and all(isinstance(cells, list) for cells in value.values()):
        return _of_columns(value, where)
    of_objects = bool(value) and all(isinstance(cells, dict) for cells in value.values())
    if len(value) > 1 and of_objects and (rows := _of_nested(value, where)):
        return rows
    inside = {
        name: rows
        for name, fields in value.items()
        if isinstance(fields, dict)
        # Beside plain values, lists of words may be fields of a row.
        and (of_objects or any(map(_objects, fields.values())))
        and (rows := _unfolded(fields, f"{where}, '{name}'"))
    }
    if len(inside) > 1 or (len(value) > 1 and of_objects and not inside):
        raise DataError(
            f"{where} is one object with the fields {quoted(list(inside or value))}, and it is ambiguous which holds "
            "the rows: save them as one row per line."
        )
    return next(iter(inside.values()), None)


def _of_columns(columns: dict[str, list[Any]], where: str) -> list[tuple[str, Any]]:
    """{"text": [...], "label": [...]}"""
    if len(columns) == 1 and _lists(next(iter(columns.values()))):
        raise DataError(f"{where} holds lists whose values have no names in {quoted(list(columns))}: {AN_OBJECT}.")
    if len(set(map(len, columns.values()))) > 1:
        lengths = ", ".join(f"{len(cells):,} in '{name}'" for name, cells in list(columns.items())[:5])
        raise DataError(f"{where} holds columns of different lengths ({lengths}): each must have a value for each row.")
    return _numbered([dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)], where)


def _of_nested(value: dict[str, dict[str, Any]], where: str) -> list[tuple[str, Any]] | None:
    """{"text": {"0": …}, "label": {"0": …}}, or {"0": {"text": …, "label": …}}: rows: the numbered or larger level."""
    if all(isinstance(cell, (list, dict)) for inside in value.values() for cell in inside.values()):
        return None  # Nested tables.
    keys = list(next(iter(value.values())))
    alike = all(inside.keys() == set(keys) for inside in value.values())
    if all(name.isdigit() for name in value) or (alike and len(value) > len(keys) and not _numbers(keys)):
        return _numbered(list(value.values()), where)
    if alike and (_numbers(keys) or len(keys) > len(value)):
        return _numbered([{name: inside[key] for name, inside in value.items()} for key in keys], where)
    return None


def _named(names: list[Any], rows: list[list[Any]], where: str) -> list[tuple[str, Any]]:
    """{"columns": [...], "data": [[...], ...]}"""
    short = next((number for number, row in enumerate(rows, 1) if len(row) != len(names)), None)
    if short:
        raise DataError(f"{where}, row {short} has {len(rows[short - 1])} values for {len(names)} columns.")
    return _numbered([dict(zip(map(str, names), row, strict=True)) for row in rows], where)


def _numbered(rows: list[Any], where: str) -> list[tuple[str, Any]]:
    return [(f"{where}, row {number}", row) for number, row in enumerate(rows, 1)]


def _numbers(keys: list[str]) -> bool:
    return all(key.isdigit() for key in keys)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, list) for row in value)


def _column(values: list[Any]) -> pa.Array | list[Any]:
    """Values unchanged, or as text if they have several types or are not valid text."""
    values = [None if value != value else value for value in values]  # NaN means missing.
    try:
        return pa.array(values)
    except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
        if any(isinstance(value, dict) for value in values):
            with suppress(pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError):
                return pa.array(map(_as_object, values))
        texts = [None if value is None else _as_text(value) for value in values]
        return [text and replace_surrogates(text) for text in texts]


def _as_object(value: Any) -> dict[str, Any] | None:
    """Values as objects, if a column has some: so that objects are not read as texts."""
    return value if value is None or isinstance(value, dict) else {"(no object)": _as_text(value)}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return " ".join(value)
    return json.dumps(value, ensure_ascii=False)
