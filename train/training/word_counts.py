"""After training: naive Bayes log-odds of words and word pairs, added to a classifier's logits.

On a few thousand short texts an encoder memorises texts and names; counting generalises better (docs/experiments.md).
The weight of the log-odds is chosen on the validation rows, and may be 0.
Try it: python -m train --dataset my.csv --preset small, and read the log's last lines
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedTokenizerFast

from switch_model.checkpoint import load_checkpoint, read_training
from switch_model.layers.word_counts import NO_FEATURE, WordCounts, text_features
from switch_model.models.pretrained import real_tokens
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from train.evaluation.calibration import FEWEST_HELD_OUT
from train.formatting import percent
from train.runs.run import Run
from train.tasks.collators import PaddingCollator
from train.tasks.registry import accuracy_and_f1

# Pseudocount of each feature in each class.
SMOOTHING = 0.5
# Limits: rows that are counted, features, and features times classes.
MOST_ROWS, MOST_FEATURES, MOST_ODDS = 50_000, 100_000, 4_000_000
# Grid: weight of the log-odds beside the encoder's logits, and a factor on their sum.
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
FACTORS = (0.3, 0.4, 0.5, 0.7, 0.85, 1.0, 1.2, 1.4)


@dataclass(frozen=True)
class Joined:
    """A model with word counts, its validation metrics, and a log line."""

    model: SwitchForSequenceClassification
    metrics: dict[str, Any]
    words: str


def join_counts(run: Run, train: Dataset, validation: Dataset, device: str) -> Joined | None:
    """The run's best model with word counts of `train`; None, with a printed reason, if they do not help."""
    model, tokenizer = load_checkpoint(run.best, device)
    if model.config.counted_rows:
        return None  # Kept from before the run was stopped.
    if model.config.readout == "experts":
        print("Word counts are not used: with --readout experts, the experts alone make the prediction.", flush=True)
        return None
    if len(validation) < FEWEST_HELD_OUT:
        print(
            f"Word counts are not used: {len(validation)} validation rows are too few to choose their weight (at least "
            f"{FEWEST_HELD_OUT}); increase --validation_size.",
            flush=True,
        )
        return None
    features, odds = count_words(train, tokenizer, model.config.num_labels)
    counted = with_counts(model, features, odds)
    encoder_NC, odds_NC, labels_N = separate_logits(counted, validation, tokenizer)
    weight, factor = choose_weight(encoder_NC, odds_NC, labels_N)
    if not weight:
        print("Word counts are not used: they do not help on the validation rows.", flush=True)
        return None
    with torch.no_grad():
        counted.counts.table.mul_(weight)
    counted.fold_temperature(1 / factor)
    before = read_training(run.best)["validation"]
    logits_NC = factor * (encoder_NC + weight * odds_NC)
    metrics = accuracy_and_f1(EvalPrediction(logits_NC.numpy(), labels_N.numpy()))
    metrics |= {"loss": float(cross_entropy(logits_NC, labels_N)), "word_counts": weight}
    accuracy = float((encoder_NC.argmax(-1) == labels_N).float().mean())
    words = (
        f"Log-odds of {len(features):,} words and word pairs added with weight {weight:g}, chosen by the loss on "
        f"{len(labels_N):,} validation rows: accuracy {percent(accuracy)} → {percent(metrics['accuracy'])}."
    )
    return Joined(counted, before | metrics, words)


def count_words(rows: Dataset, tokenizer: PreTrainedTokenizerFast, classes: int) -> tuple[Tensor, Tensor]:
    """(N,) features of tokenized rows, the most frequent first, and their (N, C) log-odds.

    A feature counts once per text. If there are too many, those in a single text are dropped, then those in two texts,
    and so on: cutting at a fixed number would favour some classes.
    """
    rows = rows.select(range(min(len(rows), MOST_ROWS)))
    found, labels = [], []
    for batch in _batches(rows, tokenizer):
        own_BF = text_features(batch["input_ids"], batch["attention_mask"].bool())
        real_BF = own_BF != NO_FEATURE
        found.append(own_BF[real_BF].numpy())
        labels.append(batch["labels"].repeat_interleave(real_BF.sum(dim=1)).numpy())
    features, index = np.unique(np.concatenate(found), return_inverse=True)
    cells = np.bincount(index * classes + np.concatenate(labels), minlength=len(features) * classes)
    counts_NC = cells.reshape(-1, classes)
    texts_N = counts_NC.sum(axis=1)
    room, fewest = min(MOST_FEATURES, max(MOST_ODDS // classes, 1)), 1
    while (texts_N >= fewest).sum() > room:
        fewest += 1
    order_N = np.argsort(-texts_N, kind="stable")
    order_N = order_N[texts_N[order_N] >= fewest]
    smooth_NC = counts_NC[order_N] + SMOOTHING
    odds_NC = np.log(smooth_NC / smooth_NC.sum(axis=0))
    odds_NC -= odds_NC.mean(axis=1, keepdims=True)
    return torch.from_numpy(features[order_N]), torch.from_numpy(odds_NC).float()


def with_counts(
    model: SwitchForSequenceClassification, features: Tensor, odds: Tensor
) -> SwitchForSequenceClassification:
    """The model with the log-odds added at weight 1."""
    config = copy.deepcopy(model.config)
    config.counted_rows = max(2 * len(features), 1)
    table = WordCounts(config)
    table.fill(features, odds)
    counted = SwitchForSequenceClassification(config)
    counted.load_state_dict(model.state_dict() | {f"counts.{key}": own for key, own in table.state_dict().items()})
    return counted.eval().to(model.device)


@torch.inference_mode()
def separate_logits(
    model: SwitchForSequenceClassification, rows: Dataset, tokenizer: PreTrainedTokenizerFast
) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C) logits of the encoder alone, (N, C) log-odds of the counts, and (N,) labels."""
    parts = []
    for batch in _batches(rows, tokenizer):
        labels_B = batch.pop("labels")
        given = {key: tensor.to(model.device) for key, tensor in batch.items()}
        mask_BT = real_tokens(given["attention_mask"], given["input_ids"].shape, model.device)
        odds_BC = model.counts(given["input_ids"], mask_BT)
        parts.append((model(**given).logits.cpu() - odds_BC.cpu(), odds_BC.cpu(), labels_B))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def choose_weight(encoder: Tensor, counts: Tensor, labels: Tensor) -> tuple[float, float]:
    """The weight of the (N, C) log-odds and the factor on the sum that minimise the loss."""
    tried = [(weight, factor) for weight in WEIGHTS for factor in FACTORS]
    return min(tried, key=lambda pair: float(cross_entropy(pair[1] * (encoder + pair[0] * counts), labels)))


def _batches(rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> DataLoader:
    kept = rows.select_columns(["input_ids", "labels"])
    return DataLoader(kept, batch_size=128, collate_fn=PaddingCollator(tokenizer.pad_token_id))
