"""Figures of routing traces: pure functions -> plotly Figure.

Try it: load_map([one["load"] for one in layer_measures(trace)], trace.layers).show()
"""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from switch_model.grid.layer_names import layer_title
from switch_model.plots.style import IN_PERCENT, LINES, SHARES, colour_bar, plain, styled, three_ticks
from switch_model.traces.agreement import LayerAgreement


def load_map(load: Sequence[Sequence[float]], layers: Sequence[str]) -> go.Figure:
    """Heat map, a row per layer and a column per expert: load as a multiple of an even share, (L, E)."""
    values = np.array(load) * len(load[0])
    highest = max(2, math.ceil(np.quantile(values, 0.99)))
    figure = go.Figure(
        go.Heatmap(
            z=values.round(3),
            y=[plain(layer_title(name)) for name in layers],
            zmin=0,
            zmax=highest,
            colorscale=SHARES,
            colorbar=colour_bar("× an even share") | three_ticks(0, highest),
            hovertemplate="%{y}, expert %{x}: %{z:.2f} × an even share<extra></extra>",
        )
    )
    figure = styled(figure, height=min(max(14 * len(load), 120), 700) + 60, hovermode="closest", grid=False)
    return figure.update_yaxes(autorange="reversed", type="category").update_xaxes(title="expert")


def agreement_by_position(found: Sequence[LayerAgreement]) -> go.Figure:
    """Heat map, a row per layer and a column per tenth of the text: share of the experts that both chose."""
    figure = go.Figure(
        go.Heatmap(
            z=100 * np.array([one.by_position for one in found]),
            x=[f"{start}–{start + 10} %" for start in range(0, 100, 10)],
            y=[plain(layer_title(one.layer)) for one in found],
            zmin=0,
            zmax=100,
            colorscale=SHARES,
            colorbar=colour_bar("% the same") | three_ticks(0, 100),
            hovertemplate="%{y}, %{x} of the text: %{z:.1f} % the same experts<extra></extra>",
        )
    )
    figure = styled(figure, height=min(max(14 * len(found), 90), 700) + 60, hovermode="closest", grid=False)
    return figure.update_yaxes(autorange="reversed", type="category").update_xaxes(
        type="category", title="position in the text"
    )


def agreement_by_layer(found: Sequence[LayerAgreement], top_k: int) -> go.Figure:
    """Overlap of the chosen experts over the layers, of several also of the first ones, and chance."""
    figure = go.Figure()
    names = [plain(layer_title(one.layer)) for one in found]
    lines = [([one.overlap for one in found], "same experts")]
    lines += [([one.same_first for one in found], "same first choice")] if top_k > 1 else []
    for index, (values, name) in enumerate(lines):
        values = [100 * value for value in values]
        figure.add_scatter(x=names, y=values, name=name, mode="lines+markers", line={"color": LINES[index]})
    chance = [100 * one.overlap_chance for one in found]
    figure.add_scatter(x=names, y=chance, name="same experts by chance", line={"color": LINES[6], "dash": "dot"})
    figure = styled(figure, height=300, top=34, hovermode="x unified")
    return figure.update_yaxes(range=[0, 102], hoverformat=".1f", **IN_PERCENT).update_xaxes(type="category")
