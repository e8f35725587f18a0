"""Untrusted JSON files: bounded size, one object, no duplicate keys.

Try it: read_json(Path("assets/models/ag_news/config.json"))
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from switch_model.storage.errors import CheckpointError

# Default limit of one file.
MAX_JSON_BYTES = 1_000_000


def check_size(name: str, size: int, limit: int) -> None:
    """Raise CheckpointError for a file of more than `limit` bytes."""
    if size > limit:
        raise CheckpointError(f"{name} is larger than {limit / 1e6:g} MB.")


def read_json(path: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError when the file is too large, or `parse_json` does."""
    check_size(path.name, path.stat().st_size, limit)
    return parse_json(path.read_bytes(), path.name)


def parse_json(raw: bytes, name: str) -> dict[str, Any]:
    """The object in UTF-8 JSON called `name`. Raises CheckpointError for anything else, and for duplicate keys: parsers
    differ in which value they take.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise CheckpointError(f"{name} has the key {twice[:80]!r} twice.")
        return values

    try:
        values = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not valid JSON.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{name} must hold a JSON object.")
    return values
