"""Rows of token ids -> batches.

Legend: B batch, T tokens. Masking depends on (seed, epoch, row) alone, not on the order of batches, so that a resumed
run is the same as one that was never stopped.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from switch_model.models.pretrained import IGNORED_LABEL
from train.data.errors import DataError
from train.data.stored.streaming import PASSED
from train.data.stored.vectors import VECTORS
from train.data.tokenizers import Encoder, sentinel_ids

# Column of rows, and key of batches, with the teachers' probabilities (train/tasks/teaching.py).
TEACHER = "teacher"
# Shares of the chosen tokens that are masked, and replaced at random; the rest stays (BERT, 1810.04805, section 3.1).
MASKED, REPLACED = 0.8, 0.1
# Mean span length (T5, 1910.10683, section 3.3.4).
MEAN_SPAN = 3.0
# Rows whose tokens are counted at once.
COUNTED_AT_ONCE = 10_000


class PaddingCollator:
    """Rows -> one batch, padded on the right to its longest text."""

    def __init__(self, pad_token_id: int):
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids = [torch.as_tensor(row["input_ids"]) for row in rows]
        lengths = torch.tensor([len(row) for row in ids])
        input_ids_BT = pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id)
        taught = {TEACHER: torch.tensor([row[TEACHER] for row in rows])} if TEACHER in rows[0] else {}
        return {
            "input_ids": input_ids_BT,
            # From the lengths, not from the ids: a tokenizer's padding token may also be a word.
            "attention_mask": (torch.arange(input_ids_BT.shape[1]) < lengths.unsqueeze(1)).long(),
            "labels": torch.tensor([row["labels"] for row in rows]),
            **taught,
        }


class VectorCollator:
    """Rows with VECTORS (T, width) -> one batch of `inputs_embeds` (B, T, width), padded on the right with zeros."""

    epoch = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        vectors = [torch.as_tensor(row[VECTORS], dtype=torch.float32) for row in rows]
        lengths = torch.tensor([len(row) for row in vectors])
        embeds_BTW = pad_sequence(vectors, batch_first=True)
        return {
            "inputs_embeds": embeds_BTW,
            "attention_mask": (torch.arange(embeds_BTW.shape[1]) < lengths.unsqueeze(1)).long(),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }


def classified(rows: Dataset, pad_token_id: int) -> PaddingCollator | VectorCollator:
    """The collator of tokenized rows with classes, or of rows of vectors."""
    return VectorCollator() if VECTORS in rows.column_names else PaddingCollator(pad_token_id)


class PairCollator:
    """Rows with `input_ids` and `labels` of different lengths -> one batch, right-padded, labels with -100."""

    def __init__(self, pad_token_id: int):
        self.collate = PaddingCollator(pad_token_id)
        self.epoch = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return self.join([(row["input_ids"], row["labels"]) for row in rows])

    def join(self, pairs: Sequence[tuple[Any, Any]]) -> dict[str, Tensor]:
        batch = self.collate([{"input_ids": ids, "labels": 0} for ids, _ in pairs])
        labels = [torch.as_tensor(own) for _, own in pairs]
        batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL)
        return batch


class MaskingCollator(PairCollator):
    """Masks tokens; the labels are the original tokens at the masked positions (BERT).

    Raises ValueError for a tokenizer without a mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, probability: float, seed: int):
        if tokenizer.mask_token_id is None:
            raise ValueError("This tokenizer has no mask token: --task mlm needs one.")
        super().__init__(tokenizer.pad_token_id)
        self.mask_id, self.vocab_size = tokenizer.mask_token_id, len(tokenizer)
        self.special = np.array(sorted(tokenizer.all_special_ids))
        self.probability, self.seed = probability, seed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return self.join([self._hide(row) for row in rows])

    def _hide(self, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng((self.seed, self.epoch, row["row"]))
        ids = np.array(row["input_ids"], dtype=np.int64)
        guessable = ~np.isin(ids, self.special)
        chosen = guessable & (random.random(len(ids)) < self.probability)
        if not chosen.any() and guessable.any():
            chosen[random.choice(np.flatnonzero(guessable))] = True
        labels = np.where(chosen, ids, IGNORED_LABEL)
        how = random.random(len(ids))
        ids = np.where(chosen & (how < MASKED), self.mask_id, ids)
        replace = chosen & (how >= MASKED) & (how < MASKED + REPLACED)
        return np.where(replace, random.integers(self.vocab_size, size=len(ids)), ids), labels


class SpanCorruptionCollator(PairCollator):
    """Replaces spans of a text by sentinel tokens; the labels are the sentinels, each followed by its span.

    T5's pretraining task (1910.10683, section 3.1.4), also of Switch Transformers (2101.03961, section 2.5):
    a share `probability` of the tokens, in spans of three on average.

    Raises ValueError for a tokenizer without sentinels.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, probability: float, seed: int):
        super().__init__(tokenizer.pad_token_id)
        self.sentinels, self.end = sentinel_ids(tokenizer), tokenizer.eos_token_id
        if not self.sentinels or self.end is None:
            raise ValueError(
                "This tokenizer lacks sentinel tokens or an end-of-sequence token: --task span_corruption needs both."
            )
        self.probability, self.seed = probability, seed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return self.join([self._corrupt(row) for row in rows])

    def _corrupt(self, row: dict[str, Any]) -> tuple[list[int], list[int]]:
        random = np.random.default_rng((self.seed, self.epoch, row["row"]))
        ids = [token for token in row["input_ids"] if token != self.end]
        text, asked = [], []
        for index, (kept, cut) in enumerate(cut_spans(len(ids), self.probability, random, len(self.sentinels))):
            text += [*ids[kept], self.sentinels[index]]
            asked += [self.sentinels[index], *ids[cut]]
        return [*text, self.end], [*asked, self.end]


def cut_spans(tokens: int, probability: float, random: np.random.Generator, most: int) -> list[tuple[slice, slice]]:
    """(kept slice, following masked span), in order, for a text of `tokens` tokens.

    A share `probability` of the tokens (at least one) is masked, in spans of MEAN_SPAN on average; lengths of spans and
    of the slices between them are random, at least one token each. At most `most` spans.
    """
    noise = min(max(round(tokens * probability), 1), max(tokens - 1, 1))
    spans = min(max(round(noise / MEAN_SPAN), 1), noise, max(tokens - noise, 1), most)
    lengths, gaps = _split(noise, spans, random), _split(tokens - noise, spans, random)
    cuts, place = [], 0
    for gap, length in zip(gaps, lengths, strict=True):
        cuts.append((slice(place, place + gap), slice(place + gap, place + gap + length)))
        place += gap + length
    return cuts


def _split(total: int, parts: int, random: np.random.Generator) -> list[int]:
    """`total` as a random sum of `parts` numbers, each at least 1 if possible."""
    if total < parts:
        return [total] + [0] * (parts - 1)
    places = np.sort(random.choice(total - 1, size=parts - 1, replace=False)) + 1
    return np.diff([0, *places, total]).tolist()


def token_counts(rows: Dataset, vocabulary: int) -> np.ndarray:
    """(V,) how often each token occurs in tokenized rows."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    for batch in rows.select_columns("input_ids").iter(COUNTED_AT_ONCE):
        counts += np.bincount(np.concatenate(batch["input_ids"]), minlength=vocabulary)
    return counts


class RareTokenCollator(PaddingCollator):
    """Texts with their classes, with rare tokens replaced by the unknown token.

    A name that occurs once lets a model memorise its text's class, and does not help on new texts. A token that occurs
    n times in the training rows is replaced with probability strength / (strength + n), as words are in Kiperwasser and
    Goldberg (1603.04351).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, counts: np.ndarray, strength: float, seed: int):
        """`counts`: (V,) how often each token occurs in the training rows."""
        super().__init__(tokenizer.pad_token_id)
        # The mask decides what is padding, so the padding token can serve as an unknown token.
        unknown, padding = tokenizer.unk_token_id, tokenizer.pad_token_id
        self.unknown_id = padding if unknown is None else unknown
        self.rate = strength / (strength + np.maximum(counts, 1))
        self.rate[tokenizer.all_special_ids] = 0.0
        self.seed, self.epoch = seed, 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return super().__call__([row | {"input_ids": self._replace(row)} for row in rows])

    def _replace(self, row: dict[str, Any]) -> np.ndarray:
        random = np.random.default_rng((self.seed, self.epoch, row["row"]))
        ids = np.array(row["input_ids"], dtype=np.int64)
        replaced = np.where(random.random(len(ids)) < self.rate[ids], self.unknown_id, ids)
        # A text of unknown tokens only would add noise.
        return ids if (replaced == self.unknown_id).all() else replaced


class TextCollator:
    """Rows of text -> token ids -> a batch, for rows that are read as they come.

    A text without a token is left out; its batch has fewer rows. Rows that are passed over (PASSED) give a batch that
    nothing looks at.

    Args:
        collate: makes batches of rows of token ids.
        encode: a batch of columns -> columns with `input_ids`, as `tokenizers.text_encoder`.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Tensor]], encode: Encoder):
        self.collate, self.encode, self.epoch = collate, encode, 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        if rows[0] is PASSED:
            return {"input_ids": torch.zeros(1, 1, dtype=torch.long)}
        found = self.encode({name: [row[name] for row in rows] for name in rows[0]})
        found["row"] = [row["row"] for row in rows]
        whole = [dict(zip(found, cells, strict=True)) for cells in zip(*found.values(), strict=True)]
        if not (kept := [row for row in whole if len(row["input_ids"])]):
            shown = rows[0]["text"][:60]
            raise DataError(f"No text of a batch has a token, such as “{shown}”: is it the column of texts?")
        return self.collate(kept)


class BlockCollator:
    """Blocks of equal length -> one batch; labels are the input ids (causal LM)."""

    def __init__(self) -> None:
        self.epoch = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids_BT = torch.stack([torch.as_tensor(row["input_ids"]) for row in rows])
        return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "labels": ids_BT.clone()}
