"""A run is a folder: what was asked, how it stands, what was measured, the best checkpoint, and what it takes to go on.

arguments.json        every argument
state.json            queued, running, stopped, finished or failed; whose process; since when; why
progress.json         step, steps in all, seconds: rewritten about once a second
metrics.jsonl         one JSON object a line: {"kind": "train" | "eval" | "probe" | "end", "step", "seconds", …}
log.txt               what the run said
rows.npz              a number for each row to train on or held out, and what else must stay as it was (fingerprint.py)
tokenizer/            what cuts its texts
target_tokenizer/     what cuts the answers, where that is another
best/                 the best checkpoint so far, a complete checkpoint folder
checkpoints/          the Trainer's own, to resume from: the newest --save_total_limit
training_curve.png, training_curve.html

Whoever starts a run, shell or page, leaves the same folder. Only the run's own process writes its state, others read.
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

from switch_model.storage.whole_files import WORDS, write_atomically, write_new
from train.arguments.arguments import Arguments
from train.arguments.values import PATHS
from train.data.table_file import without_endings
from train.formatting import pasted
from train.runs.run_files import ACTIVE, State, checked_arguments, numbers_in, read_line, read_object, what_is_wrong
from train.runs.trainer_files import checkpoint_step, damage_of

RUNS = Path("runs")
LOG_TAIL_BYTES = 8000
# Of a data set's name, in that of a run's folder.
MAX_STEM_BYTES = 120
# Given back when a disk is full, so that a run can still say so.
RESERVE_BYTES = 64 * 1024


class RunError(Exception):
    """Says what is wrong with a run's folder and what to do."""


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
        # Whoever wants the run to stop puts an empty file there.
        self.stop_path = self.folder / "stop"
        self.reserve_path = self.folder / ".reserve"

    @property
    def name(self) -> str:
        return self.folder.name

    @classmethod
    def create(cls, arguments: Arguments, state: str = "running") -> "Run":
        """A new folder with the arguments in it, or the one that waits in the queue for just these arguments.

        Raises RunError when the folder holds another run already or can't be written.
        """
        folder = arguments.train.output_dir or reserve_folder(RUNS, named_after(arguments.data.dataset))
        arguments.train.output_dir = str(folder)
        run, asked = cls(folder), anchored(arguments.to_dict())
        if run.arguments_path.exists():
            if run.waits_for_this_process() and run.arguments().to_dict() == asked:
                run.set_state(state)
                return run
            with FileLock(run.folder.resolve().parent / ".queue.lock"):  # One of several that find it so begins.
                if not run._is_stillborn():
                    raise run._taken()
                run.arguments_path.unlink(missing_ok=True)
                run._begin(asked, state)
            return run
        if run.folder.exists() and not run.folder.is_dir():
            raise RunError(f"{folder} is a file: --output_dir names the folder to write the run into.")
        run._begin(asked, state)
        return run

    def _begin(self, asked: dict[str, Any], state: str) -> None:
        began = False
        try:
            str(self.folder).encode("utf-8")
            self.folder.mkdir(parents=True, exist_ok=True)
            began = write_new(self.arguments_path, json.dumps(asked, indent=2) + "\n")
            if not began:  # By another, a moment ago.
                raise self._taken()
            self.set_state(state)
        except UnicodeEncodeError as error:
            raise RunError(f"{self.folder}: tokenizers can only be written where the path is UTF-8.") from error
        except OSError as error:
            if began:  # Half a run would stand in the way of the next one.
                for path in (self.arguments_path, self.state_path, self.reserve_path):
                    path.unlink(missing_ok=True)
            why = WORDS.get(error.errno, error.strerror)
            raise RunError(f"{self.folder} can't be written: {why}.") from error

    def _is_stillborn(self) -> bool:
        """Whether the folder has nothing of a run but arguments that can't be read, as a full disk may leave them."""
        try:
            self.arguments()
        except RunError:
            return not self._written_state().active and not self._left_behind()
        return False

    def _left_behind(self) -> list[Path]:
        """What stands in a folder in which something was trained."""
        return [path for path in (self.metrics_path, self.best, self.checkpoints) if path.exists()]

    def _taken(self) -> RunError:
        try:
            self.arguments()
        except RunError as error:
            return error
        return RunError(
            f"{self.folder} holds a run already. "
            f"Choose another --output_dir, or go on with: python -m train resume {pasted(self.folder)}"
        )

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """An existing run. Raises RunError when the folder holds none."""
        run = cls(folder)
        if not run.arguments_path.is_file():
            raise RunError(f"{folder} holds no run: there is no arguments.json in it.")
        return run

    def arguments(self) -> Arguments:
        """Raises RunError when the file can't be read, or holds something else, with what to do."""
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
            rest = "Nothing was trained there: start it anew, with the command that it was started with."
        else:
            rest = "So it can't be gone on with: train anew into another --output_dir, or remove the folder."
        if self.best.is_dir():
            rest += f" Its best checkpoint is there, and in its README.md the command: {self.best}"
        return RunError(f"{self.arguments_path} can't be read: {why}. {rest}")

    # How it stands

    def state(self) -> State:
        """As it is now: a run that was asked to stop is stopping, and one whose process is gone has failed."""
        written = self._written_state()
        if not written.active:
            return written
        if written.process_lives():
            asked = written.name == "running" and self.stop_path.exists()
            return replace(written, name="stopping") if asked else written
        # Its last write of all may have come between our two looks.
        if not (written := self._written_state()).active:
            return written
        tail = "\n".join(self.log_tail().splitlines()[-5:])
        message = "Its process ended without a word: killed, out of memory, or the machine went down."
        return replace(written, name="failed", message=f"{message}\n{tail}".strip())

    def waits_for_this_process(self) -> bool:
        """Whether the run was queued by the one who started this process, or by one that is gone."""
        written = self._written_state()
        mine = written.pid in (os.getpid(), os.getppid())
        return written.name == "queued" and (mine or not written.process_lives())

    def _written_state(self) -> State:
        try:
            return State.from_dict(read_object(self.state_path))
        except FileNotFoundError:
            # From before runs had a state.
            return State("finished" if self.metrics("end") else "failed", started=_modified(self.arguments_path))
        except (OSError, ValueError, RecursionError):
            why = what_is_wrong(self.state_path)
            return State("failed", f"{self.state_path} can't be read: {why}. How the run ended is not known.")

    def set_state(self, name: str, message: str = "") -> None:
        """Write the state, with this process as the one at work."""
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
        """Ask the run's process to end after its step, with a checkpoint."""
        self.stop_path.touch()

    def progress(self) -> dict[str, Any]:
        """phase, step, max_steps, seconds, steps_per_second: as far as they are there, and are numbers."""
        try:
            values = read_object(self.progress_path)
        except (OSError, ValueError, RecursionError):
            return {}
        phase = values.get("phase")
        return numbers_in(values) | ({"phase": phase} if isinstance(phase, str) else {})

    def log_tail(self, size: int = LOG_TAIL_BYTES) -> str:
        """The end of what the run said, without a torn first line."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(0, os.SEEK_END)
                start = max(file.tell() - size, 0)
                file.seek(start)
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return ""
        return text.partition("\n")[2] if start else text

    # What was measured

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line. A line is written whole or not at all, so that a reader never sees half of one."""
        line = (json.dumps(record, allow_nan=False) + "\n").encode("utf-8")
        descriptor = os.open(self.metrics_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            if before and os.pread(descriptor, 1, before - 1) != b"\n":
                line = b"\n" + line  # Behind a line that a dying machine tore.
            if os.write(descriptor, line) < len(line):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.metrics_path))
        finally:
            os.close(descriptor)

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All lines so far, or those of one kind. A resumed run repeats the steps after its last checkpoint: the
        later line of a kind and step counts. A line that a full disk or a dying machine tore is passed over."""
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
        """The newest Trainer checkpoint that is complete and whole."""
        return next((path for path in reversed(self.kept_checkpoints().values()) if not damage_of(path)), None)

    def damaged_since(self, checkpoint: Path | None) -> dict[Path, str]:
        """Complete checkpoints newer than a whole one, the newest last -> what is wrong with each."""
        first = -1 if checkpoint is None else checkpoint_step(checkpoint)
        found = {path: damage_of(path) for step, path in self.kept_checkpoints().items() if step > first}
        return {path: why for path, why in found.items() if why}

    def kept_checkpoints(self) -> dict[int, Path]:
        """Step -> complete Trainer checkpoint (trainer_state.json is written last), the earliest first. While a run
        trains, the earliest may go any time."""
        return {checkpoint_step(path): path for path in sorted(self._checkpoints(complete=True), key=checkpoint_step)}

    def can_resume(self) -> bool:
        """Whether there is a checkpoint to go on from, or nothing to lose by beginning again: one follows each
        evaluation, so that a run with more of them, or one that has finished, had some that somebody removed."""
        barely_begun = self._written_state().name != "finished" and len(self.metrics("eval")) <= 1
        return self.last_checkpoint() is not None or (barely_begun and not self.kept_checkpoints())

    def discard_beginning(self) -> None:
        """Remove what a run without a checkpoint has written, for it to begin again; its words in the log stay."""
        for folder in (self.tokenizer, self.target_tokenizer, self.best):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.metrics_path, self.progress_path, self.rows_path):
            path.unlink(missing_ok=True)

    def discard_incomplete(self) -> None:
        """Remove what a stopped write left behind."""
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
        """Put a checkpoint folder that was written aside in the place of `best/`."""
        old = self.folder / "best.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.best.exists():
            self.best.rename(old)
        written.rename(self.best)
        shutil.rmtree(old, ignore_errors=True)

    def recover_best(self) -> None:
        """A process that died between the two renames of `replace_best` left the old one aside."""
        old = self.folder / "best.old"
        if old.exists() and not self.best.exists():
            old.rename(self.best)


def list_runs(root: str | Path = RUNS) -> list[Run]:
    """Every run below `root`, the newest first."""
    found = [Run(path.parent) for path in _argument_files(Path(root))]
    return sorted(found, key=lambda run: (_modified(run.arguments_path), run.name), reverse=True)


def _argument_files(root: Path) -> Iterator[Path]:
    # A sweep's runs lie one level deeper.
    yield from root.glob("*/arguments.json")
    yield from root.glob("*/*/arguments.json")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # Deleted since it was listed.
        return 0.0


def free_folder(root: Path, name: str) -> Path:
    """root/name, or the first of name-2, name-3, … that is not there yet: what a run would be called now."""
    folder, count = root / name, 2
    while folder.exists() or folder.is_symlink():
        folder, count = root / f"{name}-{count}", count + 1
    return folder


def anchored(values: dict[str, Any]) -> dict[str, Any]:
    """Arguments with the files and folders of this disk named from its root: a run may be resumed from any folder."""
    found = dict(values)
    for name in PATHS:
        given = found.get(name)
        # A folder that happens to be called toy is no data set, and own is no tokenizer's folder.
        is_path = os.path.isfile(given or "") if name == "dataset" else os.path.exists(given or "") and given != "own"
        if given and (is_path or name in ("data_dir", "output_dir")):
            found[name] = os.path.abspath(given)
    return found


def named_after(dataset: str, kind: str = "") -> str:
    """What a run's folder is called. A file's name may be as long as a folder's, so that it is cut, and no UTF-8."""
    stem = os.fsencode(without_endings(dataset))[:MAX_STEM_BYTES].decode("utf-8", "ignore")
    return f"{stem}{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def reserve_folder(root: Path, name: str) -> Path:
    """`free_folder`, made: whoever asks at the same moment gets another. Raises RunError when it can't be written."""
    while True:
        folder = free_folder(root, name)
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
            return folder
        except FileExistsError:
            if root.is_dir():
                continue  # Another was quicker.
            raise RunError(f"{root} can't be written: it is not a folder.") from None
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}.") from error
