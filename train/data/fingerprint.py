"""Fingerprint of a run's training and held-out rows: a hash per text, from which the texts can't be recovered.

Stored in the run's folder as rows.npz, 12 bytes a row; a digest of all is stored with the checkpoint. It detects data
that changed between a run and its resume or evaluation, and counts trained-on rows in any file.
Try it: Fingerprint.load(Path("runs/my-run/rows.npz"))
"""

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from switch_model.storage.whole_files import written_aside
from train.data.loading import TrainingData
from train.data.stored.digests import AT_ONCE, LOOKED_AT_ONCE, among, column, found_in, prints
from train.formatting import counted, listed

_ARRAYS = ("train", "train_answers", "held_out", "held_out_answers", "before")


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Hashes of a run's rows.

    Attributes:
        train, held_out: uint64 hash of each text, in their order.
        train_answers, held_out_answers: uint32 hash of each text's class or translation; empty without any.
        before: sorted hashes of the texts that the initial model was trained on, for the same task.
        labels: names of the classes.
        about: what else must not change when the run is resumed: its arguments, and a digest of its vocabulary.
    """

    train: np.ndarray
    held_out: np.ndarray
    train_answers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    held_out_answers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    before: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    labels: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: TrainingData, before: np.ndarray | None = None) -> "Fingerprint":
        """Of the texts, and of their classes or target texts. `before`: hashes of the initial model's texts."""
        found: dict[str, np.ndarray] = {} if before is None else {"before": before}
        if data.parts:
            for name, part in zip(("train", "held_out"), data.parts, strict=True):
                found |= {name: part.prints, f"{name}_answers": part.answers}
            return cls(**found, labels=list(data.labels))
        for name, rows in (("train", data.train), ("held_out", data.validation)):
            found[name] = prints(column(rows, "text"))
            if "target" in rows.column_names:
                found[f"{name}_answers"] = prints(column(rows, "target")).astype(np.uint32)
            elif data.labels:
                named = prints(data.labels).astype(np.uint32)
                found[f"{name}_answers"] = named[np.fromiter(column(rows, "label"), np.int64, len(rows))]
        return cls(**found, labels=list(data.labels))

    @classmethod
    def of_streams(cls, files: Mapping[str, Path], before: np.ndarray | None = None) -> "Fingerprint":
        """From the hash files that `packing.packed` writes beside its streams."""
        train, held_out = (np.fromfile(files[name], "<u8") for name in ("train", "validation"))
        return cls(train, held_out, **({} if before is None else {"before": before}))

    @property
    def trained(self) -> np.ndarray:
        """Sorted hashes of all texts that the model was trained on."""
        return np.unique(np.concatenate([self.train, self.before]))

    def trained_on(self, hashes: np.ndarray) -> np.ndarray:
        """(N,) bool: which of the (N,) hashes are of texts that the model was trained on."""
        return found_in(hashes, (self.train, self.before))

    @cached_property
    def truly_held_out(self) -> np.ndarray:
        """Sorted hashes of the texts that were held out and never trained on: a table may contain a text twice."""
        held_out = np.unique(self.held_out)
        return held_out[~self.trained_on(held_out)]

    def known(self, texts: Iterable[str]) -> int:
        """Number of the texts that the model was trained on."""
        return int(self.trained_on(prints(texts)).sum())

    @property
    def leaked(self) -> int:
        """Number of held-out rows whose text was trained on."""
        return int(self.trained_on(self.held_out).sum())

    def same_rows(self, other: "Fingerprint") -> bool:
        """Whether rows of both kinds, and their order, are the same."""
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _ARRAYS[:4])

    def is_of(self, data: TrainingData) -> bool:
        """Whether these are its rows, in their order."""
        if not data.parts:
            return self.same_rows(Fingerprint.of(data))
        theirs = ((self.train, self.train_answers), (self.held_out, self.held_out_answers))
        for part, (texts, answers) in zip(data.parts, theirs, strict=True):
            if len(part) != len(texts):
                return False
            for start in range(0, len(part), LOOKED_AT_ONCE):
                own, stop = part.between(start, start + LOOKED_AT_ONCE), start + LOOKED_AT_ONCE
                if not np.array_equal(own.prints, texts[start:stop]):
                    return False
                if not np.array_equal(own.answers, answers[start:stop]):
                    return False
        return True

    def digest(self) -> dict[str, str]:
        """A digest of the rows of both kinds, independent of their order; it reveals nothing about single rows."""

        def of(texts: np.ndarray, answers: np.ndarray) -> str:
            order = np.lexsort((answers, texts) if len(answers) else (texts,))
            found = hashlib.sha256()
            for part in (texts, answers):
                for start in range(0, len(part), AT_ONCE):
                    found.update(part[order[start : start + AT_ONCE]].tobytes())
            return found.hexdigest()[:16]

        return {
            "train": of(self.train, self.train_answers),
            "validation": of(self.held_out, self.held_out_answers),
        }

    def save(self, path: Path) -> None:
        """Write it atomically, as .npz. Raises OSError with a readable reason."""
        told = json.dumps({"labels": self.labels, "about": self.about}).encode()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with written_aside(path) as aside, aside.open("wb") as file:
            np.savez(file, told=np.frombuffer(told, np.uint8), **arrays)

    @classmethod
    def load(cls, path: Path) -> "Fingerprint | None":
        """A fingerprint, memory-mapped; None if there is none that can be read, as in runs of earlier versions."""
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    return None
                arrays = {name: _mapped(path, archive, f"{name}.npy") for name in _ARRAYS}
                told = json.loads(_mapped(path, archive, "told.npy").tobytes())
            kinds = (np.uint32 if "answers" in name else np.uint64 for name in _ARRAYS)
            if any(array.ndim != 1 or array.dtype != kind for array, kind in zip(arrays.values(), kinds, strict=True)):
                return None
            return cls(**arrays, labels=list(told["labels"]), about=dict(told["about"]))
        except Exception:  # A damaged archive raises many types.
            return None


def _mapped(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an .npz, memory-mapped: numpy writes them uncompressed. Raises many types for a damaged one."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed.")
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)  # Of the entry's own header: behind it are a name and more.
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        kind = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if kind == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or not np.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape)


def what_changed(was: Fingerprint, now: Fingerprint) -> str:
    """How the rows differ, in words: "100 rows were added and 3 rows have another class"."""
    old, new = np.concatenate([was.train, was.held_out]), np.concatenate([now.train, now.held_out])
    added = int((~among(new, np.unique(old))).sum())
    gone = int((~among(old, np.unique(new))).sum())
    if added == gone == 0 and len(old) != len(new):
        added, gone = max(len(new) - len(old), 0), max(len(old) - len(new), 0)
    said = [f"{counted(added, 'row was', 'rows were')} added"] if added else []
    said += [f"{counted(gone, 'row is', 'rows are')} gone"] if gone else []
    if changed := _relabelled(was, now, old, new):
        said.append(f"{counted(changed, 'row has', 'rows have')} another {'class' if was.labels else 'translation'}")
    if more := [name for name in now.labels if name not in was.labels]:
        said.append(f"there {'is a new class' if len(more) == 1 else 'are new classes'} ({listed(more)})")
    if fewer := [name for name in was.labels if name not in now.labels]:
        said.append(f"{'a class is' if len(fewer) == 1 else 'classes are'} gone ({listed(fewer)})")
    if gone == len(old) > 0:
        return "none of its rows is left: is it the same file, with the same columns?"
    if not said:
        return "its rows are in another order"
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def _relabelled(was: Fingerprint, now: Fingerprint, old: np.ndarray, new: np.ndarray) -> int:
    """Number of texts in both with another answer."""
    theirs = np.concatenate([was.train_answers, was.held_out_answers])
    own = np.concatenate([now.train_answers, now.held_out_answers])
    if len(theirs) != len(old) or len(own) != len(new) or not len(old):
        return 0
    pairs = np.unique(_with_answers(old, theirs))
    return int((~among(_with_answers(new, own), pairs))[among(new, np.unique(old))].sum())


def _with_answers(texts: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """A hash of each text with its answer."""
    return texts ^ (answers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
