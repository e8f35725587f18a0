"""Pictures of where a run's tokens go: load of every expert over steps, and one text routed anew at every evaluation.

Pure functions as in learning_curves.py, whose looks they share; missing or incomplete lines are left out.
Try it: load_heat_map(Run.open("runs/toy").metrics()).show()
"""

import math
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from switch_model.grid.layer_names import layer_titles
from switch_model.grid.palette import CELL_INK, MAX_COLOURS, expert_colour
from switch_model.plots.routing import MAX_NAME, reads_from_the_right, token_ticks
from switch_model.plots.style import empty, plain, styled
from ui.training.learning_curves import HEALTH_HEIGHT, in_chunks, mean
from ui.training.run_summary import Records, finite, layer_load, probe_layer, probe_lines, recent_loads, routing_lines

# From starved over even, where the page shows through, to crowded.
STARVED, FEW = "rgba(214,96,38,1)", "rgba(214,96,38,0.5)"
EVEN, MORE, CROWDED = "rgba(125,133,144,0.10)", "rgba(52,116,190,0.6)", "rgba(52,116,190,1)"
# Loads above so many even shares look the same.
MAX_TIMES_EVEN = 4

MAX_COLUMNS = 90
# Of the plot of loads: at least as high as that of the routing's health, which stands beside it.
MIN_HEIGHT, MAX_HEIGHT = HEALTH_HEIGHT, 600
# A watched text has a row per evaluation, up to so many; with more tokens their cells hold no number.
MAX_ROWS, MAX_NUMBERED_TOKENS = 24, 45


# ---- load ----


def load_heat_maps(*runs: Records) -> list[go.Figure]:
    """`load_heat_map` of runs that stand beside each other, with one scale of colours."""
    most = max((len(load) for records in runs for load in recent_loads(records).values()), default=0)
    return [load_heat_map(records, most) for records in runs]


def load_heat_map(records: Records, scale: int = 0) -> go.Figure:
    """Load of every expert over steps, a panel per sparse layer: 1 = an even share, 0 = no token at all.

    Args:
        scale: of so many experts at least, which says where the colours end.
    """
    layers = {name: panel for name, panel in _loads(routing_lines(records)).items() if panel[0]}
    if not layers:
        return empty("Appears with the first lines of metrics of a model with experts.")
    titles = layer_titles(layers)
    most = max(len(columns[-1]) for _, columns in layers.values())
    columns, panel_height = _panels(len(layers), most)
    rows = math.ceil(len(layers) / columns)
    gap = 22
    plot_height = rows * panel_height + (rows - 1) * gap
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=list(titles.values()),
        vertical_spacing=gap / plot_height if rows > 1 else 0,
        horizontal_spacing=0.07,
    )
    for index, (name, (steps, loads)) in enumerate(layers.items()):
        place = {"row": index // columns + 1, "col": index % columns + 1}
        experts, last = len(loads[-1]), index + columns >= len(layers)
        figure.add_trace(_load_panel(titles[name], steps, loads, panel_height), **place)
        figure.update_xaxes(
            title="step" if last else None,
            showticklabels=last,
            nticks=5,
            # Around a single step plotly would name halves of it.
            tickvals=steps if len(steps) == 1 else None,
            showgrid=False,
            **place,
        )
        figure.update_yaxes(
            range=[experts - 0.5, -0.5],
            tickvals=list(range(0, experts, _every(panel_height / experts))),
            title="expert" if place["col"] == 1 and rows <= 4 else None,
            showgrid=False,
            **place,
        )
    for title in figure.layout.annotations:
        title.update(font={"size": 12}, x=_left(figure, title.x, columns), xanchor="left")
    figure.update_layout(coloraxis=_load_colours(max(most, scale), plot_height))
    return styled(figure, height=plot_height + 22 + 42, top=22, hovermode="closest")


def _load_panel(title: str, steps: list[float], loads: list[list[float]], height: int) -> go.Heatmap:
    """One layer's experts, a row each."""
    experts = len(loads[-1])
    return go.Heatmap(
        x=steps,
        z=[[round(share * experts, 2) for share in over_time] for over_time in zip(*loads, strict=True)],
        coloraxis="coloraxis",
        ygap=1 if height >= 8 * experts else 0,
        name=title,
        hovertemplate=f"{title}, expert %{{y}}<br>step %{{x:,.0f}}: %{{z:.2f}} × an even share<extra></extra>",
    )


def _load_colours(most: int, height: int) -> dict[str, Any]:
    """The colours of all panels: grey at an even share, orange below, blue above."""
    top = min(max(most, 2), MAX_TIMES_EVEN)
    return {
        "cmin": 0,
        "cmax": top,
        "colorscale": ((0, STARVED), (0.5 / top, FEW), (1 / top, EVEN), (0.5 + 0.5 / top, MORE), (1, CROWDED)),
        "colorbar": {
            "thickness": 8,
            "outlinewidth": 0,
            "tickvals": list(range(top + 1)),
            "ticktext": ["0", "even", *map(str, range(2, top)), f"≥ {top}" if most > top else str(top)],
            "tickfont": {"size": 11},
            "lenmode": "pixels",
            "len": min(height, 220),
        },
    }


def _loads(lines: Records) -> dict[str, tuple[list[float], list[list[float]]]]:
    """Layer -> (steps, loads), both averaged into at most MAX_COLUMNS columns. Its last line says how many experts."""
    seen: dict[str, list[tuple[float, list[float]]]] = {}
    for line in lines:
        for layer in line["routing"]:
            if load := layer_load(layer):
                seen.setdefault(str(layer.get("layer", "")), []).append((line["step"], load))
    found = {}
    for name, pairs in seen.items():
        pairs = [pair for pair in pairs if len(pair[1]) == len(pairs[-1][1])]
        chunks = in_chunks(pairs, MAX_COLUMNS)
        steps = [round(mean(step for step, _ in chunk)) for chunk in chunks]
        loads = [[mean(shares) for shares in zip(*(load for _, load in chunk), strict=True)] for chunk in chunks]
        found[name] = steps, loads
    return found


def _panels(layers: int, experts: int) -> tuple[int, int]:
    """(columns of panels, height of one in pixels): stacked, and side by side only when they would get too thin."""
    room, title = MAX_HEIGHT - 64, 22
    wanted = min(max(4 * experts, 40), 110)
    for columns in (1, 2, 3):
        height = room // math.ceil(layers / columns) - title
        if height >= wanted:
            break
    # The first row's title stands in the margin.
    least = (MIN_HEIGHT - 64 + title) / math.ceil(layers / columns) - title
    return columns, max(min(height, 16 * experts, 200), int(least), 24)


def _left(figure: go.Figure, middle: float, columns: int) -> float:
    """The left edge of the panel that a centred title stands above."""
    domains = [axis.domain for axis in figure.select_xaxes()][:columns]
    return min(domains, key=lambda domain: abs(sum(domain) / 2 - middle))[0]


def _every(pixels: float) -> int:
    """Of rows so many pixels high, every how many-th has room for its number."""
    return next((every for every in (1, 2, 4, 8, 16, 32) if every * pixels >= 13), 64)


# ---- the text being watched ----


def probe_plot(records: Records, layer: str | None = None) -> go.Figure:
    """How one text's routing settles in one layer: a column per token, a row per evaluation, the latest at the bottom.

    A cell has its expert's colour and number; × marks a dropped token.

    Args:
        layer: "encoder.1"; None, or one that is not there, = the first.
    """
    lines = [line for line in probe_lines(records) if probe_layer(line, layer)]
    if not lines:
        return empty("Appears with the first evaluation of a run with a probe text.")
    # Of many evaluations the first, the last and evenly spread ones between.
    spread = min(len(lines), MAX_ROWS)
    lines = [lines[round(row * (len(lines) - 1) / max(spread - 1, 1))] for row in range(spread)]
    layers = [probe_layer(line, layer) for line in lines]
    names = [plain(str(piece).strip() or "␣", MAX_NAME) for piece in lines[-1]["pieces"]]
    rows, count = len(lines), len(names)
    dropped = [[not kept for kept in routed.get("kept") or ()] or [False] * count for routed in layers]
    figure = go.Figure(_probe_cells(lines, layers, dropped, names))
    ticks, bottom = token_ticks(names)
    figure.update_xaxes(
        ticks,
        range=[count - 0.5, -0.5] if reads_from_the_right(lines[-1]["pieces"]) else [-0.5, count - 0.5],
        showgrid=False,
    )
    figure.update_yaxes(
        range=[rows - 0.5, -0.5],
        tickvals=list(range(rows)),
        ticktext=[f"{line['step']:,}" for line in lines],
        title="step",
        showgrid=False,
    )
    if any(map(any, dropped)):
        figure.add_annotation(
            text="× dropped: the expert was full", x=1, y=1, xref="paper", yref="paper",
            xanchor="right", yanchor="bottom", showarrow=False, font={"size": 11},
        )  # fmt: skip
    return styled(figure, height=max(22 * rows, 44) + bottom + 30, top=22, hovermode="closest")


def _probe_cells(lines: Records, layers: list[Any], dropped: list[list[bool]], names: list[str]) -> go.Heatmap:
    """A row per evaluation, a cell per token."""
    numbered, experts = len(names) <= MAX_NUMBERED_TOKENS, 1 + max(max(routed["expert"]) for routed in layers)
    # The middle of the scale's n-th step is n; experts of a colour share one.
    steps = [
        ((expert + side) / experts, expert_colour(expert % MAX_COLOURS)) for expert in range(experts) for side in (0, 1)
    ]
    return go.Heatmap(
        z=[routed["expert"] for routed in layers],
        zmin=-0.5,
        zmax=experts - 0.5,
        colorscale=steps,
        showscale=False,
        xgap=1,
        ygap=1,
        text=[
            [
                (str(expert) if numbered else "") + ("×" if drop else "")
                for expert, drop in zip(routed["expert"], drops, strict=False)
            ]
            for routed, drops in zip(layers, dropped, strict=True)
        ],
        texttemplate="%{text}",
        textfont={"color": CELL_INK, "size": 11 if len(names) <= 30 else 9},
        customdata=[_probe_words(*row, names) for row in zip(lines, layers, dropped, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _probe_words(line, layer, drops: list[bool], names: list[str]) -> list[str]:
    """What one row's cells say when pointed at."""
    gates = layer.get("gate") or [None] * len(names)
    return [
        f"{name}<br>step {line['step']:,}: expert {expert}"
        + ("" if finite(gate) is None else f", gate {gate:.2f}")
        + (", dropped" if drop else "")
        for name, expert, gate, drop in zip(names, layer["expert"], gates, drops, strict=False)
    ]
