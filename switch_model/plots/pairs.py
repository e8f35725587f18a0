"""Figures of layers with several experts for each token: pairs chosen together, and weight that flows on.

Pure functions of records. Imported by name only: plotly is slow to load. Legend: E experts.
Try it: go.Figure(pair_heat_map(record)).show()
"""

import math
from typing import Any

from switch_model.analysis.coactivation import coactivation
from switch_model.plots.style import COLOUR_BAR, SHARES, ground, three_ticks
from switch_model.topk_routing import AnyRouting

# Width of the figure's two squares, in pixels.
SQUARE = 300


def pair_heat_map(record: AnyRouting) -> dict[str, Any]:
    """How many tokens chose both experts of a pair, beside as many by chance on the same scale; as plotly's JSON."""
    found = coactivation(record)
    counts, expected, lift = found.counts, found.expected, found.lift
    highest = max(math.ceil(float(counts.max())), 1)
    both = [[[one, other, raised] for one, other, raised in zip(*rows, strict=True)] for rows in zip(
        counts.int().tolist(), expected.double().numpy().round(1).tolist(), lift.double().numpy().round(2).tolist(),
        strict=True,
    )]  # fmt: skip
    heat = {
        "type": "heatmap",
        "zmin": 0,
        "zmax": highest,
        "colorscale": SHARES,
        "customdata": both,
        "hovertemplate": "experts %{y} and %{x}: %{customdata[0]} tokens<br>by chance: %{customdata[1]}<br>"
        "lift: %{customdata[2]} (log2)<extra></extra>",
        "colorbar": COLOUR_BAR | three_ticks(0, highest),
    }
    axis = {"showgrid": False, "zeroline": False, "ticks": "", "automargin": True}
    experts = record.num_experts
    side = {"range": [experts - 0.5, -0.5], "dtick": 1 if experts <= 16 else None}
    names = [("chosen together", 0.0), ("by chance", 0.54)]
    return {
        "data": [
            heat | {"z": counts.int().tolist(), "showscale": False},
            heat | {"z": expected.double().numpy().round(1).tolist(), "xaxis": "x2", "yaxis": "y2"},
        ],
        "layout": ground(SQUARE + 60, right=8, bottom=40, top=26)
        | {
            "template": {},
            "hovermode": "closest",
            "xaxis": axis | {"domain": [0, 0.44], "title": {"text": "expert", "standoff": 10}},
            "yaxis": axis | side | {"title": {"text": "expert", "standoff": 10}},
            "xaxis2": axis | {"domain": [0.54, 0.98], "anchor": "y2", "title": {"text": "expert", "standoff": 10}},
            "yaxis2": axis | side | {"anchor": "x2"},
            "annotations": [
                {"text": name, "x": x, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom",
                 "showarrow": False, "font": {"size": 12}} for name, x in names
            ],
        },
    }  # fmt: skip
