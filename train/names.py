"""Names in arguments: several with commas between, and what a path is known by elsewhere."""

from pathlib import Path


def split_names(asked: str | None) -> list[str]:
    """The parts of "a, b", without blanks."""
    return [name.strip() for name in (asked or "").split(",") if name.strip()]


def known_by(path: Path) -> str:
    """What tells a checkpoint or a file from others, without the folders of one machine."""
    return "/".join(path.parts[-2:]) if path.name == "best" else path.name
