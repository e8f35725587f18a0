"""Figures of a classifier's confusion matrix and class distribution, as .png and .html files.

Try it: write_pictures(metrics, "my model", Path("out"))
"""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
from matplotlib.figure import Figure

from switch_model.plots.style import IN_PERCENT, LINES, SHARES, plain, styled
from train.formatting import one_line, percent, shortened
from train.picture_text import as_percent, drawable_only, names_for_picture, text_as_written, told_by_number

# In inches. For hundreds of classes use the .html, which can zoom.
LARGEST_PICTURE = 14
MOST_TICKS = 40
LETTERS_PER_INCH = 12  # Of a title.
# Of a class name on an axis of the .html, which shows the whole name on hover.
LONGEST_NAME = 60


def write_pictures(metrics: dict[str, Any], title: str, folder: Path) -> list[Path]:
    """confusion_matrix and label_distribution, each as .png and as an .html that opens offline; returns their paths."""
    labels = list(metrics["label_distribution"])
    matrix = np.array(metrics["confusion"])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    counts = [list(metrics[f"{kind}_distribution"].values()) for kind in ("label", "prediction")]
    paths = [
        folder / f"{name}.{kind}" for name in ("confusion_matrix", "label_distribution") for kind in ("png", "html")
    ]
    shown = names_for_picture(labels)
    numbered = told_by_number(labels, shown)
    lacking = "\nnumbers replace names that the installed fonts can't draw; see the .html" if numbered else ""
    with text_as_written():
        _confusion_png(matrix, shares, shown, drawable_only(title) + lacking, paths[0])
        _distribution_png(counts, shown, drawable_only(title) + lacking, paths[2])
    _confusion_html(matrix, shares, labels, _page_title(title, numbered), paths[1])
    _distribution_html(counts, labels, _page_title(title, numbered), paths[3])
    return paths


def _page_title(title: str, numbered: list[str]) -> str:
    """The title, with a key to the names that are numbered in the .png."""
    if not numbered:
        return plain(title)
    return f"{plain(title)}<br><sub>In the .png: {plain(shortened('; '.join(numbered), 150))}</sub>"


def _in_page(labels: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Class names for plotly, and axis settings that show them as categories, even if they look like numbers, dates or
    HTML."""
    names = [plain(one_line(label)) for label in labels]
    short = [plain(shortened(label, LONGEST_NAME)) for label in labels]
    return names, {"type": "category", "tickvals": names, "ticktext": short} if short != names else {"type": "category"}


def _confusion_png(matrix: np.ndarray, shares: np.ndarray, labels: list[str], title: str, path: Path) -> None:
    size = min(max(4.5, 1.0 + 0.7 * len(labels)), LARGEST_PICTURE)
    figure, axis = plt.subplots(figsize=(size + 1, size), constrained_layout=True)
    picture = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(0, len(labels), -(-len(labels) // MOST_TICKS))
    names = [labels[tick] for tick in ticks]
    slanted = {"rotation": 45, "ha": "right"} if len(labels) > 4 or len("".join(labels)) > 40 else {}
    axis.set_xticks(ticks, names, **slanted)
    axis.set_yticks(ticks, names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    _head(figure, title)
    if len(labels) <= 20:
        for row, column in np.ndindex(*matrix.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = f"{matrix[row, column]:,}\n{percent(shares[row, column])}"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(picture, ax=axis, label="share of the true class", format=as_percent)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _head(figure: Figure, title: str) -> None:
    """A title over the whole figure, wrapped."""
    width = int(LETTERS_PER_INCH * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.fill(line, width) for line in title.splitlines()), fontsize=10)


def _confusion_html(matrix: np.ndarray, shares: np.ndarray, labels: list[str], title: str, path: Path) -> None:
    names, shown = _in_page(labels)
    figure = go.Figure(
        go.Heatmap(
            z=100 * shares,
            x=names,
            y=names,
            customdata=matrix,
            colorscale=SHARES,
            zmin=0,
            zmax=100,
            text=[[f"{count:,}" for count in row] for row in matrix.tolist()],
            texttemplate="%{text}" if len(labels) <= 20 else None,
            hovertemplate="true %{y}<br>predicted %{x}<br>%{customdata:,} rows, %{z:.1f}\u00a0% of the class"
            "<extra></extra>",
            colorbar={"title": "share of the<br>true class", **IN_PERCENT},
        )
    )
    figure = styled(figure, height=620, top=60, hovermode="closest", grid=False)
    figure.update_layout(title=title, xaxis_title="predicted", yaxis_title="true")
    figure.update_xaxes(shown)
    figure.update_yaxes(shown, autorange="reversed")
    figure.write_html(path, include_plotlyjs=True, full_html=True)


def _distribution_png(counts: list[list[int]], labels: list[str], title: str, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(min(max(5, 1.1 * len(labels)), LARGEST_PICTURE), 3.6), constrained_layout=True)
    places = np.arange(len(labels))
    for offset, name, values, colour in zip((-0.2, 0.2), ("true", "predicted"), counts, LINES[:2], strict=True):
        axis.bar(places + offset, values, 0.4, label=name, color=colour)
    ticks = places[:: -(-len(labels) // MOST_TICKS)]
    slanted = {"rotation": 45, "ha": "right"} if len(labels) > 6 or len("".join(labels)) > 50 else {}
    axis.set_xticks(ticks, [labels[tick] for tick in ticks], **slanted)
    axis.set_ylabel("rows")
    _head(figure, title)
    axis.legend()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _distribution_html(counts: list[list[int]], labels: list[str], title: str, path: Path) -> None:
    names, shown = _in_page(labels)
    figure = go.Figure()
    for name, values, colour in zip(("true", "predicted"), counts, LINES[:2], strict=True):
        figure.add_bar(x=names, y=values, name=name, marker_color=colour)
    figure = styled(figure, height=420, top=80, hovermode="closest")
    figure.update_layout(title=title, yaxis_title="rows", barmode="group")
    figure.update_xaxes(shown)
    figure.write_html(path, include_plotlyjs=True, full_html=True)
