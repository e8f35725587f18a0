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

from switch_model import Prediction
from switch_model.analysis.layer_names import layer_label
from switch_model.inference.traces import TokenTrace
from train.picture_text import as_written, drawable, drawable_only
from ui.cards.written import grid_of, words_of_changes
from ui.components.expert_panel import words_of_view
from ui.components.routing_grid import grid_value
from ui.look.palette import CELL_INK, expert_colour
from ui.views.output_view import OutputView
from ui.views.view import View

# Inches: a cell's height, its least width, and a character's.
_HEIGHT, _LEAST, _CHARACTER = 0.26, 0.3, 0.085
_WIDTH, _GUTTER, _GAP = 11.0, 0.75, 0.05
# Of words: a line's height, a character's width, and how many fit beside each other.
_LINE, _LETTER, _FITTING = 0.17, 0.058, 180
_DIM = "#666d78"
LACKING = "#n: the n-th token, whose letters the fonts of this picture lack; the SVG has them."


@dataclass(frozen=True)
class _Band:
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


def _laid_out(view: View | OutputView) -> list[_Band]:
    """Every stack; the page's own grid value says what its cells hold."""
    if isinstance(view, OutputView):
        value = grid_of(view)
    else:
        value = grid_value(view.prediction, view.place, view.base if view.changed else None)
    layers, start, found = iter(value["layers"]), 0, []
    for band in view.bands:
        own = [next(layers) for _ in band.routing]
        labels = [layer_label(record.name, len(view.bands) > 1) for record in band.routing]
        found.append(_band(band, labels, own, start))
        start += len(band.tokens)
    return found


def _band(band: Prediction | TokenTrace, labels: list[str], layers: list[dict[str, Any]], start: int) -> _Band:
    tokens = [token.strip() or "␣" for token in band.tokens]
    widths = [max(_LEAST, _CHARACTER * min(len(token), 24) + 0.1) for token in tokens]
    return _Band(tokens, widths, _lines(widths), labels, layers, start)


def draw_grid(view: View | OutputView, kind: Literal["svg", "png"], title: str) -> bytes:
    """The picture's file content: white background, as wide as a page, as high as the text needs.

    Args:
        title: the model's name for people, for the legend.
    """
    bands, said = _laid_out(view), _in_words(view, title)
    # In an SVG text stays text, for the fonts of whoever opens it; a PNG has matplotlib's own, which lack some scripts.
    if kind == "png":
        lacking = not all(drawable(token) for band in bands for token in band.tokens)
        said = [drawable_only(line) for line in said] + [LACKING] * lacking
        bands = [replace(band, tokens=_numbered(band.tokens)) for band in bands]
    height = max(sum(len(band.lines) * band.line_height for band in bands), 0.5) + 0.2 + (len(said) + 1) * _LINE
    figure = Figure(figsize=(_WIDTH, height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    top = 0.05
    for band in bands:
        for line in band.lines:
            for row, label in enumerate(band.labels):
                axes.text(0.05, top + (row + 1.5) * _HEIGHT, label, va="center", size=7, color=_DIM)
            left = _GUTTER
            for token in line:
                width = band.widths[token]
                middle = (left + width / 2, top + _HEIGHT / 2)
                axes.text(*middle, band.tokens[token][:24], ha="center", va="center", size=7, **as_written())
                for row, layer in enumerate(band.layers):
                    at = band.start + token
                    expert = None if layer["capacity"] == 0 else layer["expert"][at]
                    changed = bool(layer["before"] and layer["before"][at])
                    _cell(axes, left, top + (row + 1) * _HEIGHT, width, expert, bool(layer["dropped"][at]), changed)
                left += width + _GAP
            top += band.line_height
    _legend(axes, top, said, bands)
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


def _in_words(view: View | OutputView, title: str) -> list[str]:
    """The model and what was changed, in lines that fit."""
    changes = words_of_changes(view) if isinstance(view, OutputView) else words_of_view(view)
    said = f"{title}. Changed: {' · '.join(changes)}." if changes else f"{title}, nothing changed."
    return textwrap.wrap(said, _FITTING)


def _legend(axes: Any, top: float, said: list[str], bands: list[_Band]) -> None:
    """What the marks in the picture mean, and below it the given lines."""
    keys = [("expert", None), ("dropped: the queue was full, no expert reads the token", "dropped")]
    if any(layer["before"] for band in bands for layer in band.layers):
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
