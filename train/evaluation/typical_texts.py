"""Bounds of a classifier's training texts, from the rows of its run.

Try it: typical_of_run("assets/models/sst2", tokenizer, DataSource("sst2"))
"""

import math
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from switch_model.analysis.typical_texts import TypicalTexts
from train.data.source import DataSource
from train.data.tokenizers import tokenize
from train.evaluation.held_out import own_data
from train.tasks.registry import TASKS

# More rows do not move the bounds.
MOST_ROWS = 20_000


def typical_of_rows(features: Dataset, tokenizer: PreTrainedTokenizerFast) -> TypicalTexts | None:
    """Of tokenized training rows; None where they are too few."""
    return TypicalTexts.of(_evenly(features)["input_ids"], tokenizer)


def typical_of_run(
    checkpoint: str | Path, tokenizer: PreTrainedTokenizerFast, source: DataSource
) -> TypicalTexts | None:
    """Of the training rows of a checkpoint's run in `source`; None where these are not known to be the run's data.

    Raises DataError when the rows can't be read.
    """
    own = own_data(str(checkpoint), source)
    if own.arguments is None or (data := TASKS[own.arguments.train.task].read(own.arguments.selection)) is None:
        return None
    return typical_of_rows(tokenize(_evenly(data.train), tokenizer), tokenizer)


def _evenly(rows: Dataset) -> Dataset:
    """At most MOST_ROWS of them, evenly: they may be sorted."""
    return rows.select(range(0, len(rows), math.ceil(len(rows) / MOST_ROWS))) if len(rows) > MOST_ROWS else rows
