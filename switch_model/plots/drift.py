"""Figures of one text over the checkpoints of a run: pure functions of records and scores -> plotly Figure.

Backgrounds are transparent and colours readable on light and dark pages, as in routing.py.
Try it: saturation_curves([10, 20, 30], [prediction.routing for prediction in predictions]).show()
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from switch_model.analysis.layer_names import layer_title
from switch_model.analysis.statistics import saturation
from switch_model.routing import Routing

_INK, _GRID = "#7d8590", "rgba(125,133,144,0.22)"
_LINES = ("#4078b0", "#c98a2b", "#3fae8c", "#d07aa8", "#8c6bb1", "#b4543f", "#7d8590", "#a3a000")
# Classes that get a line: more can't be told apart.
MAX_CLASSES = len(_LINES)
MAX_NAME = 24


def saturation_curves(steps: Sequence[int], records: Sequence[Sequence[Routing]]) -> go.Figure:
    """Per sparse layer, the share of tokens routed as at the last checkpoint; thin and dotted, what chance would give.

    Args:
        steps: of the checkpoints, ascending.
        records: for each step, one record per sparse layer, of the same texts.
    """
    figure = go.Figure()
    shares = [saturation(one, records[-1]) for one in records]
    for layer, record in enumerate(records[-1]):
        title, colour = layer_title(record.name), _LINES[layer % len(_LINES)]
        alike, chance = zip(*(share[layer] for share in shares), strict=True)
        figure.add_trace(_line(title, steps, alike, colour, "routed as at the last step"))
        figure.add_trace(_line(title, steps, chance, colour, "by chance", faint=True))
    return _styled(figure)


def score_curves(steps: Sequence[int], scores: Sequence[Mapping[str, float]]) -> go.Figure:
    """A line per class: its probability over steps. Of many classes, those that were most probable at some step."""
    peaks = {name: max(one[name] for one in scores) for name in scores[-1]}
    shown = sorted(sorted(peaks, key=peaks.get, reverse=True)[:MAX_CLASSES], key=list(peaks).index)
    figure = go.Figure()
    for index, name in enumerate(shown):
        figure.add_trace(_line(_plain(name), steps, [one[name] for one in scores], _LINES[index], "probability"))
    return _styled(figure)


def _line(
    name: str, steps: Sequence[int], shares: Sequence[float], colour: str, what: str, faint: bool = False
) -> go.Scatter:
    return go.Scatter(
        x=list(steps),
        y=[round(share, 4) for share in shares],
        name=name,
        legendgroup=name,
        showlegend=not faint,
        mode="lines" if faint else "lines+markers",
        line={"color": colour, "width": 1.2 if faint else 2.2, "dash": "dot" if faint else "solid"},
        marker={"size": 5},
        hovertemplate=f"{name}, step %{{x:,}}<br>{what}: %{{y:.1%}}<extra></extra>",
        cliponaxis=False,
    )


def _styled(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(
        title={"text": "step", "font": {"size": 12}}, showgrid=False, zeroline=False, tickformat=",d", automargin=True
    )
    figure.update_yaxes(range=[0, 1], tickformat=".0%", gridcolor=_GRID, zeroline=False, automargin=True)
    figure.update_layout(
        template="none",
        height=300,
        margin={"l": 44, "r": 12, "t": 8, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _INK, "size": 12, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "x": 0, "y": 1.04, "xanchor": "left", "yanchor": "bottom"},
        showlegend=True,
        hovermode="closest",
        dragmode=False,
    )
    return figure


def _plain(name: str) -> str:
    """A class's name as plotly shows it: it reads a little HTML, which a name must not become."""
    name = name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
