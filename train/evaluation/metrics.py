"""Metrics of a classifier: scores, calibration, confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from train.tasks.scores import accuracy, by_class, confusion

CALIBRATION_BINS = 15


def classification_metrics(expected: Sequence[int], probabilities: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """All metrics from (N,) true classes and (N, C) probabilities.

    Returns:
        accuracy; macro_precision, macro_recall, macro_f1 over the classes that occur; per_class (label, precision,
        recall, f1, support); calibration_error; confusion (rows: true, columns: predicted); label_distribution and
        prediction_distribution (class -> rows). Rates are shares (0 to 1).
    """
    expected, predicted = np.asarray(expected), probabilities.argmax(-1)
    each = by_class(expected, predicted, len(labels))
    matrix = confusion(expected, predicted, len(labels))
    return {
        "accuracy": accuracy(expected, predicted),
        "macro_precision": each.macro("precision"),
        "macro_recall": each.macro("recall"),
        "macro_f1": each.macro("f1"),
        "calibration_error": calibration_error(expected == predicted, probabilities.max(-1)),
        "per_class": [
            {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for label, p, r, f, n in zip(labels, each.precision, each.recall, each.f1, each.support, strict=True)
        ],
        "confusion": matrix.tolist(),
        "label_distribution": dict(zip(labels, matrix.sum(axis=1).tolist(), strict=True)),
        "prediction_distribution": dict(zip(labels, matrix.sum(axis=0).tolist(), strict=True)),
    }


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """Expected calibration error (Guo et al., 1706.04599, eq. 3) over equally wide bins: 0 = calibrated."""
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    total = 0.0
    for index in np.unique(bins):
        inside = bins == index
        total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)
