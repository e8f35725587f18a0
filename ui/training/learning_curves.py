"""Curves of a run while it trains and after: pure functions, lines of metrics.jsonl in, plotly Figure out.

Any line may be missing or incomplete: what is there is drawn, and without anything a figure says so. A long run's lines
are averaged into a bounded number of points, so that a page that polls stays light. Imported by name: plotly is slow to
load.
Try it: learning_curves(Run.open("runs/toy").metrics()).show()
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from switch_model.grid.layer_names import layer_titles
from switch_model.plots.style import HOVER_PERCENT, IN_PERCENT, INK, empty, plain, styled
from train.tasks.metrics import MEASURES, SHARE, noted
from ui.training.run_summary import Records, finite, lines_of, routing_lines

LOSS, ACCURACY = "#3d86c6", "#cf6a2f"
COLOURS = (LOSS, ACCURACY, "#2b9a73", "#c2659c", "#9c7f1b", "#8a7ad0", "#2a9aa8", "#7d8590")
# Of what the right axis shows, in the order of a task's metrics.
METRIC_STYLES = ((ACCURACY, "diamond"), ("#2b9a73", "square"))
DASHES = ("solid", "dash", "dot")
MAX_POINTS = 300

HEALTH = (
    ("balance_loss", "balance loss (1 = even)", ".3f"),
    ("z_loss", "z-loss", ".3f"),
    ("drop_rate", "dropped tokens", SHARE),
    ("token_entropy", "entropy (1 = undecided)", ".3f"),
)
# The same measure over each text by itself, on the same axis: dotted.
OF_A_TEXT = ("sequence_balance_loss", "balance loss (dotted: per text)")
HEALTH_HEIGHT = 430
STEP, EVALUATED = "<br>step %{x:,.0f}", " (step %{x:,.0f})"
NAMES_OF_AXES = {"step": "step", "seconds": "time", "tokens": "tokens"}

Curve = tuple[list[float], list[float]]


# ---- loss and other metrics ----


def learning_curves(records: Records, metrics: Sequence[str] = ("accuracy",)) -> go.Figure:
    """Loss (left) and a task's metrics (right) over steps: training thin, validation strong with a marker per
    evaluation.

    Args:
        metrics: names of train.tasks.metrics that share an axis, as a task lists them.
    """
    train, evaluated = lines_of(records, "train"), lines_of(records, "eval")
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    drawn = dict.fromkeys(("loss", *metrics), False)
    for key, (colour, symbol) in zip(drawn, ((LOSS, "circle"), *METRIC_STYLES), strict=False):
        measure = MEASURES[key]
        for lines, name, strong in ((train, "training", False), (evaluated, "validation", True)):
            xs, ys = _curve(lines, "step", key)
            if xs:
                drawn[key] = True
                line = _line(
                    f"{name} {measure.word}",
                    xs,
                    ys,
                    colour,
                    strong,
                    number=measure.number,
                    symbol=symbol,
                    where=EVALUATED * strong,
                )
                figure.add_trace(line, secondary_y=key != "loss")
    if not any(drawn.values()):
        return empty("Appears with the first lines of metrics.")
    figure.update_yaxes(title="loss", secondary_y=False, **_scale("loss"))
    # Its own grid would cross the other one's.
    figure.update_yaxes(
        title=", ".join(MEASURES[key].word for key in metrics),
        showgrid=False,
        visible=any(drawn[key] for key in metrics),
        secondary_y=True,
        **_scale(metrics[0]),
    )
    figure.update_xaxes(title="step", unifiedhovertitle={"text": "step %{x:,.0f}"}, rangemode="tozero")
    # Between two evaluations the nearest one is told, with its step.
    figure.update_layout(hoverdistance=-1)
    return styled(figure, height=340, hovermode="x unified")


def compare_curves(
    runs: Mapping[str, Records], value: str = "loss", over: str = "step", height: int = 360
) -> go.Figure:
    """One measure of several runs: a colour per run, validation strong, training faint.

    Args:
        runs: name -> lines.
        value: a name of train.tasks.metrics.
        over: "step", "seconds" or "tokens". Runs that did not note it are left out.
    """
    word = MEASURES[value].word
    figure = go.Figure()
    named: set[str] = set()
    lines = [(lines_of(records, "train"), lines_of(records, "eval")) for records in runs.values()]
    unit, divisor = _unit(over, (line.get(over) for pair in lines for kind in pair for line in kind))
    for index, (name, (train, evaluated)) in enumerate(zip(runs, lines, strict=True)):
        colour, dash = _colour(index)
        for some, strong in ((train, False), (evaluated, True)):
            xs, ys = _curve(some, over, value)
            if not xs:
                continue
            line = _line(
                plain(name, 40),
                [x / divisor for x in xs],
                ys,
                colour,
                strong,
                number=MEASURES[value].number,
                where=f"<br>%{{x:,.4~g}} {unit}" if over == "seconds" else f"<br>{over} %{{x:,.0f}}",
                dash=dash,
            )
            # One entry per run, which shows and hides all of its curves.
            line.update(legendgroup=name, showlegend=strong and name not in named)
            named |= {name} if strong else set()
            figure.add_trace(line)
    if not figure.data:
        return empty(f"None of these runs has noted its {word} against these yet.")
    for trace in figure.data:
        # A run without an evaluation yet is named by its training.
        if trace.legendgroup not in named:
            named.add(trace.legendgroup)
            trace.showlegend = True
    scale = {key: setting for key, setting in _scale(value).items() if key != "range"}
    figure.update_xaxes(title=unit, rangemode="tozero").update_yaxes(title=f"{word} (faint: training)", **scale)
    return styled(figure, height=height, hovermode="closest")


def twin_curves(runs: Mapping[str, Records], value: str = "loss") -> tuple[go.Figure, go.Figure, go.Figure]:
    """The same runs against steps, time and tokens: plots of their own, alike in all but that, which stand side by
    side or, on a phone, one below the other."""
    by_step, by_time, by_tokens = (compare_curves(runs, value, over, 320) for over in ("step", "seconds", "tokens"))
    return by_step, by_time, by_tokens


def _scale(value: str) -> dict[str, Any]:
    """An axis for one of train.tasks.metrics."""
    measure = MEASURES[value]
    if measure.wide:
        return {"type": "log", "nticks": 6}
    limits = {"rangemode": "nonnegative" if value == "loss" else "tozero"}
    return limits if measure.number != SHARE else IN_PERCENT | {"range": [0, 100 * measure.top]}


def _unit(over: str, values: Iterable[Any]) -> tuple[str, float]:
    """An axis's title, and what its numbers are divided by."""
    longest = max((value for value in map(finite, values) if value is not None), default=0)
    if over == "seconds":
        for seconds, unit in ((3600, "hours"), (60, "minutes")):
            if longest > 2 * seconds:
                return unit, seconds
        return "seconds", 1
    return NAMES_OF_AXES.get(over, over), 1


# ---- health of the routing ----


def routing_health(records: Records, may_drop: bool = True) -> go.Figure:
    """Balance loss, z-loss, drop rate and token entropy over steps: four panels, a line per sparse layer; beside the
    balance loss of the batches that of each text by itself, where a run has noted it.

    Args:
        may_drop: False leaves the drop rate out, of a run whose experts are never full.
    """
    lines = routing_lines(records)
    if not lines:
        return empty("Appears with the first lines of metrics of a model with experts.")
    steps = [line["step"] for line in lines]
    names = list(dict.fromkeys(str(layer.get("layer", "")) for line in lines for layer in line["routing"]))
    titles = layer_titles(names)
    of_text, both = OF_A_TEXT
    shown = [measure for measure in HEALTH if may_drop or measure[0] != "drop_rate"]
    of_text = of_text if any(of_text in layer for line in lines for layer in line["routing"]) else None
    figure = make_subplots(
        rows=2,
        cols=2,
        subplot_titles=[both if key == "balance_loss" and of_text else title for key, title, _ in shown],
        specs=[[{}, {}], [{}, {}] if len(shown) > 3 else [{"colspan": 2}, None]],
        vertical_spacing=0.17,
        horizontal_spacing=0.11,
    )
    for panel, (key, _, number) in enumerate(shown):
        place = {"row": panel // 2 + 1, "col": panel % 2 + 1}
        highest = 0.0
        for index, name in enumerate(names):
            of_layer = [
                {"step": line["step"]} | layer
                for line in lines
                for layer in line["routing"]
                if layer.get("layer") == name
            ]
            xs, ys = _curve(of_layer, "step", key)
            highest = max([highest, *ys])
            colour, dash = _colour(index)
            line = _line(titles[name], xs, ys, colour, strong=False, number=number, where=STEP, dash=dash)
            line.update(opacity=1, line={"width": 1.6}, legendgroup=name, showlegend=panel == 0 and len(names) > 1)
            figure.add_trace(line, **place)
            if key == "balance_loss" and of_text:
                xs, ys = _curve(of_layer, "step", of_text)
                highest = max([highest, *ys])
                words = f"{titles[name]}, of a text"
                line = _line(words, xs, ys, colour, strong=False, number=number, where=STEP, dash="dot")
                line.update(opacity=1, line={"width": 1.6}, legendgroup=name, showlegend=False)
                figure.add_trace(line, **place)
        figure.update_yaxes(_health_axis(key, number, highest), nticks=5, **place)
        title = "step" if panel + 2 >= len(shown) else None
        figure.update_xaxes(title=title, nticks=5, tickvals=steps if len(steps) == 1 else None, **place)
    figure.add_hline(1, line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=1)
    figure.update_annotations(font={"size": 12})
    figure = styled(figure, height=HEALTH_HEIGHT, top=30, hovermode="closest")
    # Above the titles of the panels.
    return figure.update_layout(legend={"y": 1.075})


def _health_axis(key: str, number: str, highest: float) -> dict[str, Any]:
    """From what is ideal to a little above what is there: otherwise the noise of a healthy run would fill the plot."""
    lowest, least = {"balance_loss": (0.9, 1.6), "drop_rate": (0, 0.1), "token_entropy": (0, 1)}.get(key, (0, 0.1))
    top = least if key == "token_entropy" else max(least, 1.06 * highest)
    return IN_PERCENT | {"range": [0, 100 * top]} if number == SHARE else {"range": [lowest, top]}


# ---- what they share ----


def _curve(lines: Records, x: str, y: str) -> Curve:
    """The points of the lines that have both numbers, averaged into at most MAX_POINTS."""
    points = [(line.get(x), noted(line, y)) for line in lines]
    points = sorted(point for point in points if finite(point[0]) is not None and finite(point[1]) is not None)
    together = in_chunks(points, MAX_POINTS)
    xs = [mean(x for x, _ in chunk) if len(chunk) > 1 else chunk[0][0] for chunk in together]
    return xs, [float(f"{mean(y for _, y in chunk):.5g}") for chunk in together]


def in_chunks(items: list, most: int) -> list[list]:
    """Neighbours together, in at most `most` lists of about equal length."""
    size = math.ceil(len(items) / most)
    return [items[start : start + size] for start in range(0, len(items), size)] if items else []


def mean(values: Iterable[float]) -> float:
    """Of one value at least."""
    values = list(values)
    return sum(values) / len(values)


def _colour(index: int) -> tuple[str, str]:
    """(colour, dash) of the n-th line: after all colours once, they come dashed."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def _line(
    name: str,
    xs: list[float],
    ys: list[float],
    colour: str,
    strong: bool,
    number: str,
    symbol: str = "circle",
    where: str = "",
    dash: str = "solid",
) -> go.Scatter:
    """Strong with markers, or thin and faint. `where`: how a point names its place, unless the hover's title does."""
    few, shares = len(xs) <= 40, number == SHARE
    # A single point has no line.
    marked = strong or len(xs) == 1
    return go.Scatter(
        x=xs,
        y=[100 * y for y in ys] if shares else ys,
        name=name,
        mode="lines+markers" if marked else "lines",
        opacity=1 if strong else 0.7,
        line={"color": colour, "width": 2.4 if strong else 1.2, "dash": dash},
        marker={"size": 6 if few else 3.5, "color": colour, "symbol": symbol},
        hovertemplate=f"{name}: {HOVER_PERCENT if shares else f'%{{y:{number}}}'}{where}<extra></extra>",
        cliponaxis=False,
    )
