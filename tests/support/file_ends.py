"""Text files end with one line break: python tests/support/file_ends.py FILE …

It mends those that do not; exit status 1 where there was one.
"""

import sys
from pathlib import Path


def mend(path: Path) -> bool:
    """Whether the file had to be changed. An empty one stays empty."""
    content = path.read_bytes()
    ended = content.rstrip(b"\r\n") + b"\n" if content.strip() else b""
    if ended == content or (content.endswith(b"\r\n") and ended[:-1] + b"\r\n" == content):
        return False
    path.write_bytes(ended)
    return True


if __name__ == "__main__":
    changed = [name for name in sys.argv[1:] if mend(Path(name))]
    print("\n".join(f"{name}: its end was mended" for name in changed), end="\n" if changed else "")
    sys.exit(bool(changed))
