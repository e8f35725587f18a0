"""Optuna's plots of a sweep's trials: parallel coordinates, and the metric over each argument.

Darker lines are better, the best is orange, trials without a metric are not shown. Our own are only the colours
(Optuna's worst trial is almost white), the hover texts, and the page.
Try it: parallel_coordinates(found).show()
"""

import warnings
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import plotly.graph_objects as go
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from optuna.exceptions import ExperimentalWarning
from optuna.visualization import matplotlib as static
from optuna.visualization import plot_parallel_coordinate, plot_slice

from switch_model.plots.style import styled
from switch_model.storage.whole_files import folder_written_aside
from train.formatting import counted
from train.picture_text import text_as_written
from train.sweep.search_space import written
from train.sweep.study import Sweep, as_study
from train.templates import plot_html, plotly_script, render

# Light to dark, and Okabe-Ito's vermilion.
WORST, BEST, HIGHLIGHT = "#bad1e8", "#08306b", "#d55e00"
INCHES_PER_AXIS, HEIGHT = 1.7, 4.8


def parallel_coordinates(found: Sweep) -> go.Figure:
    """An axis per argument and one for the metric, a line per trial. Needs at least one finished trial."""
    figure = plot_parallel_coordinate(_study(found), target_name=_metric(found))
    figure.update_traces(line={"colorscale": _colours(found), "reversescale": False, "showscale": False})
    return styled(figure, height=440, top=60).update_layout(title=None, margin={"l": 80, "r": 100, "b": 90})


def slices(found: Sweep) -> go.Figure:
    """The metric over each argument, a dot per trial."""
    figure = plot_slice(_study(found), target_name=_metric(found))
    # Optuna uses the trial's number, from 0, as the colour.
    said = "trial %{customdata}<br>%{x}<br>" + _metric(found) + " %{y}<extra></extra>"
    for trace in figure.data:
        numbers = [int(number) + 1 for number in trace.marker.color]
        colours = [HIGHLIGHT if number == found.best.number else BEST for number in numbers]
        trace.update(customdata=numbers, hovertemplate=said, marker={"color": colours, "showscale": False})
    return styled(figure, height=380, hovermode="closest").update_layout(title=None, width=None)


def write_plots(found: Sweep, folder: Path) -> None:
    """Write parallel_coordinates.html, which opens offline, and parallel_coordinates.png."""
    with folder_written_aside(folder) as aside:
        (aside / "parallel_coordinates.html").write_text(_page(found), encoding="utf-8")
        with text_as_written():
            _write_png(found, aside / "parallel_coordinates.png")


def _page(found: Sweep) -> str:
    best, drawn = found.best, len(found.ranked())
    return render(
        "sweep/plots.html",
        plotly=plotly_script(),
        title=f"{counted(drawn, 'trial', 'trials')} compared by {_metric(found)}",
        left_out=len(found.trials) - drawn,
        best=best.number,
        metric=f"{_metric(found)} {found.metric_text(best.figure)}",
        values=", ".join(f"{name} {written(value)}" for name, value in best.values.items()),
        plots=[plot_html(one) for one in (parallel_coordinates(found), slices(found))],
    )


def _write_png(found: Sweep, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna's matplotlib plots may change.
        warnings.simplefilter("ignore", UserWarning)  # An axis on which all trials have the same value.
        axes = static.plot_parallel_coordinate(_study(found), target_name=_metric(found))
    figure = axes.get_figure()
    figure.set_size_inches(max(7, INCHES_PER_AXIS * (len(found.dimensions) + 2)), HEIGHT)
    for lines in axes.findobj(LineCollection):
        lines.set_cmap(LinearSegmentedColormap.from_list("trials", _colours(found)))
    for axis in (one.yaxis for one in figure.axes if one.get_yscale() == "log"):
        # matplotlib would write powers of ten as formulas.
        axis.set_major_formatter(lambda value, place: written(value))
        axis.set_minor_formatter(lambda value, place: written(value) if f"{value:e}"[0] in "25" else "")
    axes.set_title("")
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)


def _study(found: Sweep) -> Any:
    return as_study(found.dimensions, found.trials, found.higher_is_better)


def _metric(found: Sweep) -> str:
    return f"validation {found.figure}"


def _colours(found: Sweep) -> list[tuple[float, str]]:
    """Colour scale from the lowest to the highest value; only the best is orange."""
    if found.higher_is_better:
        return [(0.0, WORST), (0.999, BEST), (1.0, HIGHLIGHT)]
    return [(0.0, HIGHLIGHT), (0.001, BEST), (1.0, WORST)]
