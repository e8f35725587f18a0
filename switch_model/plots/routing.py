"""Figures of routing records: pure functions (record, tokens) -> plotly Figure, no input or output.

Imported by name only: plotly is slow to load.
Try it: router_probabilities(prediction.routing[0], prediction.tokens).show()
"""

import itertools
import math
import unicodedata
from collections.abc import Sequence
from html import unescape
from typing import Any

import plotly.graph_objects as go
import torch
from torch import Tensor

from switch_model.analysis.coactivation import weight_flow
from switch_model.grid.layer_names import layer_label, layer_title
from switch_model.plots.style import IN_PERCENT, INK, SHARES, colour_bar, ground, plain, styled, three_ticks
from switch_model.routing import Routing, transitions
from switch_model.topk_routing import AnyRouting

# With more tokens, their names do not fit below the columns, where these have 480 pixels; with more than the second,
# only in small letters.
MAX_NAMED_TOKENS, MAX_LARGE_NAMES = 44, 34
# With longer names, in pixels together, they are rotated.
LEVEL_WIDTH = 420
# Longer names are cut.
MAX_NAME = 14
# With more columns, layer names are shortened.
MAX_COLUMN_NAMES = 6
# Of the flow, in pixels: above and below it, and between two experts at most.
TOP, BOTTOM, MAX_GAP = 30, 8, 10
# Of two layers with several experts for each token, the bands that are drawn.
MAX_BANDS = 40
# A line of an expert's number, and its letters.
LINE, LETTERS = 12, 10


def router_probabilities(record: Routing, tokens: Sequence[str], selected: int | None = None) -> go.Figure:
    """`router_heat_map` as a figure, with the same arguments."""
    return go.Figure(router_heat_map(record, tokens, selected))


def router_heat_map(record: Routing, tokens: Sequence[str], selected: int | None = None) -> dict[str, Any]:
    """Heat map of one sequence in one layer: a column per token, a row per expert; a dot marks the chosen expert.

    As plotly's JSON: go.Figure validates every part, which takes four times as long as all the rest, and this figure is
    drawn after every click.

    Args:
        record: of one sequence without padding (`Routing.example`).
        tokens: their readable names.
        selected: index of a token to outline.

    Raises:
        ValueError: when the record does not hold exactly one sequence of len(tokens) tokens.
    """
    if tuple(record.expert.shape) != (1, len(tokens)):
        raise ValueError(
            f"The record has the shape {tuple(record.expert.shape)}, but there are {len(tokens)} tokens: "
            "give the record of one sequence, without padding."
        )
    probs_ET = record.probs[0].T.detach().cpu().double().numpy().round(3)
    # With many experts every probability is small: the colour scale ends at the largest.
    highest = min(math.ceil(10 * float(probs_ET.max(initial=0.1))) / 10, 1.0)
    names = [plain(token.strip() or "␣", MAX_NAME) for token in tokens]
    heat = {
        "type": "heatmap",
        "z": probs_ET.tolist(),
        "zmin": 0,
        "zmax": highest,
        "colorscale": SHARES,
        "xgap": 1,
        "ygap": 1,
        "customdata": [names] * record.num_experts,
        "hovertemplate": "%{customdata}<br>expert %{y}: %{z:.2f}<extra></extra>",
        "colorbar": colour_bar("weight" if record.experts.shape[-1] > 1 else "probability") | three_ticks(0, highest),
    }
    # A token whose experts are all ablated chose none.
    chosen_T = record.chosen_logit[0].isfinite().nonzero().flatten().tolist()
    expert_T = record.expert[0].tolist()
    chosen = {
        "type": "scatter",
        "x": chosen_T,
        "y": [expert_T[token] for token in chosen_T],
        "mode": "markers",
        "marker": {"size": 4, "color": "#e07b53", "line": {"width": 0}},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    from_right = reads_from_the_right(tokens)
    return {"data": [heat, chosen], "layout": _heat_map_layout(record.num_experts, names, from_right, selected)}


def _heat_map_layout(experts: int, names: list[str], from_right: bool, selected: int | None) -> dict[str, Any]:
    count, (ticks, bottom) = len(names), token_ticks(names)
    # Tall enough to see each expert's row, yet never taller than a screen.
    rows = min(max(24 * experts, 140), 560)
    frame = {
        "type": "rect",
        "x0": (selected or 0) - 0.5,
        "x1": (selected or 0) + 0.5,
        "y0": -0.5,
        "y1": experts - 0.5,
        "line": {"color": INK, "width": 1.5},
    }
    axis = {"showgrid": False, "zeroline": False, "automargin": True, "ticks": ""}
    return ground(rows + bottom + 10, right=8, bottom=bottom) | {
        # The default template is as large as all the rest, and unused.
        "template": {},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "showlegend": False,
        "shapes": [] if selected is None else [frame],
        "xaxis": axis
        | ticks
        | {
            # Right-to-left text has its columns from the right, as in the grid.
            "range": [count - 0.5, -0.5] if from_right else [-0.5, count - 0.5],
        },
        "yaxis": axis
        | {
            "range": [experts - 0.5, -0.5],
            "dtick": 1 if experts <= 16 else None,
            "title": {"text": "expert", "standoff": 15},
        },
    }


def token_ticks(names: Sequence[str]) -> tuple[dict[str, Any], int]:
    """(settings of an axis with a tick per token, pixels that these need): rotated, small, or left out where there are
    many.

    Args:
        names: escaped and cut (`plain`).
    """
    count = len(names)
    if count > MAX_NAMED_TOKENS:
        return {"tickangle": 0, "title": {"text": "token", "standoff": 15}}, 40
    size = 11 if count <= MAX_LARGE_NAMES else 9
    longest = 0.6 * size * max(len(unescape(name)) for name in names)
    upright = count * (longest + 6) > LEVEL_WIDTH
    ticks = {"tickvals": list(range(count)), "ticktext": list(names), "tickangle": -90 if upright else 0}
    return ticks | {"tickfont": {"size": size}}, 14 + round(longest) if upright else 28


def expert_flow(records: Sequence[AnyRouting], colours: Sequence[str]) -> go.Figure:
    """Sankey diagram of one text's tokens through the experts of its sparse layers, left to right.

    With several experts for each token it is the weight that flows (`weight_flow`), and of each two layers the
    MAX_BANDS strongest bands.

    Args:
        records: at least two, of the same tokens.
        colours: one per expert, "#rrggbb".

    Raises:
        ValueError: when there are fewer than two records.
    """
    if len(records) < 2:
        raise ValueError(f"A flow needs two sparse layers at least: there {'is' if records else 'are'} {len(records)}.")
    # 1. What flows between neighbouring layers, and how high each expert is.
    flows, sizes = _flows_and_sizes(records)
    # 2. A node for each expert that any token chose, with fixed positions, so that experts keep their order; a band for
    # each pair of experts in neighbouring layers with common tokens.
    nodes = [(layer, expert) for layer, one in enumerate(sizes) for expert in one.nonzero().flatten().tolist()]
    number = {node: index for index, node in enumerate(nodes)}
    bands = [
        (number[layer, i], number[layer + 1, j], round(float(counts[i, j]), 2), i, j)
        for layer, counts in enumerate(flows)
        for i, j in counts.nonzero().tolist()
    ]
    height = min(max(30 * records[0].num_experts, 220), 560)
    columns = [[size for size in one.tolist() if size] for one in sizes]
    unit = "tokens’ weight" if _several(records) else "tokens"
    places, gap = stacked_places(columns, height - TOP - BOTTOM) if nodes else ([], 0)
    figure = go.Figure(
        go.Sankey(
            arrangement="snap",
            textfont={"size": LETTERS},
            node={
                "label": labels_apart(nodes, [(height - TOP - BOTTOM) * place for place in places]),
                "color": [colours[expert % len(colours)] for _, expert in nodes],
                "x": [0.001 + 0.998 * layer / (len(records) - 1) for layer, _ in nodes],
                "y": places,
                "customdata": [f"{layer_title(records[layer].name)}, expert {expert}" for layer, expert in nodes],
                "hovertemplate": f"%{{customdata}}: %{{value}} {unit}<extra></extra>",
                "pad": gap,
                "thickness": 16,
                "line": {"width": 0},
            },
            link={
                "source": [band[0] for band in bands],
                "target": [band[1] for band in bands],
                "value": [band[2] for band in bands],
                "color": [_see_through(colours[band[3] % len(colours)]) for band in bands],
                "customdata": [f"expert {band[3]} → expert {band[4]}" for band in bands],
                "hovertemplate": f"%{{customdata}}: %{{value}} {unit}<extra></extra>",
            },
        )
    )
    figure.update_layout(ground(height, left=10, right=10, top=TOP, bottom=BOTTOM), annotations=_column_names(records))
    return figure


def labels_apart(nodes: Sequence[tuple[int, int]], heights: Sequence[float]) -> list[str]:
    """The experts' numbers, but for those that would overlap the one above: hovering tells them.

    Args:
        nodes: (layer, expert), column by column; heights: of their centres, in pixels.
    """
    labels, above = [], (-1, 0.0)
    for (layer, expert), height in zip(nodes, heights, strict=True):
        fits = layer != above[0] or height - above[1] >= LINE
        labels.append(str(expert) if fits else "")
        above = (layer, height) if fits else above
    return labels


def _column_names(records: Sequence[AnyRouting]) -> list[dict[str, Any]]:
    """The layer above each of the columns, short where there are many: "layer 3", "L3"."""
    last, names = len(records) - 1, [layer_label(record.name) for record in records]
    if len(names) > MAX_COLUMN_NAMES:
        names = [name[0].upper() + name.rpartition(" ")[2] for name in names]
    above = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "yshift": 4, "showarrow": False}
    sides = ["left", *["center"] * (last - 1), "right"]
    return [
        {"text": name, "x": column / last, "xanchor": side, "font": {"size": 11}} | above
        for column, (name, side) in enumerate(zip(names, sides, strict=True))
    ]


def _several(records: Sequence[AnyRouting]) -> bool:
    return any(record.experts.shape[-1] > 1 for record in records)


def _flows_and_sizes(records: Sequence[AnyRouting]) -> tuple[list[Tensor], list[Tensor]]:
    """(E, E') between neighbouring layers, of several experts for each token the strongest; and (E,) of each layer: the
    tokens of each expert, or where they are several what flows into it, or out of it where that is more."""
    flows = [flow_table(here, there) for here, there in itertools.pairwise(records)]
    if not _several(records):
        return flows, [record.choices for record in records]
    flows = [flow * (flow >= flow.flatten().topk(min(MAX_BANDS, flow.numel())).values[-1]) for flow in flows]
    into, out = [flow.sum(0) for flow in flows], [flow.sum(1) for flow in flows]
    return flows, [out[0], *(torch.maximum(a, b) for a, b in zip(into, out[1:], strict=False)), into[-1]]


def flow_table(here: AnyRouting, there: AnyRouting) -> Tensor:
    """(E, E') tokens that go from each expert to each of the next layer, or their weight where they have several."""
    if isinstance(here, Routing) and isinstance(there, Routing):
        return transitions(here, there)
    return weight_flow(here, there)


def transition_matrix(here: AnyRouting, there: AnyRouting) -> go.Figure:
    """Heat map of P(expert of the later layer | expert of the earlier one): a row per earlier expert that has tokens.

    Hovering shows the later expert's share of all tokens: the expected value for shuffled tokens.
    """
    counts = flow_table(here, there)
    rows = counts.sum(dim=1).nonzero().flatten().tolist()
    totals = counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
    chance = (counts.sum(dim=0) / counts.sum().clamp(min=1)).tolist()
    # The weight of several experts is spread over many: the colour scale ends at the largest part.
    spread = _several([here, there])
    highest = 10 * max(math.ceil(10 * float((counts / totals).max())), 1) if spread else 100
    figure = go.Figure(
        go.Heatmap(
            z=(100 * counts / totals)[rows].numpy().round(1),
            x=[str(expert) for expert in range(there.num_experts)],
            y=[str(expert) for expert in rows],
            zmin=0,
            zmax=highest,
            colorscale=SHARES,
            xgap=1,
            ygap=1,
            customdata=[
                [(round(float(counts[i, j]), 1), 100 * chance[j]) for j in range(there.num_experts)] for i in rows
            ],
            hovertemplate="expert %{y} → expert %{x}: %{z:.1f}\u00a0% (%{customdata[0]} tokens)<br>"
            "of all tokens: %{customdata[1]:.1f}\u00a0%<extra></extra>",
            colorbar=colour_bar("of a row’s tokens") | IN_PERCENT | {"tickvals": [0, highest / 2, highest]},
        )
    )
    figure.update_xaxes(title=f"expert in {layer_title(there.name)}", type="category")
    # Two lines: the axis is short.
    figure.update_yaxes(title=f"expert in<br>{layer_title(here.name)}", type="category", autorange="reversed")
    return styled(figure, min(max(26 * len(rows), 120), 480) + 60, hovermode="closest", grid=False)


def stacked_places(columns: Sequence[Sequence[int]], height: int) -> tuple[list[float], float]:
    """(vertical centre of each node as a share of the height, from the top; pixels between two nodes): the experts of
    each column in order, as high as plotly draws them. Without that space the lowest would leave the figure.

    Args:
        columns: the tokens of each node, column by column.
    """
    most = max(map(len, columns))
    gap = min(MAX_GAP, height / 3 / max(most - 1, 1))
    # The fullest column fills the height.
    scale = min((height - gap * (len(counts) - 1)) / sum(counts) for counts in columns if counts)
    places = []
    for counts in columns:
        above = 0.0
        for count in counts:
            places.append(min(max((above + scale * count / 2) / height, 0.001), 0.999))
            above += scale * count + gap
    return places, gap


def _see_through(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.45)"


def reads_from_the_right(tokens: Sequence[str]) -> bool:
    """Whether the first letter with a direction is of a right-to-left script."""
    for character in "".join(tokens):
        if (direction := unicodedata.bidirectional(character)) in ("L", "R", "AL"):
            return direction != "L"
    return False
