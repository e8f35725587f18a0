"""Metrics, calibration and routing of a checkpoint on a split.

Try it: python -m train evaluate --checkpoint assets/models/ag_news --dataset ag_news --split test
"""

from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from switch_model.adapters.loading import load_any
from switch_model.analysis.statistics import RoutingTotals
from switch_model.checkpoint import read_training
from switch_model.inference.classifier import CLASSIFIERS
from switch_model.inference.pipeline import AnyModel
from train.data.columns import align_labels
from train.data.errors import DataError
from train.data.loading import Split, read_split
from train.data.source import DataSource
from train.data.tokenizers import tokenize
from train.data.toy import make_toy_split
from train.evaluation.held_out import held_out_rows, own_data, trained_on
from train.evaluation.metrics import classification_metrics
from train.evaluation.reliance import measured
from train.evaluation.settings import EvaluationSettings
from train.evaluation.text import measure_texts
from train.runs.continuing import lost_rows
from train.tasks.collators import PaddingCollator

DEFAULTS = EvaluationSettings()


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
    source = source.at(source.split or source.report_split)
    own, held_out, names, note = own_data(checkpoint, source), None, [], ""
    if source.split == "validation" and source.lacks_validation:
        held_out, names, note = held_out_rows(own, source.dataset, checkpoint)
    is_held_out = held_out is not None
    note = note or ("" if is_held_out else lost_rows(checkpoint))

    # 2. Its metrics.
    if isinstance(model, CLASSIFIERS):
        if not is_held_out:
            split = load_rows(checkpoint, source)
            held_out, names, note = split.rows, split.names, f"{note} {split.left_out}".strip()
        rows = align_labels(held_out, names, model.config.labels)
        all_rows, rows = len(rows), rows.select(settings.rows_of(len(rows)))
        texts, metrics = list(rows["text"]), _classes(model, tokenizer, rows, source, settings)
    else:
        metrics = measure_texts(model, tokenizer, source, settings, held_out)
        texts, all_rows = list(metrics.pop("texts")), metrics["rows"]

    # 3. How many of the rows were trained on: metrics on those are too optimistic.
    known = own.fingerprint.known(texts) if own.fingerprint else 0 if is_held_out else None
    share = trained_on(own, source.split, is_held_out, None if settings.num_samples else all_rows, known, len(texts))
    first = {"checkpoint": str(checkpoint), "dataset": source.dataset, "split": source.split}
    return first | {"trained_on": share, "trained_rows": known} | ({"note": note} if note else {}) | metrics


@torch.inference_mode()
def _classes(
    model: AnyModel,
    tokenizer: PreTrainedTokenizerFast,
    rows: Dataset,
    source: DataSource,
    settings: EvaluationSettings,
) -> dict[str, Any]:
    """The metrics of a classifier on rows whose labels are its own class indices."""
    features = tokenize(rows, tokenizer)
    if not len(features):
        raise DataError(f"{source.dataset} ({source.split}) has no text with a token in it.")
    collate = PaddingCollator(model.config.pad_token_id)
    totals, probabilities, expected = RoutingTotals(), [], []
    for batch in DataLoader(features.sort("length"), batch_size=settings.batch_size, collate_fn=collate):
        labels = batch.pop("labels")
        output = model(**{key: tensor.to(model.device) for key, tensor in batch.items()}, output_routing=True)
        totals.add(output.routing)
        probabilities.append(output.logits.float().softmax(-1).cpu())
        expected += labels.tolist()
    metrics = classification_metrics(expected, torch.cat(probabilities).numpy(), model.config.labels)
    metrics["accuracy"] *= len(expected) / len(rows)
    return {
        "rows": len(rows),
        "empty": len(rows) - len(features),
        **metrics,
        "routing": totals.summary(),
        **measured(model, features, settings.reliance, settings.progress),
    }
