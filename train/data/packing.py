"""Training data of a causal model: texts packed into one stream of tokens on disk, cut into blocks of equal length.

Texts are streamed, never all in memory; the packed stream is cached on disk per data set and tokenizer.
Try it: python -m train --dataset tiny_stories --data_dir folder/of/data
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from transformers import PreTrainedTokenizerFast

from train.data.cells import texts_in
from train.data.columns import Columns, cells_of, choose_columns, joined, names_in
from train.data.loading import files_of, read_rows, stream_hub
from train.data.source import DataSource
from train.data.stored.cache import cache_folder, make_room, use
from train.data.stored.digests import prints
from train.data.table_file import named_ending
from train.data.tables import files_in_parts, is_large

TEXTS_AT_ONCE = 1_000


class Blocks(torch.utils.data.Dataset):
    """Blocks of `length` tokens of a stream on disk; an incomplete last one only if not `whole`, and if a token in it
    can be predicted.

    A row is {"input_ids": (length,) int64, "row": its index}.
    """

    def __init__(self, path: Path, dtype: str, length: int, whole: bool = True):
        self.tokens = np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)
        self.length, self.whole = length, whole

    def __len__(self) -> int:
        blocks, rest = divmod(len(self.tokens), self.length)
        return blocks + (not self.whole and rest > 1)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        block = self.tokens[row * self.length : (row + 1) * self.length]
        return {"input_ids": block.astype(np.int64), "row": row}


def stream_texts(source: DataSource) -> Iterator[str]:
    """Iterate over the texts of a split: a parquet file in batches, a hub data set as a stream.

    Raises DataError when it can't be read.
    """
    files = files_of(source)
    if not source.is_file and files and all(named_ending(path) == ".parquet" for path in files):
        for path in files:
            file = pyarrow.parquet.ParquetFile(path)
            columns = choose_columns(source, file.schema_arrow.names, labelled=False)
            for batch in file.iter_batches(TEXTS_AT_ONCE, columns=list(columns.texts)):
                yield from _texts(columns, [batch.column(name).to_pylist() for name in columns.texts])
    elif files and is_large(files):
        columns = None
        for part in files_in_parts(files):
            columns = columns or choose_columns(source, names_in(part), labelled=False)
            yield from _texts(columns, [cells_of(part, name) for name in columns.texts])
    elif files or source.is_toy:
        rows, _ = read_rows(source)
        columns = choose_columns(source, names_in(rows), labelled=False)
        yield from _texts(columns, [cells_of(rows, name) for name in columns.texts])
    else:
        rows = stream_hub(source)
        names = rows.column_names or list(next(iter(rows)))
        columns = choose_columns(source, names, labelled=False)
        for row in rows:
            yield from _texts(columns, [[row[name]] for name in columns.texts])


def _texts(columns: Columns, values: list[list[Any]]) -> Iterator[str]:
    """The non-empty texts of rows of the selected columns."""
    parts = [texts_in(cells, name, columns.dataset) for name, cells in zip(columns.texts, values, strict=True)]
    return (text for text in joined(parts) if text.strip())


def held_out_every(share: float) -> int:
    """n, where every n-th text is held out for validation."""
    return max(round(1 / share), 2)


def pack(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, path: Path, dtype: str) -> dict[str, int]:
    """Write the tokens of all texts, each followed by an end token if there is one, and beside them the hash of each
    text; returns the numbers of texts, tokens and characters."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    counts, texts = {"texts": 0, "tokens": 0, "characters": 0}, iter(texts)
    with path.open("wb") as file, prints_of(path).open("wb") as known:
        while batch := list(islice(texts, TEXTS_AT_ONCE)):
            encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)[
                "input_ids"
            ]
            stream = np.concatenate([[*ids, *end] for ids in encoded]).astype(dtype)
            file.write(stream.tobytes())
            known.write(prints(batch).tobytes())
            counts["texts"] += len(batch)
            counts["tokens"] += len(stream)
            counts["characters"] += sum(map(len, batch))
    return counts


def smallest_type(tokenizer: PreTrainedTokenizerFast) -> str:
    """The type of a stream's tokens."""
    return "uint16" if len(tokenizer) <= 2**16 else "uint32"


def prints_of(path: Path) -> Path:
    """The file beside a stream with the hashes of its texts (`fingerprint.prints`)."""
    return path.with_suffix(".prints")


def packed(
    what: dict[str, Any], tokenizer: PreTrainedTokenizerFast, splits: dict[str, Iterable[str]]
) -> tuple[dict[str, Path], dict[str, Any]]:
    """The packed streams of some texts, from the cache if possible.

    Args:
        what: identifies the texts, as part of the cache key.
        splits: name -> texts, read only if they are not cached.

    Returns:
        name -> file, and {"dtype", name -> counts}.
    """
    key = hashlib.sha256(
        json.dumps([what, sorted(splits), "prints"], sort_keys=True).encode()
        + tokenizer.backend_tokenizer.to_str().encode()
    ).hexdigest()[:24]
    folder = cache_folder("packed") / key
    use(folder)
    if not (folder / "info.json").is_file():
        dtype = smallest_type(tokenizer)
        aside = folder.with_name(f"{key}.{os.getpid()}")
        try:
            aside.mkdir(parents=True, exist_ok=True)
            info = {"dtype": dtype, "what": what}
            info |= {name: pack(texts, tokenizer, aside / f"{name}.bin", dtype) for name, texts in splits.items()}
            (aside / "info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)  # It may have filled the disk.
            raise
        try:
            aside.rename(folder)
        except OSError:  # Another run has made it meanwhile.
            shutil.rmtree(aside)
        make_room()
    info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    return {name: folder / f"{name}.bin" for name in splits}, info
