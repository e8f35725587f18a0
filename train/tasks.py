"""What a run can learn: for each task its model, its batches, and the figure that says which checkpoint is best.

Try it: python -m train --help (--task)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from transformers import EvalPrediction, PreTrainedTokenizerFast

from switch_model.base import IGNORED_LABEL, SwitchPreTrainedModel
from switch_model.modeling import SwitchForMaskedLM, SwitchForSequenceClassification
from train.tokenizer import PaddingCollator

# Of the tokens chosen to be guessed: hidden, replaced by any other, left as they are (BERT, 1810.04805, section 3.1).
MASKED, REPLACED = 0.8, 0.1


@dataclass(frozen=True)
class Task:
    """One kind of training.

    Attributes:
        model_class: what is trained.
        labelled: whether rows need a class.
        best: the validation figure that chooses the best checkpoint.
        higher_is_better: which way.
        hits: (logits, labels) of a batch -> (answers that are right, answers in all).
        metrics: what the Trainer computes from all validation logits; None = loss and hits are enough.
    """

    model_class: type[SwitchPreTrainedModel]
    labelled: bool
    best: str
    higher_is_better: bool
    hits: Callable[[Tensor, Tensor], tuple[Tensor, int]]
    metrics: Callable[[EvalPrediction], dict[str, float]] | None

    def better(self, value: float, than: float) -> bool:
        return value > than if self.higher_is_better else value < than

    def describe(self, value: float) -> str:
        return f"{self.best} {value:.2%}" if self.best == "accuracy" else f"{self.best} {value:.4f}"


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and macro-F1 over the classes that occur."""
    predicted = prediction.predictions.argmax(-1)
    return {
        "accuracy": float(accuracy_score(prediction.label_ids, predicted)),
        "macro_f1": float(f1_score(prediction.label_ids, predicted, average="macro", zero_division=0)),
    }


def _classification_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return (logits.argmax(-1) == labels).sum(), len(labels)


def _masked_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return (logits.argmax(-1) == labels[labels != IGNORED_LABEL]).sum(), len(logits)


TASKS = {
    "classification": Task(
        SwitchForSequenceClassification, True, "accuracy", True, _classification_hits, classification_metrics
    ),
    "mlm": Task(SwitchForMaskedLM, False, "loss", False, _masked_hits, None),
}


class MaskingCollator:
    """Rows -> one batch for masked-token training, padded on the right.

    Which tokens are hidden follows from (seed, epoch, row) alone: neither the order of batches nor a stop and a resume
    in between changes it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, probability: float, seed: int):
        if tokenizer.mask_token_id is None:
            raise ValueError("This tokenizer has no mask token: --task mlm needs one.")
        self.collate = PaddingCollator(tokenizer.pad_token_id)
        self.mask_id, self.vocab_size = tokenizer.mask_token_id, len(tokenizer)
        self.special = np.array(sorted(tokenizer.all_special_ids))
        self.probability, self.seed = probability, seed
        self.epoch = 0

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        ids, labels = zip(*(self._hide(row) for row in rows), strict=True)
        batch = self.collate([{"input_ids": own, "labels": 0} for own in ids])
        padded = [torch.from_numpy(own) for own in labels]
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(padded, batch_first=True, padding_value=IGNORED_LABEL)
        return batch

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
