"""Figures of a routed data set: pure functions of a Corpus -> plotly Figure, no input or output.

Try it: class_lift(corpus, "encoder.1").show()
"""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.specialization import class_counts, drop_rate_by_position, lift
from switch_model.grid.layer_names import layer_title
from switch_model.plots.style import HOVER_PERCENT, IN_PERCENT, LINES, SHARES, colour_bar, plain, styled, three_ticks

# Less often than over all texts, as often, more often.
_LIFT = ((0.0, "rgba(201,138,43,1)"), (0.5, "rgba(128,128,128,0.06)"), (1.0, "rgba(64,120,176,1)"))


def layer_loads(corpus: Corpus) -> go.Figure:
    """Heat map of every expert's load in every layer, as a multiple of an even share."""
    load = np.array([one["load"] for one in corpus.measures]) * corpus.num_experts
    highest = max(2, math.ceil(load.max()))
    figure = go.Figure(
        go.Heatmap(
            z=load.round(3),
            x=[str(expert) for expert in range(corpus.num_experts)],
            y=[layer_title(name) for name in corpus.layers],
            zmin=0,
            zmax=highest,
            colorscale=SHARES,
            xgap=1,
            ygap=1,
            texttemplate="%{z:.1f}" if corpus.num_experts <= 16 else None,
            hovertemplate="%{y}, expert %{x}: %{z:.2f} × an even share<extra></extra>",
            showscale=corpus.num_experts > 16,
            colorbar=colour_bar("× an even share") | three_ticks(0, highest),
        )
    )
    return _over_experts(figure, 30 * len(corpus.layers) + 60)


def class_lift(corpus: Corpus, layer: str) -> go.Figure:
    """Heat map of log2 lift: a row per class, a column per expert; 0 = as over all texts."""
    counts = class_counts(corpus, layer)
    values = lift(counts)
    most = max(1, math.ceil(np.nanmax(np.abs(values))))
    figure = go.Figure(
        go.Heatmap(
            z=values.round(3),
            x=[str(expert) for expert in range(corpus.num_experts)],
            y=[plain(name) for name in corpus.classes],
            zmin=-most,
            zmax=most,
            colorscale=_LIFT,
            xgap=1,
            ygap=1,
            customdata=[[*zip(*row, strict=True)] for row in zip(counts.tolist(), _signed(values, 2), strict=True)],
            text=_signed(values, 1),
            texttemplate="%{text}" if corpus.num_experts <= 16 else None,
            hovertemplate="%{y}, expert %{x}: log2 lift %{customdata[1]} (%{customdata[0]:,} tokens)<extra></extra>",
            colorbar=colour_bar("log2 lift") | three_ticks(-most, most),
        )
    )
    # As categories even where the names are numbers or dates.
    return _over_experts(figure, min(28 * len(corpus.classes), 600) + 70).update_yaxes(type="category")


def drops_by_position(corpus: Corpus) -> go.Figure:
    """A line per layer: the drop rate against the position in the text."""
    figure = go.Figure()
    for index, layer in enumerate(corpus.layers):
        stretches = drop_rate_by_position(corpus, layer)
        figure.add_scatter(
            x=[(first + last) / 2 for first, last, _ in stretches],
            y=[100 * rate for *_, rate in stretches],
            name=layer_title(layer),
            mode="lines+markers",
            line={"color": LINES[index % len(LINES)], "width": 2},
            marker={"size": 5},
            customdata=[f"tokens {first} to {last}" for first, last, _ in stretches],
            hovertemplate=f"%{{customdata}}: {HOVER_PERCENT}<extra>%{{fullData.name}}</extra>",
        )
    figure.update_yaxes(rangemode="tozero", title="dropped", **IN_PERCENT)
    return _with_legend(figure, 240, x="position in the text")


def right_and_wrong_loads(loads: np.ndarray) -> go.Figure:
    """Bars of (2, E) expert loads over correctly and wrongly predicted texts, side by side."""
    figure = go.Figure()
    for name, load, colour in zip(("right", "wrong"), loads, (LINES[0], LINES[1]), strict=True):
        experts = [str(expert) for expert in range(len(load))]
        hover = f"expert %{{x}}: {HOVER_PERCENT}<extra>{name}</extra>"
        figure.add_bar(x=experts, y=100 * load, name=name, marker={"color": colour}, hovertemplate=hover)
    figure.update_yaxes(title="share of tokens", **IN_PERCENT)
    return _with_legend(figure.update_xaxes(_experts(loads.shape[1])), 220, x="expert")


def _signed(values: np.ndarray, digits: int) -> list[list[str]]:
    """Numbers with a sign, a minus as wide as the plus; "" for NaN."""
    return [["" if np.isnan(one) else f"{one:+.{digits}f}".replace("-", "−") for one in row] for row in values]


def _over_experts(figure: go.Figure, height: int) -> go.Figure:
    """A heat map with a column per expert, its first row on top."""
    figure.update_xaxes(_experts(len(figure.data[0].x)), title="expert").update_yaxes(autorange="reversed")
    return styled(figure, height, hovermode="closest", grid=False)


def _experts(count: int) -> dict[str, Any]:
    """An axis of experts. As names, plotly shows every one if there is room, but packs many too closely."""
    return {"type": "category", "tickangle": 0} if count <= 16 else {"tickangle": 0}


def _with_legend(figure: go.Figure, height: int, x: str) -> go.Figure:
    figure.update_xaxes(title=x)
    return styled(figure, height, hovermode="closest", grid=False).update_layout(showlegend=True)
