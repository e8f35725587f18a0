"""Scores of a classifier from what was true and what it said, counted in NumPy.

Try it: by_class(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).f1
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScores:
    """(C,) shares and counts, one for each class; a share of nothing is 0.

    Attributes:
        precision: of the rows said to be of the class, those that are.
        recall: of the rows of the class, those said to be.
        f1: the harmonic mean of both.
        support: rows of the class.
        occurs: whether any row is of the class, or said to be.
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
    return float((expected == predicted).mean())


def by_class(expected: np.ndarray, predicted: np.ndarray, classes: int) -> ClassScores:
    """Scores of (N,) class numbers that are true and (N,) that were predicted."""
    true, said, right = (
        np.bincount(numbers, minlength=classes) for numbers in (expected, predicted, expected[expected == predicted])
    )
    return ClassScores(
        _share(right, said), _share(right, true), _share(2 * right, said + true), true, (said + true) > 0
    )


def confusion(expected: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts of rows: what was true down, what was predicted across."""
    return np.bincount(expected * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
