"""Warnings about a data set: values in, sentences out, each with what to do.

Try it: list(about_pairs(["Hello.", "Thanks."], ["Hallo.", "Thanks."]))
"""

import re
from collections.abc import Iterator

import numpy as np

from train.data.cells import is_word_for_missing, look, spelled
from train.data.pairs import too_long
from train.formatting import counted, listed, percent, shortened

# A class with fewer rows can be neither learned nor evaluated.
FEW_ROWS = 5
# With fewer validation rows, one prediction changes their accuracy by more than two percent.
FEW_HELD_OUT = 50
# Classes are unbalanced from this share of one class, or this ratio of the largest to the smallest.
LARGE_SHARE, LARGE_RATIO = 0.8, 20
# Rows are sorted if the class changes less often from row to row than this share of the expected number.
SORTED_BELOW = 0.1
# Equivalent spellings.
TRUTHS = {"true": "1", "false": "0"}
# With a smaller share of distinct targets, these look like classes.
FEW_TARGETS = 0.05
# Printed lists, objects or bytes; numbers; missing values.
WRITTEN_OUT = re.compile(r"""\s*(\[\s*(['"{\[]|-?\d).*\]|\{\s*['"].*\}|b'.*'|b".*")\s*\Z""", re.DOTALL)
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?%?\s*", re.IGNORECASE)
MISSING_TEXT = re.compile(r"\s*(nan|null|none|nil|nat|<na>|#?n/?a)\s*", re.IGNORECASE)
# A model memorises fewer blocks.
FEW_BLOCKS = 50


def about_classes(labels: dict[str, int]) -> Iterator[str]:
    """A single class, few rows of a class, names that differ in case only, uneven classes.

    Args:
        labels: class -> rows, the most frequent first.
    """
    total, (largest, most) = sum(labels.values()), next(iter(labels.items()))
    if len(labels) == 1:
        yield (
            f"All rows have one class ({largest}): a classifier needs at least two, and training will not start. Add "
            "rows of other classes, or choose another column of classes."
        )
        return
    few = [f"{name}: {count}" for name, count in reversed(labels.items()) if count < FEW_ROWS]
    if few:
        yield (
            f"{counted(len(few), 'class has', 'classes have')} fewer than {FEW_ROWS} rows ({listed(few)}): too few to "
            "learn and evaluate. Collect more, merge them with other classes, or remove them."
        )
    spellings: dict[str, list[str]] = {}
    for name in labels:
        spellings.setdefault(name.casefold(), []).append(name)
    alike = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    if alike:
        yield (
            f"Some classes differ in upper and lower case only ({listed(alike)}), and count as different classes. Use "
            "one spelling if they are the same."
        )
    smallest, least = min(labels.items(), key=lambda item: item[1] if item[1] >= FEW_ROWS else most)
    if most >= LARGE_SHARE * total:
        yield (
            f"{percent(most / total)} of the rows have the class {largest}: always predicting it has the same "
            "accuracy. Use macro-F1 instead of accuracy, or collect more rows of the other classes."
        )
    elif most >= LARGE_RATIO * least:
        yield (
            f"The classes are very unbalanced: {largest} has {most:,} rows, {smallest} {least:,}. Recall of small ones "
            "will be lower: look at macro-F1 too, or collect more rows of them."
        )


def about_names(labels: dict[str, int]) -> Iterator[str]:
    """Class names that mean "missing", that look alike, or that contain quotes."""
    words = {name: count for name, count in labels.items() if is_word_for_missing(name)}
    if words:
        which = listed([f"{name}: {count:,}" for name, count in words.items()])
        yield (
            f"{counted(sum(words.values()), 'row has a class', 'rows have classes')} whose name often means a "
            f"missing value ({which}). They count as normal classes: leave these cells empty if there is no class."
        )
    looks: dict[str, list[str]] = {}
    for name in labels:
        looks.setdefault(TRUTHS.get(look(name), look(name)), []).append(name)
    alike = [
        " and ".join(map(spelled, names)) for names in looks.values() if len({name.casefold() for name in names}) > 1
    ]
    if alike:
        yield (
            f"Some classes look alike or mean the same, but are written differently ({listed(alike)}), and count as "
            "different classes. Use one spelling if they are the same."
        )
    if all(len(name) > 2 and name[0] == name[-1] and name[0] in "'\"`" for name in labels):
        yield (
            f"The names of all classes contain quotes ({listed(list(labels))}). If that is not intended, write the "
            'file with double quotes (") around cells, directly beside the commas.'
        )


def about_texts(texts: list[str]) -> Iterator[str]:
    """Cells that are not texts: printed values, numbers, missing values."""
    written = [text for text in texts if WRITTEN_OUT.match(text)]
    if written:
        yield (
            f"{counted(len(written), 'text looks', 'texts look')} like a printed list, object or bytes "
            f"(“{shortened(written[0], 40)}”, {percent(len(written) / len(texts))}): brackets and quotes would be "
            "learned as words. Write the text itself into the file."
        )
    if all(map(NUMBER.fullmatch, texts)):
        yield (
            f"All texts are numbers (such as {shortened(texts[0], 40)}): is it the column of texts? Otherwise choose "
            "another one."
        )
    missing = [text for text in texts if MISSING_TEXT.fullmatch(text)]
    if missing:
        yield (
            f"{counted(len(missing), 'text is', 'texts are')} a word that often means a missing value "
            f"(“{missing[0].strip()}”, {percent(len(missing) / len(texts))}). They are learned as texts: leave these "
            "cells empty if there is no text."
        )


def about_missing(rows: int, missing: dict[tuple[str, str], int]) -> Iterator[str]:
    """`missing`: what a row lacks, and its column, as in ("text", "texts") -> number of rows."""
    for (what, column), count in missing.items():
        if count:
            yield (
                f"{counted(count, 'row has', 'rows have')} no {what} ({percent(count / rows)}), and {_are(count)} "
                f"excluded. If you expect fewer, check the file, and the choice of the column of {column}."
            )


def about_repeated(texts: list[str], what: str, metric: str) -> Iterator[str]:
    """Rows that repeat `what`, such as "the text of an earlier one", and make `metric` too optimistic."""
    repeated = len(texts) - len(set(map(key, texts)))
    if repeated:
        yield (
            f"{counted(repeated, 'row repeats', 'rows repeat')} {what} ({percent(repeated / len(texts))}): if copies "
            f"are in both training and validation, {metric} looks better than it is. Remove repeated rows."
        )


def about_contradicting(texts: list[str], classes: np.ndarray, names: list[str]) -> Iterator[str]:
    """Texts with several classes."""
    first_with: dict[int, int] = {}
    contradicting: dict[int, tuple[int, int]] = {}
    for row, own in enumerate(map(key, texts)):
        first = first_with.setdefault(own, row)
        if classes[first] != classes[row]:
            contradicting.setdefault(own, (first, row))
    if contradicting:
        first, second = next(iter(contradicting.values()))
        example = f"“{shortened(texts[first], 60)}” as {names[classes[first]]} and {names[classes[second]]}"
        yield (
            f"{counted(len(contradicting), 'text has', 'texts have')} different classes in different rows ({example}): "
            "no model can predict all of them. Choose one class for each text."
        )


def about_overlap(texts: list[str], others: dict[str, list[str]]) -> Iterator[str]:
    """Texts of other splits that are among the training rows. `others`: purpose of a split -> its texts."""
    trained = set(map(key, texts))
    for purpose, held_out in others.items():
        overlap = sum(key(text) in trained for text in held_out)
        if overlap:
            yield (
                f"{overlap:,} of the {len(held_out):,} rows that {purpose} ({percent(overlap / len(held_out))}) "
                f"{_are(overlap)} among the training rows too, so metrics on them are too optimistic. Remove them from "
                "the training rows."
            )


def about_pairs(texts: list[str], targets: list[str]) -> Iterator[str]:
    """Pairs with equal sides, or with few distinct targets."""
    same = sum(key(text) == key(target) for text, target in zip(texts, targets, strict=True))
    if same:
        yield (
            f"{counted(same, 'pair has', 'pairs have')} the same text on both sides ({percent(same / len(texts))}): "
            "the model learns to copy. Remove those that should differ."
        )
    distinct = len(set(targets))
    if len(targets) >= FEW_HELD_OUT and distinct < FEW_TARGETS * len(targets):
        yield (
            f"The {len(targets):,} target texts have only {distinct:,} distinct values: if these are classes, choose "
            "the task classification."
        )


def about_long_pairs(words: np.ndarray, target_words: np.ndarray, seq_len: int) -> Iterator[str]:
    """Pairs that training excludes, since a side probably has more than `seq_len` tokens."""
    left_out = int(too_long(words, target_words, seq_len).sum())
    if left_out:
        yield (
            f"About {counted(left_out, 'pair is', 'pairs are')} longer than {seq_len} tokens on one side "
            f"({percent(left_out / len(words))}): with this --seq_len, training excludes them. Increase it to keep "
            "them, which makes training slower."
        )


def about_few_blocks(words: int, seq_len: int) -> Iterator[str]:
    """A stream of `words` words gives few blocks."""
    blocks = words // seq_len
    if blocks < FEW_BLOCKS:
        yield (
            f"All texts together have {words:,} words, about {counted(blocks, 'block', 'blocks')} of {seq_len} "
            "tokens: a model memorises them. Add texts, or decrease --seq_len."
        )


def about_few(rows: int, held_out: int, classes: bool = True) -> Iterator[str]:
    """A validation split so small that its metrics are noise."""
    if held_out < FEW_HELD_OUT:
        step = f"one prediction changes their accuracy by {100 / held_out:.1f} points"
        why = step if classes else "too few to be reliable"
        yield (
            f"Of {counted(rows, 'row', 'rows')}, {held_out:,} {_are(held_out)} held out for validation: {why}. Hold "
            "out a larger share (--validation_size), or collect more rows."
        )


def about_long(words: np.ndarray, seq_len: int) -> Iterator[str]:
    """Texts of which most are truncated."""
    # A word has at least one token.
    share = float((words > seq_len).mean())
    if share > 0.5:
        yield (
            f"{percent(share)} of the texts have more than {seq_len} words, and are truncated to {seq_len} tokens. If "
            f"the rest matters, increase --seq_len, which makes training slower: the median is "
            f"{int(np.median(words)):,} words."
        )


def about_order(classes: np.ndarray) -> Iterator[str]:
    """Rows sorted by class."""
    shares = np.unique(classes, return_counts=True)[1] / len(classes)
    changes, by_chance = int((classes[1:] != classes[:-1]).sum()), len(classes) * (1 - (shares**2).sum())
    if changes < SORTED_BELOW * by_chance:
        yield (
            "The rows are sorted by class. Training shuffles them and holds out a share of every class; but a test set "
            "cut off the end would have other classes. Shuffle the file before you cut one."
        )


def key(text: str) -> int:
    """A hash that is equal for texts that differ only in case and spaces; hashes, to save memory."""
    return hash(" ".join(text.lower().split()))


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
