"""Which data sets that are known by name can be read from here.

Nobody waits for it: files are looked for, the machine's interfaces and environment are read, what somebody tried in
vain is remembered for a while, and whether the hub answers is asked in the background.
Try it: DataReach().choices(["imdb", "mini_news"])
"""

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from train.data.errors import NO_ANSWER, NOT_IN_FOLDER, OFFLINE, Unreachable
from train.data.source import DataSource, split_files

# How long what could not be reached is said not to be.
REMEMBERED_SECONDS = 120.0
# How long the hub may take to answer.
ANSWER_SECONDS = 4.0
_HUB = ""
FROM_HUB = "from the Hugging Face Hub"
# The style sheet dims what is called so in a list.
MISSING = "not available here"


class _Hub:
    """Whether the Hugging Face Hub answers: asked by a page that is built, and again when that is long ago."""

    def __init__(self) -> None:
        self.reason = ""
        self._asked: float | None = None
        self._lock = threading.Lock()

    def ask(self) -> threading.Thread | None:
        """Ask in the background, but for a hub that is known not to be there."""
        if _no_network():
            return None
        with self._lock:
            self._asked = time.monotonic()
        asking = threading.Thread(target=self._ask, name="hub", daemon=True)
        asking.start()
        return asking

    def ask_again(self) -> None:
        """Where a page asked, and its answer is old."""
        with self._lock:
            old = self._asked is not None and time.monotonic() - self._asked > REMEMBERED_SECONDS
        if old:
            self.ask()

    def _ask(self) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        try:
            answers = get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS).status_code < 500
        except Exception:  # The client and the network raise many types; each means that nothing came back.
            answers = False
        self.reason = "" if answers else NO_ANSWER


HUB = _Hub()


class DataReach:
    """Shared by all visitors.

    Args:
        data_dir: where data sets lie on disk; None = the environment's folder, then the hub.
    """

    def __init__(self, data_dir: str | None = None):
        self.data_dir = data_dir
        self._failed: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def choices(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """(title, name) for a picker: first what is here, then what can be fetched, last what can't, and why."""
        HUB.ask_again()
        here, fetched, missing = [], [], []
        for name in names:
            source = DataSource(name, self.data_dir)
            if reason := self.unreachable(name):
                missing.append((f"{name} · {MISSING}: {reason}", name))
            elif source.on_hub and not _is_cached(source):
                fetched.append((f"{name} · {FROM_HUB}", name))
            else:
                here.append((name, name))
        return [*here, *fetched, *missing]

    def unreachable(self, name: str) -> str:
        """Why a data set can't be read from here, in a few words; "" where nothing is known against it."""
        source = DataSource(name, self.data_dir)
        if source.is_at_hand or source.is_file:
            return ""
        if (folder := source.folder) is not None:
            return "" if split_files(folder) else NOT_IN_FOLDER
        if source.known and source.known.hub_id is None:
            return "it is in no folder here"
        if _is_cached(source):
            return ""
        return _no_network() or HUB.reason or self._remembered(_HUB) or self._remembered(name)

    def failed(self, name: str, error: Exception) -> None:
        """Remember that somebody tried in vain."""
        if isinstance(error, Unreachable):
            with self._lock:
                # Where the hub does not answer, it does not for any of its data sets.
                self._failed[_HUB if error.why in (NO_ANSWER, OFFLINE) else name] = time.monotonic(), error.why

    def _remembered(self, name: str) -> str:
        when, reason = self._failed.get(name, (float("-inf"), ""))
        return reason if time.monotonic() - when < REMEMBERED_SECONDS else ""


def _is_cached(source: DataSource) -> bool:
    """Whether it was downloaded before."""
    from datasets.config import HF_DATASETS_CACHE

    hub_id = source.known.hub_id if source.known else source.dataset
    return bool(hub_id) and (Path(HF_DATASETS_CACHE) / hub_id.replace("/", "___")).is_dir()


def _no_network() -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return OFFLINE
    up = [name for name, state in psutil.net_if_stats().items() if state.isup and not name.startswith("lo")]
    return "" if up else "there is no network"
