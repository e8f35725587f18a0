"""The cards of a text whose blanks a model filled: the text, and what fits each blank.

Pure functions; filled.html escapes.
Try it: filled_card(view)
"""

from markupsafe import Markup

from train.formatting import percent
from ui.cards.written import MAX_NEXT, answer_notice, drops_of
from ui.catalog.kinds import FILLER
from ui.look.html import bar, part
from ui.views.view import FilledView

_TEMPLATE = "cards/filled.html"
# Bars of what fits a blank that a person still reads.
MAX_CANDIDATES = 5


def filled_card(view: FilledView) -> Markup:
    """What the model made of the text; with changes, beside what it made of it before."""
    filled, base = view.answer, view.base if view.changed else None
    blanks = []
    for number, blank in enumerate(filled.blanks):
        before = dict(base.blanks[number].candidates) if base else {}
        rows = [
            bar(name or "␣", share, percent(share), not place, before=before.get(name, 0.0) if base else None)
            for place, (name, share) in enumerate(blank.candidates[:MAX_CANDIDATES])
        ]
        blanks.append(rows)
    return part(
        _TEMPLATE,
        "filled",
        title=FILLER.answers + (" with your changes" if base else ""),
        notice=answer_notice(view),
        text=filled.text,
        before=base.text if base and base.text != filled.text else None,
        blanks=blanks,
        compared=base is not None,
        facts=drops_of(view),
    )


def candidates(view: FilledView) -> Markup | str:
    """What fits the blank that is looked at; "" at any other token."""
    for blank in view.answer.blanks:
        if blank.token == view.token:
            rows = [bar(name or "␣", share, f"{share:.2f}") for name, share in blank.candidates[:MAX_NEXT]]
            return part(_TEMPLATE, "candidates", rows)
    return ""
