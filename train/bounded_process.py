"""Work that may take too much, done in a child process that is ended when it does: its memory and time go with it.

Try it: in_a_child(print, "work", memory=10**9, work_seconds=5.0, seconds=60.0)
"""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

LOOK_SECONDS = 0.05
# Starting the first child of all takes some seconds by itself.
START_SECONDS = 120.0
# What children need, imported once for all of them.
PRELOADED = ["switch_model.inference.factory", "train.preflight.estimate"]


class TooMuch(Exception):
    """The work took more memory or time than it may, or ended its process."""


def in_a_child(work: Callable[..., Any], *given: Any, memory: int, work_seconds: float, seconds: float) -> Any:
    """What `work(*given)` returns; both travel as pickles of our own.

    Args:
        memory: bytes beyond what the bare process has.
        work_seconds: of a processor, that it may take.
        seconds: of the clock.

    Raises:
        TooMuch: with which of them it took.
        ValueError: as the work did, for anything else that it raised.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(sender, memory, work, given), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(START_SECONDS):
            raise TooMuch("this machine is too busy")
        receiver.recv()
        begun, end = work_of(child.pid), time.monotonic() + seconds
        while not receiver.poll(LOOK_SECONDS):
            if work_of(child.pid) - begun > work_seconds or time.monotonic() > end:
                raise TooMuch("it takes too long")
        done, answer = receiver.recv()
    except (EOFError, OSError) as error:
        raise TooMuch(_memory(memory)) from error
    finally:
        child.kill()
        child.join()
        receiver.close()
    if done:
        return answer
    raise TooMuch(_memory(memory)) if answer is None else ValueError(answer)


def work_of(process: int) -> float:
    """Seconds that a processor has worked for it; 0 when it has ended."""
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def take_little(memory: int, **others: int) -> None:
    """Bound what this process may take, where the system can (Linux).

    Args:
        memory: bytes of data beyond what it has now.
        others: FSIZE, bytes of a file; CPU, seconds.
    """
    try:
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except (ImportError, OSError):
        return  # Who started it bounds its time all the same.
    for name, most in {"DATA": held + memory, **others}.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _memory(memory: int) -> str:
    return f"it takes more than {memory / 1e9:g} GB of memory"


def _child(sender: Connection, memory: int, work: Callable[..., Any], given: tuple) -> None:
    sender.send(None)
    take_little(memory)
    try:
        answer = True, work(*given)
    except MemoryError:
        answer = False, None
    except Exception as error:
        # What torch says when it gets no more memory.
        answer = False, None if "allocate memory" in str(error) else str(error) or type(error).__name__
    sender.send(answer)
    sender.close()
