"""safetensors files without a map of the file in memory: header checked here, weights read straight to their place.

The format is 8 bytes of length, that many of JSON, then the tensors' bytes. A mapped file counts as memory of the
process once it was read: a model would take twice its size to open.
Try it: read_header(Path("assets/models/ag_news/model.safetensors"))
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from switch_model.archive import CheckpointError, parse_json

# Limits for files of unknown origin: far above any model this package makes, far below what hurts a machine.
MAX_HEADER_BYTES = 1_000_000
MAX_TENSORS = 4_096
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Numbers that are read, checked or converted at a time.
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


def read_header(
    path: Path, max_bytes: int = MAX_HEADER_BYTES, max_tensors: int = MAX_TENSORS, others: bool = False
) -> dict[str, Entry]:
    """Tensor name -> where it lies, of a safetensors header that is read and bounded here.

    Args:
        others: leave out tensors that hold no floating point numbers, instead of refusing the file.

    Raises:
        CheckpointError: when the header is damaged, describes anything badly, or does not fit the file's length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(max_bytes, size - 8):
            raise CheckpointError(f"{path.name} is no safetensors file, or its header is damaged or too large.")
        raw = file.read(length)
    header = parse_json(raw, f"The header of {path.name}")
    header.pop("__metadata__", None)
    if len(header) > max_tensors:
        raise CheckpointError(f"{path.name} holds {len(header):,} tensors, above the limit of {max_tensors:,}.")
    tensors, spans = {}, []
    for name, entry in header.items():
        fields = entry if isinstance(entry, dict) else {}
        dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
        if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
            raise CheckpointError(f"The header of {path.name} describes {name!r} badly.")
        spans.append((offsets[0], offsets[1]))
        if not isinstance(dtype, str) or dtype not in DTYPES:
            if others:
                continue
            raise CheckpointError(f"The weight {name} has dtype {dtype!r}; accepted: {', '.join(DTYPES)}.")
        tensors[name] = Entry(DTYPES[dtype], shape, 8 + length + offsets[0])
        if offsets[1] - offsets[0] != tensors[name].numbers * DTYPES[dtype].itemsize:
            raise CheckpointError(f"{path.name} can't be read: {name} has other than its shape's number of bytes.")
    end = 0
    for first, last in sorted(spans):
        if first != end or last < first:
            raise CheckpointError(f"{path.name} can't be read: its tensors overlap, or leave gaps.")
        end = last
    if 8 + length + end != size:
        raise CheckpointError(f"{path.name} can't be read: it is not as long as its header says.")
    return tensors


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def read_tensor(file: BinaryIO, name: str, entry: Entry, out: Tensor) -> None:
    """Read one tensor to its place, in `out`'s own type. Raises CheckpointError when a number is NaN or infinite."""
    flat = out.view(-1)
    file.seek(entry.start)
    buffer = None if entry.dtype == out.dtype else torch.empty(min(CHUNK, len(flat)), dtype=entry.dtype)
    for first in range(0, len(flat), CHUNK):
        target = flat[first : first + CHUNK]
        chunk = target if buffer is None else buffer[: len(target)]
        if file.readinto(_bytes(chunk)) != chunk.nbytes:
            raise CheckpointError(f"The file ends in the middle of {name}: it can't be read.")
        if buffer is not None:
            target.copy_(chunk)
        if not target.isfinite().all():
            raise CheckpointError(f"The weight {name} holds NaN or infinite values: the checkpoint is damaged.")


def read_tensors(path: Path, header: Mapping[str, Entry], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """All tensors of a file, in `dtype`. Raises CheckpointError as read_tensor does."""
    tensors = {name: torch.empty(entry.shape, dtype=dtype) for name, entry in header.items()}
    with path.open("rb", buffering=0) as file:
        for name, entry in header.items():
            read_tensor(file, name, entry, tensors[name])
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Write a safetensors file, a piece at a time: also from a GPU, and in another `dtype`, without a second copy."""
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
    return memoryview(tensor.view(torch.uint8).numpy())
