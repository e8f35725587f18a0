"""What several commands on a checkpoint share: help texts, and a line that says how far the work is."""

import sys
from collections.abc import Callable

from train.words import counted

RELIANCE = "rows, drawn at random, to measure on how much the model relies on its experts; 0 = none"
REVISION = "of a hub id: a branch, tag, commit or refs/pr/N, as owner/name@REVISION says too; none = main"


def progress_line(one: str, many: str) -> Callable[[int, int], None]:
    """What says how far something is, where somebody looks on."""

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            print(f"\r{done:,} of {counted(total, one, many)}", end=end, file=sys.stderr, flush=True)

    return progress
