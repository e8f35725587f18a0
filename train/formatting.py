"""Format numbers, names and texts for sentences, tables and shell commands.

Try it: listed(["a", "b"]), one_line("two\\nlines"), counted(3, "row", "rows")
"""

import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

MAX_NAME = 40
# Between a number and its unit.
NO_BREAK = "\u00a0"
# Terminal escape sequences, control characters, and marks that change the text direction.
_ESCAPE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")
_UNSEEN = {code: None for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and not chr(code).isspace()}
_UNSEEN |= dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF])


def listed(names: list[str]) -> str:
    """Names for a sentence: the first ten, each shortened."""
    shown = ", ".join(shortened(name, MAX_NAME + 2) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown


def quoted(names: list[str]) -> str:
    """`listed` with quotes, for names of columns, which may look like words of the sentence."""
    return listed([f"'{shortened(name, MAX_NAME)}'" for name in names])


def counted(count: int, one: str, several: str | None = None) -> str:
    """A number with its noun: "1 row", "3 rows"; `several` is an irregular plural."""
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"


def percent(share: float) -> str:
    """A share as every page, report, card and command shows it: "91.9 %" with one decimal and a no-break space.

    "0 %" and "100 %" are exact: what is next to nothing, or not quite all, is "< 0.1 %", "> 99.9 %".
    """
    if share in (0, 1):
        return f"{100 * share:.0f}{NO_BREAK}%"
    if 0 < share < 0.0005 or 0.9995 <= share < 1:
        return f"{'<' if share < 0.5 else '>'}{NO_BREAK}{0.1 if share < 0.5 else 99.9}{NO_BREAK}%"
    return f"{100 * share:.1f}{NO_BREAK}%"


def signed(value: float, digits: int) -> str:
    """A number with its sign, a minus as wide as the plus; "±" where nothing is left of it."""
    value = round(value, digits)
    return f"{'+' if value > 0 else '−' if value < 0 else '±'}{abs(value):.{digits}f}"


def one_line(text: str) -> str:
    """A text safe for a terminal, in one line: line breaks and tabs become spaces, control sequences are removed."""
    if "\x1b" in text:
        text = _ESCAPE.sub("", text)
    return " ".join(text.translate(_UNSEEN).split())


def shortened(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    line = one_line(text[: 2 * length])
    return line if len(line) <= length and len(text) <= 2 * length else line[: length - 1].rstrip() + "…"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Cells as text in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def clock(seconds: float) -> str:
    """3725 -> 1:02:05."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def pasted(path: str | Path) -> str:
    """A path quoted for a shell command."""
    return shlex.quote(str(path))
