"""Shared by several commands on a checkpoint: help texts, data flags, and a progress line."""

import argparse
import sys
import time
from collections.abc import Callable, Collection

from train.cli.parser import as_path
from train.formatting import clock, counted

CHECKPOINT = "folder, run folder, zip or hub id; also of other mixture-of-experts families (docs/adapters.md)"
DTYPE = "of a model of another family: float32, bfloat16 or float16; none = that of the file"
RELIANCE = "number of rows, sampled at random, for expert reliance; 0 = none"
REVISION = "of a hub id: a branch, tag, commit or refs/pr/N, the same as owner/name@REVISION; none = main"
# Where stderr is no terminal, a log should show that something is going on, and not much more.
SECONDS_BETWEEN_LINES = 10.0

# The flags of a DataSource, and their help.
SOURCE_FLAGS = {
    "dataset": "name, file or folder, as in training",
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
    """A callback that prints to stderr how far the work is and about how long the rest takes: on a terminal one line,
    which changes; else a line from time to time."""
    begun = said = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal begun, said
        now, on_terminal = time.monotonic(), sys.stderr.isatty()
        begun = begun or now  # What was done before the first call is no part of the rest.
        said = said or begun
        if not on_terminal and now - said < SECONDS_BETWEEN_LINES:
            return
        said = now
        line = f"{done:,} of {counted(total, one, many)}"
        if 0 < done < total and now - begun > 1:
            line += f", about {clock((now - begun) * (total - done) / done)} left"
        begin, end = ("\r", "\x1b[K" + "\n" * (done == total)) if on_terminal else ("", "\n")
        print(f"{begin}{line}", end=end, file=sys.stderr, flush=True)

    return progress
