"""How a process was started: which streams it has, and whether it is one of several. For the command line and the app.

Only the standard library, so that it runs before anything else is imported.
Try it: PYTHONIOENCODING=ascii python -m train --help | head -1
"""

import contextlib
import io
import os
import signal
import sys

# As shells count a process that ended because nobody read its output.
UNREAD = 128 + getattr(signal, "SIGPIPE", 13)
# Where launchers put the number of processes they start: torchrun and accelerate, then three kinds of mpirun.
PROCESS_COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


class _Unbroken(io.RawIOBase):
    """Writes to a descriptor, and drops what nobody can take any more: a closed pipe, a terminal that is gone."""

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
    """Make the three streams such that no character and no reader who leaves ends the process with an exception.

    What an encoding lacks is written as \\u2026. A stream that was closed leads nowhere, and its number stays taken:
    the next file that is opened would get it, with all that is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free.
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            stream = open(number, mode, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        elif number and hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")
    _unbreak("stderr")


def go_on_unread() -> None:
    """From here on a reader of standard output who leaves is no reason to end: a run has a log of its own."""
    if sys.stdout is sys.__stdout__:  # Not a notebook's or a test's.
        _unbreak("stdout")


def _unbreak(name: str) -> None:
    stream = getattr(sys, name)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # No file of this process.
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
    """Nobody reads standard output any more: what is still to be flushed to it goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_of_several() -> str | None:
    """What a process says that a launcher started with others: runs are of one process. None = it is alone."""
    for name in PROCESS_COUNTS:
        count = os.environ.get(name, "")
        if count.isdecimal() and int(count) > 1:
            return (
                f"{name}={count}: {count} processes were started, as torchrun and accelerate launch do, but several "
                "are not supported yet. Start one, without a launcher: python -m train …"
            )
    return None
