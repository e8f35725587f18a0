"""What several commands on a checkpoint share: help texts, and a line that says how far the work is."""

import argparse
import sys
from collections.abc import Callable, Collection

from train.cli.parser import as_path
from train.formatting import counted

RELIANCE = "rows, drawn at random, to measure on how much the model relies on its experts; 0 = none"
REVISION = "of a hub id: a branch, tag, commit or refs/pr/N, as owner/name@REVISION says too; none = main"


# The flags that make a DataSource, and their help.
SOURCE_FLAGS = {
    "dataset": "name or file, as in training",
    "split": "split to read; none = the one to report on",
    "data_dir": "as in training",
    "text_column": "as in training",
    "label_column": "as in training",
    "target_column": "as in training, of a model that translates",
    "language": "as in training",
}


def add_source_flags(
    parser: argparse.ArgumentParser, required: bool = True, without: Collection[str] = (), **other_help: str
) -> None:
    """Add the flags that `DataSource.of` reads.

    Args:
        required: whether a data set must be named.
        without: flags that a command does not take.
        other_help: what a command says of some of them.
    """
    for name, help in (SOURCE_FLAGS | other_help).items():
        if name in without:
            continue
        kind = as_path if name in ("dataset", "data_dir") else str
        parser.add_argument(f"--{name}", type=kind, required=required and name == "dataset", help=help)


def progress_line(one: str, many: str) -> Callable[[int, int], None]:
    """What says how far something is, where somebody looks on."""

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done:,} of {counted(total, one, many)}", end=end, file=sys.stderr, flush=True)

    return progress
