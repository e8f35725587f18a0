"""A report on a data set before a run: size, classes, lengths, and warnings about problems.

One report for each kind of rows: texts with classes, pairs of texts, texts.
Try it: data_report(DataSource("my.csv")).warnings
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet

from train.arguments.arguments import Arguments
from train.arguments.groups import DEFAULT_TASK, DataArguments
from train.data.columns import choose_columns, choose_pair, classes_of, names_in, texts_of
from train.data.errors import DataError
from train.data.packing import stream_texts
from train.data.pairs import pair_texts
from train.data.source import DataSource
from train.data.tables import count_rows
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
from train.preflight.first_rows import MOST_ROWS, LookedAt, looked_at
from train.tasks.registry import TASKS
from train.tasks.rows import learn_tokenizer

PREVIEW_ROWS, PREVIEW_CHARACTERS = 5, 160
SAMPLED_ROWS = 500
# Limits for training a tokenizer only to count its tokens, which then takes a fraction of a second. Very long words
# would take minutes.
COUNTED_CHARACTERS, LONGEST_WORD, NO_LIMIT = 300_000, 200, 1_000_000
# Size of the cache: every visitor of the page requests the same reports.
KEPT_REPORTS = 32

# Maximum number of warnings that a run prints, each cut after its first sentence.
MOST_NOTES = 5
FIRST_SENTENCE = re.compile(r"(?:\([^()]*\)|[^.(]|\.(?!\s|$))*\.")


@dataclass(frozen=True)
class DataReport:
    """The training rows of a data set, described.

    Attributes:
        columns: all columns; empty if unknown before reading.
        text_column: the column of texts, or two, comma-separated.
        label_column, target_column: the columns of classes and target texts, if the task has them.
        rows: number of complete rows for the task.
        looked_at: number of rows that this report covers: all, except for a stream.
        preview: the first rows, shortened: a text, and its class or target.
        labels: class -> rows, the most frequent first; empty without classes.
        words: words per text, of an evenly spaced sample of rows.
        target_words: the same for target texts, row by row.
        median_words, most_words: median and 95th percentile of words per text.
        median_target_words, most_target_words: the same for target texts; 0 without.
        characters: total of the covered texts.
        validation: rows of the data set's validation split; None = some training rows are held out.
        vocabulary: maximum vocabulary of a tokenizer trained on the texts; None = not counted, for many texts.
        warnings: sentences: the problem, its extent, and what to do.
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
        """As a dict for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Asked:
    """Arguments of `data_report`, as cache key."""

    source: DataSource
    task: str
    wanted_validation_size: float | None
    wanted_seq_len: int | None

    @property
    def seq_len(self) -> int:
        return self.wanted_seq_len or self._default.seq_len

    @property
    def validation_size(self) -> float:
        return self.wanted_validation_size or self._default.validation_size

    @property
    def _default(self) -> DataArguments:
        return Arguments.resolve({"dataset": self.source.dataset, "task": self.task}).data


def data_report(
    source: DataSource, *, task: str = DEFAULT_TASK, validation_size: float | None = None, seq_len: int | None = None
) -> DataReport:
    """A report on the rows that a run would use for training and validation. Cached until a file changes.

    Args:
        task: a name of train.tasks.registry.TASKS.
        validation_size, seq_len: share of rows held out, maximum number of tokens per text; None = the default for the
            data set.

    Raises:
        DataError: when they can't be read, with what to do. A single class is only a warning here.
    """
    return _report(_Asked(source.at("train"), task, validation_size, seq_len), _stamps(source))


def notes(arguments: Arguments) -> list[str]:
    """The first warnings about a user's file, each cut to its first sentence, for the log of a run."""
    data, task = arguments.data, arguments.train.task
    if not data.source.is_own or data.features_column:
        return []
    try:
        report = data_report(data.source, task=task, validation_size=data.validation_size, seq_len=data.seq_len)
    except DataError:
        return []  # The run itself will report the error.
    return [
        first.group() if (first := FIRST_SENTENCE.match(warning)) else warning
        for warning in report.warnings[:MOST_NOTES]
    ]


@functools.lru_cache(maxsize=KEPT_REPORTS)
def _report(asked: _Asked, stamps: tuple) -> DataReport:
    task = TASKS[asked.task]
    return (_of_classes if task.labelled else _of_pairs if task.paired else _of_texts)(asked)


def _stamps(source: DataSource) -> tuple[tuple[str, int, int], ...]:
    """Path, size and time of a data set's local files, to detect changes."""
    states = [(path, path.stat()) for path in source.files() if path.is_file()]
    return tuple((str(path), state.st_size, state.st_mtime_ns) for path, state in states)


def _of_classes(asked: _Asked) -> DataReport:
    # 1. Rows with a text and a class.
    first = looked_at(asked.source)
    table, names = first.rows, first.names
    columns = choose_columns(asked.source, names_in(table))
    all_texts = texts_of(table, columns)
    all_classes, names = classes_of(table, all_texts, columns, names)
    kept = [row for row, index in enumerate(all_classes) if index is not None]
    texts, classes = [all_texts[row] for row in kept], np.array([all_classes[row] for row in kept])
    without_text = sum(not text.strip() for text in all_texts)
    without_class = len(all_texts) - len(kept) - without_text

    # 2. Classes and words, counted.
    rows = round(len(kept) * first.times)
    labels = {names[index]: count for index, count in Counter(classes.tolist()).most_common()}
    words = _words(texts)
    validation = _validation_rows(asked)

    # 3. Warnings, the most severe first.
    others = _other_splits(asked, lambda rows: texts_of(rows, columns))
    warnings = [
        *first.remarks,
        *about_classes(labels),
        *about_names(labels),
        *about_texts(texts),
        *about_missing(len(all_texts), {("text", "texts"): without_text, ("class", "classes"): without_class}),
        *about_repeated(texts, "the text of an earlier one", "the accuracy"),
        *about_contradicting(texts, classes, names),
        *about_overlap(texts, others),
        *about_few(rows, _held_out(asked, rows, validation)),
        *about_long(words, asked.seq_len),
        *about_order(classes),
    ]
    return DataReport(
        columns=names_in(table),
        text_column=",".join(columns.texts),
        label_column=columns.label,
        rows=rows,
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
    dataset, first = asked.source.dataset, looked_at(asked.source)
    table = first.rows
    source, target = choose_pair(asked.source, names_in(table))
    all_texts, all_targets = pair_texts(table, dataset, source, target)
    all_texts, all_targets = ([text.strip() for text in side] for side in (all_texts, all_targets))
    whole = [(text, answer) for text, answer in zip(all_texts, all_targets, strict=True) if text and answer]
    if not whole:
        raise DataError(f"{dataset} has no row with both a source text ({source}) and a target text ({target}).")
    texts, targets = ([pair[side] for pair in whole] for side in (0, 1))
    rows, words, target_words = round(len(whole) * first.times), _words(texts), _words(targets)
    validation = _validation_rows(asked)
    both = [f"{text}\t{answer}" for text, answer in whole]
    missing = {
        ("text", f"texts ({source})"): sum(not text for text in all_texts),
        # A row that lacks both is counted once.
        ("target text", f"target texts ({target})"): sum(
            bool(text) and not answer for text, answer in zip(all_texts, all_targets, strict=True)
        ),
    }
    warnings = [
        *first.remarks,
        *about_texts(texts),
        *about_texts(targets),
        *about_pairs(texts, targets),
        *about_missing(len(all_texts), missing),
        *about_repeated(both, "an earlier pair", "BLEU"),
        *about_overlap(texts, _other_splits(asked, lambda rows: pair_texts(rows, dataset, source, target)[0])),
        *about_few(rows, _held_out(asked, rows, validation), classes=False),
        *about_long_pairs(words, target_words, asked.seq_len),
    ]
    return DataReport(
        columns=names_in(table),
        text_column=source,
        label_column=None,
        target_column=target,
        rows=rows,
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
    files = source.local_files()
    columns, text_column, all_texts, first = _columns_and_texts(asked, files, streamed)
    texts = [text for text in all_texts if text.strip()]
    if not texts:
        raise DataError(f"{source.dataset} has no row with a text.")
    # For a local stream, the file's metadata have the number of rows.
    cut_short = streamed and len(all_texts) == MOST_ROWS
    rows = (count_rows(files) if cut_short and files else None) or len(texts)
    remarks: list[str] = []
    if first is not None:
        rows, remarks, cut_short = round(len(texts) * first.times), first.remarks, cut_short or bool(first.remarks)
    words, validation = _words(texts), _validation_rows(asked)

    def split_texts(rows) -> list[str]:
        return texts_of(rows, choose_columns(source, names_in(rows), labelled=False))

    total_words = int(words.sum() * rows / len(texts))
    few = about_few_blocks(total_words, asked.seq_len) if streamed else about_long(words, asked.seq_len)
    warnings = [
        *remarks,
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


def _columns_and_texts(
    asked: _Asked, files: list[Path], streamed: bool
) -> tuple[list[str], str, list[str], LookedAt | None]:
    """All columns, the text column, its cells, and the rows that these are of; of a stream the first cells alone."""
    source, usual = asked.source, "text"
    if streamed and (source.on_hub or not (source.is_at_hand or source.is_file or count_rows(files) is None)):
        columns = pyarrow.parquet.read_schema(files[0]).names if files else []
        if columns:
            usual = ",".join(choose_columns(source, columns, labelled=False).texts)
        return columns, source.text_column or usual, list(islice(stream_texts(source), MOST_ROWS)), None
    first = looked_at(source)
    table = first.rows
    chosen = choose_columns(source, names_in(table), labelled=False)
    return names_in(table), ",".join(chosen.texts), texts_of(table, chosen), first


# Shared by the three reports


def _validation_rows(asked: _Asked) -> int | None:
    if not asked.source.has_own_validation:
        return None
    own = asked.source.at("validation")
    return count_rows(own.local_files()) or len(looked_at(own).rows)


def _held_out(asked: _Asked, rows: int, validation: int | None) -> int:
    if validation is not None:
        return validation
    return max(round(rows * asked.validation_size), 1)


def _other_splits(asked: _Asked, texts_in) -> dict[str, list[str]]:
    """Purpose -> texts of the other splits, which are not trained on. `texts_in`: rows -> texts."""
    source = asked.source
    if source.is_toy or source.is_file:
        return {}
    purposes = {}
    if source.has_own_validation:
        purposes["validation"] = "select the best checkpoint"
    purposes.setdefault(source.report_split, "are used for testing")
    found = {}
    for split, purpose in purposes.items():
        if split != "train":
            with suppress(DataError):
                found[purpose] = texts_in(looked_at(source.at(split)).rows)
    return found


def _vocabulary(asked: _Asked, texts: list[str]) -> int | None:
    """Vocabulary of a tokenizer trained on all texts without a limit; None if there are too many texts. With a limit,
    the vocabulary is the smaller of both."""
    few = sum(map(len, texts)) <= COUNTED_CHARACTERS
    # Every run generates other toy texts.
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
