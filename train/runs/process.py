"""A run as a process: started in the background, waiting for its turn, asked to stop, and what a full disk does to it.

Try it: start(Arguments.resolve({"dataset": "toy"}), max_runs=1), then list_runs()
"""

import errno
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from filelock import FileLock

from train.arguments.arguments import Arguments
from train.formatting import pasted
from train.runs.run import Run, RunError, list_runs, reserve_folder
from train.runs.signals import HANGUP, INTERRUPTED, signals_go_to

PROJECT = Path(__file__).resolve().parent.parent.parent
WAIT_SECONDS = 0.5
# How a process ends that was stopped before it could say so: by a signal, or with the status for one.
STOPPED_STATUSES = (*(-number for number in (signal.SIGTERM, signal.SIGINT, HANGUP) if number), INTERRUPTED)


# Starting


def start(arguments: Arguments, root: str | Path, name: str, max_runs: int = 1) -> Run:
    """A run in a process of its own, which outlives this one and waits until fewer than `max_runs` others run.

    Raises:
        ValueError: with what is wrong with the arguments.
        RunError: when the folder can't be written.
    """
    arguments.check()
    arguments.train.output_dir = str(reserve_folder(Path(root), name))
    run = Run.create(arguments, state="queued")
    _spawn(run, [*train_command(arguments), "--max_runs", str(max_runs)])
    return run


def go_on(run: Run, max_runs: int = 1) -> None:
    """Resume a stopped run in a process of its own: from its last checkpoint, or where it has none yet, from the
    beginning. Raises RunError when it is at work, or its checkpoints are gone."""
    if run.state().active:
        raise RunError(f"{run.name} is {run.state().name} already.")
    if not run.can_resume():
        raise RunError(f"{run.name} has no checkpoint to go on from (any more).")
    run.stop_path.unlink(missing_ok=True)  # Of a process that was killed before it could answer.
    run.set_state("queued")
    _spawn(run, ["python", "-m", "train", "resume", str(run.folder), "--max_runs", str(max_runs)])


def train_command(arguments: Arguments) -> list[str]:
    """The words of the command that trains with exactly these arguments, on this machine."""
    return shlex.split(arguments.command(portable=False))


def _spawn(run: Run, command: list[str]) -> None:
    """Until the process has started and says so itself, the run waits in the name of this one."""
    with run.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command[1:]],
            cwd=Path.cwd(),
            # A log is UTF-8, whatever the terminal is.
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))}
            | {"PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the app's shell is not for the run.
        )
    threading.Thread(target=_reap, args=(run, process), name=f"wait for {run.name}", daemon=True).start()


def _reap(run: Run, process: subprocess.Popen) -> None:
    # Asking for the exit status also takes an ended process out of the table.
    status = process.wait()
    if run.state().pid != os.getpid():
        return
    if status in STOPPED_STATUSES or run.stop_path.exists():
        run.set_state("stopped", stopped_early(run))
    else:
        run.set_state("failed", f"It did not start (exit status {status}).\n{run.log_tail(600)}".strip())


# Waiting


def wait_for_turn(run: Run, max_runs: int | None) -> bool:
    """Mark the run as running as soon as fewer than `max_runs` of its folder's neighbours run and none waits longer.

    Returns False when the run was asked to stop while it waited.
    """
    if max_runs is None:
        run.set_state("running")
        return True
    run.set_state("queued")
    root = run.folder.resolve().parent
    announced = False
    while True:
        if run.stop_path.exists():
            run.set_state("stopped", stopped_early(run))
            return False
        with FileLock(root / ".queue.lock"):
            running, ahead = runs_ahead(run)
            if running + ahead < max_runs:
                run.set_state("running")
                return True
        if not announced:
            print(f"Waiting: {running} running, {ahead} ahead in the queue.", flush=True)
            announced = True
        time.sleep(WAIT_SECONDS)


def runs_ahead(run: Run) -> tuple[int, int]:
    """(how many of its folder's neighbours run, how many of them wait longer than this one)."""
    neighbours = list_runs(run.folder.resolve().parent)
    others = [(other.state(), other.name) for other in neighbours if other.folder.name != run.folder.name]
    before = (run.state().queued, run.name)
    waiting = sum(state.name == "queued" and (state.queued, name) < before for state, name in others)
    return sum(state.name in ("running", "stopping") for state, _ in others), waiting


# Stopping


def stopped_early(run: Run) -> str:
    """What a run says that was stopped outside of training: while it waited, or read its data."""
    if (last := run.last_checkpoint()) is None:
        return "It was stopped before its first step. Resuming it starts it from the beginning."
    return f"It was stopped before it went on from {last.name}."


class StopRequest:
    """Whether someone asked the run to stop: through its folder, Ctrl-C, SIGTERM, or by closing its terminal.

    Inside `noticed()` a signal only sets the request, for the trainer to end its step and save; outside there is
    nothing to save, and the signal ends the process.
    """

    def __init__(self, run: Run):
        self.run = run
        self.signalled = False
        self._insisted = False

    @property
    def made(self) -> bool:
        return self.signalled or self.run.stop_path.exists()

    def _on_signal(self, number, frame) -> None:
        if self._insisted:  # Someone means it.
            raise KeyboardInterrupt
        # Who logs out sends SIGTERM right behind SIGHUP: that is one wish.
        self._insisted = number != HANGUP
        self.signalled = True
        print("Stopping after this step …", file=sys.stderr, flush=True)

    def noticed(self) -> AbstractContextManager[None]:
        return signals_go_to(self._on_signal)


# Its record


class _Both:
    """A stream that also goes to a file. A file that can't take any more is let go."""

    def __init__(self, stream: TextIO, file: TextIO):
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        try:
            self._file.write(text)
            self._file.flush()
        except OSError:
            pass
        return self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """What is printed inside also goes to the run's log, unless that is where it goes anyway."""
    with run.log_path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        here = os.fstat(file.fileno())
        streams = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (
            stream if _leads_to(stream, here) else _Both(stream, file) for stream in (sys.stdout, sys.stderr)
        )
        try:
            yield
        finally:
            sys.stdout, sys.stderr = streams


def _leads_to(stream: TextIO, place: os.stat_result) -> bool:
    try:
        own = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # Not a file, as in tests and notebooks.
        return False
    return (own.st_dev, own.st_ino) == (place.st_dev, place.st_ino)


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    """However what is inside ends, the run's state says so. It is the inside that marks a run as finished.

    Raises what was raised, and RunError for a full disk.
    """
    try:
        with logged(run), _interrupted_by_signals(run):
            yield
    except KeyboardInterrupt:
        run.set_state("stopped", stopped_early(run))
        raise
    except BaseException as error:
        if disk_is_full(error, run.folder):
            message = _make_room(run)
            run.set_state("stopped", message)
            raise RunError(message) from error
        run.set_state("failed", str(error) or type(error).__name__)
        raise


def _interrupted_by_signals(run: Run) -> AbstractContextManager[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, so that its state gets written.

    Python swallows an exception that is raised in a destructor or a callback: then the request is there all the same,
    and is met before the first step.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        run.request_stop()
        raise KeyboardInterrupt

    return signals_go_to(interrupt)


def disk_is_full(error: BaseException | None, folder: Path) -> bool:
    """Whether `error` comes from a full disk. torch's and safetensors' own errors don't say so: then the disk does."""
    if isinstance(error, (ValueError, FloatingPointError)):
        return False
    first = error
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return isinstance(first, (OSError, RuntimeError)) and shutil.disk_usage(folder).free < 1 << 20


def _make_room(run: Run) -> str:
    run.reserve_path.unlink(missing_ok=True)
    run.discard_incomplete()
    last = run.last_checkpoint()
    if last is None:
        return (
            "The disk is full. There was no checkpoint yet: free some space, then start it from the beginning with: "
            f"python -m train resume {run.folder}"
        )
    return (
        f"The disk is full. The last checkpoint, {last.name}, is whole: free some space, then go on with: "
        f"python -m train resume {pasted(run.folder)}"
    )
