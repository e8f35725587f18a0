"""A path as people write it -> one that can be opened: ~ and ~user are homes, file:// is this disk.

Whatever takes a path from outside asks here once: flags, config files, the page's boxes, load_checkpoint.
Try it: local_path("~/runs/toy")
"""

import os
import re
from urllib.parse import unquote

_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(?=/)", re.IGNORECASE)


def local_path(given: str | os.PathLike[str]) -> str:
    """The path meant. A name that is none, such as a hub id, comes back as it is.

    Raises ValueError for a home that nobody knows: a folder called "~" would be a surprise.
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
    whose = f"there is no user {user[1:]}" if user[1:] else "the environment names no home"
    raise ValueError(f"{path}: {whose}. For a file or folder of that very name, write ./{path}")
