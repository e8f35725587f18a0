"""Figures of a routed data set: pure functions of a Corpus -> plotly Figure, no input or output.

Backgrounds are transparent and colours readable on light and dark pages, as in routing.py.
Try it: class_lift(corpus, "encoder.1").show()
"""

import numpy as np
import plotly.graph_objects as go

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.layer_names import layer_title
from switch_model.analysis.specialization import class_counts, drop_rate_by_position, lift

_INK = "#7d8590"
_LOAD = ((0.0, "rgba(64,120,176,0.04)"), (0.5, "rgba(64,120,176,0.5)"), (1.0, "rgba(64,120,176,1)"))
# Less often, as everywhere, more often.
_LIFT = ((0.0, "rgba(201,138,43,1)"), (0.5, "rgba(128,128,128,0.06)"), (1.0, "rgba(64,120,176,1)"))
_LINES = ("#4078b0", "#c98a2b", "#3fae8c", "#d07aa8", "#8c6bb1", "#b4543f", "#7d8590", "#a3a000")


def layer_loads(corpus: Corpus) -> go.Figure:
    """Heat map of every expert's load in every layer, as a multiple of an even share."""
    load = np.array([one["load"] for one in corpus.measures]) * corpus.num_experts
    figure = go.Figure(
        go.Heatmap(
            z=load.round(3),
            x=[str(expert) for expert in range(corpus.num_experts)],
            y=[layer_title(name) for name in corpus.layers],
            zmin=0,
            zmax=max(2.0, float(load.max())),
            colorscale=_LOAD,
            xgap=1,
            ygap=1,
            texttemplate="%{z:.1f}" if corpus.num_experts <= 16 else None,
            hovertemplate="%{y}, expert %{x}: %{z:.2f} × an even share<extra></extra>",
            showscale=corpus.num_experts > 16,
            colorbar={"thickness": 8, "outlinewidth": 0},
        )
    )
    return _plain(figure, 30 * len(corpus.layers) + 60, x="expert", reverse=True)


def class_lift(corpus: Corpus, layer: str) -> go.Figure:
    """Heat map of log2 lift: a row per class, a column per expert; 0 = the class uses the expert as all texts do."""
    counts = class_counts(corpus, layer)
    values = lift(counts)
    most = max(1.0, float(np.nanmax(np.abs(values))))
    figure = go.Figure(
        go.Heatmap(
            z=values.round(3),
            x=[str(expert) for expert in range(corpus.num_experts)],
            y=[_escaped(name) for name in corpus.classes],
            zmin=-most,
            zmax=most,
            colorscale=_LIFT,
            xgap=1,
            ygap=1,
            customdata=counts,
            text=[["" if np.isnan(value) else f"{value:+.1f}" for value in row] for row in values],
            texttemplate="%{text}" if corpus.num_experts <= 16 else None,
            hovertemplate="%{y}, expert %{x}: log2 lift %{z:+.2f} (%{customdata:,} tokens)<extra></extra>",
            colorbar={
                "thickness": 8,
                "outlinewidth": 0,
                "tickfont": {"size": 11},
                "title": {"text": "log2 lift", "side": "top", "font": {"size": 11}},
            },
        )
    )
    # As names also where they are numbers or days.
    return _plain(figure, min(28 * len(corpus.classes), 600) + 70, x="expert", reverse=True).update_yaxes(
        type="category"
    )


def drops_by_position(corpus: Corpus) -> go.Figure:
    """A line per layer: the drop rate against the position in the text."""
    figure = go.Figure()
    for index, layer in enumerate(corpus.layers):
        stretches = drop_rate_by_position(corpus, layer)
        figure.add_scatter(
            x=[(first + last) / 2 for first, last, _ in stretches],
            y=[rate for *_, rate in stretches],
            name=layer_title(layer),
            mode="lines+markers",
            line={"color": _LINES[index % len(_LINES)], "width": 2},
            marker={"size": 5},
            customdata=[f"tokens {first} to {last}" for first, last, _ in stretches],
            hovertemplate="%{customdata}: %{y:.1%}<extra>%{fullData.name}</extra>",
        )
    figure.update_yaxes(tickformat=".0%", rangemode="tozero", title="dropped")
    return _plain(figure, 240, x="position in the text", legend=True)


def right_and_wrong_loads(loads: np.ndarray) -> go.Figure:
    """(2, E) load of the experts over texts predicted right and wrong, side by side."""
    figure = go.Figure()
    for name, load, colour in zip(("right", "wrong"), loads, (_LINES[0], _LINES[1]), strict=True):
        figure.add_bar(x=[str(expert) for expert in range(len(load))], y=load, name=name, marker={"color": colour})
    figure.update_yaxes(tickformat=".0%", title="share of tokens")
    return _plain(figure, 220, x="expert", legend=True)


def _plain(figure: go.Figure, height: int, x: str, reverse: bool = False, legend: bool = False) -> go.Figure:
    figure.update_xaxes(title=x, showgrid=False, zeroline=False)
    figure.update_yaxes(showgrid=False, zeroline=False, autorange="reversed" if reverse else None)
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 8, "t": 8, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _INK, "size": 12, "family": "system-ui, sans-serif"},
        dragmode=False,
        showlegend=legend,
        legend={"orientation": "h", "y": 1.12, "x": 0},
    )
    return figure


def _escaped(name: str) -> str:
    """Plotly reads a little HTML, which a class name must not become."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
