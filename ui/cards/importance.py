"""“Measure attribution” in words and as a table: what the predicted class rests on. Pure functions of a view.

Try it: importance_in_words(view)
"""

from markupsafe import Markup

from switch_model.grid.layer_names import layer_title
from switch_model.grid.tokens import visible
from ui.look.html import in_points, part
from ui.views.view import PredictionView

_TEMPLATE = "cards/importance.html"


def importance_in_words(view: PredictionView) -> Markup | str:
    """The expert and the token without which the predicted class changes most; "" before it was measured."""
    if view.importance is None:
        return ""
    found, tokens = view.importance, view.trace.tokens
    layer, expert = divmod(int(found.experts.abs().argmax()), found.experts.shape[1])
    token = int(found.tokens.abs().argmax())
    points = 100 * float(found.experts[layer, expert]), 100 * float(found.tokens[token])
    return part(
        _TEMPLATE,
        "words",
        label=found.label,
        expert=expert,
        layer=layer_title(view.records[layer].name),
        without_expert=in_points(points[0]),
        token=visible(tokens[token]),
        without_token=in_points(points[1]),
        moves=any(round(change, 1) for change in points),
    )


def attribution(view: PredictionView) -> Markup | str:
    """What was measured of the experts; before that a button that asks for it, where there is a model and an expert."""
    if view.importance is not None:
        return part(_TEMPLATE, "above_table", view.importance.label) + importance_table(view)
    return part(_TEMPLATE, "ask") if view.model and view.records else ""


def importance_table(view: PredictionView) -> Markup:
    """A row per layer, a column per expert: the points that the class gains or loses without it."""
    changes_LE = (100 * view.importance.experts).tolist()
    layers = [
        (layer_title(record.name), [in_points(change) for change in changes_E])
        for record, changes_E in zip(view.records, changes_LE, strict=True)
    ]
    return part(_TEMPLATE, "table", view.importance.experts.shape[1], layers)
