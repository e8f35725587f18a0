"""Figures of one text over the checkpoints of a run: pure functions of records and scores -> plotly Figure.

Try it: saturation_curves([10, 20, 30], [prediction.routing for prediction in predictions]).show()
"""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from switch_model.analysis.statistics import saturation
from switch_model.grid.layer_names import layer_title
from switch_model.plots.style import HOVER_PERCENT, IN_PERCENT, LINES, plain, styled
from switch_model.routing import Routing

# Classes that get a line: more can't be distinguished.
MAX_CLASSES = len(LINES)
MAX_NAME = 24


def saturation_curves(steps: Sequence[int], records: Sequence[Sequence[Routing]]) -> go.Figure:
    """Per sparse layer, the share of tokens routed as at the last checkpoint; thin and dotted, the chance level.

    Args:
        steps: of the checkpoints, ascending.
        records: for each step, one record per sparse layer, of the same texts.
    """
    figure = go.Figure()
    shares = [saturation(one, records[-1]) for one in records]
    for layer, record in enumerate(records[-1]):
        title, colour = layer_title(record.name), LINES[layer % len(LINES)]
        alike, chance = zip(*(share[layer] for share in shares), strict=True)
        figure.add_trace(_line(title, steps, alike, colour, "routed as at the last step"))
        figure.add_trace(_line(title, steps, chance, colour, "by chance", faint=True))
    return _over_steps(figure)


def score_curves(steps: Sequence[int], scores: Sequence[Mapping[str, float]]) -> go.Figure:
    """A line per class: its probability over steps. Of many classes, those with the highest peaks."""
    peaks = {name: max(one[name] for one in scores) for name in scores[-1]}
    shown = sorted(sorted(peaks, key=peaks.__getitem__, reverse=True)[:MAX_CLASSES], key=list(peaks).index)
    figure = go.Figure()
    for index, name in enumerate(shown):
        figure.add_trace(
            _line(plain(name, MAX_NAME), steps, [one[name] for one in scores], LINES[index], "probability")
        )
    return _over_steps(figure)


def _line(
    name: str, steps: Sequence[int], shares: Sequence[float], colour: str, what: str, faint: bool = False
) -> go.Scatter:
    return go.Scatter(
        x=list(steps),
        y=[round(100 * share, 2) for share in shares],
        name=name,
        legendgroup=name,
        showlegend=not faint,
        mode="lines" if faint else "lines+markers",
        line={"color": colour, "width": 1.2 if faint else 2.2, "dash": "dot" if faint else "solid"},
        marker={"size": 5},
        hovertemplate=f"{name}, step %{{x:,}}<br>{what}: {HOVER_PERCENT}<extra></extra>",
        cliponaxis=False,
    )


def _over_steps(figure: go.Figure) -> go.Figure:
    figure = styled(figure, height=300, hovermode="closest").update_layout(showlegend=True)
    figure.update_xaxes(title="step", showgrid=False, tickformat=",d")
    return figure.update_yaxes(range=[0, 100], **IN_PERCENT)
