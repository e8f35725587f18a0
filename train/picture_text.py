"""Texts in matplotlib figures: unchanged, or replaced by a number where the fonts lack their letters.

Try it: names_for_picture(["good", "好"]), with text_as_written(): plt.title("$5 to $9")
"""

import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib import font_manager, ft2font

from train.formatting import NO_BREAK, one_line, shortened

LONGEST_NAME = 30
# Included in matplotlib.
FONT = "DejaVu Sans"
# Further fonts, used where installed.
MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic",
    "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu",
    "Noto Sans Thai", "Lohit Devanagari", "Nirmala UI", "Leelawadee UI", "Noto Sans", "Symbola",
)  # fmt: skip
# Hebrew to Myanmar, and Khmer: letter shapes depend on their neighbours, or text runs from right to left.
JOINED_SCRIPTS = ((0x0590, 0x109F), (0x1780, 0x17FF), (0xFB1D, 0xFDFF), (0xFE70, 0xFEFC))
JOINS_LETTERS = hasattr(ft2font, "__libraqm_version__")


def text_as_written() -> AbstractContextManager[None]:
    """Context in which figures are drawn and saved: no text is parsed as a formula, and all fonts that `drawable` knows
    are used."""
    return matplotlib.rc_context({"text.parse_math": False, "font.family": [FONT, *_letters()]})


def as_written() -> dict[str, Any]:
    """The same for a single text, as arguments of matplotlib's text: thread-safe."""
    return {"parse_math": False, "family": [FONT, *_letters()]}


def as_percent(share: float, place: int | None = None) -> str:
    """A share at a tick of an axis or a colour bar, as matplotlib asks for it."""
    return f"{100 * share:.4g}{NO_BREAK}%"


def drawable(text: str) -> bool:
    """Whether the fonts have all letters of a text."""
    own = _own_letters()
    return all(
        (ord(letter) in own or any(ord(letter) in letters for letters in _letters().values()))
        and (JOINS_LETTERS or not any(first <= ord(letter) <= last for first, last in JOINED_SCRIPTS))
        for letter in text
        if unicodedata.category(letter) != "Cf"
    )


def names_for_picture(names: Sequence[str]) -> list[str]:
    """Each name as one short line, or as "class 3" where its letters can't be drawn."""
    return [
        shortened(name, LONGEST_NAME) if drawable(one_line(name)) else f"class {number}"
        for number, name in enumerate(names, 1)
    ]


def drawable_only(text: str) -> str:
    """A text for a title, with … for words that can't be drawn."""
    words = (word if drawable(word) else "…" for word in one_line(text).split(" "))
    return " ".join(word for word in words)


def told_by_number(names: Iterable[str], shown: Iterable[str]) -> list[str]:
    """ "class 3: name" for each name that was replaced by its number: a key to the figure."""
    return [f"{short}: {name}" for name, short in zip(names, shown, strict=True) if not drawable(one_line(name))]


@lru_cache(maxsize=1)
def _own_letters() -> frozenset[int]:
    return frozenset(ft2font.FT2Font(font_manager.findfont(FONT)).get_charmap())


@lru_cache(maxsize=1)
def _letters() -> dict[str, frozenset[int]]:
    """The letters of every further font that this machine has."""
    files = {font.name: font.fname for font in font_manager.fontManager.ttflist if font.name in MORE_FONTS}
    found = {}
    for name in MORE_FONTS:
        try:
            if name in files:
                found[name] = frozenset(ft2font.FT2Font(files[name]).get_charmap())
        except (OSError, RuntimeError):  # A font that matplotlib lists, but can't open.
            continue
    return found
