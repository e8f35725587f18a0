"""What more experts brought in training: results of `python -m benchmarks.scaling_experts` -> words and plotly figures.

Pure functions of what that command wrote; a page without its file shows nothing.
Try it: loss_plot(read_scaling()).show()
"""

import json
from pathlib import Path
from typing import Any

from train.formatting import percent
from ui.look.html import render

RESULTS = Path(__file__).parent / "scaling_experts.json"
_FROM, _TO = (188, 214, 238), (28, 84, 140)


def read_scaling(path: Path = RESULTS) -> dict[str, Any] | None:
    """The results; None where there are none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def scaling_html(results: dict[str, Any] | None) -> str:
    """What was measured, in a paragraph."""
    if results is None:
        return ""
    setup, rows = results["setup"], results["rows"]
    sparse = [row for row in rows[1:] if row["share_of_steps"] is not None]
    best = min(sparse, key=lambda row: row["share_of_steps"], default=None)
    return render(
        "how_it_works/scaling.html",
        setup=setup,
        millions=setup["steps"] * setup["tokens_per_step"] / 1e6,
        dense=rows[0],
        best=best,
        share_of_steps=best and percent(best["share_of_steps"]),
    )


def loss_plot(results: dict[str, Any]) -> Any:
    """Loss against steps, a line for each number of experts, the dense model dashed."""
    import plotly.graph_objects as go

    from switch_model.plots.style import INK, styled

    firsts = [curve for curve in results["curves"] if curve["seed"] == 0]
    figure = go.Figure()
    for index, curve in enumerate(firsts):
        steps, losses = zip(*curve["points"], strict=True)
        dense = curve["experts"] == 1
        name = "dense" if dense else f"{curve['experts']} experts"
        line = {"color": INK, "dash": "dash", "width": 2.4} if dense else {"color": _shade(index, len(firsts))}
        figure.add_trace(
            go.Scatter(
                x=steps,
                y=losses,
                name=name,
                mode="lines",
                line=line,
                hovertemplate=f"{name}, step %{{x:,}}: %{{y:.3f}}<extra></extra>",
            )
        )
    # The first steps are alike, and would take most of the height.
    late = [loss for curve in firsts for step, loss in curve["points"] if step >= curve["points"][-1][0] / 4]
    figure.update_yaxes(title="loss of a held-out token, nats", range=[min(late) - 0.02, max(late) + 0.02])
    figure.update_xaxes(title="step", rangemode="tozero")
    return styled(figure, height=360, hovermode="closest")


def speed_up_plot(results: dict[str, Any]) -> Any:
    """Speed-up to the dense model's final loss against experts: in steps, and in time."""
    import plotly.graph_objects as go

    from switch_model.plots.style import styled
    from ui.training.learning_curves import ACCURACY, LOSS

    rows = [row for row in results["rows"] if row["share_of_steps"] is not None]
    experts = [str(row["experts"]) for row in rows]
    figure = go.Figure()
    for key, name, colour in (
        ("speed_up_in_steps", "in steps", LOSS),
        ("speed_up_in_time", "in time, on one core", ACCURACY),
    ):
        figure.add_trace(
            go.Scatter(
                x=experts,
                y=[row[key] for row in rows],
                name=name,
                mode="lines+markers",
                line={"color": colour},
                hovertemplate=f"%{{x}} experts, {name}: %{{y:.2f}}<extra></extra>",
            )
        )
    figure.update_xaxes(title="experts", type="category")
    figure.update_yaxes(title="speed-up to the dense model’s final loss", rangemode="tozero")
    return styled(figure, height=360, hovermode="closest")


def _shade(index: int, count: int) -> str:
    """From light to dark with the number of experts."""
    share = index / max(count - 1, 1)
    return f"rgb({','.join(str(round(a + share * (b - a))) for a, b in zip(_FROM, _TO, strict=True))})"
