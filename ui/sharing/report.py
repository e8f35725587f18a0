"""What is on screen as one HTML file: opens offline, in any browser, long after the model is gone.

Of a class, what stands on the page stands here: the text, its class, the grid, the changes, who voted for what, what
matters once it was measured, the card “what if”, the chosen token, the loads, the probabilities and an open flow. Of a
text that a model wrote or filled: the text, the grid, the changes, the chosen token and the load.
Try it: report_html(view, "AG News")
"""

from typing import Any

from markupsafe import Markup

from switch_model.attribution.direct import DirectAttribution
from switch_model.counterfactuals import WhatIf
from switch_model.grid.drawing import style as grid_style
from switch_model.grid.layer_names import layer_title
from switch_model.grid.palette import shade_of
from switch_model.plots.routing import router_probabilities
from switch_model.routing import may_drop
from ui.cards.flow import draw_flow
from ui.cards.importance import importance_in_words, importance_table
from ui.cards.of_view import answer_card, attribution_card, closer_cards, elsewhere_card, votes_instead
from ui.cards.routing import load_card
from ui.cards.votes import strip_bar
from ui.look.html import in_points, render
from ui.look.theme import STYLE_SHEET
from ui.sharing.picture import draw_grid
from ui.views.changes import words_of_changes
from ui.views.view import PredictionView, View


def report_html(
    view: View,
    title: str,
    answer: WhatIf | None = None,
    flow: bool = False,
    attribution: DirectAttribution | str | None = None,
) -> Markup:
    """The whole file, with the page's own looks.

    Args:
        title: the model's name for people.
        answer: what the chosen token would do elsewhere; None = the model can't be asked.
        flow: whether the flow from layer to layer is on screen.
        attribution: what each part of the model wrote; None = that is not on screen.
    """
    style = f"{grid_style()}\n{STYLE_SHEET.read_text(encoding='utf-8')}"
    parts: dict[str, Any] = dict.fromkeys(
        ("grid", "picture", "votes", "importance", "elsewhere", "probabilities", "flow")
    )
    parts["closer"] = []
    if not view.classifies:
        picture = draw_grid(view, "svg", title).decode()
        parts["picture"] = Markup(picture[picture.index("<svg") :].replace("<svg", '<svg class="grid"', 1))
        parts["closer"] = closer_cards(view)
    elif view.record is not None:
        parts |= _routing_of_class(view, answer, flow)
    if attribution is not None:
        parts["votes"] = attribution_card(view, attribution, still=True)
    return render(
        "sharing/report.html",
        style=Markup(style),
        view=view,
        title=title,
        answer=answer_card(view),
        changes=words_of_changes(view),
        **parts,
    )


def _routing_of_class(view: PredictionView, answer: WhatIf | None, flow: bool) -> dict[str, Any]:
    token, _ = closer_cards(view)
    found = {"words": importance_in_words(view), "table": importance_table(view)} if view.importance else None
    probabilities = router_probabilities(view.record, view.trace.tokens, view.token)
    return {
        "grid": _static_grid(view),
        "votes": attribution_card(view, still=True) if votes_instead(view) else "",
        "importance": found,
        "elsewhere": elsewhere_card(view, answer, still=True) if answer else "",
        "closer": [token, *(load_card(view.trace, layer) for layer in range(len(view.records)))],
        "probabilities": {"layer": layer_title(view.record.name), "plot": _plot(probabilities, with_library=True)},
        "flow": _flow(view) if flow else None,
    }


def _plot(figure: Any, with_library: bool = False) -> Markup:
    """A figure as HTML; the first one of a file brings plotly along."""
    library = "inline" if with_library else False
    return Markup(figure.to_html(full_html=False, include_plotlyjs=library, config={"displayModeBar": False}))


def _flow(view: View) -> dict[str, str]:
    words, sankey, matrix = draw_flow(view, opened=True)
    return {
        "words": words,
        "sankey": "" if sankey is None else _plot(sankey),
        "matrix": "" if matrix is None else _plot(matrix),
    }


def _static_grid(view: PredictionView) -> dict[str, Any]:
    """The grid without its script: a column per token, a cell per layer."""
    value = view.grid(plain=True)
    changes = [None] * len(value["tokens"]) if view.importance is None else view.importance.tokens.tolist()
    most = max(0.001, *(abs(change or 0.0) for change in changes))
    voted, votes = "", [None] * len(value["tokens"])
    if (strip := value["votes"]) is not None:
        voted, cast = strip["classes"][0].values()
        largest = max(abs(vote or 0.0) for vote in cast)
        votes = [strip_bar(vote, voted, largest, strip["digits"]) for vote in cast]
    columns = [
        {
            "token": token,
            "change": changes[index],
            "points": in_points(100 * (changes[index] or 0.0)),
            "height": _height(changes[index], most),
            "vote": votes[index],
            "cells": [_cell(layer, index, value["experts"]) for layer in value["layers"]],
        }
        for index, token in enumerate(value["tokens"])
    ]
    return {
        "layers": [layer["title"] for layer in value["layers"]],
        "may_drop": may_drop(view.records),
        "voted": voted,
        "columns": columns,
    }


def _height(change: float | None, most: float) -> int:
    """Pixels of the bar above a token; none where without it nothing changes that could be read."""
    return 0 if change is None or abs(change) < 0.0005 else max(round(20 * abs(change) / most), 1)


def _cell(layer: dict[str, Any], index: int, experts: int) -> dict[str, Any]:
    """`capacity` 0 = all experts are off."""
    expert = None if layer["capacity"] == 0 else layer["expert"][index]
    marks = [
        *([] if expert is None else [f"x{shade_of(expert, experts)}"]),
        *(["dropped"] if layer["dropped"][index] else []),
        *(["changed"] if layer["before"] and layer["before"][index] else []),
    ]
    return {"expert": "–" if expert is None else expert, "classes": " ".join(marks)}
