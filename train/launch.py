"""Standard streams and distributed launchers, checked at the start of the command line and the app.

Only the standard library, so that it runs before anything else is imported.
Try it: PYTHONIOENCODING=ascii python -m train --help | head -1
"""

import contextlib
import io
import os
import signal
import sys

# Exit status of a process whose output nobody reads any more, as in shells.
UNREAD = 128 + getattr(signal, "SIGPIPE", 13)
# Environment variables with the number of processes: of torchrun and accelerate, and three kinds of mpirun.
PROCESS_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
# What each process must know to find the others, as torchrun and accelerate launch set it.
GIVEN_BY_LAUNCHERS = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")


class _Unbroken(io.RawIOBase):
    """Writes to a file descriptor, and ignores errors: a closed pipe, a terminal that is gone."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError:
            return len(data)


def prepare_streams() -> None:
    """Make standard streams robust: no unencodable character and no closed pipe ends the process with an exception.

    Unencodable characters are written as \\u2026. A closed stream is opened on /dev/null: otherwise the next opened
    file would get its descriptor, and with it all that is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free descriptor.
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        elif number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    _unbreak("stderr")


def ignore_closed_stdout() -> None:
    """From now on a closed standard output does not end the process: a run has its own log."""
    if sys.stdout is sys.__stdout__:  # Not a notebook's or a test's.
        _unbreak("stdout")


def _unbreak(name: str) -> None:
    stream = getattr(sys, name)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # Not a file.
        number = stream.fileno()
        stream.flush()
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(_Unbroken(number)),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
        )
        setattr(sys, name, wrapped)


def drop_output() -> None:
    """Send what is still buffered for standard output to /dev/null, once nobody reads it any more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_of_several() -> str | None:
    """An error message if a launcher started several processes, of which only training makes use; None otherwise."""
    if count := _processes():
        return f"{count} processes were started, and only training runs in several. Start one, without a launcher."
    return None


def cannot_train() -> str | None:
    """An error message if several processes were started that can't find each other; None otherwise."""
    missing = [name for name in GIVEN_BY_LAUNCHERS if name not in os.environ]
    if (count := _processes()) and missing:
        return (
            f"{count} processes were started without telling each its number ({missing[0]} is not set). Start them "
            f"with: torchrun --nproc_per_node {count} -m train …"
        )
    return None


def trains(arguments: list[str]) -> bool:
    """Whether a command line is one of those that run in several processes."""
    return not arguments or arguments[0].startswith("-") or arguments[0] == "resume"


def is_main() -> bool:
    """Whether this is the process, of several, that speaks for all."""
    return os.environ.get("RANK", "0") == "0" or not _processes()


def _processes() -> int:
    """How many processes a launcher started; 0 for one."""
    counts = (os.environ.get(name, "") for name in PROCESS_COUNTS)
    return next((int(count) for count in counts if count.isdecimal() and int(count) > 1), 0)
