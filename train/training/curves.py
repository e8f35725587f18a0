"""The training curves of a run, as .png (matplotlib) and as .html that opens offline (plotly).

Above, loss and the task's metrics; below, drop rate and load imbalance of every sparse layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure
from plotly.subplots import make_subplots

from switch_model.plots.style import IN_PERCENT, LINES, plain, styled
from switch_model.storage.whole_files import folder_written_aside
from train.picture_text import as_percent, as_written, drawable_only
from train.runs.run import Run
from train.tasks.metrics import MEASURES, SHARE, noted
from train.tasks.registry import TASKS

PANELS = ("Loss", "On validation", "Load imbalance (CV of expert loads)", "Dropped tokens")


def curve_series(
    records: list[dict[str, Any]], metrics: Sequence[str] = ("accuracy",)
) -> list[list[tuple[str, list[float], list[float]]]]:
    """Lines of metrics.jsonl and names of a task's metrics -> for each panel, its curves as (name, steps, values)."""
    train = [record for record in records if record["kind"] == "train"]
    evaluated = [record for record in records if record["kind"] == "eval"]

    def curve(name: str, lines: list[dict[str, Any]], key: str) -> tuple[str, list[float], list[float]]:
        lines = [line for line in lines if key in line]
        return name, [line["step"] for line in lines], [noted(line, key) for line in lines]

    def per_layer(key: str) -> list[tuple[str, list[float], list[float]]]:
        curves: dict[str, tuple[list[float], list[float]]] = {}
        # A run shorter than logging_steps has no training line.
        for line in train or evaluated:
            for layer in line.get("routing", []):
                steps, values = curves.setdefault(layer["layer"], ([], []))
                steps.append(line["step"])
                values.append(layer[key])
        return [(name, *series) for name, series in curves.items()]

    return [
        [curve("training", train, "loss"), curve("validation", evaluated, "loss")],
        [curve(MEASURES[name].word, evaluated, name) for name in metrics],
        per_layer("load_cv"),
        per_layer("drop_rate"),
    ]


def write_curves(run: Run) -> None:
    """Write training_curve.png and training_curve.html into the run's folder."""
    metrics = TASKS[run.arguments().train.task].curves
    panels = curve_series(run.metrics(), metrics)
    in_percent = [False, all(MEASURES[name].number == SHARE for name in metrics), False, True]
    title = run.folder.name
    with folder_written_aside(run.folder) as aside:
        _write_png(panels, in_percent, drawable_only(title), aside / "training_curve.png")
        _write_html(panels, in_percent, title, aside / "training_curve.html")


def _write_png(panels, in_percent: Sequence[bool], title: str, path: Path) -> None:
    # Fixed margins, and titles at a fixed height: an automatic layout draws everything twice. Only the title may need
    # the fonts of all scripts, which would otherwise be searched for every tick.
    figure = Figure(figsize=(11, 6.5))
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(left=0.065, right=0.985, bottom=0.08, top=0.9, wspace=0.15, hspace=0.33)
    figure.suptitle(title, **as_written())
    for axis, name, curves, shares in zip(axes.flat, PANELS, panels, in_percent, strict=True):
        for index, (label, steps, values) in enumerate(curves):
            marker = "o" if len(steps) < 15 else None
            axis.plot(steps, values, label=label, color=LINES[index % len(LINES)], marker=marker, markersize=4)
        axis.set_title(name, fontsize=10, y=1.0)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        # All that is drawn is at least 0; a margin below would show a loss there.
        axis.set_ylim(bottom=max(axis.get_ylim()[0], 0))
        if shares:
            axis.yaxis.set_major_formatter(as_percent)
        if curves:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _write_html(panels, in_percent: Sequence[bool], title: str, path: Path) -> None:
    figure = make_subplots(rows=2, cols=2, subplot_titles=PANELS)
    for panel, (curves, shares) in enumerate(zip(panels, in_percent, strict=True)):
        place = {"row": panel // 2 + 1, "col": panel % 2 + 1}
        figure.update_yaxes(IN_PERCENT | {"hoverformat": ".1f"} if shares else {}, **place)
        for index, (label, steps, values) in enumerate(curves):
            figure.add_trace(
                go.Scatter(
                    x=steps,
                    y=[100 * value for value in values] if shares else values,
                    name=label,
                    line={"color": LINES[index % len(LINES)]},
                    mode="lines+markers",
                ),
                **place,
            )
    figure = styled(figure, height=720, top=80, hovermode="x unified")
    figure.update_layout(title=plain(title), showlegend=False)
    figure.update_xaxes(title_text="step", row=2)
    figure.update_yaxes(rangemode="nonnegative")
    figure.write_html(path, include_plotlyjs=True, full_html=True)
