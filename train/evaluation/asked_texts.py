"""The texts that `predict` is asked about, and where its answers go: some at once, so that there may be any number.

Try it: list(some(range(5), 2))
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from switch_model.storage.whole_files import written_aside
from train.data.columns import choose_columns, names_in, texts_of
from train.data.loading import load_split
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.data.stored.digests import column
from train.data.table_output import Part, write_table
from train.data.tables import ROWS_AT_ONCE, read_parts
from train.formatting import one_line

NO_TEXT = "Standard input is empty. Give one text per line, or texts as arguments, --file or --dataset."


def some(items: Iterable[Any], count: int = ROWS_AT_ONCE) -> Iterator[list[Any]]:
    """They, at most so many at once."""
    items = iter(items)
    while found := list(islice(items, count)):
        yield found


def asked_texts(options: argparse.Namespace, paired: bool = False) -> Iterator[str]:
    """The input texts: arguments, lines of standard input, or the first rows of a data set, of texts or `paired`.

    Raises DataError when a data set can't be read.
    """
    if not options.dataset:
        return iter(options.texts or lines_of_input())
    source = DataSource.of(options)
    rows = load_pairs(source) if paired else load_split(source, labelled=False)[0]
    return column(rows.select(range(min(options.num_samples or 20, len(rows)))), "text")


def lines_of_input() -> list[str]:
    """The lines of standard input; prints a hint if there are none."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # A byte that is not UTF-8 must not stop the others.
    lines = [line.rstrip("\n") for line in sys.stdin]
    if not lines:
        print(NO_TEXT, file=sys.stderr)
    return lines


def parts_and_texts(source: DataSource) -> Iterator[tuple[Dataset, list[str]]]:
    """The rows of a table with their texts, part by part. Raises DataError when they can't be read."""
    columns, first = None, 0
    for rows in read_parts(Path(source.dataset)):
        columns = columns or choose_columns(source, names_in(rows), labelled=False)
        yield rows, texts_of(rows, columns, first)
        first += len(rows)


def answer_file(
    options: argparse.Namespace,
    answer: Callable[[list[str], int], list[dict[str, Any]]],
    line: Callable[[str, dict[str, Any]], str],
) -> None:
    """Write a copy of the file with new columns, and the lines of --save_text, part by part.

    Args:
        answer: texts, and the number of those before them -> the new columns of each.
        line: a text and its new columns -> its line.
    """

    def parts() -> Iterator[Part]:
        done = 0
        for rows, texts in parts_and_texts(DataSource(options.file, text_column=options.text_column)):
            added = answer(texts, done)
            done += len(texts)
            for text, own in zip(texts, added, strict=True):
                write_line(line(text, own))
            yield rows, added

    with lines_into(options.save_text) as write_line:
        write_table(parts(), options.output)


@contextmanager
def lines_into(path: str | None) -> Iterator[Callable[[str], object]]:
    """Gives a function that writes a text as a line of a file, which is there when all are written; without a file
    nothing is written."""
    if not path:
        yield lambda text: None
        return
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        yield lambda text: file.write(f"{one_line(text)}\n")
