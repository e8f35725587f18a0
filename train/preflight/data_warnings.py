"""What about a data set would surprise whoever trains on it: values in, plain sentences out, each with what to do.

Try it: list(about_pairs(["Hello.", "Thanks."], ["Hallo.", "Thanks."]))
"""

import re
from collections.abc import Iterator

import numpy as np

from train.data.cells import is_word_for_missing, look, spelled
from train.data.pairs import too_long
from train.formatting import counted, listed, shortened

# A class with fewer rows can be neither learned nor measured.
FEW_ROWS = 5
# With fewer validation rows, the accuracy on them moves in steps of more than two percent.
FEW_HELD_OUT = 50
# The share of one class, or its size over the smallest one's, from which on classes are called unbalanced.
LARGE_SHARE, LARGE_RATIO = 0.8, 20
# Rows are called sorted where the class changes that much more rarely from row to row than it would by chance.
SORTED_BELOW = 0.1
# What programs write for these numbers.
TRUTHS = {"true": "1", "false": "0"}
# Of the texts to write, so few different ones look like classes.
FEW_TARGETS = 0.05
# How a program writes a list of texts or numbers, an object, or bytes; a number; what there is instead of a text.
WRITTEN_OUT = re.compile(r"""\s*(\[\s*(['"{\[]|-?\d).*\]|\{\s*['"].*\}|b'.*'|b".*")\s*\Z""", re.DOTALL)
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?%?\s*", re.IGNORECASE)
MISSING_TEXT = re.compile(r"\s*(nan|null|none|nil|nat|<na>|#?n/?a)\s*", re.IGNORECASE)
# Blocks of a stream that a model of any size soon knows.
FEW_BLOCKS = 50


def about_classes(labels: dict[str, int]) -> Iterator[str]:
    total, (largest, most) = sum(labels.values()), next(iter(labels.items()))
    if len(labels) == 1:
        yield (
            f"All rows have one class ({largest}): there is nothing to tell apart, and training refuses to start. Add "
            "rows of other classes, or choose another column of classes."
        )
        return
    few = [f"{name}: {count}" for name, count in reversed(labels.items()) if count < FEW_ROWS]
    if few:
        yield (
            f"{counted(len(few), 'class has', 'classes have')} under {FEW_ROWS} rows ({listed(few)}): too few to learn "
            "and to measure. Collect more, join them with other classes, or leave them out."
        )
    spellings: dict[str, list[str]] = {}
    for name in labels:
        spellings.setdefault(name.casefold(), []).append(name)
    alike = [" and ".join(names) for names in spellings.values() if len(names) > 1]
    if alike:
        yield (
            f"Some classes differ in upper and lower case only ({listed(alike)}), and count as different ones. Write "
            "them alike if they are one."
        )
    smallest, least = min(labels.items(), key=lambda item: item[1] if item[1] >= FEW_ROWS else most)
    if most >= LARGE_SHARE * total:
        yield (
            f"{most / total:.0%} of the rows have the class {largest}: who always answers that is right as often. "
            "Judge by macro-F1 instead of accuracy, or collect more rows of the others."
        )
    elif most >= LARGE_RATIO * least:
        yield (
            f"The classes are very unbalanced: {largest} has {most:,} rows, {smallest} {least:,}. Small ones will be "
            "found more rarely: judge by macro-F1 beside accuracy, or collect more rows of them."
        )


def about_names(labels: dict[str, int]) -> Iterator[str]:
    """Names of classes that say there is none, that a reader takes for one, or that hold their quotes."""
    words = {name: count for name, count in labels.items() if is_word_for_missing(name)}
    if words:
        which = listed([f"{name}: {count:,}" for name, count in words.items()])
        yield (
            f"{counted(sum(words.values()), 'row has a class', 'rows have classes')} whose name often stands for a "
            f"missing one ({which}). They count as classes like any other: empty these cells where there is no class."
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
            "different ones. Write them alike if they are one."
        )
    if all(len(name) > 2 and name[0] == name[-1] and name[0] in "'\"`" for name in labels):
        yield (
            f"The names of all classes hold the quotes around them ({listed(list(labels))}). Write the file with "
            'double quotes (") around cells, and nothing between them and the commas, if they are not meant.'
        )


def about_texts(texts: list[str]) -> Iterator[str]:
    """Texts that are none: values as a program writes them out, numbers, words for a missing one."""
    written = [text for text in texts if WRITTEN_OUT.match(text)]
    if written:
        yield (
            f"{counted(len(written), 'text looks', 'texts look')} like a list, an object or bytes as a program writes "
            f"it out (“{shortened(written[0], 40)}”, {_share(len(written), len(texts))}): brackets and quotes would be "
            "learned as words. Write the text itself into the file."
        )
    if all(map(NUMBER.fullmatch, texts)):
        yield (
            f"All texts are numbers (such as {shortened(texts[0], 40)}): is it the column of texts? Choose another one "
            "if it is not."
        )
    missing = [text for text in texts if MISSING_TEXT.fullmatch(text)]
    if missing:
        yield (
            f"{counted(len(missing), 'text is', 'texts are')} a word that often stands for a missing one "
            f"(“{missing[0].strip()}”, {_share(len(missing), len(texts))}). They are learned as texts: empty these "
            "cells where there is none."
        )


def about_missing(rows: int, missing: dict[tuple[str, str], int]) -> Iterator[str]:
    """`missing`: what a row lacks and the column it would stand in, as in ("text", "texts") -> how many rows."""
    for (what, column), count in missing.items():
        if count:
            yield (
                f"{counted(count, 'row has', 'rows have')} no {what} ({_share(count, rows)}), and {_are(count)} left "
                f"out. If you expect fewer, look at the file, and at the choice of the column of {column}."
            )


def about_repeated(texts: list[str], what: str, metric: str) -> Iterator[str]:
    """`what` of an earlier row comes again, as in "the text of an earlier one"; which makes a `metric` look good."""
    repeated = len(texts) - len(set(map(key, texts)))
    if repeated:
        yield (
            f"{counted(repeated, 'row repeats', 'rows repeat')} {what} ({_share(repeated, len(texts))}): where one is "
            f"trained on and the other validated on, {metric} looks better than it is. Leave repeated rows out."
        )


def about_contradicting(texts: list[str], classes: np.ndarray, names: list[str]) -> Iterator[str]:
    """Texts that have several classes."""
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
            "no model can be right about all of them. Decide for one class."
        )


def about_overlap(texts: list[str], others: dict[str, list[str]]) -> Iterator[str]:
    """Texts of other splits that are trained on. `others`: what the rows of a split are for -> its texts."""
    trained = set(map(key, texts))
    for purpose, held_out in others.items():
        overlap = sum(key(text) in trained for text in held_out)
        if overlap:
            yield (
                f"{overlap:,} of the {len(held_out):,} rows that {purpose} ({_share(overlap, len(held_out))}) "
                f"{_are(overlap)} among the training rows too: there, metrics speak of memory. Take them out of the "
                "training rows."
            )


def about_pairs(texts: list[str], targets: list[str]) -> Iterator[str]:
    """Pairs whose second side is no text of its own."""
    same = sum(key(text) == key(target) for text, target in zip(texts, targets, strict=True))
    if same:
        yield (
            f"{counted(same, 'pair has', 'pairs have')} the same text on both sides ({_share(same, len(texts))}): the "
            "model learns to copy from them. Leave out those that should differ."
        )
    distinct = len(set(targets))
    if len(targets) >= FEW_HELD_OUT and distinct < FEW_TARGETS * len(targets):
        yield (
            f"The {len(targets):,} texts to write are only {distinct:,} different ones: if these are classes, choose "
            "the task that classifies."
        )


def about_long_pairs(words: np.ndarray, target_words: np.ndarray, seq_len: int) -> Iterator[str]:
    left_out = int(too_long(words, target_words, seq_len).sum())
    if left_out:
        yield (
            f"About {counted(left_out, 'pair is', 'pairs are')} longer than {seq_len} tokens on one side "
            f"({_share(left_out, len(words))}): with that seq_len, training leaves them out. Raise it to keep them, "
            "which makes training slower."
        )


def about_few_blocks(words: int, seq_len: int) -> Iterator[str]:
    """A stream of so many words, cut into blocks."""
    blocks = words // seq_len
    if blocks < FEW_BLOCKS:
        yield (
            f"All texts together have {words:,} words, which is {counted(blocks, 'block', 'blocks')} of {seq_len} "
            "tokens, more or less: a model learns them by heart. Add texts, or lower seq_len."
        )


def about_few(rows: int, held_out: int, classes: bool = True) -> Iterator[str]:
    if held_out < FEW_HELD_OUT:
        why = f"one answer more or less is {1 / held_out:.1%} of their accuracy" if classes else "too few to trust"
        yield (
            f"Of {counted(rows, 'row', 'rows')}, {held_out:,} {_are(held_out)} held out to choose the best checkpoint "
            f"on: {why}. Hold out a larger share (validation_size), or collect more rows."
        )


def about_long(words: np.ndarray, seq_len: int) -> Iterator[str]:
    # A word is one token at least.
    share = float((words > seq_len).mean())
    if share > 0.5:
        yield (
            f"{share:.0%} of the texts have more than {seq_len} words, and are read no further than token {seq_len}. "
            f"If what matters stands later, raise seq_len, which makes training slower: half of the texts have at "
            f"most {int(np.median(words)):,} words."
        )


def about_order(classes: np.ndarray) -> Iterator[str]:
    shares = np.unique(classes, return_counts=True)[1] / len(classes)
    changes, by_chance = int((classes[1:] != classes[:-1]).sum()), len(classes) * (1 - (shares**2).sum())
    if changes < SORTED_BELOW * by_chance:
        yield (
            "The rows are sorted by class. Here that does no harm, because rows are shuffled and every class has its "
            "share held out; whoever cuts a test off the end gets other classes there. Shuffle the file before you do."
        )


def key(text: str) -> int:
    """The same for texts that the model can't tell apart. A hash, because 200,000 texts are large."""
    return hash(" ".join(text.lower().split()))


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part >= 0.001 * whole else "under 0.1%"
