"""Ctrl-C and SIGTERM while libraries are imported, which takes seconds: nothing is at work yet, and the process ends.

A KeyboardInterrupt would not do: numpy takes one for a broken installation, others swallow it.
Try it: python -m train --dataset toy, then Ctrl-C at once
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# As shells count: 128 and the number of the signal.
INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Inside, both signals end the process with a word and the status INTERRUPTED."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _end(number, frame) -> None:
    os.write(2, b"Stopped.\n")
    os._exit(INTERRUPTED)
