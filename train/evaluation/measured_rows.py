"""Texts as the rows that a model is measured on: with classes, as they are, or with masked tokens.

Try it: rows_of(corpus, predictor)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.scoring import MEASURED
from switch_model.inference.pipeline import TextPipeline
from switch_model.models.masked_lm import SwitchForMaskedLM
from train.data.columns import align_labels, indices_in
from train.data.fingerprint import Fingerprint
from train.data.loading import Split
from train.data.stored.digests import column
from train.data.stored.tokens import tokenized
from train.data.stored.vectors import VECTORS, vector_rows
from train.data.tokenizers import tokenize
from train.tasks.collators import MaskingCollator

# Share of masked tokens in the evaluation of a masked model.
HIDDEN = 0.15
# Texts on disk whose digests are looked up together.
KNOWN_AT_ONCE = 1_000_000


def rows_of(corpus: Corpus, pipeline: TextPipeline) -> list[dict[str, Any]]:
    """The texts of a routed data set as rows, of a classifier each with its class, negative = unknown.

    Raises:
        ValueError: for a model that is measured by target texts, which a routed data set does not have.
    """
    model = pipeline.model
    if not isinstance(model, MEASURED):
        raise ValueError(
            "What this model loses without its experts is measured on texts with their targets, and a routed data set "
            "has texts alone: evaluate it on pairs instead."
        )
    own = corpus.token != model.config.vocab_size  # Without the CLS token, which the model adds itself.
    ends = np.cumsum(np.bincount(corpus.text[own], minlength=len(corpus.texts)))[:-1]
    ids = np.split(corpus.token[own], ends)
    if corpus.classified:
        return [{"input_ids": one, "labels": label} for one, label in zip(ids, corpus.true.tolist(), strict=True)]
    if isinstance(model, SwitchForMaskedLM):
        hidden = hidden_rows(pipeline.tokenizer, [{"input_ids": one, "row": row} for row, one in enumerate(ids)])
        return [row for row in hidden if (row["labels"] >= 0).any()]  # Of unknown words alone there is none to guess.
    return [{"input_ids": one} for one in ids if len(one) > 1]


def tokenized_rows(split: Split, tokenizer: PreTrainedTokenizerFast, labels: list[str], most: int | None) -> Dataset:
    """The first `most` rows of a split, tokenized, the shortest first, with the indices of a model's classes.

    Args:
        labels: the model's classes; [] = rows without classes.
        most: None = all.

    Raises:
        DataError: when the model lacks a class of the rows.
    """
    count = len(split.rows) if most is None else min(most, len(split.rows))
    if split.part is None:
        rows = align_labels(split.rows, split.names, labels) if labels else split.rows
        if VECTORS in rows.column_names:
            return vector_rows(rows.select(range(count)), tokenizer.model_max_length).sort("length")
        return tokenize(rows.select(range(count)), tokenizer).sort("length")
    rows = tokenized(split.part.first(count), tokenizer).by_length().rows
    if not labels or split.names == labels:
        return rows
    index_of = indices_in(split.names, labels)
    return rows.with_transform(lambda batch: batch | {"labels": [index_of[label] for label in batch["labels"]]})


def known_texts(found: Fingerprint, split: Split | np.ndarray, most: int) -> int:
    """How many of the first `most` texts of a split, or of texts with these digests, a run was trained on."""
    if not isinstance(split, np.ndarray) and split.part is None:
        return found.known(column(split.rows.select(range(most)), "text"))
    known = 0
    for start in range(0, most, KNOWN_AT_ONCE):
        places = np.arange(start, min(start + KNOWN_AT_ONCE, most))
        own = split[places] if isinstance(split, np.ndarray) else split.part.of(places).prints
        known += int(found.trained_on(own).sum())
    return known


def hidden_rows(tokenizer: PreTrainedTokenizerFast, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with `input_ids` and their number `row` -> the same with masked tokens, not padded; the same ones in every
    call."""
    collate = MaskingCollator(tokenizer, HIDDEN, seed=0)
    return [{name: tensor[0] for name, tensor in collate([dict(row)]).items()} for row in rows]
