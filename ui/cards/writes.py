"""What each expert writes: the logits of the prediction that is looked at, as a sum of what each part adds.

Pure functions of a view and of what was worked out for it. Try it: writes_card(view, view.attribution(loaded))
"""

from typing import Any

from markupsafe import Markup

from switch_model.attribution.direct import DirectAttribution, Term
from switch_model.grid.layer_names import layer_label
from switch_model.grid.palette import shade_of
from switch_model.grid.tokens import visible
from train.formatting import signed
from ui.look.html import empty_card, heading, quiet, render
from ui.look.sums import cells_of
from ui.views.view import View

TITLE = "What each expert writes"
# Experts with rows of their own, outputs with columns, and words that an expert promotes or suppresses.
MAX_ROWS, MAX_COLUMNS, MAX_WORDS = 12, 4, 3
_METHOD = (
    "A part’s share of a logit: what it added to the residual stream, through the final norm with its scale held fixed "
    "and through the output layer. A column adds up to the model’s own logit. What a part changes in later layers is "
    "not in it: switch an expert off to see that."
)


def writes_card(view: View, found: DirectAttribution | str | None) -> Markup:
    """A row per expert, the largest part of the first output's logit first; the other parts; their sum.

    Args:
        found: or the reason why there is nothing; None = not worked out yet.
    """
    if found is None:
        return empty_card(TITLE, "Appears here once this tab is open.")
    if isinstance(found, str):
        return heading(TITLE) + quiet(found)
    columns = range(min(MAX_COLUMNS, len(found.outputs)))
    digits = 2 if max(map(abs, found.logits)) >= 1 else 3
    shown, rest = found.experts[:MAX_ROWS], found.experts[MAX_ROWS:]
    others = {name: sums for name, sums in found.others.items() if name != "rounding" or _visible(sums, digits)}
    widest = max(
        [1e-9, *(abs(values[c]) for values in (*(one.values for one in shown), *others.values()) for c in columns)]
    )

    def cells(values: list[float], bars: bool = True) -> list[dict[str, Any]]:
        return cells_of(values, columns, found.outputs, widest if bars else None, digits)

    rows = [{**_named(view, one), "kind": "", "cells": cells(one.values)} for one in shown]
    if rest:
        together = [sum(values) for values in zip(*(one.values for one in rest), strict=True)]
        rows.append({"expert": None, "name": f"{len(rest)} more experts", "kind": "", "cells": cells(together)})
    rows += [{"expert": None, "name": name, "kind": "", "cells": cells(sums)} for name, sums in others.items()]
    rows.append({"expert": None, "name": "logit", "kind": "sum", "cells": cells(found.logits, bars=False)})
    return render(
        "cards/writes.html",
        title=TITLE,
        verdict=_verdict(view, found),
        outputs=[visible(found.outputs[c]) for c in columns],
        rows=rows,
        words=[_words(view, one) for one in shown if one.promoted],
        method=_METHOD,
    )


def _visible(sums: list[float], digits: int) -> bool:
    return any(round(value, digits) for value in sums)


def _verdict(view: View, found: DirectAttribution) -> str:
    """Which prediction it is, and how much of its first logit experts make."""
    by_experts, logit = signed(sum(one.values[0] for one in found.experts), 2), signed(found.logits[0], 2)
    about = ""
    if found.token is not None:
        token = visible(view.traces[-1].tokens[found.token])
        about = f"After “{token}”: the next token. " if view.writes else f"At “{token}”. "
    return f"{about}Of the {logit} of “{visible(found.outputs[0])}”, experts themselves write {by_experts}."


def _named(view: View, term: Term) -> dict[str, Any]:
    return {
        "expert": term.expert,
        "colour": shade_of(term.expert or 0, view.records[-1].num_experts),
        "layer": layer_label(term.layer or ""),
        "weight": "" if term.weight is None else f"{term.weight:.2f}",
    }


def _words(view: View, term: Term) -> dict[str, Any]:
    """The tokens that an expert adds most to and takes most from."""

    def said(moved: list[tuple[str, float]], sign: int) -> list[str]:
        return [visible(name) for name, value in moved[:MAX_WORDS] if sign * value > 0]

    return {**_named(view, term), "promoted": said(term.promoted, 1), "suppressed": said(term.suppressed, -1)}
