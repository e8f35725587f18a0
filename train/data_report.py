"""What a data set holds, and what about it would surprise whoever trains on it: said before a run, in plain sentences.

Try it: data_report("my.csv").warnings
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from train.arguments import Arguments
from train.columns import Columns, classes_of, texts_of
from train.data import columns_to_read, has_own_validation, read_rows, report_split
from train.tables import DataError, is_table, listed, shortened

PREVIEW_ROWS, PREVIEW_CHARACTERS = 8, 160
SAMPLED_ROWS = 500
# A class with fewer rows can be neither learned nor measured.
FEW_ROWS = 5
# With fewer validation rows, the accuracy on them moves in steps of more than two percent.
FEW_HELD_OUT = 50
# The share of one class, or its size over the smallest one's, from which on classes are called unbalanced.
LARGE_SHARE, LARGE_RATIO = 0.8, 20
# Rows are called sorted where the class changes that much more rarely from row to row than it would by chance.
SORTED_BELOW = 0.1


@dataclass(frozen=True)
class DataReport:
    """The training rows of a data set, described.

    Attributes:
        columns: all columns it has.
        text_column: the one of texts, or two with a comma between.
        label_column: the one of classes.
        rows: rows with a text and a class, which are those one trains on.
        preview: text (cut) and class of the first rows.
        labels: class -> rows, the most frequent first.
        words: words per text, of rows spread evenly over all.
        median_words, most_words: as many words as half of the texts, and 95 % of them, have at most.
        warnings: sentences: what was found, how much of it, and what to do.
    """

    columns: list[str]
    text_column: str
    label_column: str
    rows: int
    preview: list[tuple[str, str]]
    labels: dict[str, int]
    words: list[int]
    median_words: int
    most_words: int
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def data_report(
    dataset: str,
    *,
    data_dir: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    validation_size: float = 0.05,
) -> DataReport:
    """Look at the rows that `load_training_data` would cut into rows to train and to validate on.

    Raises:
        DataError: when they can't be had, with what to do. That there is one class only is a warning here.
    """
    # 1. Rows with a text and a class.
    table, names = read_rows(dataset, "train", data_dir)
    columns = columns_to_read(dataset, table.column_names, text_column, label_column)
    all_texts = texts_of(table, columns)
    all_classes, names = classes_of(table, all_texts, columns, names)
    kept = [row for row, index in enumerate(all_classes) if index is not None]
    texts, classes = [all_texts[row] for row in kept], np.array([all_classes[row] for row in kept])
    without_text = sum(not text.strip() for text in all_texts)

    # 2. Classes and words, counted.
    labels = {names[index]: count for index, count in Counter(classes.tolist()).most_common()}
    words = np.array([len(text.split()) for text in texts])
    held_out = len(kept) if has_own_validation(dataset, data_dir) else max(round(len(kept) * validation_size), 1)

    # 3. What is to be said about them, the worst first.
    seq_len = Arguments.resolve({"dataset": dataset}).data.seq_len
    warnings = [
        *_about_classes(labels),
        *_about_missing(len(all_texts), without_text, len(all_texts) - len(kept) - without_text),
        *_about_repeated(texts, classes, names, _reported_texts(dataset, data_dir, columns)),
        *_about_few(len(kept), held_out),
        *_about_long(words, seq_len),
        *_about_order(classes),
    ]
    return DataReport(
        columns=table.column_names,
        text_column=",".join(columns.texts),
        label_column=columns.label,
        rows=len(kept),
        preview=[
            (shortened(text, PREVIEW_CHARACTERS), names[index])
            for text, index in zip(texts[:PREVIEW_ROWS], classes[:PREVIEW_ROWS], strict=True)
        ],
        labels=labels,
        words=words[np.linspace(0, len(kept) - 1, min(len(kept), SAMPLED_ROWS)).astype(int)].tolist(),
        median_words=int(np.median(words)),
        most_words=int(np.quantile(words, 0.95, method="higher")),
        warnings=warnings,
    )


def _about_classes(labels: dict[str, int]) -> Iterator[str]:
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
            f"{_count(len(few), 'class has', 'classes have')} under {FEW_ROWS} rows ({listed(few)}): too few to learn "
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


def _about_missing(rows: int, without_text: int, without_class: int) -> Iterator[str]:
    for count, what, column in ((without_text, "text", "texts"), (without_class, "class", "classes")):
        if count:
            yield (
                f"{_count(count, 'row has', 'rows have')} no {what} ({_share(count, rows)}), and {_are(count)} left "
                f"out. If you expect fewer, look at the file, and at the choice of the column of {column}."
            )


def _about_repeated(texts: list[str], classes: np.ndarray, names: list[str], reported: list[str]) -> Iterator[str]:
    first_with: dict[int, int] = {}
    repeated, contradicting = 0, {}
    for row, key in enumerate(map(_key, texts)):
        first = first_with.setdefault(key, row)
        if first != row:
            repeated += 1
            if classes[first] != classes[row]:
                contradicting.setdefault(key, (first, row))
    if repeated:
        yield (
            f"{_count(repeated, 'row repeats', 'rows repeat')} the text of an earlier one "
            f"({_share(repeated, len(texts))}): where one is trained on and the other validated on, the accuracy looks "
            "better than it is. Leave repeated rows out."
        )
    if contradicting:
        first, second = next(iter(contradicting.values()))
        example = f"“{shortened(texts[first], 60)}” as {names[classes[first]]} and {names[classes[second]]}"
        yield (
            f"{_count(len(contradicting), 'text has', 'texts have')} different classes in different rows ({example}): "
            "no model can be right about all of them. Decide for one class."
        )
    overlap = sum(_key(text) in first_with for text in reported)
    if overlap:
        yield (
            f"{overlap:,} of the {len(reported):,} rows that figures are reported on "
            f"({_share(overlap, len(reported))}) {_are(overlap)} among the training rows too: there, figures speak of "
            "memory. Take them out of the training rows."
        )


def _about_few(rows: int, held_out: int) -> Iterator[str]:
    if held_out < FEW_HELD_OUT:
        yield (
            f"Of {_count(rows, 'row', 'rows')}, {held_out:,} {_are(held_out)} held out to choose the best checkpoint "
            f"on: one answer more or less is {1 / held_out:.1%} of their accuracy. Hold out a larger share "
            "(validation_size), or collect more rows."
        )


def _about_long(words: np.ndarray, seq_len: int) -> Iterator[str]:
    # A word is one token at least.
    share = float((words > seq_len).mean())
    if share > 0.5:
        yield (
            f"{share:.0%} of the texts have more than {seq_len} words, and are read no further than token {seq_len}. "
            f"If what matters stands later, raise seq_len, which makes training slower: half of the texts have at "
            f"most {int(np.median(words)):,} words."
        )


def _about_order(classes: np.ndarray) -> Iterator[str]:
    shares = np.unique(classes, return_counts=True)[1] / len(classes)
    changes, by_chance = int((classes[1:] != classes[:-1]).sum()), len(classes) * (1 - (shares**2).sum())
    if changes < SORTED_BELOW * by_chance:
        yield (
            "The rows are sorted by class. Here that does no harm, because rows are shuffled and every class has its "
            "share held out; whoever cuts a test off the end gets other classes there. Shuffle the file before you do."
        )


def _reported_texts(dataset: str, data_dir: str | None, columns: Columns) -> list[str]:
    """The texts of the split that figures are reported on, where that is not the one to train on."""
    try:
        split = report_split(dataset, data_dir)
        return (
            [] if is_table(dataset) or split == "train" else texts_of(read_rows(dataset, split, data_dir)[0], columns)
        )
    except DataError:
        return []


def _key(text: str) -> int:
    """The same for texts that the model can't tell apart. A hash, because 200,000 texts are large."""
    return hash(" ".join(text.lower().split()))


def _count(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part >= 0.001 * whole else "under 0.1%"
