"""A table too large for memory, read once in parts and kept on disk: its rows as mapped Arrow, and their digests.

The folder is named by the content of what was read and how, so that the next run finds it, and a changed file does not.
Try it: stored_table(DataSource("my.csv"), "classes", None, file_parts([Path("my.csv")])).rows[0]
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets
from datasets.table import MemoryMappedTable
from filelock import FileLock

from switch_model.storage.whole_files import folder_written_aside
from train.data.cells import class_of, texts_in
from train.data.columns import (
    Columns,
    cells_of,
    choose_columns,
    choose_pair,
    classes_in,
    names_in,
    names_of_column,
    split_columns,
    texts_of,
)
from train.data.errors import DataError
from train.data.source import DataSource
from train.data.stored.cache import cache_folder, make_room, use
from train.data.stored.digests import prints
from train.data.tables import files_in_parts
from train.formatting import one_line

Kind = Literal["classes", "texts", "pairs"]
# Rows of a record batch: what is read from disk for one row.
ROWS_OF_BATCH = 1_000
# More distinct values in a column are no classes.
MOST_CLASSES = 10_000
# Neighbours that are read together for a sample.
RUN = 200
# Rows whose classes are written at once.
CLASSES_AT_ONCE = 1_000_000
# Part of the folders' names: another number = written in another way.
VERSION = 2


@dataclass(frozen=True)
class Parts:
    """Where rows come from: a digest of the content, and the parts, read anew at every call."""

    content: str
    read: Callable[[], Iterator[Dataset]]


@dataclass(frozen=True, eq=False)
class StoredTable:
    """The rows of a table with a text (and target), on disk.

    Attributes:
        folder: its files.
        names: class names; [] without classes.
        unlabelled, empty: rows without a class, which `usable` leaves out, and rows without a text, which are not kept.
    """

    folder: Path
    names: list[str]
    empty: int
    unlabelled: int

    @cached_property
    def rows(self) -> Dataset:
        """All rows, memory-mapped: text, and label (-1 = none) or target."""
        parts = [
            Dataset.from_file(str(self.folder / name)) for name in ("texts.arrow", "labels.arrow") if self._has(name)
        ]
        return parts[0] if len(parts) == 1 else concatenate_datasets(parts, axis=1)

    @cached_property
    def prints(self) -> np.ndarray:
        """(N,) uint64 digest of each text, as `digests.prints`."""
        return np.memmap(self.folder / "texts.prints", "<u8", "r")

    @cached_property
    def targets(self) -> np.ndarray:
        """(N,) uint64 digest of each target text."""
        return np.memmap(self.folder / "targets.prints", "<u8", "r")

    @property
    def has_targets(self) -> bool:
        return self._has("targets.prints")

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) class indices; -1 = none."""
        return np.memmap(self.folder / "labels.i32", "<i4", "r")

    @property
    def usable(self) -> "StoredPart":
        """The rows that can be used: all, or those with a class."""
        if not self.unlabelled:
            return StoredPart(self, range(len(self.prints)))
        return StoredPart(self, np.memmap(self.folder / "usable.i64", "<i8", "r"))

    def kept(self, told: list[Any], make: Callable[[], Sequence[np.ndarray]]) -> "list[StoredPart]":
        """Parts whose indices are worked out once, and memory-mapped from then on.

        Args:
            told: what they depend on.
            make: the (N,) indices of each.
        """
        folder = self.folder / f"parts-{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]}"
        with FileLock(folder.with_suffix(".lock")):  # Several processes of a run ask at once.
            if not folder.is_dir():
                self._write_parts(folder, make())
        return [_kept_part(self, file) for file in sorted(folder.glob("*.arrow"))]

    def _write_parts(self, folder: Path, parts: Sequence[np.ndarray]) -> None:
        with folder_written_aside(folder) as aside:
            for number, indices in enumerate(parts):
                column = pa.table({"indices": pa.array(indices, pa.uint64())})
                path = str(aside / f"{number}.arrow")
                with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, column.schema) as file:
                    file.write_table(column)

    def _has(self, name: str) -> bool:
        return (self.folder / name).is_file()


@dataclass(frozen=True, eq=False)
class StoredPart:
    """Some rows of a stored table, in an order: (N,) `indices`; those of all rows, or the first, are a range, so that
    nothing is held for each row."""

    table: StoredTable
    indices: np.ndarray | range
    # Of those of `StoredTable.kept`.
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def rows(self) -> Dataset:
        """Them, memory-mapped: text, and label or target."""
        return self.among(self.table.rows)

    def among(self, rows: Dataset) -> Dataset:
        """They, of a dataset with a row for each of the table's."""
        if self.file is None:
            return rows.select(self.indices)
        told = json.dumps([str(self.file), rows.cache_files])  # Without it all tables would be hashed.
        return Dataset(
            rows.data,
            info=rows.info,
            indices_table=MemoryMappedTable.from_file(str(self.file)),
            fingerprint=hashlib.sha256(told.encode()).hexdigest()[:16],
        )

    @property
    def prints(self) -> np.ndarray:
        """(N,) uint64 digest of each text."""
        return self.taken(self.table.prints)

    @property
    def labels(self) -> np.ndarray:
        """(N,) class indices."""
        return self.taken(self.table.labels)

    @property
    def answers(self) -> np.ndarray:
        """(N,) uint32 digest of each class or target text; (0,) without any."""
        if self.table.names:
            return prints(self.table.names).astype(np.uint32)[self.labels]
        return self.taken(self.table.targets).astype(np.uint32) if self.table.has_targets else np.zeros(0, np.uint32)

    def taken(self, values: np.ndarray) -> np.ndarray:
        """(N, …) of an array with a value for each row of the table."""
        return values[self.chosen]

    @property
    def chosen(self) -> np.ndarray | slice:
        """The index that takes them from an array with a value for each row of the table."""
        own = self.indices
        return slice(own.start, own.stop) if isinstance(own, range) else own

    def first(self, count: int) -> "StoredPart":
        """At most so many of them."""
        return self.between(0, count)

    def between(self, start: int, stop: int) -> "StoredPart":
        """Those at some neighbouring places."""
        return StoredPart(self.table, self.indices[start:stop])

    def of(self, places: np.ndarray) -> "StoredPart":
        """Those at some places, or where a mask is true."""
        if not isinstance(self.indices, range):
            return StoredPart(self.table, self.indices[places])
        places = np.flatnonzero(places) if places.dtype == bool else places
        return StoredPart(self.table, places + self.indices.start if self.indices.start else places)

    def spread(self, count: int) -> Dataset:
        """About `count` of them, in runs of neighbours from all over the table, in memory: as many single rows would
        read all of it."""
        mine = np.zeros(len(self.table.prints), bool)
        mine[self.chosen] = True
        runs = max(count // RUN, 1)
        starts = np.linspace(0, max(len(mine) - RUN, 0), runs).astype(int)
        chosen = np.unique((starts[:, None] + np.arange(RUN)).clip(max=len(mine) - 1))
        return self.table.rows.select(chosen[mine[chosen]]).map(keep_in_memory=True)


def _kept_part(table: StoredTable, file: Path) -> StoredPart:
    (chunk,) = MemoryMappedTable.from_file(str(file)).table.column("indices").chunks
    return StoredPart(table, chunk.to_numpy().view(np.int64), file)


def stored_table(source: DataSource, kind: Kind, names: list[str] | None, parts: Parts) -> StoredTable:
    """The rows of a data set on disk; read if they are not there yet.

    Args:
        names: class names by index, if known.

    Raises:
        DataError: when the rows can't be read; OSError when they can't be written.
    """
    asked = [source.dataset if source.known else "", source.text_column, source.label_column, source.target_column]
    told = json.dumps([VERSION, parts.content, kind, names, *asked])
    folder = cache_folder("tables") / hashlib.sha256(told.encode()).hexdigest()[:24]
    use(folder)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "info.json").is_file():
            print(f"{source.dataset} is read once, into {folder} …", file=sys.stderr, flush=True)
            with folder_written_aside(folder) as aside:
                _Writer(aside, source, kind, names).write(parts.read())
            make_room()
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    return StoredTable(folder, **info)


def file_parts(files: Sequence[Path]) -> Parts:
    """The parts of a table's files. Raises DataError when one can't be opened."""
    contents = []
    for path in files:
        try:
            state = path.stat()
            contents.append(_content(path, state.st_size, state.st_mtime_ns))
        except OSError as error:
            raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    return Parts("+".join(contents), lambda: files_in_parts(files))


@lru_cache(maxsize=4096)
def _content(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Writer:
    """Writes a table's folder, part by part."""

    def __init__(self, folder: Path, source: DataSource, kind: Kind, names: list[str] | None):
        self.folder, self.source, self.kind, self.names = folder, source, kind, names
        self.read, self.empty = 0, 0
        self.codes: dict[tuple[type, Any], int] = {}  # Distinct classes, in order of appearance; None = missing.
        self.seen: list[int] = []
        self.kinds: set[str] = set()

    def write(self, parts: Iterator[Dataset]) -> None:
        """Write all files. Raises DataError as the readers of whole tables do."""
        first = next(parts)
        columns, target = self._columns(first)
        schema = Features({"text": Value("string")} | ({"target": Value("string")} if target else {})).arrow_schema
        codes = (self.folder / "codes.i32").open("wb")
        digests = [
            (self.folder / f"{name}.prints").open("wb") for name in (("texts", "targets") if target else ("texts",))
        ]
        with codes, pa.OSFile(str(self.folder / "texts.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as file:
            for part in _with_first(first, parts):
                table, own = self._part(part, columns, target)
                for side, digest in zip(table, digests, strict=True):
                    digest.write(prints(side).tobytes())
                codes.write(own.tobytes())
                file.write_table(
                    pa.table([pa.array(side, pa.string()) for side in table], schema=schema), ROWS_OF_BATCH
                )
        for digest in digests:
            digest.close()
        names, unlabelled = self._classes(first, columns) if columns.label else ([], 0)
        if self.read == self.empty:
            raise DataError(f"{self.source.dataset} has no row with a text{' and its target' if target else ''}.")
        (self.folder / "codes.i32").unlink()
        info = {"names": names, "empty": self.empty, "unlabelled": unlabelled}
        (self.folder / "info.json").write_text(json.dumps(info) + "\n", encoding="utf-8")

    def _columns(self, first: Dataset) -> tuple[Columns, str | None]:
        """Columns of texts and classes, and of target texts."""
        found = names_in(first)
        if self.kind != "pairs":
            return choose_columns(self.source, found, labelled=self.kind == "classes"), None
        text, target = choose_pair(self.source, found)
        return Columns(self.source.dataset, split_columns(text, found, self.source.dataset), None), target

    def _part(self, part: Dataset, columns: Columns, target: str | None) -> tuple[list[list[str]], np.ndarray]:
        """The rows of a part with a text (and target): columns of texts, and numbers of their distinct classes."""
        where, first = columns.dataset, self.read
        self._check_kinds(part, (*columns.texts, target or columns.label))
        texts = [texts_of(part, columns, first)]
        if target:
            texts.append(texts_in(cells_of(part, target), target, where, first))
        kept = [row for row, cells in enumerate(zip(*texts, strict=True)) if all(cell.strip() for cell in cells)]
        self.read, self.empty = first + len(part), self.empty + len(part) - len(kept)
        codes = []
        if columns.label:
            cells = cells_of(part, columns.label)
            codes = [self._code(class_of(cells[row], columns.label, where, first + row), columns) for row in kept]
        return [[side[row] for row in kept] for side in texts], np.array(codes, dtype="<i4")

    def _code(self, value: Any, columns: Columns) -> int:
        value = one_line(value) or None if isinstance(value, str) else None if value != value else value
        code = self.codes.setdefault((type(value), value), len(self.codes))
        if code == len(self.seen):
            self.seen.append(0)
            if code >= MOST_CLASSES:
                raise DataError(
                    f"The column '{columns.label}' of {columns.dataset} has more than {MOST_CLASSES:,} classes: is it "
                    "the column of classes? Name that with --label_column."
                )
        self.seen[code] += 1
        return code

    def _check_kinds(self, part: Dataset, columns: tuple[str | None, ...]) -> None:
        """Raise DataError where the parts of a column disagree about its kind, which a whole table would settle."""
        for name in filter(None, columns):
            is_text = getattr(part.features.get(name), "dtype", "") in ("string", "large_string")
            kinds = {"texts"} if is_text else {_kind_of(cell) for cell in cells_of(part, name)} - {None}
            self.kinds |= {f"{name}\0{kind}" for kind in kinds}
            several = sorted(one.split("\0")[1] for one in self.kinds if one.split("\0")[0] == name)
            if len(several) > 1:
                raise DataError(
                    f"The column '{name}' of {self.source.dataset} holds {' and '.join(several)}: in a table this "
                    "large, write all its values as texts."
                )

    def _classes(self, first: Dataset, columns: Columns) -> tuple[list[str], int]:
        """Write each row's class index; (class names, rows without a class)."""
        values = [value for _, value in self.codes]
        known = sum(
            count for (_, value), count in zip(self.codes.items(), self.seen, strict=False) if value is not None
        )
        names = self.names or names_of_column(first, columns)
        own, names = classes_in(values, ["text"] * len(values), columns, names, first, count=max(known, 1))
        index_of = np.array([-1 if index is None else index for index in own] or [-1], dtype="<i4")
        codes, unlabelled = np.memmap(self.folder / "codes.i32", "<i4", "r") if self.seen else np.zeros(0, "<i4"), 0
        schema = Features({"label": ClassLabel(names=names)}).arrow_schema
        numbers, usable = ((self.folder / name).open("wb") for name in ("labels.i32", "usable.i64"))
        arrow = pa.OSFile(str(self.folder / "labels.arrow"), "wb")
        with numbers, usable, arrow, pa.ipc.new_stream(arrow, schema) as file:
            for start in range(0, len(codes), CLASSES_AT_ONCE):
                labels = index_of[codes[start : start + CLASSES_AT_ONCE]]
                numbers.write(labels.tobytes())
                usable.write((start + np.flatnonzero(labels >= 0)).astype("<i8").tobytes())
                unlabelled += int((labels < 0).sum())
                file.write_table(pa.table([pa.array(labels.astype(np.int64))], schema=schema), ROWS_OF_BATCH)
        if not unlabelled:
            (self.folder / "usable.i64").unlink()
        return names, unlabelled


def _with_first(first: Dataset, others: Iterator[Dataset]) -> Iterator[Dataset]:
    yield first
    yield from others


def _kind_of(cell: Any) -> str | None:
    """The kind of a cell, as far as kinds are read differently; None for a missing one."""
    if cell is None or cell != cell:
        return None
    if isinstance(cell, bool):
        return "true or false"
    return "numbers" if isinstance(cell, (int, float)) else "texts" if isinstance(cell, (str, bytes)) else "others"
