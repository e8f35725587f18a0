"""Temperature scaling of a classifier: one temperature, fitted on validation rows.

Guo et al., 1706.04599, section 4.2. The temperature divides the logits and is folded into the weights that make them,
so that predicted classes stay, and votes, pipelines and exports need no change.
Legend: N rows, C classes.
Try it: python -m train calibrate --checkpoint runs/my-run --dataset my.csv
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import CheckpointError, require_classifier
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from train.data.errors import DataError
from train.data.source import DataSource
from train.evaluation.classification import load_rows
from train.evaluation.held_out import held_out_rows, own_data
from train.evaluation.measured_rows import tokenized_rows
from train.evaluation.metrics import calibration_error
from train.formatting import counted, percent
from train.tasks.collators import classified

LOWEST, HIGHEST = 0.2, 5.0
# With fewer validation rows, a temperature or the weight of word counts would be noise.
FEWEST_HELD_OUT = 50
# More rows do not make one number more precise.
MOST_ROWS = 10_000
# In training.json: the temperature (logits times it are the trained ones), and how it was found.
TEMPERATURE, CALIBRATION = "temperature", "calibration"


@dataclass(frozen=True)
class Calibration:
    """A temperature, and its effect on the rows that it was fitted on.

    Attributes:
        temperature: what the logits were divided by.
        rows: how many it was fitted on.
        loss_before, loss_after: mean cross-entropy.
        error_before, error_after: expected calibration error.
    """

    temperature: float
    rows: int
    loss_before: float
    loss_after: float
    error_before: float
    error_after: float

    @property
    def noted(self) -> dict[str, Any]:
        """For training.json."""
        found = {
            "rows": self.rows,
            "loss_before": self.loss_before,
            "loss_after": self.loss_after,
            "calibration_error_before": self.error_before,
            "calibration_error_after": self.error_after,
        }
        return {TEMPERATURE: self.temperature, CALIBRATION: found}

    @property
    def words(self) -> str:
        """Temperature and effect, in a sentence for the log and the card."""
        error = f"{percent(self.error_before)} → {percent(self.error_after)}"
        return (
            f"Calibrated on {self.rows:,} rows held out: logits divided by {self.temperature:.3f}; calibration error "
            f"{error}, loss {self.loss_before:.4f} → {self.loss_after:.4f}."
        )


def calibrate_model(model: SwitchForSequenceClassification, features: Dataset, pad_token_id: int) -> Calibration | None:
    """Fit a temperature on tokenized rows with labels, and fold it into the model; None with too few rows."""
    if len(features) < FEWEST_HELD_OUT:
        return None
    if len(features) > MOST_ROWS:  # Evenly: they may be sorted by length.
        features = features.select(range(0, len(features), math.ceil(len(features) / MOST_ROWS)))
    logits_NC, labels_N = class_logits(model, features, pad_token_id)
    temperature = fit_temperature(logits_NC, labels_N)
    before, after = (_loss_and_error(logits_NC / by, labels_N) for by in (1.0, temperature))
    model.fold_temperature(temperature)
    return Calibration(temperature, len(labels_N), before[0], after[0], before[1], after[1])


def calibrate_checkpoint(
    checkpoint: str | Path, model: SwitchPreTrainedModel, tokenizer: PreTrainedTokenizerFast, source: DataSource
) -> Calibration:
    """`calibrate_model` for the model of a checkpoint, on the validation rows of its run in `source`; for data that it
    was not trained on, on their validation split, or all rows of a file.

    Raises:
        CheckpointError: for a model that is no classifier with one class per text.
        DataError: if the rows can't be read, are too few, or have other classes.
    """
    require_classifier(model)
    config = model.config
    if config.problem_type == "multi_label_classification":
        raise CheckpointError("This checkpoint gives a text several classes: a temperature is fitted where it has one.")
    own = own_data(str(checkpoint), source)
    if own.arguments is not None:
        split, note = held_out_rows(own, source.dataset, str(checkpoint))
        if note:
            print(note, file=sys.stderr)
    else:
        split = load_rows(str(checkpoint), source.at("train" if source.is_file else "validation"))
    features = tokenized_rows(split, tokenizer, config.labels, None)
    if (calibration := calibrate_model(model, features, tokenizer.pad_token_id)) is None:
        raise DataError(
            f"{source.dataset} has {counted(len(features), 'row', 'rows')} that {checkpoint} was not trained on: too "
            f"few to calibrate it with ({FEWEST_HELD_OUT} are enough)."
        )
    return calibration


@torch.inference_mode()
def class_logits(model: SwitchForSequenceClassification, features: Dataset, pad_token_id: int) -> tuple[Tensor, Tensor]:
    """(N, C) logits and (N,) classes of tokenized rows."""
    rows = features.remove_columns([name for name in ("length", "row") if name in features.column_names])
    logits, labels = [], []
    for batch in DataLoader(rows, batch_size=128, collate_fn=classified(features, pad_token_id)):
        labels.append(batch.pop("labels"))
        logits.append(model(**{key: tensor.to(model.device) for key, tensor in batch.items()}).logits.float().cpu())
    return torch.cat(logits), torch.cat(labels)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature between LOWEST and HIGHEST that minimises the loss of (N, C) logits; 1 if none lowers it.

    The fit has one extra row of unknown class, so that N rows without an error do not give probabilities of 1.
    """
    logits_NC = logits.double()
    rows, classes = logits_NC.shape
    target_NC = (rows * one_hot(labels, classes) + 1 / classes) / (rows + 1)

    def slope(inverse: float) -> float:
        """Of the loss, which is convex in the inverse of the temperature."""
        return float((((inverse * logits_NC).softmax(-1) - target_NC) * logits_NC).sum(-1).mean())

    low, high = 1 / HIGHEST, 1 / LOWEST
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    found = 2 / (low + high)
    better = cross_entropy(logits_NC / found, labels) < cross_entropy(logits_NC, labels)
    return found if better else 1.0


def _loss_and_error(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    confidence_N, predicted_N = logits.softmax(-1).max(-1)
    return float(cross_entropy(logits, labels)), calibration_error(
        (predicted_N == labels).numpy(), confidence_N.numpy()
    )
