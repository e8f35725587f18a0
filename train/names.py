"""Names in arguments: comma-separated lists, and short names of paths."""

from pathlib import Path


def split_names(asked: str | None) -> list[str]:
    """The parts of "a, b", stripped."""
    return [name.strip() for name in (asked or "").split(",") if name.strip()]


def known_by(path: Path) -> str:
    """A short name of a checkpoint or file, without the folders of this machine."""
    return "/".join(path.parts[-2:]) if path.name == "best" else path.name
