"""Early and late checkpoints of runs, beside the models of the shelf: opened when asked for, the last few kept.

Try it: CheckpointShelf(shelf, Workspace(Path("runs"))).choices()
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from switch_model import CheckpointError
from switch_model.inference.factory import Pipeline, open_pipeline
from train.runs.run import Run, RunError
from train.tasks.registry import TASKS
from train.weights.kept import go_to, open_run, put_weights
from ui.catalog.models import LoadedModel, ModelShelf, size_of
from ui.server.workspace import Workspace

# Runs whose checkpoints are offered, the newest ones, and models kept open: two for each of two visitors.
MAX_RUNS, MAX_OPEN = 12, 4
_KEY = re.compile(r"checkpoint:(.+)@(\d+)")


class CheckpointShelf:
    """The shelf's models, and the earliest and the last checkpoint of each of the newest runs."""

    def __init__(self, shelf: ModelShelf, workspace: Workspace):
        self.shelf = shelf
        self.workspace = workspace
        self._open: OrderedDict[tuple, LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def choices(self, all_kinds: bool = False) -> list[tuple[str, str]]:
        """(title, key) of the checkpoints of runs, for a picker: of those that learn classes, or of all."""
        found = []
        for name, run in kept_runs(self.workspace, MAX_RUNS, all_kinds):
            steps = list(run.kept_checkpoints())
            if len(steps) > 1:
                found += [(f"{name}, step {step:,}", key_of(name, step)) for step in (steps[0], steps[-1])]
        return found

    def load(self, key: str | None) -> LoadedModel:
        """The model behind a key, of a checkpoint or of the shelf. Raises CheckpointError when it can't be opened."""
        match = _KEY.fullmatch(key or "")
        if match is None:
            return self.shelf.load(key)
        name, step = match[1], int(match[2])
        run, folder = self._kept(name, step)
        with self._lock:
            # A run of the same name may have been trained anew.
            known = (key, run.state().started)
            if known not in self._open:
                self._open[known] = _opened(run, f"{name}, step {step:,}", folder, self.shelf.device)
                if len(self._open) > MAX_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(known)
            return self._open[known]

    def folder(self, key: str) -> Path:
        """Where a model or a checkpoint lies; for a hub id, a path that is not there. Raises CheckpointError for a
        checkpoint that is gone."""
        match = _KEY.fullmatch(key)
        return self.shelf.folder(key) if match is None else self._kept(match[1], int(match[2]))[1]

    def _kept(self, name: str, step: int) -> tuple[Run, Path]:
        try:
            run = self.workspace.run(name)
        except RunError as error:
            raise CheckpointError(str(error)) from error
        folder = run.kept_checkpoints().get(step)
        if folder is None:
            raise CheckpointError(f"{name} has no checkpoint of step {step:,}: it was deleted, or never saved.")
        return run, folder


def _opened(run: Run, title: str, folder: Path, device: str | None) -> LoadedModel:
    if TASKS[run.arguments().train.task].labelled:
        pipeline: Pipeline = open_run(run, device)
        go_to(pipeline, folder)
    else:
        pipeline = open_pipeline(run.best, device)
        put_weights(pipeline.model, folder)
    return LoadedModel(title, f"{title} · {size_of(pipeline)}", pipeline)


def key_of(name: str, step: int) -> str:
    """The key of a run's checkpoint after that step."""
    return f"checkpoint:{name}@{step}"


def same_run(first: str | None, second: str | None) -> bool:
    """Whether two keys are of checkpoints of one run."""
    one, two = _KEY.fullmatch(first or ""), _KEY.fullmatch(second or "")
    return one is not None and two is not None and one[1] == two[1]


def kept_runs(workspace: Workspace, most: int, all_kinds: bool = False) -> Iterator[tuple[str, Run]]:
    """(name, run) of the newest runs that keep a checkpoint, `most` of them: of those that learn classes, or of all."""
    for name in workspace.names():
        run = Run(workspace.root / name)
        try:
            fits = all_kinds or TASKS[run.arguments().train.task].labelled
            fits = fits and run.last_checkpoint() is not None
        except RunError:  # Deleted since it was listed, or written by another version.
            continue
        if fits:
            yield name, run
            most -= 1
        if not most:
            return
