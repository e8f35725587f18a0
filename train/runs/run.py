"""A run is a folder: arguments, state, metrics, the best checkpoint, and what is needed to resume.

arguments.json        every argument
state.json            queued, running, stopped, finished or failed; process; times; reason
progress.json         step, total steps, seconds: rewritten about once a second
metrics.jsonl         one JSON object per line: {"kind": "train" | "eval" | "probe" | "end", "step", "seconds", …}
log.txt               output of the run
rows.npz              hashes of training and held-out rows, and what else must not change (fingerprint.py)
tokenizer/            tokenizer of its texts
target_tokenizer/     tokenizer of target texts, if separate
trained_part.json     which weights are trained, where a flag leaves some out
adapter/              with --lora_rank, the best checkpoint's adapters, for peft
best/                 the best checkpoint so far, a complete checkpoint folder
checkpoints/          the Trainer's own, to resume from: the newest --save_total_limit
training_curve.png, training_curve.html; class_told.json: what experts tell of the class, where a page measured it
watched.json          only of a run that another program trains, with switch_model.monitor.RoutingMonitor

The folder is the same for runs from the command line and from the page. Only the run's own process writes its state.
"""

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from switch_model.commands import command
from switch_model.storage.whole_files import WORDS, write_atomically, write_new
from train.arguments.arguments import Arguments
from train.arguments.values import anchored
from train.data.table_file import without_endings
from train.formatting import pasted
from train.runs.run_files import ACTIVE, State, checked_arguments, numbers_in, read_line, read_object, what_is_wrong
from train.runs.trainer_files import checkpoint_step, damage_of

RUNS = Path("runs")
LOG_TAIL_BYTES = 8000
# Maximum length of the data set's name in the run folder's name.
MAX_STEM_BYTES = 120
# Reserved on disk, and freed when the disk is full, so that the run can still write its state.
RESERVE_BYTES = 64 * 1024


class RunError(Exception):
    """Says what is wrong with a run and what to do."""


class Run:
    """One run's folder."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.arguments_path = self.folder / "arguments.json"
        self.state_path = self.folder / "state.json"
        self.progress_path = self.folder / "progress.json"
        self.metrics_path = self.folder / "metrics.jsonl"
        self.log_path = self.folder / "log.txt"
        self.rows_path = self.folder / "rows.npz"
        self.tokenizer = self.folder / "tokenizer"
        self.target_tokenizer = self.folder / "target_tokenizer"
        self.best = self.folder / "best"
        self.checkpoints = self.folder / "checkpoints"
        # An empty file there is a stop request.
        self.stop_path = self.folder / "stop"
        self.reserve_path = self.folder / ".reserve"
        self.trained_path = self.folder / "trained_part.json"
        self.adapter = self.folder / "adapter"
        self.watched_path = self.folder / "watched.json"

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def watched(self) -> bool:
        """Whether another program trains it: it can be looked at and stopped, not resumed."""
        return self.watched_path.is_file()

    @classmethod
    def create(cls, arguments: Arguments, state: str = "running") -> "Run":
        """Create a run's folder with its arguments, or take the queued run with exactly these arguments.

        Raises RunError when the folder already contains another run, or can't be written.
        """
        folder = arguments.train.output_dir or reserve_folder(RUNS, named_after(arguments.data.dataset))
        arguments.train.output_dir = str(folder)
        run, asked = cls(folder), anchored(arguments.to_dict())
        if run.arguments_path.exists():
            if run.waits_for_this_process() and run.arguments().to_dict() == asked:
                run.set_state(state)
                return run
            with FileLock(run.folder.resolve().parent / ".queue.lock"):  # Only one of several processes may begin.
                if not run._is_stillborn():
                    raise run._taken()
                run.arguments_path.unlink(missing_ok=True)
                run._begin(asked, state)
            return run
        if run.folder.exists() and not run.folder.is_dir():
            raise RunError(f"{folder} is a file: --output_dir must be a folder.")
        run._begin(asked, state)
        return run

    def _begin(self, asked: dict[str, Any], state: str) -> None:
        began = False
        try:
            str(self.folder).encode("utf-8")
            self.folder.mkdir(parents=True, exist_ok=True)
            began = write_new(self.arguments_path, json.dumps(asked, indent=2) + "\n")
            if not began:  # Another process was faster.
                raise self._taken()
            self.set_state(state)
        except UnicodeEncodeError as error:
            raise RunError(f"{self.folder}: tokenizers can only be written where the path is UTF-8.") from error
        except OSError as error:
            if began:  # An incomplete run would block the next one.
                for path in (self.arguments_path, self.state_path, self.reserve_path):
                    path.unlink(missing_ok=True)
            why = WORDS.get(error.errno, error.strerror)
            raise RunError(f"{self.folder} can't be written: {why}.") from error

    def _is_stillborn(self) -> bool:
        """Whether the folder contains nothing but unreadable arguments, as a full disk may leave them."""
        try:
            self.arguments()
        except RunError:
            return not self._written_state().active and not self._left_behind()
        return False

    def _left_behind(self) -> list[Path]:
        """Results of training in the folder."""
        return [path for path in (self.metrics_path, self.best, self.checkpoints) if path.exists()]

    def _taken(self) -> RunError:
        try:
            self.arguments()
        except RunError as error:
            return error
        return RunError(
            f"{self.folder} already contains a run. "
            f"Choose another --output_dir, or resume it. The command: {command('resume')} {pasted(self.folder)}"
        )

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """An existing run. Raises RunError when the folder does not contain one."""
        run = cls(folder)
        if not run.arguments_path.is_file():
            checkpoint = " To make a run of a checkpoint: --init_from." if (run.folder / "config.json").exists() else ""
            raise RunError(f"{folder} is not a run: it has no arguments.json.{checkpoint}")
        return run

    def arguments(self) -> Arguments:
        """The run's arguments. Raises RunError when the file can't be read or is invalid, with what to do."""
        try:
            values = read_object(self.arguments_path)
        except (OSError, ValueError, RecursionError):
            raise self._unreadable(what_is_wrong(self.arguments_path)) from None
        try:
            return checked_arguments(values)
        except (TypeError, ValueError) as error:
            raise self._unreadable(str(error).rstrip(".")) from None

    def _unreadable(self, why: str) -> RunError:
        if not self._left_behind():
            rest = "Nothing was trained there: start it again with the same command."
        else:
            rest = "So it can't be resumed: train again with another --output_dir, or delete the folder."
        if self.best.is_dir():
            rest += f" Its best checkpoint is in {self.best}, and the command in its README.md."
        return RunError(f"{self.arguments_path} can't be read: {why}. {rest}")

    # State

    def state(self) -> State:
        """The current state: "stopping" after a stop request, "failed" if its process is gone."""
        written = self._written_state()
        if not written.active:
            return written
        if written.process_lives():
            asked = written.name in ("queued", "running") and self.stop_path.exists()
            return replace(written, name="stopping") if asked else written
        # It may have written its final state after our first read.
        if not (written := self._written_state()).active:
            return written
        tail = "\n".join(self.log_tail().splitlines()[-5:])
        message = "Its process ended unexpectedly: killed, out of memory, or the machine went down."
        return replace(written, name="failed", message=f"{message}\n{tail}".strip())

    def waits_for_this_process(self) -> bool:
        """Whether the run was queued for this process: by its parent, or by a process that is gone."""
        written = self._written_state()
        mine = written.pid in (os.getpid(), os.getppid())
        return written.name == "queued" and (mine or not written.process_lives())

    def _written_state(self) -> State:
        try:
            return State.from_dict(read_object(self.state_path))
        except FileNotFoundError:
            # From a version without state.json.
            return State("finished" if self.metrics("end") else "failed", started=_modified(self.arguments_path))
        except (OSError, ValueError, RecursionError):
            why = what_is_wrong(self.state_path)
            return State("failed", f"{self.state_path} can't be read: {why}. How the run ended is unknown.")

    def set_state(self, name: str, message: str = "") -> None:
        """Write the state, with this process as the run's."""
        old = self._written_state() if self.state_path.exists() else State("new")
        now, active = time.time(), name in ACTIVE
        process = psutil.Process()
        state = replace(
            old,
            name=name,
            message=message,
            queued=now if name == "queued" and not old.active else old.queued,
            started=now if name == "running" else old.started,
            ended=None if active else now,
            pid=process.pid,
            born=process.create_time(),
            host=socket.gethostname(),
        )
        if name == "running" and not self.reserve_path.exists():
            self.reserve_path.write_bytes(bytes(RESERVE_BYTES))
        elif not active:
            self.stop_path.unlink(missing_ok=True)
            self.reserve_path.unlink(missing_ok=True)
        write_atomically(self.state_path, json.dumps(asdict(state), indent=2) + "\n")

    def request_stop(self) -> None:
        """Request that the run's process stops after its current step, with a checkpoint."""
        self.stop_path.touch()

    def progress(self) -> dict[str, Any]:
        """phase, step, max_steps, seconds, steps_per_second: those that are present and valid."""
        try:
            values = read_object(self.progress_path)
        except (OSError, ValueError, RecursionError):
            return {}
        phase = values.get("phase")
        return numbers_in(values) | ({"phase": phase} if isinstance(phase, str) else {})

    def log_tail(self, size: int = LOG_TAIL_BYTES) -> str:
        """The end of the run's log, without an incomplete first line."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                start = max(file.tell() - size, 0)
                file.seek(start)
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return text.partition("\n")[2] if start else text

    # Metrics

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one line, atomically, so that a reader never sees a part of one. Raises OSError for a full disk."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode("utf-8")
        descriptor = os.open(self.metrics_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            if before and os.pread(descriptor, 1, before - 1) != b"\n":
                line = b"\n" + line  # After an incomplete line from a crash.
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics_path))
        finally:
            os.close(descriptor)

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All lines so far, or those of one kind. A resumed run repeats the steps after its last checkpoint: the last
        line of a kind and step counts. Incomplete lines, from a full disk or a crash, are skipped."""
        try:
            text = self.metrics_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        records = {}
        for line in text.splitlines():
            if record := read_line(line):
                records[record["kind"], record["step"]] = record
        return [record for record in records.values() if kind in (None, record["kind"])]

    # Checkpoints

    def last_checkpoint(self) -> Path | None:
        """The newest complete and undamaged Trainer checkpoint."""
        return next((path for path in reversed(self.kept_checkpoints().values()) if not damage_of(path)), None)

    def damaged_since(self, checkpoint: Path | None) -> dict[Path, str]:
        """Damaged checkpoints newer than `checkpoint` -> what is wrong with each; the newest last."""
        first = -1 if checkpoint is None else checkpoint_step(checkpoint)
        found = {path: damage_of(path) for step, path in self.kept_checkpoints().items() if step > first}
        return {path: why for path, why in found.items() if why}

    def kept_checkpoints(self) -> dict[int, Path]:
        """Step -> complete Trainer checkpoint (trainer_state.json is written last), the earliest first. A running run
        may delete the earliest at any time."""
        return {checkpoint_step(path): path for path in sorted(self._checkpoints(complete=True), key=checkpoint_step)}

    def can_resume(self) -> bool:
        """Whether there is a checkpoint to resume from, or the run has barely begun. A checkpoint follows each
        evaluation: a run with several evaluations, or a finished one, without checkpoints has lost them."""
        if self.watched:
            return False
        barely_begun = self._written_state().name != "finished" and len(self.metrics("eval")) <= 1
        return self.last_checkpoint() is not None or (barely_begun and not self.kept_checkpoints())

    def discard_beginning(self) -> None:
        """Delete what a run without a checkpoint has written, except its log, so that it can start again."""
        for folder in (self.tokenizer, self.target_tokenizer, self.best):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.metrics_path, self.progress_path, self.rows_path):
            path.unlink(missing_ok=True)

    def discard_incomplete(self) -> None:
        """Delete the leftovers of interrupted writes."""
        for path in (*self._checkpoints(complete=False), self.folder / "best.new", *self.folder.glob(".new-*")):
            if path.is_file():
                path.unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)
        self.recover_best()

    def _checkpoints(self, complete: bool) -> list[Path]:
        return [
            path
            for path in self.checkpoints.glob("checkpoint-*")
            if path.name.rsplit("-", 1)[1].isdecimal() and (path / "trainer_state.json").is_file() == complete
        ]

    def replace_best(self, written: Path) -> None:
        """Replace `best/` by a checkpoint folder written elsewhere."""
        old = self.folder / "best.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.best.exists():
            self.best.rename(old)
        written.rename(self.best)
        shutil.rmtree(old, ignore_errors=True)

    def recover_best(self) -> None:
        """Restore the old best/ after a crash between the two renames of `replace_best`."""
        old = self.folder / "best.old"
        if old.exists() and not self.best.exists():
            old.rename(self.best)


def list_runs(root: str | Path = RUNS) -> list[Run]:
    """Every run below `root`, the newest first."""
    found = [Run(path.parent) for path in _argument_files(Path(root))]
    return sorted(found, key=lambda run: (_modified(run.arguments_path), run.name), reverse=True)


def _argument_files(root: Path) -> Iterator[Path]:
    # A sweep's runs are one level deeper.
    yield from root.glob("*/arguments.json")
    yield from root.glob("*/*/arguments.json")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # Deleted since it was listed.
        return 0.0


def free_folder(root: Path, name: str) -> Path:
    """root/name, or the first of name-2, name-3, … that does not exist yet."""
    folder, count = root / name, 2
    while folder.exists() or folder.is_symlink():
        folder, count = root / f"{name}-{count}", count + 1
    return folder


def named_after(dataset: str, kind: str = "") -> str:
    """The name of a run's folder, from the data set's name, cut to a valid length and to valid UTF-8, and the time."""
    stem = os.fsencode(without_endings(dataset))[:MAX_STEM_BYTES].decode("utf-8", "ignore")
    return f"{stem}{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def reserve_folder(root: Path, name: str) -> Path:
    """Create a `free_folder`, unique even between processes. Raises RunError when it can't be written."""
    while True:
        folder = free_folder(root, name)
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileExistsError:
            if root.is_dir():
                continue  # Another process was faster.
            raise RunError(f"{root} can't be written: it is not a folder.") from None
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}.") from error
