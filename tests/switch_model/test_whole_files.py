"""What is written is there whole, or what was there before stays: files, folders, links, pipes."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from switch_model.storage.whole_files import (
    check_writable,
    folder_written_aside,
    write_atomically,
    write_new,
    written_aside,
)


def full(path: Path) -> None:
    """As a disk that is full behind the first half."""
    path.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    (tmp_path / "a.csv").write_text("before")
    for name in ("a.csv", "new.csv"):
        with pytest.raises(OSError, match="the disk is full") as said, written_aside(tmp_path / name) as aside:
            full(aside)
        assert said.value.filename == str(tmp_path / name) and said.value.errno == errno.ENOSPC
    for name in ("folder", "new"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "one").write_text("before")
        with pytest.raises(OSError, match="the disk is full"), folder_written_aside(tmp_path / name) as aside:
            (aside / "one").write_text("after")
            full(aside / "two")
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert found == {"a.csv", "folder", "folder/one"}
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "folder" / "one").read_text() == "before"


def test_a_link_leads_on_and_permissions_stay(tmp_path):
    kept, link, twin = tmp_path / "kept.csv", tmp_path / "link.csv", tmp_path / "twin.csv"
    kept.write_text("a long text before")
    kept.chmod(0o640)
    link.symlink_to(kept.name)
    write_atomically(link, "after")
    assert link.is_symlink() and kept.read_text() == "after" and kept.stat().st_mode & 0o777 == 0o640
    os.link(kept, twin)  # Another name of the same file goes on being that.
    write_atomically(kept, "x")
    assert twin.read_text() == "x" and sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["kept.csv", "link.csv", "twin.csv"]
    )
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other").write_text("stays")
    with folder_written_aside(tmp_path / "folder") as aside:
        (aside / "one").write_text("new")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["one", "other"]


def test_pipes_and_streams_get_what_is_written(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_atomically(tmp_path / "pipe", "through")
    reader.join()
    assert got == ["through"]
    write_atomically("/dev/null", "nothing")
    code = "runpy.run_path('switch_model/storage/whole_files.py')['write_atomically']('/dev/stdout', 'two')"
    program = f"import runpy; print(1); {code}; print(3)"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True, cwd=Path(__file__).parent.parent.parent)
    assert (tmp_path / "out").read_text() == "1\ntwo3\n"


@pytest.mark.parametrize(
    ("name", "folder", "said"),
    [
        (".", False, "it is a folder. Name a file in it"),
        ("file", True, "it is a file, and should be a folder"),
        ("none/out.csv", False, "there is no such folder"),
        ("file/out.csv", False, "its folder is a file"),
        ("x" * 300, False, "the name is too long"),
    ],
)
def test_what_nothing_can_be_written_to_is_said_before_the_work_and_at_the_writing(tmp_path, name, folder, said):
    (tmp_path / "file").write_text("before")
    with pytest.raises(OSError, match=said):
        check_writable(tmp_path / name, folder)
    write = folder_written_aside if folder else written_aside
    with pytest.raises(OSError, match=said), write(tmp_path / name) as aside:
        aside.write_text("after")
    assert (tmp_path / "file").read_text() == "before" and len(list(tmp_path.iterdir())) == 1
    check_writable("/dev/stdout")
    check_writable(tmp_path / "new" / "folder", folder=True)


def test_a_new_file_is_made_once(tmp_path):
    assert write_new(tmp_path / "a", "first") and not write_new(tmp_path / "a", "second")
    assert (tmp_path / "a").read_text() == "first" and len(list(tmp_path.iterdir())) == 1
