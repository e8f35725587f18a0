"""What the training tab stands on: where runs lie, how many may run at once, and what strangers may ask for.

Try it: Workshop(Path("runs")).names()
"""

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import gradio as gr

from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.data.table_file import check_unpacked_size, without_endings
from train.runs.run import Run, RunError, free_folder, list_runs
from train.tasks.registry import TASKS

# Arguments that reach into the machine that serves the page, or out of it: not for strangers.
LOCAL_ONLY = (
    "tokenizer", "target_tokenizer", "init_from", "report_to", "run_name", "wandb_project", "wandb_entity",
    "device", "compile",
)  # fmt: skip
# Longest name of a run that a page shows in one line.
MAX_NAME = 60


@dataclass(frozen=True)
class Caps:
    """What a run started by a stranger may take, where the page is served publicly."""

    rows: int = 20_000
    steps: int = 1_500
    minutes: float = 10.0
    layers: int = 6
    width: int = 256
    experts: int = 64
    checkpoints: int = 6
    probe: int = 2_000
    queue: int = 4
    # Bytes of an uploaded file that is packed: a small one may hold any number.
    unpacked: int = 100_000_000

    def words(self) -> str:
        return (
            f"This page is public: a run takes at most {self.rows:,} rows, {self.steps:,} steps and "
            f"{self.minutes:g} minutes, and keeps {self.checkpoints} checkpoints; one run per visitor, {self.queue} in "
            "the queue. On your own machine there are no limits."
        )

    def apply(self, arguments: Arguments) -> Arguments:
        """The arguments, no larger than allowed. Raises ValueError for a model too large to start, and for arguments
        that reach into the machine."""
        model, data, train = arguments.model, arguments.data, arguments.train
        start = Arguments.resolve({"dataset": data.dataset, "preset": train.preset}).to_dict()
        for name in LOCAL_ONLY:
            if name != "init_from" and arguments.to_dict()[name] != start[name]:
                raise ValueError(f"--{name} can't be set on a public page.")
        for name, value, most in (
            ("num_layers", model.num_layers, self.layers),
            ("num_decoder_layers", model.num_decoder_layers or 0, self.layers),
            ("d_model", model.d_model, self.width),
            ("d_ff", model.d_ff or 0, 4 * self.width),
            ("num_experts", model.num_experts, self.experts),
            ("seq_len", data.seq_len, 512),
            ("batch_size", train.batch_size, 128),
            ("vocab_size", data.vocab_size or 0, 16_000),
            ("bigram_buckets", model.bigram_buckets, 200_000),
            ("d_kv", model.d_kv or 0, self.width),
            ("num_heads", model.num_heads, 16),
            ("gradient_accumulation_steps", train.gradient_accumulation_steps, 8),
            ("total_batch_size", train.total_batch_size or 0, 65_536),
            ("validation_size", data.validation_size, 0.5),
        ):
            if value > most:
                raise ValueError(f"--{name} {value} is too large for this public page: at most {most}.")
        if len(train.probe or "") > self.probe:
            raise ValueError(f"The text to watch is too long for this public page: at most {self.probe:,} characters.")
        # The toy makes as many rows as it is asked for, and few when it is not.
        rows = (
            None
            if data.dataset == "toy" and data.num_samples is None
            else min(data.num_samples or self.rows, self.rows)
        )
        return replace(
            arguments,
            data=replace(data, num_samples=rows),
            train=replace(
                train,
                max_steps=min(train.max_steps or self.steps, self.steps),
                total_iters=train.total_iters and min(train.total_iters, self.steps),
                # Writing takes long, and an evaluation is not cut short.
                eval_iters=min(train.eval_iters or 16, 16) if TASKS[train.task].writes else train.eval_iters,
                max_minutes=min(train.max_minutes or self.minutes, self.minutes),
                save_total_limit=min(train.save_total_limit or self.checkpoints, self.checkpoints),
            ),
        )


@dataclass
class Workshop:
    """Shared by all visitors.

    Args:
        root: where runs lie.
        data_dir: where named data sets lie; None = SWITCH_DATA_DIR, then the hub.
        max_runs: so many runs at once; further ones wait.
        caps: None = this page is for its owner, who may do anything.
    """

    root: Path
    data_dir: str | None = None
    max_runs: int = 1
    caps: Caps | None = None
    # Run -> who started it, since the page was started.
    _started_by: dict[str, str] = field(default_factory=dict)

    @property
    def public(self) -> bool:
        return self.caps is not None

    @property
    def uploads(self) -> Path:
        # No run can be called that: `clean_name` takes such a beginning away.
        return self.root / "_uploads"

    def names(self) -> list[str]:
        """Names of all runs, the newest first; a sweep's with the sweep's name before."""
        return [run.folder.relative_to(self.root).as_posix() for run in list_runs(self.root)]

    def run(self, name: str | None) -> Run:
        """Raises RunError when there is no such run (any more)."""
        # The browser sends names: they must not lead anywhere else.
        if not name or name not in self.names():
            raise RunError(f"There is no run {name!r} (any more)." if name else "Choose a run.")
        return Run(self.root / name)

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
        if self.caps is None:
            return
        active = {name for name in self.names() if Run(self.root / name).state().active}
        if any(self._started_by.get(name) == visitor for name in active):
            raise RunError("You have a run here already: wait until it ends, or stop it.")
        if len(active) >= self.caps.queue:
            raise RunError(f"{len(active)} runs are at work or waiting: try again later.")

    def started(self, name: str, visitor: str) -> None:
        self._started_by[name] = visitor

    def may_change(self, name: str, visitor: str) -> bool:
        """Whether a visitor may stop or change a run: on a public page only who started it."""
        return not self.public or self._started_by.get(name) == visitor

    def keep_upload(self, path: str) -> Path:
        """A copy of an uploaded file that stays: a run that is resumed tomorrow reads it again.

        Raises DataError on a public page where it is too large unpacked.
        """
        source = Path(path)
        if self.caps is not None:
            check_unpacked_size(source, self.caps.unpacked)
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
