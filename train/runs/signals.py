"""Handlers of Ctrl-C, SIGTERM and SIGHUP (a closed terminal). During imports, which take seconds, they exit the process
directly: numpy would report a KeyboardInterrupt as a broken installation, and other libraries swallow it.

Try it: python -m train --dataset toy, then Ctrl-C at once
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

# As in shells: 128 plus the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
# None on Windows.
HANGUP: int | None = getattr(signal, "SIGHUP", None)


def answer(number: int | None, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Set `handler` for a signal, except for a SIGHUP that is ignored: that is how nohup keeps a process alive.

    SIGHUP is handled once: a closing terminal may send it twice, and the second must not interrupt the handler.
    """
    if number is None or (number == HANGUP and signal.getsignal(number) is signal.SIG_IGN):
        return

    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        handler(number, frame)

    signal.signal(number, once if number == HANGUP else handler)


@contextmanager
def signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Context in which `handler` handles all three signals; in threads other than the main one, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None]
    old = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        answer(number, handler)
    try:
        yield
    finally:
        for number, former in old.items():
            if number != HANGUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, former)


def ended_by_signals() -> AbstractContextManager[None]:
    """Context in which the signals exit the process with the status INTERRUPTED."""
    return signals_go_to(_end)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # The terminal may be gone.
        os.write(2, b"Stopped.\n")
    os._exit(INTERRUPTED)
