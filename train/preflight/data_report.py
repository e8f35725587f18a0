"""What a data set holds, and what about it would surprise whoever trains on it: said before a run, in plain sentences.

One report for each kind of rows that tasks have: texts with classes, pairs of texts, texts.
Try it: data_report(DataSource("my.csv")).warnings
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from train.arguments.arguments import Arguments
from train.arguments.groups import DEFAULT_TASK
from train.data.columns import choose_columns, classes_of, names_in, texts_of
from train.data.errors import DataError
from train.data.loading import read_rows
from train.data.packing import stream_texts
from train.data.pairs import choose_pair, pair_texts
from train.data.source import DataSource
from train.formatting import shortened
from train.preflight.data_warnings import (
    about_classes,
    about_contradicting,
    about_few,
    about_few_blocks,
    about_long,
    about_long_pairs,
    about_missing,
    about_names,
    about_order,
    about_overlap,
    about_pairs,
    about_repeated,
    about_texts,
)
from train.tasks.registry import TASKS
from train.tasks.rows import learn_tokenizer

PREVIEW_ROWS, PREVIEW_CHARACTERS = 5, 160
SAMPLED_ROWS = 500
# Of a stream, which may be endless, so many texts are looked at.
STREAMED_TEXTS = 20_000
# A tokenizer is learned just to count its tokens from texts of so many characters at most: a fraction of a second.
# Words without an end, of which each of its steps reads all, would take minutes.
COUNTED_CHARACTERS, LONGEST_WORD, NO_LIMIT = 300_000, 200, 1_000_000
# Reports that are kept, for everybody who opens a page asks for the same ones.
KEPT_REPORTS = 32

# A run says so many warnings at most, each as far as its first full stop outside brackets.
MOST_NOTES = 5
FIRST_SENTENCE = re.compile(r"(?:\([^()]*\)|[^.(]|\.(?!\s|$))*\.")


@dataclass(frozen=True)
class DataReport:
    """The training rows of a data set, described.

    Attributes:
        columns: all columns it has; none where nobody knows before reading.
        text_column: the one of texts, or two with a comma between.
        label_column, target_column: the one of classes, and the one of what is to be written, where the task has such.
        rows: rows to train on: with a text, and a class or a second text where the task needs it.
        looked_at: of a stream of texts, how many this report is about; otherwise all.
        preview: the first rows, cut: a text, and its class or its second text.
        labels: class -> rows, the most frequent first; empty without classes.
        words: words per text, of rows spread evenly over all.
        target_words: the same of the second texts, row by row.
        median_words, most_words: as many words as half of the texts, and 95 % of them, have at most.
        median_target_words, most_target_words: the same of the second texts; 0 without.
        characters: of all texts looked at.
        validation: rows of the data set's own validation split; None = some of the training rows are held out.
        vocabulary: tokens that a tokenizer learned from them has at most; None = not counted, so many are the texts.
        warnings: sentences: what was found, how much of it, and what to do.
    """

    columns: list[str]
    text_column: str
    label_column: str | None
    rows: int
    preview: list[tuple[str, ...]]
    labels: dict[str, int]
    words: list[int]
    median_words: int
    most_words: int
    warnings: list[str]
    target_column: str | None = None
    looked_at: int = 0
    target_words: Sequence[int] = ()
    median_target_words: int = 0
    most_target_words: int = 0
    characters: int = 0
    validation: int | None = None
    vocabulary: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Asked:
    """What `data_report` was asked for: what its answer is kept by."""

    source: DataSource
    task: str
    validation_size: float
    wanted_seq_len: int | None

    @property
    def seq_len(self) -> int:
        asked = {"dataset": self.source.dataset, "task": self.task}
        return self.wanted_seq_len or Arguments.resolve(asked).data.seq_len


def data_report(
    source: DataSource, *, task: str = DEFAULT_TASK, validation_size: float = 0.05, seq_len: int | None = None
) -> DataReport:
    """Look at the rows that a run would cut into rows to train and to validate on. Kept until a file changes.

    Args:
        task: a name of train.tasks.registry.TASKS.
        seq_len: tokens that a model reads of a text; None = as a run of the data set does without flags.

    Raises:
        DataError: when they can't be had, with what to do. That there is one class only is a warning here.
    """
    return _report(_Asked(source.at("train"), task, validation_size, seq_len), _stamps(source))


def notes(arguments: Arguments) -> list[str]:
    """What a run over a file of the user's own says before it begins: of the first few warnings what was found."""
    data, task = arguments.data, arguments.train.task
    if not data.source.is_file:
        return []
    try:
        report = data_report(data.source, task=task, validation_size=data.validation_size, seq_len=data.seq_len)
    except DataError:
        return []  # The run's own reading says what is wrong.
    return [
        first.group() if (first := FIRST_SENTENCE.match(warning)) else warning
        for warning in report.warnings[:MOST_NOTES]
    ]


@functools.lru_cache(maxsize=KEPT_REPORTS)
def _report(asked: _Asked, stamps: tuple) -> DataReport:
    task = TASKS[asked.task]
    return (_of_classes if task.labelled else _of_pairs if task.paired else _of_texts)(asked)


def _stamps(source: DataSource) -> tuple[tuple[str, int, int], ...]:
    """Path, size and time of the files that a data set is read from; none for what is not on this disk."""
    states = [(path, path.stat()) for path in source.files() if path.is_file()]
    return tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states)


def _of_classes(asked: _Asked) -> DataReport:
    # 1. Rows with a text and a class.
    table, names = read_rows(asked.source)
    columns = choose_columns(asked.source, names_in(table))
    all_texts = texts_of(table, columns)
    all_classes, names = classes_of(table, all_texts, columns, names)
    kept = [row for row, index in enumerate(all_classes) if index is not None]
    texts, classes = [all_texts[row] for row in kept], np.array([all_classes[row] for row in kept])
    without_text = sum(not text.strip() for text in all_texts)
    without_class = len(all_texts) - len(kept) - without_text

    # 2. Classes and words, counted.
    labels = {names[index]: count for index, count in Counter(classes.tolist()).most_common()}
    words = _words(texts)
    validation = _validation_rows(asked)

    # 3. What is to be said about them, the worst first.
    others = _other_splits(asked, lambda rows: texts_of(rows, columns))
    warnings = [
        *about_classes(labels),
        *about_names(labels),
        *about_texts(texts),
        *about_missing(len(all_texts), {("text", "texts"): without_text, ("class", "classes"): without_class}),
        *about_repeated(texts, "the text of an earlier one", "the accuracy"),
        *about_contradicting(texts, classes, names),
        *about_overlap(texts, others),
        *about_few(len(kept), _held_out(asked, len(kept), validation)),
        *about_long(words, asked.seq_len),
        *about_order(classes),
    ]
    return DataReport(
        columns=names_in(table),
        text_column=",".join(columns.texts),
        label_column=columns.label,
        rows=len(kept),
        preview=_preview(texts, [names[index] for index in classes[:PREVIEW_ROWS]]),
        labels=labels,
        warnings=warnings,
        looked_at=len(kept),
        characters=sum(map(len, texts)),
        validation=validation,
        vocabulary=_vocabulary(asked, texts),
        **_lengths(words),
    )


def _of_pairs(asked: _Asked) -> DataReport:
    dataset, (table, _) = asked.source.dataset, read_rows(asked.source)
    source, target = choose_pair(asked.source, names_in(table))
    all_texts, all_targets = pair_texts(table, dataset, source, target)
    all_texts, all_targets = ([text.strip() for text in side] for side in (all_texts, all_targets))
    whole = [(text, answer) for text, answer in zip(all_texts, all_targets, strict=True) if text and answer]
    if not whole:
        raise DataError(f"{dataset} has no row with both a text ({source}) and what to write ({target}).")
    texts, targets = ([pair[side] for pair in whole] for side in (0, 1))
    words, target_words = _words(texts), _words(targets)
    validation = _validation_rows(asked)
    both = [f"{text}\t{answer}" for text, answer in whole]
    missing = {
        ("text", f"texts ({source})"): sum(not text for text in all_texts),
        # A row that lacks both is counted once.
        ("text to write", f"what to write ({target})"): sum(
            bool(text) and not answer for text, answer in zip(all_texts, all_targets, strict=True)
        ),
    }
    warnings = [
        *about_texts(texts),
        *about_texts(targets),
        *about_pairs(texts, targets),
        *about_missing(len(all_texts), missing),
        *about_repeated(both, "an earlier pair", "BLEU"),
        *about_overlap(texts, _other_splits(asked, lambda rows: pair_texts(rows, dataset, source, target)[0])),
        *about_few(len(whole), _held_out(asked, len(whole), validation), classes=False),
        *about_long_pairs(words, target_words, asked.seq_len),
    ]
    return DataReport(
        columns=names_in(table),
        text_column=source,
        label_column=None,
        target_column=target,
        rows=len(whole),
        preview=_preview(texts, [shortened(answer, PREVIEW_CHARACTERS) for answer in targets[:PREVIEW_ROWS]]),
        labels={},
        warnings=warnings,
        looked_at=len(whole),
        target_words=_spread(target_words),
        median_target_words=_lengths(target_words)["median_words"],
        most_target_words=_lengths(target_words)["most_words"],
        characters=sum(map(len, texts)),
        validation=validation,
        vocabulary=_vocabulary(asked, [*texts, *targets]),
        **_lengths(words),
    )


def _of_texts(asked: _Asked) -> DataReport:
    source, streamed = asked.source, TASKS[asked.task].streamed
    path = source.local_file()
    columns, text_column, all_texts = _columns_and_texts(asked, path, streamed)
    texts = [text for text in all_texts if text.strip()]
    if not texts:
        raise DataError(f"{source.dataset} has no row with a text.")
    # Of a stream from this disk, how long it is stands in its file.
    cut_short = streamed and len(all_texts) == STREAMED_TEXTS
    rows = pyarrow.parquet.read_metadata(path).num_rows if cut_short and path else len(texts)
    words, validation = _words(texts), _validation_rows(asked)

    def split_texts(rows) -> list[str]:
        return texts_of(rows, choose_columns(source, names_in(rows), labelled=False))

    total_words = int(words.sum() * rows / len(texts))
    few = about_few_blocks(total_words, asked.seq_len) if streamed else about_long(words, asked.seq_len)
    warnings = [
        *about_texts(texts),
        *about_missing(len(all_texts), {("text", "texts"): len(all_texts) - len(texts)}),
        *about_repeated(texts, "the text of an earlier one", "the loss"),
        *about_overlap(texts, _other_splits(asked, split_texts)),
        *([] if streamed else about_few(rows, _held_out(asked, rows, validation), classes=False)),
        *few,
    ]
    return DataReport(
        columns=columns,
        text_column=text_column,
        label_column=None,
        rows=rows,
        preview=_preview(texts),
        labels={},
        warnings=warnings,
        looked_at=len(texts),
        characters=sum(map(len, texts)),
        validation=validation,
        vocabulary=None if cut_short else _vocabulary(asked, texts),
        **_lengths(words),
    )


def _columns_and_texts(asked: _Asked, path: Path | None, streamed: bool) -> tuple[list[str], str, list[str]]:
    """All columns, the one of texts, and its cells: of a stream the first ones, otherwise all."""
    source, usual = asked.source, "text"
    if streamed and not (source.is_at_hand or source.is_file):
        columns = pyarrow.parquet.read_schema(path).names if path else []
        if columns:
            usual = ",".join(choose_columns(source, columns, labelled=False).texts)
        return columns, source.text_column or usual, list(islice(stream_texts(source), STREAMED_TEXTS))
    table, _ = read_rows(source)
    chosen = choose_columns(source, names_in(table), labelled=False)
    return names_in(table), ",".join(chosen.texts), texts_of(table, chosen)


# -- what they share --------------------------------------------------------------------------------------------------


def _validation_rows(asked: _Asked) -> int | None:
    if not asked.source.has_own_validation:
        return None
    return pyarrow.parquet.read_metadata(asked.source.at("validation").local_file()).num_rows


def _held_out(asked: _Asked, rows: int, validation: int | None) -> int:
    if validation is not None:
        return validation
    return max(round(rows * asked.validation_size), 1)


def _other_splits(asked: _Asked, texts_in) -> dict[str, list[str]]:
    """The texts that no run trains on, by what they are for. `texts_in`: rows -> texts."""
    source = asked.source
    if source.is_toy or source.is_file:
        return {}
    purposes = {}
    if source.has_own_validation:
        purposes["validation"] = "the best checkpoint is chosen on"
    purposes.setdefault(source.report_split, "metrics are reported on")
    found = {}
    for split, purpose in purposes.items():
        if split != "train":
            try:
                found[purpose] = texts_in(read_rows(source.at(split))[0])
            except DataError:
                continue
    return found


def _vocabulary(asked: _Asked, texts: list[str]) -> int | None:
    """Tokens of a tokenizer that was learned from all of the texts with no limit, where they are few enough to do so
    just for this. With a limit it has either so many, or the limit."""
    few = sum(map(len, texts)) <= COUNTED_CHARACTERS
    # The toy's are drawn anew for every run.
    if asked.source.is_toy or not few or any(len(word) > LONGEST_WORD for text in texts for word in text.split()):
        return None
    return len(learn_tokenizer(texts, asked.source.dataset, asked.task, NO_LIMIT, asked.seq_len))


def _words(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


def _lengths(words: np.ndarray) -> dict[str, Any]:
    """words, median_words and most_words of a report."""
    return {
        "words": _spread(words),
        "median_words": int(np.median(words)),
        "most_words": int(np.quantile(words, 0.95, method="higher")),
    }


def _spread(words: np.ndarray) -> list[int]:
    return words[np.linspace(0, len(words) - 1, min(len(words), SAMPLED_ROWS)).astype(int)].tolist()


def _preview(texts: list[str], seconds: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    first = [shortened(text, PREVIEW_CHARACTERS) for text in texts[:PREVIEW_ROWS]]
    return list(zip(first, *(() if seconds is None else (seconds,)), strict=True))
