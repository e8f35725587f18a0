"""What the training tab stands on: where runs lie, how many may run at once, and what strangers may ask for.

Try it: Workspace(Path("runs")).names()
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr

from switch_model.storage.whole_files import write_atomically
from train.data.table_file import check_unpacked_size, without_endings
from train.runs.process import runs_ahead
from train.runs.run import Run, RunError, free_folder, list_runs
from ui.server.limits import VisitorLimits

# Longest name of a run that a page shows in one line.
MAX_NAME = 60


@dataclass
class Workspace:
    """Shared by all visitors.

    Args:
        root: where runs lie.
        data_dir: where named data sets lie; None = SWITCH_DATA_DIR, then the hub.
        max_runs: so many runs at once; further ones wait.
        limits: None = this page is for its owner, who may do anything.
    """

    root: Path
    data_dir: str | None = None
    max_runs: int = 1
    limits: VisitorLimits | None = None
    # Run -> who started it, since the page was started.
    _started_by: dict[str, str] = field(default_factory=dict)

    @property
    def public(self) -> bool:
        """Whether strangers use the page."""
        return self.limits is not None

    @property
    def uploads(self) -> Path:
        """Where uploaded files are kept. No run can be called that: `clean_name` takes such a beginning away."""
        return self.root / "_uploads"

    def names(self) -> list[str]:
        """Names of all runs, the newest first; a sweep's with the sweep's name before."""
        return [run.folder.relative_to(self.root).as_posix() for run in list_runs(self.root)]

    def run(self, name: str | None) -> Run:
        """Raises RunError when there is no such run."""
        # The browser sends names: they must not lead anywhere else.
        if not name or name not in self.names():
            raise RunError(f"There is no run {name!r}: it was deleted or renamed." if name else "Choose a run.")
        return Run(self.root / name)

    def waits(self, run: Run) -> bool:
        """Whether a queued run has to wait: as many as may run at once are at work, or before it in the queue."""
        return run.state().name == "queued" and sum(runs_ahead(run)) >= self.max_runs

    def to_attach_to(self) -> str | None:
        """The run that a page just opened should show: one at work, else the newest."""
        names = self.names()
        states = {name: Run(self.root / name).state().name for name in names}
        for wanted in ("running", "stopping", "queued"):
            for name in names:
                if states[name] == wanted:
                    return name
        return names[0] if names else None

    def folder_for(self, name: str | None, dataset: str) -> Path:
        """A free folder for a new run of that name, or of the data set's."""
        return free_folder(self.root, clean_name(name) or clean_name(without_endings(dataset)) or "run")

    def check_may_start(self, visitor: str) -> None:
        """Raises RunError when a public page has enough to do."""
        if self.limits is None:
            return
        active = {name for name in self.names() if Run(self.root / name).state().active}
        if any(self._started_by.get(name) == visitor for name in active):
            raise RunError("You have a run here already: wait until it ends, or stop it.")
        if len(active) >= self.limits.queue:
            raise RunError(f"{len(active)} runs are at work or waiting: try again later.")

    def started(self, name: str, visitor: str) -> None:
        """Remember who started a run."""
        self._started_by[name] = visitor

    def may_change(self, name: str, visitor: str) -> bool:
        """Whether a visitor may stop or change a run: on a public page only who started it."""
        return not self.public or self._started_by.get(name) == visitor

    def keep_upload(self, path: str) -> Path:
        """A copy of an uploaded file that stays: a run that is resumed tomorrow reads it again.

        Raises DataError on a public page where it is too large unpacked.
        """
        source = Path(path)
        if self.limits is not None:
            check_unpacked_size(source, self.limits.unpacked)
        content = source.read_bytes()
        stem = clean_name(without_endings(source.name)) or "data"
        endings = source.name[len(without_endings(source.name)) :].lower()
        kept = self.uploads / f"{stem}{endings}"
        if kept.exists() and kept.read_bytes() != content:
            kept = self.uploads / f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}{endings}"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, content)
        return kept


def clean_name(name: str | None) -> str:
    """Letters, digits, dots, dashes and underscores only: a name that is a folder's name everywhere."""
    return re.sub(r"[^\w.-]+", "-", name or "", flags=re.ASCII).strip("-._ ")[:MAX_NAME]


def visitor_of(request: gr.Request | None) -> str:
    """Who asks, well enough to count runs: the address; on a Space the one that its own proxy names last."""
    if request is None:
        return ""
    forwarded = request.headers.get("x-forwarded-for", "") if "SPACE_ID" in os.environ else ""
    return forwarded.split(",")[-1].strip() or (request.client.host if request.client else "")
