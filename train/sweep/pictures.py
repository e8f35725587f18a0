"""The trials of a sweep as parallel coordinates: an axis per argument, a line per trial, the validation figure last.

Darker lines are better; the best is orange. Trials without a figure are left out.
Try it: parallel_coordinates(read_sweep("runs/my-sweep")).show()
"""

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from switch_model.storage.whole_files import folder_written_aside
from train.picture_text import drawable_only, text_as_written
from train.sweep.search_space import written

# Light to dark, and Okabe-Ito's vermilion.
WORST, BEST = (186, 209, 232), (8, 48, 107)
HIGHLIGHT = "#d55e00"
INK, AXIS = "#333333", "#9aa0a6"
# Around labels, which lines run under.
HALO = ", ".join(f"{x}px {y}px 2px white" for x in (-1, 0, 1) for y in (-1, 0, 1))
# Share of an axis over which trials with the same choice are spread, so that none hides another.
SPREAD = 0.05


@dataclass(frozen=True)
class Axis:
    """One vertical axis, from 0 (bottom) to 1 (top).

    Attributes:
        title: the argument's name, or the figure's.
        ticks: (place, label).
        places: of each trial, the best first.
        labels: what the trials have there.
    """

    title: str
    ticks: list[tuple[float, str]]
    places: list[float]
    labels: list[str]


def drawn_trials(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """Those with a figure, the best first."""
    trials = [trial for trial in sweep["trials"] if trial["state"] == "finished" and trial["figure"] is not None]
    sign = -1 if sweep["higher_is_better"] else 1
    return sorted(trials, key=lambda trial: sign * trial["figure"])


def axes_of(sweep: dict[str, Any]) -> list[Axis]:
    """Where each trial crosses each axis."""
    trials = drawn_trials(sweep)
    found = []
    for dimension in sweep["dimensions"]:
        values = [trial["values"][dimension["name"]] for trial in trials]
        if dimension["choices"] is not None:
            found.append(_choice_axis(dimension["name"], dimension["choices"], values))
        else:
            low, high = dimension["low"], dimension["high"]
            found.append(_range_axis(dimension["name"], low, high, dimension["log"], values))
    figures = [trial["figure"] for trial in trials]
    low, high = min(figures), max(figures)
    margin = 0.05 * (high - low) or 0.01
    percent = sweep["figure"] == "accuracy"
    name = f"validation {sweep['figure']}"
    return [*found, _range_axis(name, low - margin, high + margin, False, figures, percent)]


def goodness(sweep: dict[str, Any]) -> list[float]:
    """For each trial, from 0 (the worst) to 1 (the best), the best first."""
    figures = [trial["figure"] for trial in drawn_trials(sweep)]
    best, worst = figures[0], figures[-1]
    return [1.0 if best == worst else (figure - worst) / (best - worst) for figure in figures]


def parallel_coordinates(sweep: dict[str, Any]) -> go.Figure:
    """As plotly draws it.

    Args:
        sweep: what `read_sweep` returns, with at least one finished trial.
    """
    axes, trials = axes_of(sweep), drawn_trials(sweep)
    figure = go.Figure()
    last = len(axes) - 1
    heights, shades = _shades(sweep, axes[-1])
    figure.add_heatmap(
        x=[last - 0.012, last + 0.012],
        y=heights,
        z=[[shade, shade] for shade in shades],
        colorscale=[[0, _colour(0)], [1, _colour(1)]],
        zmin=0,
        zmax=1,
        showscale=False,
        hoverinfo="skip",
    )
    for place, axis in enumerate(axes):
        figure.add_scatter(x=[place, place], y=[0, 1], mode="lines", line={"color": AXIS, "width": 1}, hoverinfo="skip")
        figure.add_annotation(
            x=place, y=1.05, text=f"<b>{axis.title}</b>", showarrow=False, yanchor="bottom", font={"size": 13}
        )
        for height, label in axis.ticks:
            figure.add_annotation(
                x=place,
                y=height,
                text=escape(label),
                showarrow=False,
                xshift=9 if place == last else -7,
                xanchor="left" if place == last else "right",
                font={"size": 11, "color": INK, "shadow": HALO},
            )
    # The best last: on top of the others.
    for index, (trial, good) in reversed(list(enumerate(zip(trials, goodness(sweep), strict=True)))):
        best = index == 0
        words = "<br>".join(f"{axis.title} <b>{escape(axis.labels[index])}</b>" for axis in axes)
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[index] for axis in axes],
            mode="lines+markers",
            line={"color": HIGHLIGHT if best else _colour(good), "width": 4 if best else 1.8},
            marker={"size": 8 if best else 5},
            name=f"trial {trial['number']}",
            hovertemplate=f"trial {trial['number']}{', the best' if best else ''}<br>{words}<extra></extra>",
        )
    figure.update_layout(
        title={
            "text": "<br>".join(map(escape, _title(sweep, axes).split("<br>"))),
            "font": {"size": 15},
            "x": 0.02,
            "y": 0.97,
            "yanchor": "top",
        },
        template="plotly_white",
        showlegend=False,
        height=480,
        hovermode="closest",
        margin={"l": 70, "r": 90, "t": 90, "b": 20},
    )
    figure.update_xaxes(visible=False, range=[-0.12, last + 0.12])
    figure.update_yaxes(visible=False, range=[-0.05, 1.08])
    return figure


def write_pictures(sweep: dict[str, Any], folder: Path) -> None:
    """parallel_coordinates.html, which opens offline, and parallel_coordinates.png."""
    figure = parallel_coordinates(sweep)
    with folder_written_aside(folder) as aside:
        figure.write_html(aside / "parallel_coordinates.html", include_plotlyjs=True, full_html=True)
        with text_as_written():
            _write_png(sweep, aside / "parallel_coordinates.png")


def _write_png(sweep: dict[str, Any], path: Path) -> None:
    axes = axes_of(sweep)
    last = len(axes) - 1
    figure, plot = plt.subplots(figsize=(max(7, 1.7 * len(axes) + 1.5), 4.8), constrained_layout=True)
    lines = list(zip(goodness(sweep), *(axis.places for axis in axes), strict=True))
    for index, (good, *places) in reversed(list(enumerate(lines))):
        best = index == 0
        colour = HIGHLIGHT if best else tuple(part / 255 for part in _mixed(good))
        plot.plot(
            range(len(axes)),
            places,
            color=colour,
            linewidth=3.2 if best else 1.4,
            marker="o",
            markersize=6 if best else 3.5,
            zorder=4 if best else 3,
        )
    heights, shades = _shades(sweep, axes[-1])
    colours = np.array([[_mixed(shade)] for shade in shades]) / 255
    half = (heights[1] - heights[0]) / 2
    plot.imshow(
        colours,
        extent=(last - 0.012, last + 0.012, heights[0] - half, heights[-1] + half),
        origin="lower",
        aspect="auto",
        zorder=2,
    )
    for place, axis in enumerate(axes):
        plot.plot([place, place], [0, 1], color=AXIS, linewidth=1, zorder=1)
        plot.text(place, 1.06, axis.title, ha="center", va="bottom", fontsize=10, fontweight="bold")
        for height, label in axis.ticks:
            plot.annotate(
                drawable_only(label),
                (place, height),
                xytext=(8 if place == last else -6, 0),
                textcoords="offset points",
                ha="left" if place == last else "right",
                va="center",
                fontsize=8,
                color=INK,
                zorder=5,
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )
    plot.set_title("\n".join(map(drawable_only, _title(sweep, axes).split("<br>"))), fontsize=10, loc="left", pad=14)
    plot.set_xlim(-0.3, last + 0.3)
    plot.set_ylim(-0.04, 1.12)
    plot.axis("off")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _title(sweep: dict[str, Any], axes: list[Axis]) -> str:
    best, drawn = drawn_trials(sweep)[0], len(drawn_trials(sweep))
    left_out = len(sweep["trials"]) - drawn
    counted = f"{drawn} trial{'s' if drawn != 1 else ''}" + (
        f", {left_out} without a figure left out" if left_out else ""
    )
    settings = ", ".join(f"{axis.title} {axis.labels[0]}" for axis in axes[:-1])
    return f"{counted}. Orange: the best, trial {best['number']}, {axes[-1].title} {axes[-1].labels[0]}<br>{settings}"


def _choice_axis(name: str, choices: list[Any], values: list[Any]) -> Axis:
    steps = max(len(choices) - 1, 1)
    middle = {written(choice): 0.5 if len(choices) == 1 else index / steps for index, choice in enumerate(choices)}
    labels = [written(value) for value in values]
    spread = min(SPREAD, 0.5 / steps)
    places = []
    for index, label in enumerate(labels):
        same = labels.count(label)
        # The better one higher, in a narrow band around the choice.
        rank = labels[:index].count(label)
        offset = 0.0 if same == 1 else spread * (0.5 - rank / (same - 1))
        places.append(middle[label] + offset)
    return Axis(name, [(place, label) for label, place in middle.items()], places, labels)


def _range_axis(name: str, low: float, high: float, log: bool, values: list[float], percent: bool = False) -> Axis:
    def place(value: float) -> float:
        if log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def label(value: float) -> str:
        return f"{value:.2%}" if percent else written(value)

    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
        marks = [step * 10.0**decade for decade in decades for step in steps]
    else:
        marks = list(MaxNLocator(6, integer=isinstance(low, int)).tick_values(low, high))
    ticks = [(place(mark), _percent(mark) if percent else written(mark)) for mark in marks]
    ticks = [(height, text) for height, text in ticks if -1e-9 <= height <= 1 + 1e-9]
    return Axis(name, ticks, [place(value) for value in values], [label(value) for value in values])


def _shades(sweep: dict[str, Any], axis: Axis, steps: int = 40) -> tuple[list[float], list[float]]:
    """The last axis as a colour bar: heights, and how good a figure at each is."""
    best, worst = axis.places[0], axis.places[-1]
    low, high = min(best, worst), max(best, worst)
    if low == high:
        low, high = 0.0, 1.0
    heights = [low + (high - low) * step / (steps - 1) for step in range(steps)]
    return heights, [1.0 if best == worst else (height - worst) / (best - worst) for height in heights]


def _percent(value: float) -> str:
    return f"{100 * value:.4g}%"


def _mixed(good: float) -> tuple[float, ...]:
    return tuple(worst + (best - worst) * good for worst, best in zip(WORST, BEST, strict=True))


def _colour(good: float) -> str:
    return "rgb({:.0f},{:.0f},{:.0f})".format(*_mixed(good))
