"""Who answers Ctrl-C and SIGTERM. While libraries are imported, which takes seconds, nothing is at work yet, and the
process ends: a KeyboardInterrupt would not do, for numpy takes one for a broken installation, and others swallow it.

Try it: python -m train --dataset toy, then Ctrl-C at once
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

# As shells count: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def signals_go_to(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, `handler` answers Ctrl-C and SIGTERM; only a main thread can set it, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, former in old.items():
            signal.signal(number, former)


def ended_by_signals() -> AbstractContextManager[None]:
    """Inside, both signals end the process with a word and the status INTERRUPTED."""
    return signals_go_to(_end)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Stopped.\n")
    os._exit(INTERRUPTED)
