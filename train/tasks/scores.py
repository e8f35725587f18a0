"""Scores of a classifier from true and predicted classes, in NumPy.

Try it: by_class(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).f1
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScores:
    """(C,) scores per class; 0 where undefined.

    Attributes:
        precision, recall, f1: shares, 0 to 1.
        support: number of rows of the class.
        occurs: whether the class is any row's true or predicted one.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    occurs: np.ndarray

    def macro(self, name: str) -> float:
        """The mean of a score over the classes that occur."""
        return float(getattr(self, name)[self.occurs].mean())


def accuracy(expected: np.ndarray, predicted: np.ndarray) -> float:
    """Share of rows whose (N,) predicted class is the true one, 0 to 1."""
    return float((expected == predicted).mean())


def by_class(expected: np.ndarray, predicted: np.ndarray, classes: int) -> ClassScores:
    """Scores of (N,) true and (N,) predicted class indices."""
    true, said, right = (
        np.bincount(numbers, minlength=classes) for numbers in (expected, predicted, expected[expected == predicted])
    )
    return ClassScores(
        _share(right, said), _share(right, true), _share(2 * right, said + true), true, (said + true) > 0
    )


def confusion(expected: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts: row = true class, column = predicted class."""
    return np.bincount(expected * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
