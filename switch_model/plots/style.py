"""The style of all plotly figures: colours, font, margins, and escaping of texts.

Backgrounds are transparent and colours readable on light and dark pages. Imported by name only: plotly is slow to load.
Try it: styled(go.Figure(go.Scatter(x=[1, 2], y=[2, 1])), height=300).show()
"""

from html import escape
from typing import Any

import plotly.graph_objects as go

# Contrast of at least 3:1 on white and on near-black; the app's style sheet raises the ink's contrast for each.
INK, GRID, CLEAR = "#7d8590", "rgba(125,133,144,0.22)", "rgba(0,0,0,0)"
FONT = {"color": INK, "size": 12, "family": "system-ui, sans-serif"}
# Lines of layers or classes.
LINES = ("#4078b0", "#c98a2b", "#3fae8c", "#d07aa8", "#8c6bb1", "#b4543f", "#7d8590", "#a3a000")
# Heat maps from 0 to 1: transparent near 0.
SHARES = ((0.0, "rgba(64,120,176,0.05)"), (0.5, "rgba(64,120,176,0.55)"), (1.0, "rgba(64,120,176,1)"))
# An axis or colour bar of shares times 100, and such a number on hovering: as train.formatting.percent writes it.
IN_PERCENT = {"ticksuffix": "\u00a0%"}
HOVER_PERCENT = "%{y:.1f}\u00a0%"
COLOUR_BAR = {"thickness": 8, "outlinewidth": 0, "ticks": "", "tickfont": {"size": 11}}


def colour_bar(unit: str) -> dict[str, Any]:
    """A colour bar with what its numbers are beside it."""
    return COLOUR_BAR | {"title": {"text": unit, "side": "right", "font": {"size": 11}}}


def three_ticks(lowest: float, highest: float) -> dict[str, Any]:
    """Both ends and the middle of a colour bar: as many numbers as the lowest figure has room for."""
    values = [lowest, (lowest + highest) / 2, highest]
    return {"tickvals": values, "ticktext": [f"{value:.3g}".replace("-", "−") for value in values]}


def ground(height: int, left: int = 44, right: int = 12, top: int = 8, bottom: int = 36) -> dict[str, Any]:
    """A layout's size in pixels and its colours. Dragging is off, so that a finger scrolls the page."""
    return {
        "height": height,
        "margin": {"l": left, "r": right, "t": top, "b": bottom},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": FONT,
        "dragmode": False,
    }


def styled(figure: go.Figure, height: int, top: int = 8, hovermode: str | bool = False, grid: bool = True) -> go.Figure:
    """The figure in the page's style; `grid`: whether to draw grid lines."""
    axis = {"gridcolor": GRID, "zeroline": False, "ticks": "", "ticklabelstandoff": 4, "automargin": True}
    axis |= {"title_standoff": 6, "title_font_size": 12} | ({} if grid else {"showgrid": False})
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        ground(height, top=top),
        template="none",
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "bgcolor": CLEAR},
        # Its own background: the plot's is transparent.
        hoverlabel={"bgcolor": "#23272e", "bordercolor": INK, "font": {"color": "#f0eee9"}, "align": "left"},
        hovermode=hovermode,
    )
    return figure


def empty(words: str) -> go.Figure:
    """A message in place of a figure."""
    figure = go.Figure()
    figure.add_annotation(text=words, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return styled(figure, height=120)


def plain(text: str, most: int | None = None) -> str:
    """A text escaped for plotly, which interprets some HTML, and cut to `most` characters."""
    if most is not None and len(text) > most:
        text = text[: most - 1] + "…"
    return escape(text, quote=False)
