"""Metrics, calibration and routing of a checkpoint on a split.

Try it: python -m train evaluate --checkpoint assets/models/ag_news --dataset ag_news --split test
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from switch_model.adapters.loading import load_any
from switch_model.analysis.statistics import RoutingTotals
from switch_model.checkpoint import read_training
from switch_model.inference.classifier import CLASSIFIERS
from switch_model.inference.pipeline import AnyModel
from train.data.errors import DataError
from train.data.loading import Split, read_split
from train.data.source import DataSource
from train.data.toy import make_toy_split
from train.evaluation.held_out import held_out_rows, own_data, trained_on
from train.evaluation.measured_rows import known_texts, tokenized_rows
from train.evaluation.metrics import classification_metrics
from train.evaluation.reliance import measured
from train.evaluation.settings import EvaluationSettings
from train.evaluation.text import measure_texts
from train.runs.continuing import lost_rows
from train.tasks.collators import classified

DEFAULTS = EvaluationSettings()


def with_vectors(source: DataSource, model: AnyModel, checkpoint: str) -> DataSource:
    """The source, of a model of vectors with the column that it was trained on unless another one is named. Raises
    DataError where texts meet a model of vectors, or vectors one of texts."""
    wide = getattr(model.config, "inputs_embeds_size", None)
    column = source.features_column or read_training(checkpoint).get("arguments", {}).get("features_column")
    if wide and not column:
        raise DataError(f"{checkpoint} takes vectors, not texts: name their column with --features_column.")
    if source.features_column and not wide:
        raise DataError(f"{checkpoint} takes texts, not vectors: leave --features_column out.")
    return replace(source, features_column=column if wide else None)


def load_rows(checkpoint: str, source: DataSource) -> Split:
    """`read_split`; toy data get the shape that the checkpoint was trained on."""
    if not source.is_toy:
        return read_split(source)
    asked = read_training(checkpoint).get("arguments", {})
    shape = {key: asked[key] for key in ("num_classes", "vocab_size", "seq_len") if asked.get(key) is not None}
    return Split(*make_toy_split(source.split, **(shape if asked.get("dataset") == "toy" else {})))


def evaluate(
    checkpoint: str,
    source: DataSource,
    settings: EvaluationSettings = DEFAULTS,
    device: str | None = None,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Evaluate `checkpoint` on a split.

    Args:
        dtype: of a model of another family of transformers, as `load_any`.
        source: if the data have no validation split, its split "validation" means the rows that the checkpoint's run
            held out of them.

    Returns:
        For JSON: checkpoint, dataset, split, trained_on ("most", "some" or "none" of these rows; None = unknown),
        trained_rows (their number; None = unknown), note (a remark on the rows, if any), rows, empty (texts without a
        token: counted as wrong in accuracy only), the metrics of `classification_metrics`, routing (metrics per sparse
        layer), and reliance (of `reliance.measured`). For a model without classes, the metrics of `measure_texts`.

    Raises:
        CheckpointError, DataError: when either can't be read, or the classes do not fit.
    """
    # 1. The model, and the rows that its run held out, if requested.
    model, tokenizer = load_any(checkpoint, device, dtype=dtype)
    source = with_vectors(source.at(source.split or source.report_split), model, checkpoint)
    own, split, note = own_data(checkpoint, source), None, ""
    if source.split == "validation" and source.lacks_validation:
        split, note = held_out_rows(own, source.dataset, checkpoint)
    is_held_out = split is not None
    note = note or ("" if is_held_out else lost_rows(checkpoint))

    # 2. Its metrics.
    if isinstance(model, CLASSIFIERS):
        if not is_held_out:
            split = load_rows(checkpoint, source)
            note = f"{note} {split.left_out}".strip()
        metrics = _classes(model, tokenizer, split, source, settings)
        all_rows = len(split.rows)
    else:
        split, metrics = measure_texts(model, tokenizer, source, settings, split)
        all_rows = metrics["rows"]

    # 3. How many of the rows were trained on: metrics on those are too optimistic.
    measured_rows = len(split) if isinstance(split, np.ndarray) else len(settings.rows_of(len(split.rows)))
    known = 0 if is_held_out else None
    # Of rows that were read as they came, the first alone are in the fingerprint.
    if own.fingerprint and not (own.arguments and own.arguments.data.streaming and not is_held_out):
        known = known_texts(own.fingerprint, split, measured_rows)
    share = trained_on(own, source.split, is_held_out, None if settings.num_samples else all_rows, known, measured_rows)
    first = {"checkpoint": str(checkpoint), "dataset": source.dataset, "split": source.split}
    return first | {"trained_on": share, "trained_rows": known} | ({"note": note} if note else {}) | metrics


@torch.inference_mode()
def _classes(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    split: Split,
    source: DataSource,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """The metrics of a classifier."""
    rows = settings.rows_of(len(split.rows))
    features = tokenized_rows(split, tokenizer, model.config.labels, len(rows))
    if not len(features):
        raise DataError(f"{source.dataset} ({source.split}) has no text with a token in it.")
    collate = classified(features, model.config.pad_token_id)
    totals, done = RoutingTotals(), 0
    # Arrays, not lists: there may be millions of rows.
    probabilities_NC = np.empty((len(features), len(model.config.labels)), np.float32)
    expected_N = np.empty(len(features), np.int64)
    for batch in DataLoader(features, batch_size=settings.batch_size, collate_fn=collate):
        labels = batch.pop("labels")
        output = model(**{key: tensor.to(model.device) for key, tensor in batch.items()}, output_routing=True)
        totals.add(output.routing)
        probabilities_NC[done : done + len(labels)] = output.logits.float().softmax(-1).cpu().numpy()
        expected_N[done : done + len(labels)] = labels.numpy()
        done += len(labels)
    metrics = classification_metrics(expected_N, probabilities_NC, model.config.labels)
    metrics["accuracy"] *= len(features) / len(rows)
    return {
        "rows": len(rows),
        "empty": len(rows) - len(features),
        **metrics,
        "routing": totals.summary(),
        # Switched off and shuffled experts are measured over token ids.
        **({} if source.features_column else measured(model, features, settings.reliance, settings.progress)),
    }
