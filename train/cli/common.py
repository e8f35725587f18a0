"""Shared by several commands on a checkpoint: help texts, data flags, and a progress line."""

import argparse
import sys
from collections.abc import Callable, Collection

from train.cli.parser import as_path
from train.formatting import counted

CHECKPOINT = "folder, run folder, zip or hub id; also of other mixture-of-experts families (docs/adapters.md)"
DTYPE = "of a model of another family: float32, bfloat16 or float16; none = that of the file"
RELIANCE = "number of rows, sampled at random, for expert reliance; 0 = none"
REVISION = "of a hub id: a branch, tag, commit or refs/pr/N, the same as owner/name@REVISION; none = main"


# The flags of a DataSource, and their help.
SOURCE_FLAGS = {
    "dataset": "name or file, as in training",
    "split": "split to read; default: test, or the last one",
    "data_dir": "as in training",
    "text_column": "as in training",
    "label_column": "as in training",
    "target_column": "as in training, for translation models",
    "language": "as in training",
}


def add_source_flags(
    parser: argparse.ArgumentParser, required: bool = True, without: Collection[str] = (), **other_help: str
) -> None:
    """Add the flags that `DataSource.of` reads.

    Args:
        required: whether --dataset is required.
        without: flags that the command does not support.
        other_help: help texts that differ for this command.
    """
    for name, help in (SOURCE_FLAGS | other_help).items():
        if name in without:
            continue
        kind = as_path if name in ("dataset", "data_dir") else str
        parser.add_argument(f"--{name}", type=kind, required=required and name == "dataset", help=help)


def progress_line(one: str, many: str) -> Callable[[int, int], None]:
    """A callback that prints progress to stderr, if that is a terminal."""

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done:,} of {counted(total, one, many)}", end=end, file=sys.stderr, flush=True)

    return progress
