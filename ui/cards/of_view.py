"""Every card of a view, whichever kind of answer it has: the one place that tells the kinds apart.

Try it: answer_card(view)
"""

from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup

from switch_model.attribution.direct import DirectAttribution
from switch_model.counterfactuals import WhatIf
from switch_model.grid.layer_names import layer_title
from switch_model.grid.votes import digits_of
from switch_model.topk_routing import TopKRouting
from ui.cards.counterfactuals import force_card, no_text_card, what_if_card
from ui.cards.filled import candidates, filled_card
from ui.cards.importance import attribution, importance_in_words, importance_table
from ui.cards.prediction import prediction_card
from ui.cards.routing import look_cards
from ui.cards.votes import votes_card
from ui.cards.writes import TITLE as WRITES
from ui.cards.writes import writes_card
from ui.cards.written import next_tokens, written_card
from ui.look import html
from ui.look.html import empty_card
from ui.views.changes import words_of_changes
from ui.views.view import FilledView, PredictionView, View, WrittenView


class _Cards(NamedTuple):
    """The cards that each kind of view has its own of.

    Attributes:
        answer: what the model said, and what to know before reading it.
        followers: what the model might have said at the token that is looked at.
    """

    answer: Callable[[View], Markup]
    followers: Callable[[View], Markup | str]


def _prediction(view: PredictionView) -> Markup:
    return prediction_card(view.answer, view.true_label, view.base if view.changed else None, view.unlike)


_CARDS: dict[type[View], _Cards] = {
    PredictionView: _Cards(_prediction, lambda view: ""),
    WrittenView: _Cards(written_card, next_tokens),
    FilledView: _Cards(filled_card, candidates),
}


def answer_card(view: View) -> Markup:
    """What the model answered, with a notice where it read only a part of the text, or knew little of it."""
    return _CARDS[type(view)].answer(view)


def view_notice(view: View) -> Markup | str:
    """What stands above the grid: where a saved view is from, and once it was measured what the class rests on."""
    if not view.saved_from:
        return importance_in_words(view) if view.classifies else ""
    # The panel, whose bars show what each expert matters, is a model's: here they are numbers.
    found = importance_in_words(view) + (importance_table(view) if view.importance else "")
    return html.notice(saved_in_words(view), "status") + found


def summary(view: View) -> Markup:
    """What the grid shows, in two sentences; for a model whose experts vote, which of them decides."""
    if not view.records:
        return html.quiet("This model has no sparse layer: every token takes the same path.")
    said = (
        "A column is a token, a row a layer, a number the expert that the layer’s router chose: one of several small "
        "networks, of which only that one reads the token."
    )
    if any(isinstance(record, TopKRouting) and record.by_experts for record in view.records):
        said = (
            "A column is a token, a row a layer; a cell shows the experts that chose the token, each as wide as its "
            "share of their weights. Every expert takes equally many tokens of a text."
        )
    elif (choices := max(record.experts.shape[-1] for record in view.records)) > 1:
        said = (
            f"A column is a token, a row a layer; a cell shows the {choices} experts that the layer’s router chose for "
            "the token, each as wide as its share of their weights."
        )
    if view.classifies and view.answer.votes is not None:
        answer, record = view.answer, view.answer.voters
        label = list(answer.scores).index(answer.label)
        votes_E = answer.votes_of_experts[:, label]
        most, digits = int(votes_E.argmax()), digits_of(answer)
        if float(votes_E[most]) > 0:
            vote, total = (html.signed(float(value), digits) for value in (votes_E[most], answer.logits[label]))
            layer = layer_title(record.name)
            said += f" The votes of {layer} decide: expert {most} gives {answer.label} {vote}; "
            said += f"all votes and the bias make {total}."
    return html.quiet(said)


def saved_in_words(view: View) -> str:
    """Where a saved view is from, and what was changed in it."""
    said = f"This view of {view.saved_from} was saved: it shows what the model did then. "
    if changes := words_of_changes(view):
        said += f"Changed: {' · '.join(changes)}. "
    return said + "Start with a text to go on with a model."


def closer_cards(view: View) -> tuple[Markup, Markup]:
    """(token card, load card) of the place that is looked at."""
    return look_cards(view, _CARDS[type(view)].followers(view))


def attribution_card(view: View | None, found: DirectAttribution | str | None = None, still: bool = False) -> Markup:
    """What the answer rests on: the votes of a classifier that reads its experts alone, else what each expert writes;
    for a class, also what was measured without each expert.

    Args:
        found: what each part wrote, or why that can't be told; None = not worked out.
        still: nothing in it can be clicked.
    """
    if view is None:
        return empty_card(WRITES)
    if votes_instead(view):
        return votes_card(view, still)
    measured = attribution(view) if view.classifies and not still else ""
    return writes_card(view, found) + measured


def votes_instead(view: View) -> bool:
    """Whether the answer has votes, which are exact, or no expert that could write."""
    return view.classifies and (view.answer.votes is not None or not view.records)


def elsewhere_card(view: View | None, answer: WhatIf | None, still: bool = False) -> Markup:
    """What would become of the answer were the token sent to another expert; or, where a text was written, a button for
    each expert that writes it again. `still` = nothing in it can be clicked."""
    if view is None:
        return no_text_card()
    return what_if_card(view, answer, still) if view.classifies else force_card(view)
