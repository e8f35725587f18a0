"""The routing grid as a picture to keep: SVG or PNG, drawn without a browser.

Try it: draw_grid(view, "svg", "AG News")
"""

import io
import textwrap
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from switch_model.grid.layer_names import layer_label
from switch_model.grid.palette import CELL_INK, expert_colour
from switch_model.grid.tokens import visible
from train.picture_text import as_written, drawable, drawable_only
from ui.views.changes import words_of_changes
from ui.views.view import View

# Inches: a cell's height, its least width, and a character's.
_HEIGHT, _LEAST, _CHARACTER = 0.26, 0.3, 0.085
_WIDTH, _GUTTER, _GAP = 11.0, 0.75, 0.05
# Of words: a line's height, a character's width, and how many fit beside each other.
_LINE, _LETTER, _FITTING = 0.17, 0.058, 180
_DIM = "#666d78"
LACKING = "#n: the n-th token, whose letters the fonts of this picture lack; the SVG has them."


@dataclass(frozen=True)
class _Stack:
    """One stack's tokens on their lines, in inches; its layers' names and what the grid on the page shows of each."""

    tokens: list[str]
    widths: list[float]
    lines: list[list[int]]
    labels: list[str]
    layers: list[dict[str, Any]]
    start: int

    @property
    def line_height(self) -> float:
        return (len(self.layers) + 1) * _HEIGHT + 0.16


def _laid_out(view: View) -> list[_Stack]:
    """Every stack; the page's own grid value says what its cells hold."""
    layers, start, found = iter(view.grid(plain=True)["layers"]), 0, []
    for trace in view.traces:
        tokens = [visible(token) for token in trace.tokens]
        widths = [max(_LEAST, _CHARACTER * min(len(token), 24) + 0.1) for token in tokens]
        labels = [layer_label(record.name, view.two_stacks) for record in trace.routing]
        found.append(_Stack(tokens, widths, _lines(widths), labels, [next(layers) for _ in trace.routing], start))
        start += len(tokens)
    return found


def draw_grid(view: View, kind: Literal["svg", "png"], title: str) -> bytes:
    """The picture's file content: white background, as wide as a page, as high as the text needs.

    Args:
        title: the model's name for people, for the legend.
    """
    stacks, said = _laid_out(view), _in_words(view, title)
    # In an SVG text stays text, for the fonts of whoever opens it; a PNG has matplotlib's own, which lack some scripts.
    if kind == "png":
        lacking = not all(drawable(token) for stack in stacks for token in stack.tokens)
        said = [drawable_only(line) for line in said] + [LACKING] * lacking
        stacks = [replace(stack, tokens=_numbered(stack.tokens)) for stack in stacks]
    height = max(sum(len(stack.lines) * stack.line_height for stack in stacks), 0.5) + 0.2 + (len(said) + 1) * _LINE
    figure = Figure(figsize=(_WIDTH, height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    top = 0.05
    for stack in stacks:
        for line in stack.lines:
            for row, label in enumerate(stack.labels):
                axes.text(0.05, top + (row + 1.5) * _HEIGHT, label, va="center", size=7, color=_DIM)
            left = _GUTTER
            for token in line:
                width = stack.widths[token]
                middle = (left + width / 2, top + _HEIGHT / 2)
                axes.text(*middle, stack.tokens[token][:24], ha="center", va="center", size=7, **as_written())
                for row, layer in enumerate(stack.layers):
                    at = stack.start + token
                    expert = None if layer["capacity"] == 0 else layer["expert"][at]
                    changed = bool(layer["before"] and layer["before"][at])
                    _cell(axes, left, top + (row + 1) * _HEIGHT, width, expert, bool(layer["dropped"][at]), changed)
                left += width + _GAP
            top += stack.line_height
    _legend(axes, top, said, stacks)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(content, format=kind, facecolor="white", metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _cell(
    axes: Any, left: float, top: float, width: float, expert: int | None, dropped: bool, changed: bool = False
) -> None:
    """A cell as on the page: dropped ones striped and struck, changed ones framed; `expert` None = all are off."""
    colour = "#e5e2da" if expert is None else expert_colour(expert)
    height, striped = _HEIGHT - 0.03, dropped and expert is not None
    axes.add_patch(
        Rectangle(
            (left, top + 0.01),
            width,
            height,
            facecolor=colour,
            alpha=0.45 if striped else 1,
            hatch="////" if striped else None,
            edgecolor=CELL_INK if striped else "none",
            linewidth=0.4,
        )
    )
    if changed:
        inset = 0.012
        size = (width - 2 * inset, height - 2 * inset)
        axes.add_patch(
            Rectangle((left + inset, top + 0.01 + inset), *size, fill=False, edgecolor=CELL_INK, linewidth=1.6)
        )
    x, y, name = left + width / 2, top + _HEIGHT / 2, "–" if expert is None else str(expert)
    axes.text(x, y, name, ha="center", va="center", size=7, weight="bold", color=CELL_INK)
    if striped:
        half = 0.04 * len(name) + 0.02
        axes.plot([x - half, x + half], [y, y], color=CELL_INK, linewidth=1.1)


def _in_words(view: View, title: str) -> list[str]:
    """The model and what was changed, in lines that fit."""
    changes = words_of_changes(view)
    said = f"{title}. Changed: {' · '.join(changes)}." if changes else f"{title}, nothing changed."
    return textwrap.wrap(said, _FITTING)


def _legend(axes: Any, top: float, said: list[str], stacks: list[_Stack]) -> None:
    """What the marks in the picture mean, and below it the given lines."""
    keys = [("expert", None)]
    if any(layer["capacity"] for stack in stacks for layer in stack.layers):
        keys.append(("dropped: the expert’s buffer was full, no expert reads the token", "dropped"))
    if any(layer["before"] for stack in stacks for layer in stack.layers):
        keys.append(("another route than before", "changed"))
    left = 0.05
    for words, mark in keys:
        _cell(axes, left, top - 0.06, _LEAST, 2, mark == "dropped", mark == "changed")
        axes.text(left + _LEAST + 0.06, top - 0.06 + _HEIGHT / 2, words, va="center", size=7, color=_DIM)
        left += _LEAST + 0.3 + _LETTER * len(words)
    for row, line in enumerate(said):
        axes.text(0.05, top + 0.1 + (row + 1) * _LINE, line, va="center", size=7, color=_DIM, **as_written())


def _numbered(tokens: list[str]) -> list[str]:
    return [token if drawable(token) else f"#{place}" for place, token in enumerate(tokens, 1)]


def _lines(widths: list[float]) -> list[list[int]]:
    """Tokens line by line, as many as fit."""
    lines: list[list[int]] = [[]]
    used = _GUTTER
    for token, width in enumerate(widths):
        if used + width > _WIDTH - 0.05 and lines[-1]:
            lines.append([])
            used = _GUTTER
        lines[-1].append(token)
        used += width + _GAP
    return lines
