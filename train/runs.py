"""A run is a folder: what was asked, what was measured, the best checkpoint, and what it takes to go on.

arguments.json        every argument
metrics.jsonl         one JSON object a line: {"kind": "train" | "eval" | "end", "step", "epoch", …}
best/                 the best checkpoint so far, a complete checkpoint folder
checkpoints/          the Trainer's own, for resuming
training_curve.png, training_curve.html
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from train.arguments import Arguments


class RunError(Exception):
    """Says what is wrong with a run's folder and what to do."""


class Run:
    """One run's folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.arguments_path = self.folder / "arguments.json"
        self.metrics_path = self.folder / "metrics.jsonl"
        self.best = self.folder / "best"
        self.checkpoints = self.folder / "checkpoints"

    @classmethod
    def create(cls, arguments: Arguments) -> "Run":
        """A new folder with the arguments in it. Raises RunError when it holds a run already or can't be written."""
        name = Path(arguments.data.dataset).stem
        folder = arguments.train.output_dir or f"runs/{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        arguments.train.output_dir = str(folder)
        run = cls(folder)
        if run.arguments_path.exists():
            raise RunError(
                f"{folder} holds a run already. "
                f"Choose another --output_dir, or go on with: python -m train resume {folder}"
            )
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            run.arguments_path.write_text(json.dumps(arguments.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}.") from error
        return run

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """An existing run. Raises RunError when the folder holds none."""
        run = cls(folder)
        if not run.arguments_path.is_file():
            raise RunError(f"{folder} holds no run: there is no arguments.json in it.")
        return run

    def arguments(self) -> Arguments:
        try:
            return Arguments.from_dict(json.loads(self.arguments_path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.arguments_path} can't be read: {error}") from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line. A line is written whole or not at all, so that a reader never sees half of one."""
        line = json.dumps(record, allow_nan=False) + "\n"
        descriptor = os.open(self.metrics_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode("utf-8"))
        finally:
            os.close(descriptor)

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All lines so far, or those of one kind. A resumed run repeats the steps after its last checkpoint: the
        later line of a kind and step counts."""
        if not self.metrics_path.is_file():
            return []
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines()
        records = {(record["kind"], record["step"]): record for record in map(json.loads, lines)}
        return [record for record in records.values() if kind in (None, record["kind"])]

    def last_checkpoint(self) -> Path | None:
        """The newest complete Trainer checkpoint; trainer_state.json is the file that the Trainer writes last."""
        found = [path for path in self.checkpoints.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
        return max(found, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)

    def replace_best(self, written: Path) -> None:
        """Put a checkpoint folder that was written aside in the place of `best/`."""
        old = self.folder / "best.old"
        if self.best.exists():
            self.best.rename(old)
        written.rename(self.best)
        shutil.rmtree(old, ignore_errors=True)
