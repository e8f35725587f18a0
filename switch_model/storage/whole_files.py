"""Atomic writes: to a temporary file first, then moved into place. A full disk leaves the old content unchanged.

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

# Streams of this process by file name: they are appended to, never replaced.
STREAMS = re.compile(r"(?:/dev|/proc/self)/(?:fd/(?P<number>\d+)|std(?P<name>out|err))")
# Errors for a folder that takes no new file, though an existing file in it may be writable.
CLOSED_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS)
WORDS = {
    errno.ENOSPC: "the disk is full. The previous file is unchanged: free some space",
    errno.EDQUOT: "your disk quota is used up. The previous file is unchanged: free some space",
    errno.EISDIR: "it is a folder. Name a file in it",
    errno.ENOTDIR: "its folder is a file",
    errno.ENOENT: "there is no such folder. Make it first",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "that disk is read-only",
    errno.ENAMETOOLONG: "the name is too long",
}


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old or the new content, never a part. Text is UTF-8, line ends unchanged.

    Raises OSError with the file's name and a readable reason.
    """
    with written_aside(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def write_new(path: Path, content: str) -> bool:
    """`write_atomically` unless the file exists; returns whether it was written. Raises OSError likewise."""
    aside = _new_file(path.parent, path.suffix)
    try:
        aside.write_text(content, encoding="utf-8")
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        with path.open("x", encoding="utf-8") as file:  # A file system without hard links.
            file.write(content)
    finally:
        aside.unlink(missing_ok=True)
    return True


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; its file then replaces `path`, unless something is raised inside.

    Symbolic links are followed, and the replaced file's permissions are kept. A pipe, /dev/stdout or /dev/null receives
    the content.

    Raises OSError with the file's name and a readable reason.
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
            _copy_into(written, path, target)
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)
        if elsewhere is not None:
            shutil.rmtree(elsewhere, ignore_errors=True)


@contextmanager
def folder_written_aside(folder: str | Path) -> Iterator[Path]:
    """A temporary folder to write to; its files then move into `folder`: all of them, or none when something is raised
    inside. Other files there stay.

    Raises OSError with the folder's name and a readable reason.
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
    """Raise OSError with a readable reason when `path` can't be written to; for use before long work."""
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
    """An empty file with a unique name and the default permissions of a new file there."""
    path = folder / f".new-{secrets.token_hex(4)}{suffix[:20]}"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return path


def _put(aside: Path, target: Path) -> None:
    """Move a file into place, with owner and permissions of the one that it replaces."""
    if state := _state(target):
        with suppress(OSError):
            os.chown(aside, state.st_uid, state.st_gid)
        aside.chmod(stat.S_IMODE(state.st_mode))
    try:
        os.replace(aside, target)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):  # A bind-mounted file can't be replaced, only written to.
            raise
        _copy_into(aside, target, target)


def _copy_into(source: Path, path: str | Path, target: Path) -> None:
    """Write a file's content to a stream, or over a file that can't be replaced, reserving disk space first."""
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
    """Re-raise an OSError with the file's name and, where a user can act on it, a readable reason and remedy."""
    try:
        yield
    except OSError as error:
        # Explained already by an inner call; a broken pipe is not the file's fault.
        if isinstance(error, BrokenPipeError) or getattr(error, "explained", False):
            raise
        explained = OSError(error.errno, WORDS.get(error.errno or 0, error.strerror or str(error)), str(path))
        vars(explained)["explained"] = True
        raise explained from error
