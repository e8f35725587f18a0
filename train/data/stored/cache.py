"""Folders of what is made from data once and found again by later runs.

Try it: cache_folder("tables")
"""

import os
from pathlib import Path

CACHE = "SWITCH_CACHE_DIR"


def cache_folder(kind: str) -> Path:
    """A folder in SWITCH_CACHE_DIR, or in the user's cache: "packed" for streams of tokens, "tables" for tables that
    are larger than memory."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "switch-transformers") / kind
