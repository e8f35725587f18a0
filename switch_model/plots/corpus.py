"""Figures of a routed data set: pure functions of a Corpus -> plotly Figure, no input or output.

Try it: class_lift(corpus, "encoder.1").show()
"""

import numpy as np
import plotly.graph_objects as go

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.layer_names import layer_title
from switch_model.analysis.specialization import class_counts, drop_rate_by_position, lift
from switch_model.plots.style import COLOUR_BAR, HOVER_PERCENT, IN_PERCENT, LINES, SHARES, plain, styled

# Less often than over all texts, as often, more often.
_LIFT = ((0.0, "rgba(201,138,43,1)"), (0.5, "rgba(128,128,128,0.06)"), (1.0, "rgba(64,120,176,1)"))


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
            colorscale=SHARES,
            xgap=1,
            ygap=1,
            texttemplate="%{z:.1f}" if corpus.num_experts <= 16 else None,
            hovertemplate="%{y}, expert %{x}: %{z:.2f} × an even share<extra></extra>",
            showscale=corpus.num_experts > 16,
            colorbar=COLOUR_BAR,
        )
    )
    return _over_experts(figure, 30 * len(corpus.layers) + 60)


def class_lift(corpus: Corpus, layer: str) -> go.Figure:
    """Heat map of log2 lift: a row per class, a column per expert; 0 = as over all texts."""
    counts = class_counts(corpus, layer)
    values = lift(counts)
    most = max(1.0, float(np.nanmax(np.abs(values))))
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
            customdata=counts,
            text=[["" if np.isnan(value) else f"{value:+.1f}" for value in row] for row in values],
            texttemplate="%{text}" if corpus.num_experts <= 16 else None,
            hovertemplate="%{y}, expert %{x}: log2 lift %{z:+.2f} (%{customdata:,} tokens)<extra></extra>",
            colorbar=COLOUR_BAR | {"title": {"text": "log2 lift", "side": "top", "font": {"size": 11}}},
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
    return _with_legend(figure, 220, x="expert")


def _over_experts(figure: go.Figure, height: int) -> go.Figure:
    """A heat map with a column per expert, its first row on top."""
    figure.update_xaxes(title="expert").update_yaxes(autorange="reversed")
    if len(figure.data[0].x) <= 16:
        figure.update_xaxes(dtick=1)  # Every expert's number, however narrow the page.
    return styled(figure, height, hovermode="closest", grid=False)


def _with_legend(figure: go.Figure, height: int, x: str) -> go.Figure:
    figure.update_xaxes(title=x)
    return styled(figure, height, hovermode="closest", grid=False).update_layout(showlegend=True)
