"""The cards of a text whose blanks a model filled: the text, and what fits each blank.

Pure functions; every text that is not ours goes through html.escape.
Try it: filled_card(view, milliseconds=90.0)
"""

from html import escape

from ui.cards.written import MAX_NEXT, facts_of_pass
from ui.catalog.kinds import FILLER
from ui.look.html import bar, percent
from ui.views.view import FilledView

# Bars of what fits a blank that a person still reads.
MAX_CANDIDATES = 5


def filled_card(view: FilledView, milliseconds: float | None) -> str:
    """What the model made of the text; with changes, beside what it made of it before."""
    filled, base = view.answer, view.base if view.changed else None
    parts = []
    for number, blank in enumerate(filled.blanks):
        before = dict(base.blanks[number].candidates) if base else {}
        rows = [
            bar(name or "␣", share, percent(share), not place, before=before.get(name, 0.0) if base else None)
            for place, (name, share) in enumerate(blank.candidates[:MAX_CANDIDATES])
        ]
        title = f"<h3>blank {number + 1}</h3>" if len(filled.blanks) > 1 else ""
        parts.append(title + "".join(rows))
    head, was, facts = FILLER.answers, "", facts_of_pass(view, milliseconds)
    if base is not None:
        head, facts = f"{head} with your changes", ['<s class="tick"></s> before', *facts]
        was = "<p class=facts>the same words as before</p>"
        if base.text != filled.text:
            was = f'<h3>before</h3><p class="answer-text" dir="auto">{escape(base.text)}</p>'
    bars = f'<div class="{"changed-bars" if base else ""}">{"".join(parts)}</div>'
    text = f'<p class="answer-text" dir="auto">{escape(filled.text)}</p>'
    return f'<h2>{head}</h2>{text}{was}{bars}<p class="facts">{" · ".join(facts)}</p>'


def candidates(view: FilledView) -> str:
    """What fits the blank that is looked at; "" at any other token."""
    for blank in view.answer.blanks:
        if blank.token == view.token:
            rows = (bar(name or "␣", share, f"{share:.2f}") for name, share in blank.candidates[:MAX_NEXT])
            return f"<h3>what fits here</h3>{''.join(rows)}"
    return ""
