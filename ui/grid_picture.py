"""The routing grid as a picture to keep: SVG or PNG, drawn without a browser.

Try it: draw_grid(view, "svg")
"""

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from switch_model import Prediction, Routing
from switch_model.bands import Band
from switch_model.routing import layer_label
from ui.output_view import OutputView
from ui.palette import CELL_INK, expert_colour
from ui.view import View

# Inches: a cell's height, its least width, and a character's.
_HEIGHT, _LEAST, _CHARACTER = 0.26, 0.3, 0.085
_WIDTH, _GUTTER, _GAP = 11.0, 0.75, 0.05


@dataclass(frozen=True)
class _Band:
    """One stack's tokens on their lines; inches."""

    tokens: list[str]
    widths: list[float]
    lines: list[list[int]]
    records: tuple[Routing, ...]

    @property
    def line_height(self) -> float:
        return (len(self.records) + 1) * _HEIGHT + 0.16


def _laid_out(band: Prediction | Band) -> _Band:
    tokens = [token.strip() or "␣" for token in band.tokens]
    widths = [max(_LEAST, _CHARACTER * min(len(token), 24) + 0.1) for token in tokens]
    return _Band(tokens, widths, _lines(widths), band.routing)


def draw_grid(view: View | OutputView, kind: Literal["svg", "png"]) -> bytes:
    """The picture's file content: white background, as wide as a page, as high as the text needs."""
    bands = [_laid_out(band) for band in view.bands]
    height = max(sum(len(band.lines) * band.line_height for band in bands), 0.5) + 0.1
    figure = Figure(figsize=(_WIDTH, height), dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    top = 0.05
    for band in bands:
        routes = [(record.expert[0].tolist(), record.dropped[0].tolist()) for record in band.records]
        for line in band.lines:
            for row, record in enumerate(band.records):
                place = top + (row + 1.5) * _HEIGHT
                axes.text(0.05, place, layer_label(record.name, len(bands) > 1), va="center", size=7, color="#666d78")
            left = _GUTTER
            for token in line:
                width = band.widths[token]
                # Dollar signs would start a formula.
                name = band.tokens[token][:24].replace("$", r"\$")
                axes.text(left + width / 2, top + _HEIGHT / 2, name, ha="center", va="center", size=7)
                for row, (experts, dropped) in enumerate(routes):
                    _cell(axes, left, top + (row + 1) * _HEIGHT, width, experts[token], dropped[token])
                left += width + _GAP
            top += band.line_height
    content = io.BytesIO()
    # In an SVG text stays text, for the fonts of whoever opens it; a PNG has matplotlib's own, which lack some scripts.
    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(content, format=kind, facecolor="white", metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _cell(axes, left: float, top: float, width: float, expert: int, dropped: bool) -> None:
    axes.add_patch(
        Rectangle(
            (left, top + 0.01),
            width,
            _HEIGHT - 0.03,
            facecolor=expert_colour(expert),
            alpha=0.45 if dropped else 1,
            hatch="////" if dropped else None,
            edgecolor=CELL_INK if dropped else "none",
            linewidth=0.4,
        )
    )
    middle = (left + width / 2, top + _HEIGHT / 2)
    axes.text(*middle, str(expert), ha="center", va="center", size=7, weight="bold", color=CELL_INK)


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
