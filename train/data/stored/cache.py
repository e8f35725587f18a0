"""Folders of what is made from data once and found again by later runs. Where they take too much room, those that were
used least recently go.

Try it: cache_folder("tables")
"""

import os
import secrets
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows, where nothing is removed: whether a folder is in use can't be told.
    fcntl = None

CACHE, MOST_GB = "SWITCH_CACHE_DIR", "SWITCH_CACHE_GB"
USUAL_GB = 50.0
KINDS = ("tables", "packed")
# Seconds after which what a process wrote and did not finish is taken for left behind.
LEFT_BEHIND = 86_400
# Open files, whose lock says for as long as this process lives that it uses a folder.
_used: dict[Path, IO] = {}


def cache_folder(kind: str) -> Path:
    """A folder in SWITCH_CACHE_DIR, or in the user's cache: "packed" for streams of tokens, "tables" for tables that
    are larger than memory."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "switch-transformers") / kind


def use(folder: Path) -> None:
    """Note that a folder is used now, and keep it from being removed while this process lives. To be called before
    looking whether it is there."""
    mark = _mark(folder)
    mark.parent.mkdir(parents=True, exist_ok=True)
    if folder not in _used:
        _used[folder] = mark.open("a")
        if fcntl:
            with suppress(OSError):  # Some network drives have no locks; there nothing is removed either.
                fcntl.flock(_used[folder], fcntl.LOCK_SH)
    os.utime(mark)


def make_room() -> None:
    """Remove folders that no process uses, the least recently used first, until the cache has at most SWITCH_CACHE_GB,
    and say so. Raises ValueError where that is no number."""
    given = os.environ.get(MOST_GB) or USUAL_GB
    try:
        most = float(given) * 1e9
    except ValueError as error:
        raise ValueError(f"{MOST_GB} must be a number of gigabytes, not {given!r}.") from error
    with suppress(FileNotFoundError):  # Another process makes room too.
        _remove_above(most)


def _remove_above(most: float) -> None:
    folders = [path for kind in KINDS if cache_folder(kind).is_dir() for path in cache_folder(kind).iterdir()]
    sizes = {path: _bytes_of(path) for path in folders if path.is_dir() and not path.is_symlink()}
    total = sum(sizes.values())
    for folder in sorted(sizes, key=_last_used):
        if total <= most or not fcntl:
            return
        last = time.strftime("%Y-%m-%d", time.localtime(_last_used(folder)))
        if _removed(folder):
            total -= sizes[folder]
            print(
                f"The cache had more than {most / 1e9:g} GB ({MOST_GB}): removed {folder} "
                f"({sizes[folder] / 1e9:.1f} GB, last used on {last}).",
                file=sys.stderr,
                flush=True,
            )


def _removed(folder: Path) -> bool:
    """Remove a folder if nobody uses it."""
    if "." in folder.name:  # It is being written, or was.
        if time.time() - _last_used(folder) < LEFT_BEHIND:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True
    if folder in _used:
        return False
    with _mark(folder).open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            aside = folder.rename(folder.with_name(f".removed-{secrets.token_hex(4)}"))
        except OSError:
            return False
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _mark(folder: Path) -> Path:
    """The file that is locked while a folder is in use; its time is that of the last use. It stays when the folder is
    removed: somebody may be waiting for its lock."""
    return folder.with_name(f"{folder.name}.used")


def _last_used(folder: Path) -> float:
    mark = _mark(folder)
    newest = [path.stat().st_mtime for path in folder.rglob("*")] if "." in folder.name else []
    return max([(mark if mark.is_file() else folder).stat().st_mtime, *newest])


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
