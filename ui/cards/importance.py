"""“What matters?” in words and as a table: what the predicted class rests on. Pure functions of a view.

Try it: matters_in_words(view)
"""

from html import escape

from switch_model.analysis.layer_names import layer_title
from ui.views.view import View


def matters_in_words(view: View) -> str:
    """The expert and the token without which the predicted class changes most; "" before it was measured."""
    if view.matters is None:
        return ""
    matters, tokens = view.matters, view.prediction.tokens
    layer, expert = divmod(int(matters.experts.abs().argmax()), matters.experts.shape[1])
    token = int(matters.tokens.abs().argmax())
    points = 100 * float(matters.experts[layer, expert]), 100 * float(matters.tokens[token])
    label = escape(matters.label)
    if all(round(change, 1) == 0 for change in points):
        said = f"No single expert and no single token moves {label} by 0.1 points."
    else:
        name = escape(tokens[token].strip() or "␣")
        said = (
            f"What moves {label} most: expert {expert} of {layer_title(view.prediction.routing[layer].name)} (without "
            f"it {in_points(points[0])} points) and the token “<bdi>{name}</bdi>” (without it {in_points(points[1])})."
        )
    return f'<p class="facts" role="status" id="matters-said">{said}</p>'


def matters_table(view: View) -> str:
    """A row per layer, a column per expert: the points that the class gains or loses without it."""
    rows, (_, experts) = "", view.matters.experts.shape
    for record, changes_E in zip(view.prediction.routing, (100 * view.matters.experts).tolist(), strict=True):
        cells = "".join(f"<td>{in_points(change)}</td>" for change in changes_E)
        rows += f"<tr><th>{layer_title(record.name)}</th>{cells}</tr>"
    head = "".join(f"<th>{expert}</th>" for expert in range(experts))
    return (
        '<div class="run-diff matters"><table>'
        f"<thead><tr><th>without expert</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def in_points(change: float) -> str:
    """A change in points with its sign, "±" where nothing is left of it."""
    change = round(change, 1)
    return f"{'+' if change > 0 else '−' if change < 0 else '±'}{abs(change):.1f}"
