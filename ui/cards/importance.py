"""“What matters?” in words and as a table: what the predicted class rests on. Pure functions of a view.

Try it: importance_in_words(view)
"""

from html import escape

from switch_model.analysis.layer_names import layer_title
from ui.look.html import in_points, visible
from ui.views.view import PredictionView


def importance_in_words(view: PredictionView) -> str:
    """The expert and the token without which the predicted class changes most; "" before it was measured."""
    if view.importance is None:
        return ""
    found, tokens = view.importance, view.trace.tokens
    layer, expert = divmod(int(found.experts.abs().argmax()), found.experts.shape[1])
    token = int(found.tokens.abs().argmax())
    points = 100 * float(found.experts[layer, expert]), 100 * float(found.tokens[token])
    label = escape(found.label)
    if all(round(change, 1) == 0 for change in points):
        said = f"No single expert and no single token moves {label} by 0.1 points."
    else:
        name = escape(visible(tokens[token]))
        said = (
            f"What moves {label} most: expert {expert} of {layer_title(view.records[layer].name)} (without "
            f"it {in_points(points[0])} points) and the token “<bdi>{name}</bdi>” (without it {in_points(points[1])})."
        )
    return f'<p class="facts" role="status" id="matters-said">{said}</p>'


def importance_table(view: PredictionView) -> str:
    """A row per layer, a column per expert: the points that the class gains or loses without it."""
    rows, (_, experts) = "", view.importance.experts.shape
    for record, changes_E in zip(view.records, (100 * view.importance.experts).tolist(), strict=True):
        cells = "".join(f"<td>{in_points(change)}</td>" for change in changes_E)
        rows += f"<tr><th>{layer_title(record.name)}</th>{cells}</tr>"
    head = "".join(f"<th>{expert}</th>" for expert in range(experts))
    return (
        '<div class="run-diff matters"><table>'
        f"<thead><tr><th>without expert</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
