"""A run's process: start in the background or wait for it, queue, stop requests, log, and handling of a full disk.

Try it: start(Arguments.resolve({"dataset": "toy"}), "runs", "my-run"), then list_runs()
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

from switch_model.commands import command
from train.arguments.arguments import Arguments
from train.formatting import pasted
from train.launch import is_main
from train.runs.run import Run, RunError, list_runs, reserve_folder
from train.runs.signals import HANGUP, INTERRUPTED, signals_go_to

PROJECT = Path(__file__).resolve().parent.parent.parent
WAIT_SECONDS = 0.5
# Exit statuses of a process that was stopped before it could set its state.
STOPPED_STATUSES = (*(-number for number in (signal.SIGTERM, signal.SIGINT, HANGUP) if number), INTERRUPTED)


# Starting


def start(arguments: Arguments, root: str | Path, name: str, max_runs: int = 1) -> Run:
    """Start a run in its own process, which outlives this one and waits until fewer than `max_runs` others run.

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
    """Resume a stopped run in its own process, from its last checkpoint, or from the beginning if it has none yet.
    Raises RunError when it is running, or its checkpoints are gone."""
    if run.state().active:
        raise RunError(f"{run.name} is already {run.state().name}.")
    if not run.can_resume():
        raise RunError(f"{run.name} has no checkpoint to resume from.")
    run.stop_path.unlink(missing_ok=True)  # Left by a process that was killed before it could stop.
    run.set_state("queued")
    _spawn(run, ["python", "-m", "train", "resume", str(run.folder), "--max_runs", str(max_runs)])


def train_command(arguments: Arguments) -> list[str]:
    """The command, as a list, that trains with exactly these arguments on this machine."""
    return shlex.split(arguments.command(portable=False))


def _spawn(run: Run, command: list[str]) -> None:
    """Start the process. Until it sets the run's state itself, the state has this process's id."""
    with run.log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command[1:]],
            cwd=Path.cwd(),
            # The log is UTF-8, whatever the terminal's encoding.
            env=_environment() | {"PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the app's terminal must not stop the run.
        )
    threading.Thread(target=_reap, args=(run, process), name=f"wait for {run.name}", daemon=True).start()


def command_and_wait(arguments: list[str]) -> int:
    """Run python -m train with these arguments in its own process, which gets the signals that this one gets; returns
    the exit status, as shells do."""
    process: subprocess.Popen | None = None
    early: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    with signals_go_to(forward):
        # A session of its own: a terminal's Ctrl-C would reach it twice, and the second signal ends it at once.
        process = subprocess.Popen(
            [sys.executable, "-m", "train", *arguments], env=_environment(), start_new_session=True
        )
        for number in early:
            process.send_signal(number)
        status = process.wait()
    return status if status >= 0 else 128 - status


def _environment() -> dict[str, str]:
    """This process's, in which python -m train is found from any folder."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))}


def _reap(run: Run, process: subprocess.Popen) -> None:
    # Waiting also removes the zombie process.
    status = process.wait()
    if run.state().pid != os.getpid():
        return
    if status in STOPPED_STATUSES or run.stop_path.exists():
        run.set_state("stopped", stopped_early(run))
    else:
        run.set_state("failed", f"It did not start (exit status {status}).\n{run.log_tail(600)}".strip())


# Waiting


def wait_for_turn(run: Run, max_runs: int | None) -> bool:
    """Wait until fewer than `max_runs` runs of the parent folder run and no other has queued longer, then set the state
    to running.

    Returns False if the run was stopped while it waited.
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
    """The message of a run that was stopped before training: in the queue, or while reading its data."""
    if (last := run.last_checkpoint()) is None:
        return "Stopped before the first step. Resuming starts it from the beginning."
    return f"Stopped before it resumed from {last.name}."


class StopRequest:
    """Whether the run was asked to stop: by a file in its folder, Ctrl-C, SIGTERM, or a closed terminal.

    Inside `noticed()` a signal only sets the request, so that the trainer finishes its step and saves; outside there is
    nothing to save, and the signal ends the process.
    """

    def __init__(self, run: Run):
        self.run = run
        self.signalled = False
        self._insisted = False

    @property
    def made(self) -> bool:
        """Whether the run was asked to stop."""
        return self.signalled or self.run.stop_path.exists()

    def _on_signal(self, number, frame) -> None:
        if self._insisted:  # A second signal stops at once.
            raise KeyboardInterrupt
        # A logout sends SIGTERM right after SIGHUP: that is a single request.
        self._insisted = number != HANGUP
        self.signalled = True
        if is_main():
            print("Stopping after this step …", file=sys.stderr, flush=True)

    def noticed(self) -> AbstractContextManager[None]:
        """Context in which signals only set the request."""
        return signals_go_to(self._on_signal)


# Its record


class _Both:
    """A stream that also writes to a file, ignoring errors of the file."""

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
    """Context in which output also goes to the run's log, unless it is redirected there already."""
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
    """Context that records in the run's state if it is interrupted or fails; the code inside sets "finished".

    Re-raises exceptions; RunError for a full disk.
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
    """SIGTERM and SIGHUP end a run like Ctrl-C, so that its state is written.

    Python ignores an exception that is raised in a destructor or a callback: then the stop request remains, and is
    handled before the first step.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        run.request_stop()
        raise KeyboardInterrupt

    return signals_go_to(interrupt)


def disk_is_full(error: BaseException | None, folder: Path) -> bool:
    """Whether `error` comes from a full disk. Errors of torch and safetensors don't say so: then check free space."""
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
            "The disk is full. There is no checkpoint yet: free some space, then resume the run, which starts from the "
            "beginning. The command: "
            f"{command('resume')} {run.folder}"
        )
    return (
        f"The disk is full. The last checkpoint, {last.name}, is complete: free some space, then resume. The command: "
        f"{command('resume')} {pasted(run.folder)}"
    )
