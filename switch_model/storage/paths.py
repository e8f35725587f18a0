"""Paths as people write them -> paths that can be opened: expands ~ and ~user, accepts file:// URLs.

Everything that takes a path from outside calls this once: flags, config files, the page's fields, load_checkpoint.
Try it: local_path("~/runs/toy")
"""

import os
import re
from urllib.parse import unquote

_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(?=/)", re.IGNORECASE)


def local_path(given: str | os.PathLike[str]) -> str:
    """The expanded path. A name that is not a path, such as a hub id, is returned unchanged.

    Raises ValueError for an unknown home, instead of making a folder called "~".
    """
    path = os.fspath(given)
    if url := _FILE_URL.match(path):
        path = unquote(path[url.end() :])
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)
    if not expanded.startswith("~"):
        return expanded
    user = path.partition(os.sep)[0]
    if user != "~" and os.path.lexists(path):
        return path
    whose = f"there is no user {user[1:]}" if user[1:] else "the environment has no home folder"
    raise ValueError(f"{path}: {whose}. For a file or folder of exactly that name, write ./{path}")
