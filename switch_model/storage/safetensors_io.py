"""safetensors files without memory mapping: the header is validated here, weights are read in place.

The format is 8 bytes of length, that many bytes of JSON, then the tensors' bytes. A mapped file counts as the process's
memory once it is read: opening a model would take twice its size.
Try it: read_header(Path("assets/models/ag_news/model.safetensors"))
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from switch_model.storage.archive import INDEX
from switch_model.storage.errors import CheckpointError
from switch_model.storage.json_file import parse_json, read_json

MAX_SHARDS = 1_000
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Numbers that are read, checked and converted at a time.
CHUNK = 1 << 19


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: its type, its shape, and its first byte counted from the file's start."""

    dtype: torch.dtype
    shape: list[int]
    start: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Limits:
    """For untrusted files: far above any model this package makes, far below what harms a machine."""

    header_bytes: int = 1_000_000
    tensors: int = 4_096
    index_bytes: int = 1_000_000


LIMITS = Limits()


def read_header(path: Path, limits: Limits = LIMITS, others: bool = False) -> dict[str, Entry]:
    """Tensor name -> its entry, from a validated safetensors header.

    Args:
        others: skip tensors that are not floating point, instead of rejecting the file.

    Raises:
        CheckpointError: when the header is damaged, inconsistent, too large, or does not fit the file's length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(limits.header_bytes, size - 8):
            raise CheckpointError(f"{path.name} is not a safetensors file, or its header is damaged or too large.")
        raw = file.read(length)
    header = parse_json(raw, f"The header of {path.name}")
    header.pop("__metadata__", None)
    if len(header) > limits.tensors:
        raise CheckpointError(f"{path.name} holds {len(header):,} tensors, above the limit of {limits.tensors:,}.")
    tensors, spans = {}, []
    for name, entry in header.items():
        fields = entry if isinstance(entry, dict) else {}
        dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
        if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
            raise CheckpointError(f"The header of {path.name} has an invalid entry for {name!r}.")
        spans.append((offsets[0], offsets[1]))
        if not isinstance(dtype, str) or dtype not in DTYPES:
            if others:
                continue
            raise CheckpointError(f"The weight {name} has dtype {dtype!r}; accepted: {', '.join(DTYPES)}.")
        tensors[name] = Entry(DTYPES[dtype], shape, 8 + length + offsets[0])
        if offsets[1] - offsets[0] != tensors[name].numbers * DTYPES[dtype].itemsize:
            raise CheckpointError(f"{path.name} can't be read: the size of {name} does not fit its shape.")
    end = 0
    for first, last in sorted(spans):
        if first != end or last < first:
            raise CheckpointError(f"{path.name} can't be read: its tensors overlap or leave gaps.")
        end = last
    if 8 + length + end != size:
        raise CheckpointError(f"{path.name} can't be read: its length does not fit its header.")
    return tensors


def _counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def read_tensor(file: FileIO, name: str, entry: Entry, out: Tensor) -> None:
    """Read one tensor into `out`, in its dtype. Raises CheckpointError for NaN or infinite values."""
    flat = out.view(-1)
    file.seek(entry.start)
    buffer = None if entry.dtype == out.dtype else torch.empty(min(CHUNK, len(flat)), dtype=entry.dtype)
    for first in range(0, len(flat), CHUNK):
        target = flat[first : first + CHUNK]
        chunk = target if buffer is None else buffer[: len(target)]
        if file.readinto(_bytes(chunk)) != chunk.nbytes:
            raise CheckpointError(f"The file is cut off in the middle of {name}.")
        if buffer is not None:
            target.copy_(chunk)
        if not target.isfinite().all():
            raise CheckpointError(f"The weight {name} has NaN or infinite values: the checkpoint is damaged.")


def read_tensors(path: Path, header: Mapping[str, Entry], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of a file, in `dtype`. Raises CheckpointError as read_tensor does."""
    tensors = {name: torch.empty(entry.shape, dtype=dtype) for name, entry in header.items()}
    with path.open("rb", buffering=0) as file:
        for name, entry in header.items():
            read_tensor(file, name, entry, tensors[name])
    return tensors


@dataclass(frozen=True)
class Weights:
    """File and entry of each tensor of a checkpoint.

    One file, model.safetensors, or the shards in model.safetensors.index.json.
    """

    entries: dict[str, tuple[Path, Entry]]

    @classmethod
    def find(cls, folder: Path, limits: Limits = LIMITS, others: bool = False) -> "Weights":
        """The weights of a folder. Raises CheckpointError as read_header does, and when index and files disagree."""
        names = ["model.safetensors"]
        listed: dict[str, str] | None = None
        if not (folder / names[0]).is_file():
            listed = read_json(folder / INDEX, limits.index_bytes).get("weight_map")
            if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
                raise CheckpointError(f"{INDEX} has no weight_map.")
            names = sorted(set(listed.values()))
            if len(names) > MAX_SHARDS or any(Path(name).name != name or name in ("", ".", "..") for name in names):
                raise CheckpointError(f"{INDEX} names files outside its folder, or too many.")
        entries: dict[str, tuple[Path, Entry]] = {}
        for name in names:
            if not (folder / name).is_file():
                raise CheckpointError(f"The checkpoint lacks {name}, which {INDEX} names.")
            for key, entry in read_header(folder / name, limits, others).items():
                if listed is None or listed.get(key) == name:
                    entries[key] = folder / name, entry
        if len(entries) > limits.tensors:
            raise CheckpointError(f"{INDEX} names more than {limits.tensors:,} tensors.")
        if lost := sorted(set(listed or ()) - set(entries)):
            raise CheckpointError(f"{INDEX} names {lost[0]}, which {(listed or {})[lost[0]]} does not have.")
        return cls(entries)

    @property
    def header(self) -> dict[str, Entry]:
        """Tensor name -> its entry."""
        return {name: entry for name, (_, entry) in self.entries.items()}

    def read(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """All tensors, in `dtype`. Raises CheckpointError as read_tensor does."""
        by_file: dict[Path, dict[str, Entry]] = {}
        for name, (path, entry) in self.entries.items():
            by_file.setdefault(path, {})[name] = entry
        return {
            name: tensor for path, own in by_file.items() for name, tensor in read_tensors(path, own, dtype).items()
        }

    def dtype(self) -> torch.dtype:
        """The dtype of most numbers."""
        numbers: dict[torch.dtype, int] = {}
        for _, entry in self.entries.values():
            numbers[entry.dtype] = numbers.get(entry.dtype, 0) + entry.numbers
        return max(numbers, key=numbers.__getitem__, default=torch.float32)

    def first(self, *names: str) -> str | None:
        """The first of `names` that exists."""
        return next((name for name in names if name in self.entries), None)

    def differ(self, one: str | None, other: str | None) -> bool:
        """Whether two tensors both exist and are not equal byte for byte."""
        if one is None or other is None or one == other:
            return False
        (path, entry), (path2, entry2) = self.entries[one], self.entries[other]
        if (entry.dtype, entry.shape) != (entry2.dtype, entry2.shape):
            return True
        with path.open("rb") as file, path2.open("rb") as file2:
            file.seek(entry.start)
            file2.seek(entry2.start)
            left = entry.numbers * entry.dtype.itemsize
            while left > 0:
                size = min(left, 1 << 20)
                if file.read(size) != file2.read(size):
                    return True
                left -= size
        return False


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file in chunks: no second copy in memory, also from a GPU or in another `dtype`."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        wanted = dtype or tensor.dtype
        start, end = end, end + tensor.numel() * wanted.itemsize
        header[name] = {"dtype": names[wanted], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            for chunk in tensor.detach().reshape(-1).split(CHUNK):
                file.write(_bytes(chunk.to("cpu", dtype or tensor.dtype)))


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's own memory."""
    return tensor.view(torch.uint8).numpy().data
