"""Token ids of a stored table: made once for each tokenizer, in several processes, and memory-mapped.

Try it: tokenized(table.usable, tokenizer).rows[0]
"""

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value, concatenate_datasets
from transformers import PreTrainedTokenizerFast

from switch_model.storage.tokenizer_io import target_of
from switch_model.storage.whole_files import folder_written_aside
from train.data.stored.cache import make_room
from train.data.stored.table import ROWS_OF_BATCH, StoredPart
from train.data.tokenizers import Encoder, pair_encoder, pair_fits, text_encoder

# More processes than this wait for the disk.
MOST_PROCESSES = 16
LENGTHS = "lengths.npy"


@dataclass(frozen=True, eq=False)
class Tokens:
    """Tokenized rows: columns input_ids, length, row (its number in the table), and labels if there are any.

    Attributes:
        whole: those of the whole table, memory-mapped.
        part: which they are.
        lengths: (N,) tokens of each of them.
    """

    whole: Dataset
    part: StoredPart
    lengths: np.ndarray

    @cached_property
    def rows(self) -> Dataset:
        """The rows, memory-mapped."""
        return self.part.among(self.whole)

    def by_length(self) -> "Tokens":
        """The shortest first, so that batches have little padding."""
        order = np.argsort(self.lengths, kind="stable")
        return Tokens(self.whole, self.part.of(order), self.lengths[order])

    def counts(self, vocabulary: int) -> np.ndarray:
        """(V,) how often each token occurs: over the whole table in its own order, which takes seconds for millions of
        rows, where one row after the other takes minutes."""
        mine, counts, start = np.zeros(len(self.whole), bool), np.zeros(vocabulary, np.int64), 0
        mine[self.part.chosen] = True
        for chunk in self.whole.data.column("input_ids").chunks:
            own = chunk.filter(pa.array(mine[start : start + len(chunk)])).flatten().to_numpy()
            counts += np.bincount(own, minlength=vocabulary)
            start += len(chunk)
        return counts


def tokenized(part: StoredPart, tokenizer: PreTrainedTokenizerFast, *, pairs: bool = False, cut: bool = True) -> Tokens:
    """Rows of a table as `tokenizers.tokenize`, or with `pairs` as `tokenize_pairs`, gives them; but `row` is the
    number in the table. The whole table is tokenized, once."""
    table = part.table
    encode = pair_encoder(tokenizer, cut) if pairs else text_encoder(tokenizer)
    folder = table.folder / f"tokens-{_digest(tokenizer, pairs, cut)}"
    # No lock: processes forked in between would hold it on, should this one be killed.
    if not folder.is_dir():
        print(f"{len(table.rows):,} rows are tokenized once, into {folder} …", file=sys.stderr, flush=True)
        with folder_written_aside(folder) as aside:
            _write(table.rows, encode, tokenizer.model_max_length if pairs else None, aside)
        make_room()
    whole = concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))])
    lengths = part.taken(np.load(folder / LENGTHS, mmap_mode="r"))
    if (lengths > 0).all():
        return Tokens(whole, part, lengths)
    return Tokens(whole, part.of(lengths > 0), lengths[lengths > 0])


def _write(rows: Dataset, encode: Encoder, limit: int | None, folder: Path) -> None:
    """Write a table's token ids, and how many each row has; 0 for a row to leave out."""
    features = Features({"input_ids": List(Value("int32")), "length": Value("int32"), "row": Value("int64")})
    if "label" in rows.column_names:
        features["labels"] = Value("int64")
    elif "target" in rows.column_names:
        features["labels"] = List(Value("int32"))
    processes = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST_PROCESSES
    )
    made = rows.map(
        partial(_encoded, encode=encode, limit=limit),
        batched=True,
        with_indices=True,
        batch_size=ROWS_OF_BATCH,
        remove_columns=rows.column_names,
        features=features,
        num_proc=processes if processes > 1 and len(rows) > 10 * ROWS_OF_BATCH else None,
        cache_file_name=str(folder / "tokens.arrow"),
        new_fingerprint=folder.name,  # The folder says what it is made of.
        desc="Tokenizing",
    )
    lengths = np.fromiter((number for chunk in made.data.column("length").chunks for number in chunk.to_numpy()), "<i4")
    np.save(folder / LENGTHS, lengths)


def _encoded(batch: dict[str, list], numbers: list[int], *, encode: Encoder, limit: int | None) -> dict[str, Any]:
    found = encode(batch)
    lengths = found.get("length") or [len(ids) for ids in found["input_ids"]]
    if limit is not None:
        fits = (pair_fits(*pair, limit) for pair in zip(found["input_ids"], found["labels"], strict=True))
        lengths = [length if fit else 0 for length, fit in zip(lengths, fits, strict=True)]
    return found | {"length": lengths, "row": numbers}


def _digest(tokenizer: PreTrainedTokenizerFast, pairs: bool, cut: bool) -> str:
    """Of all that decides what ids a text gets."""
    both = [tokenizer, target_of(tokenizer)] if pairs else [tokenizer]
    told: list[Any] = [pairs, cut]
    for one in both:
        state = json.loads(one.backend_tokenizer.to_str())
        # Set by the last call.
        state |= {"truncation": None, "padding": None}
        told += [one.model_max_length, one.sep_token, one.eos_token, state]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
