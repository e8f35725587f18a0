"""Work that may take too much, done in a child process that is ended when it does: its memory and time go with it.

Try it: in_a_child(print, "work", memory=10**9, work_seconds=5.0, seconds=60.0)
"""

import json
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


MAX_ANSWER_BYTES = 1_000_000


class TooMuch(Exception):
    """The work took more than it may, or ended its process.

    Attributes:
        what: "start" (the machine is too busy to begin it), "work" (of a processor), "clock" or "memory".
    """

    def __init__(self, what: str, sentence: str) -> None:
        super().__init__(sentence)
        self.what = what


def in_a_child(
    work: Callable[..., Any],
    *given: Any,
    memory: int,
    work_seconds: float,
    seconds: float,
    file_bytes: int | None = None,
) -> Any:
    """What `work(*given)` returns, which must be JSON: what reads a stranger's file answers in nothing that can run.

    Args:
        memory: bytes beyond what the bare process has.
        work_seconds: of a processor, that it may take.
        seconds: of the clock.
        file_bytes: most that it may write into one file.

    Raises:
        TooMuch: with which of them it took.
        ValueError: with the message of anything else that the work raised.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    limits = {} if file_bytes is None else {"FSIZE": file_bytes}
    child = context.Process(target=_child, args=(sender, memory, limits, work, given), daemon=True)
    child.start()
    sender.close()
    try:
        # Its first message says that it has begun: starting the first child takes some seconds by itself.
        if not receiver.poll(START_SECONDS):
            raise TooMuch("start", "this machine is too busy")
        receiver.recv_bytes(MAX_ANSWER_BYTES)
        begun, end = _work_of(child.pid), time.monotonic() + seconds
        while not receiver.poll(LOOK_SECONDS):
            if _work_of(child.pid) - begun > work_seconds:
                raise TooMuch("work", "it takes too long")
            if time.monotonic() > end:
                raise TooMuch("clock", "it takes too long")
        answer = json.loads(receiver.recv_bytes(MAX_ANSWER_BYTES))
    except (EOFError, OSError) as error:
        raise _out_of(memory) from error
    finally:
        child.kill()
        child.join()
        receiver.close()
    if "done" in answer:
        return answer["done"]
    raise _out_of(memory) if answer["failed"] is None else ValueError(answer["failed"])


def _work_of(process: int) -> float:
    """Seconds that a processor has worked for it; 0 when it has ended."""
    try:
        times = psutil.Process(process).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def _take_little(memory: int, **others: int) -> None:
    """Bound what this process may take, where the system can (Linux).

    Args:
        memory: bytes of data beyond what it has now.
        others: FSIZE, bytes of a file.
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


def _out_of(memory: int) -> TooMuch:
    return TooMuch("memory", f"it takes more than {memory / 1e9:g} GB of memory")


def _child(sender: Connection, memory: int, limits: dict[str, int], work: Callable[..., Any], given: tuple) -> None:
    sender.send_bytes(b"begun")
    _take_little(memory, **limits)
    try:
        answer = {"done": work(*given)}
    except MemoryError:
        answer = {"failed": None}
    except Exception as error:
        # What torch says when it gets no more memory.
        answer = {"failed": None if "allocate memory" in str(error) else str(error) or type(error).__name__}
    sender.send_bytes(json.dumps(answer).encode())
    sender.close()
