"""Split rows into training and held-out rows: stratified by class, or by whole sentences if rows are fragments.

Try it: cut_by_sentence(load_split(DataSource("sst2", split="train"))[0], share=0.1)
"""

from collections import Counter, defaultdict

import numpy as np
from datasets import Dataset
from datasets.utils.stratify import approximate_mode

from train.data.errors import DataError
from train.formatting import counted


def cut_by_sentence(rows: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Training rows, and whole sentences for validation, of which no fragment is among the training rows.

    A row is a fragment of a sentence if it is a sequence of its words. Splitting row by row would put fragments of one
    sentence on both sides, and validation accuracy would be too optimistic.
    """
    texts = rows["text"]
    frequency = Counter(word for text in texts for word in set(text.split()))
    sentence_of: dict[str, str] = {}
    holding: dict[str, list[str]] = defaultdict(list)
    for text in sorted(set(texts), key=lambda text: (-len(text), text)):
        words = text.split()
        # Few sentences contain the text's rarest word.
        candidates = holding[min(words, key=frequency.__getitem__)]
        sentence = next((whole for whole in candidates if f" {' '.join(words)} " in f" {whole} "), None)
        if sentence is None:
            sentence = " ".join(words)
            for word in set(words):
                holding[word].append(sentence)
        sentence_of[text] = sentence
    sentences = sorted(set(sentence_of.values()))
    held_out = set(np.random.default_rng(0).permutation(sentences)[: max(round(len(sentences) * share), 1)])
    train, validation = [], []
    for index, text in enumerate(texts):
        if sentence_of[text] not in held_out:
            train.append(index)
        elif " ".join(text.split()) == sentence_of[text]:
            validation.append(index)
    return rows.select(train), rows.select(validation)


def cut(rows: Dataset, share: float, classes: int = 0) -> tuple[Dataset, Dataset]:
    """Training rows and held-out rows, as `cut_indices`."""
    labels = np.array(rows["label"][:]) if classes else None
    train, held_out = cut_indices(len(rows), labels, share, classes)
    return rows.select(train), rows.select(held_out)


def cut_indices(rows: int, labels: np.ndarray | None, share: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training rows and of held-out rows, stratified if every class has at least two rows; 0 classes = not
    stratified.

    The split does not depend on the run's seed, so that runs with different seeds share one validation split. Raises
    DataError when there are too few rows.

    Args:
        labels: (rows,) the class of each row; None without classes.
    """
    held_out, random = max(round(rows * share), 1), np.random.default_rng(0)
    left = rows - held_out
    if left < max(classes, 1):
        raise DataError(
            f"validation_size {share:g} leaves {left:,} of {counted(rows, 'row', 'rows')} for training"
            + (f", for {classes} classes" if classes else "")
            + ": use a smaller share, or more rows."
        )
    if labels is not None and held_out >= classes and np.unique(labels, return_counts=True)[1].min() >= 2:
        return _stratified(labels, left, held_out, random)
    order = random.permutation(rows)
    return order[held_out:], order[:held_out]


def _stratified(
    labels: np.ndarray, left: int, held_out: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that `datasets` draws in train_test_split(stratify_by_column), without its lists of Python's numbers."""
    counts = np.unique(labels, return_counts=True)[1]
    of_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    in_train = approximate_mode(counts, left, random)
    in_test = approximate_mode(counts - in_train, held_out, random)
    train, test = [], []
    for rows, own, others in zip(of_class, in_train, in_test, strict=True):
        drawn = rows[random.permutation(len(rows))]
        train.append(drawn[:own])
        test.append(drawn[own : own + others])
    return random.permutation(np.concatenate(train)), random.permutation(np.concatenate(test))
