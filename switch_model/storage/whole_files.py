"""Files that are written whole or not at all: aside first, then moved to their place. A full disk leaves all as it was.

Try it: write_atomically(Path("out.csv"), "text,label\\n")
"""

import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Streams of this process under the names of files: what is written there goes behind what was written before.
STREAMS = re.compile(r"(?:/dev|/proc/self)/(?:fd/(?P<number>\d+)|std(?P<name>out|err))")
# Why a folder takes no new file, though a file in it may still be written to.
CLOSED_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS)
WORDS = {
    errno.ENOSPC: "the disk is full. What was there before is unchanged: free some space",
    errno.EDQUOT: "your share of the disk is full. What was there before is unchanged: free some space",
    errno.EISDIR: "it is a folder. Name a file in it",
    errno.ENOTDIR: "a file stands where its folder should be",
    errno.ENOENT: "there is no such folder. Make it first",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "that disk can only be read",
    errno.ENAMETOOLONG: "the name is too long",
}


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never half. Text is UTF-8, its line ends as given.

    Raises OSError with the file's name and a reason in words.
    """
    with written_aside(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_new(path: Path, content: str) -> bool:
    """`write_atomically` for a file that must not exist yet; returns whether it did not. Raises OSError likewise."""
    aside = _new_file(path.parent, path.suffix)
    try:
        aside.write_text(content, encoding="utf-8")
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        with path.open("x", encoding="utf-8") as file:  # A disk without links.
            file.write(content)
    finally:
        aside.unlink(missing_ok=True)
    return True


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """A place to write a file to, which then takes the place of `path`, unless something is raised inside.

    A link leads on to what it names, and what is replaced keeps its permissions. What is no file (a pipe, /dev/stdout,
    /dev/null) gets what was written.

    Raises OSError with the file's name and a reason in words.
    """
    target = Path(os.path.realpath(path))
    with _in_words(path):
        if (state := _state(target)) and stat.S_ISDIR(state.st_mode):
            raise OSError(errno.EISDIR, "")
    is_stream = STREAMS.fullmatch(os.path.abspath(path)) is not None
    replaced = not is_stream and (state is None or (stat.S_ISREG(state.st_mode) and state.st_nlink == 1))
    aside, elsewhere = None, None
    try:
        with _in_words(path):
            try:
                aside = _new_file(target.parent, target.suffix) if replaced else None
            except OSError as error:
                if state is None or error.errno not in CLOSED_FOLDER:
                    raise
            if aside is not None:
                yield aside
                _put(aside, target)
                return
            elsewhere = Path(tempfile.mkdtemp())
            written = elsewhere / f"written{Path(path).suffix}"
            yield written
            _pass_on(written, path, target)
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
        if elsewhere is not None:
            shutil.rmtree(elsewhere, ignore_errors=True)


@contextmanager
def folder_written_aside(folder: str | Path) -> Iterator[Path]:
    """A new folder to write files to, which then take their places in `folder`: all of them, or none when something is
    raised inside. Other files that are there stay.

    Raises OSError with the folder's name and a reason in words.
    """
    target, aside = Path(os.path.realpath(folder)), None
    try:
        with _in_words(folder):
            fresh = not target.exists()
            if fresh:
                target.parent.mkdir(parents=True, exist_ok=True)
            elif not target.is_dir():
                raise OSError(errno.EEXIST, "it is a file, and should be a folder")
            aside = (target.parent if fresh else target) / f".new-{secrets.token_hex(4)}"
            aside.mkdir()
            yield aside
            if fresh and not target.exists():
                aside.rename(target)
                return
            for file in sorted(aside.iterdir()):
                _put(file, Path(os.path.realpath(target / file.name)))
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def check_writable(path: str | Path | None, folder: bool = False) -> None:
    """Raise OSError with a reason in words where it is clear before any work that nothing can be written to `path`."""
    if path is None or STREAMS.fullmatch(os.path.abspath(path)):
        return
    with _in_words(path):
        target = Path(os.path.realpath(path))
        state = _state(target)
        if state is None and not folder and not target.parent.is_dir():
            raise OSError(errno.ENOTDIR if target.parent.exists() else errno.ENOENT, "")
        if state is not None and stat.S_ISDIR(state.st_mode) != folder:
            raise OSError(*((errno.EEXIST, "it is a file, and should be a folder") if folder else (errno.EISDIR, "")))
        there = next(place for place in (target, *target.parents) if place.exists())
        if not os.access(there, os.W_OK):
            raise OSError(errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES, "")


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _new_file(folder: Path, suffix: str) -> Path:
    """An empty file with a name of its own and the permissions that any new file gets there."""
    path = folder / f".new-{secrets.token_hex(4)}{suffix[:20]}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def _put(aside: Path, target: Path) -> None:
    """Move a file to its place, with owner and permissions of the one that it replaces."""
    if state := _state(target):
        with suppress(OSError):
            os.chown(aside, state.st_uid, state.st_gid)
        aside.chmod(stat.S_IMODE(state.st_mode))
    try:
        os.replace(aside, target)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):  # A file that is mounted by itself can only be written to.
            raise
        _pass_on(aside, target, target)


def _pass_on(source: Path, path: str | Path, target: Path) -> None:
    """Write a file's content to what can't be replaced: to a stream, or over a file, for which room is made first."""
    if stream := STREAMS.fullmatch(os.path.abspath(path)):
        sys.stdout.flush()
        with source.open("rb") as file, os.fdopen(os.dup(_number(stream)), "wb") as opened:
            shutil.copyfileobj(file, opened)
        return
    state = _state(target)
    is_file = state is not None and stat.S_ISREG(state.st_mode)
    before = state.st_size if state is not None else 0
    with source.open("rb") as file, target.open("r+b" if is_file else "wb") as opened:
        size = source.stat().st_size
        if is_file and size > before and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(opened.fileno(), 0, size)
            except OSError as error:
                opened.truncate(before)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
        shutil.copyfileobj(file, opened)
        if is_file:
            opened.truncate()


def _number(stream: re.Match) -> int:
    return int(stream["number"]) if stream["number"] else {"out": 1, "err": 2}[stream["name"]]


@contextmanager
def _in_words(path: str | Path) -> Iterator[None]:
    """An OSError of the kinds that a user can do something about comes out with the file's own name and a remedy."""
    try:
        yield
    except OSError as error:
        # A library may have raised another kind from it; a pipe's reader that is gone is no fault of the file.
        if isinstance(error, BrokenPipeError) or getattr(error, "explained", False):
            raise
        explained = OSError(error.errno, WORDS.get(error.errno or 0, error.strerror or str(error)), str(path))
        vars(explained)["explained"] = True
        raise explained from error
