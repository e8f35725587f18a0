"""Who answers Ctrl-C, SIGTERM and SIGHUP, which a terminal sends that is closed. While libraries are imported, which
takes seconds, nothing is at work yet, and the process ends: a KeyboardInterrupt would not do, for numpy takes one for a
broken installation, and others swallow it.

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

# As shells count: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT
# None on Windows.
HANGUP: int | None = getattr(signal, "SIGHUP", None)


def answer(number: int | None, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Let `handler` answer a signal, but for a SIGHUP that is ignored: that is how nohup keeps a process alive.

    SIGHUP is answered once: a terminal that closes may send it twice, and what the first began shall not be broken off.
    """
    if number is None or (number == HANGUP and signal.getsignal(number) is signal.SIG_IGN):
        return

    def once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        handler(number, frame)

    signal.signal(number, once if number == HANGUP else handler)


@contextmanager
def signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, `handler` answers all three; only a main thread can set it, elsewhere nothing changes."""
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
    """Inside, the signals end the process with a word and the status INTERRUPTED."""
    return signals_go_to(_end)


def _end(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):  # The terminal may be gone.
        os.write(2, b"Stopped.\n")
    os._exit(INTERRUPTED)
