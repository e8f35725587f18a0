"""Validated reading of the small files of a run's folder, which a full disk or another program may have damaged.

Try it: read_line('{"kind": "train", "step": 5, "loss": 1.2}')
"""

import json
import math
import socket
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Any

import psutil

from train.arguments.arguments import Arguments
from train.arguments.values import is_of
from train.tasks.metrics import MEASURES

# States with a process that is running or will be.
ACTIVE = ("queued", "running", "stopping")
STATES = (*ACTIVE, "stopped", "finished", "failed")
# Fields of a line of metrics that must be numbers.
METRICS = ("step", "epoch", "seconds", "tokens", "learning_rate", *MEASURES)


@dataclass(frozen=True)
class State:
    """The state of a run.

    Attributes:
        name: queued, running, stopping, stopped, finished or failed.
        message: why it stopped or failed; "" otherwise.
        queued, started, ended: Unix times in seconds; None = not yet.
        pid, born, host: the process, its creation time (pids are reused), and its machine.
    """

    name: str
    message: str = ""
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    pid: int | None = None
    born: float | None = None
    host: str | None = None

    @property
    def began(self) -> bool:
        """Whether its process has had its turn since it was queued."""
        return self.started is not None and self.started >= (self.queued or 0)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "State":
        """The state in a JSON object. Raises ValueError for an invalid one."""
        allowed = {"name": STATES, "message": str, "host": (str, NoneType), "pid": (int, NoneType)}
        for item in fields(cls):
            value, kinds = values.get(item.name), allowed.get(item.name, (int, float, NoneType))
            if not (value in kinds if kinds is STATES else isinstance(value, kinds)):
                raise ValueError(f"{item.name} is {value!r}")
        return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})

    @property
    def active(self) -> bool:
        """Whether its process is running or will be."""
        return self.name in ACTIVE

    def process_lives(self) -> bool:
        """Whether the process that wrote this still exists. One on another machine counts as existing."""
        if self.pid is None:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            process = psutil.Process(self.pid)
            # An ended process remains as a zombie until its parent waits for it.
            return abs(process.create_time() - (self.born or 0)) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, ValueError, OverflowError):  # No such process, or an invalid pid.
            return False


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises OSError when it is gone, ValueError or RecursionError when it is invalid."""
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values


def what_is_wrong(path: Path) -> str:
    """Why a JSON file can't be read, in words."""
    try:
        return "it is damaged, or not such a file" if path.read_bytes().strip() else "it is empty"
    except OSError as error:
        return str(error.strerror)


def read_line(line: str) -> dict[str, Any] | None:
    """A line of metrics; None for an incomplete or invalid one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(record, dict) and isinstance(record.get("kind"), str) and isinstance(record.get("step"), int)):
        return None
    known = [record[name] for name in METRICS if record.get(name) is not None]
    return record if all(map(_is_number, known)) else None


def numbers_in(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are numbers."""
    return {key: value for key, value in values.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def checked_arguments(values: dict[str, Any]) -> Arguments:
    """The arguments of a file. Raises ValueError for an unknown name, or a value of the wrong type."""
    arguments = Arguments.from_dict(values)
    for name, value in arguments.to_dict().items():
        if not is_of(value, name):
            raise ValueError(f"{name} is {value!r}.")
    return arguments
