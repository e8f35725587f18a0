"""Who voted for what: the logits of a classifier that reads its experts alone, as a sum of what each expert says.

Pure functions of a view, but for the component: its script asks the grid for an expert's tokens.
Try it: votes_card(view)
"""

from pathlib import Path
from typing import Any

import gradio as gr
import torch
from markupsafe import Markup

from switch_model.grid.layer_names import layer_title
from switch_model.grid.palette import shade_of
from switch_model.grid.votes import classes_shown, digits_of
from train.formatting import counted, signed
from ui.cards.importance import attribution
from ui.look.html import empty_card, render
from ui.look.sums import cells_of
from ui.views.view import PredictionView, View

TITLE = "Who voted for what"
# Rows that a person still reads; the experts with the least to say are summed up in one.
MAX_VOTERS = 16


def create_votes(value: str = "") -> gr.HTML:
    """The component. Its event `measure` asks what the class rests on (evt.kind "measure", as in Explorer.intervene).

    Another click needs no handler: the script tells the grid, which looks at the token.
    """
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return gr.HTML(value, js_on_load=script, apply_default_css=False, elem_id="votes")


def votes_card(view: View | None, still: bool = False) -> Markup | str:
    """A row per expert of the layer that votes, a column per class, their sums, of a classifier.
    Below it what was measured of the experts, or a button that measures it.

    Args:
        still: the votes alone, and nothing in them can be clicked.
    """
    if view is None:
        return empty_card(TITLE)
    return _votes(view, still) + ("" if still else attribution(view))


def _votes(view: PredictionView, still: bool) -> Markup:
    prediction = view.answer
    if prediction.votes is None:
        return render("cards/no_votes.html", title=TITLE)
    record, votes_EC, layer = prediction.voters, prediction.votes_of_experts, layer_title(prediction.voters.name)
    classes, digits, names = classes_shown(prediction), digits_of(prediction), list(prediction.scores)
    kept_E = torch.bincount(record.expert[0][record.kept[0]], minlength=record.num_experts).tolist()
    voters = [expert for expert, tokens in enumerate(kept_E) if tokens]
    strongest = sorted(voters, key=lambda expert: -float(votes_EC[expert].abs().max()))
    shown, rest = sorted(strongest[:MAX_VOTERS]), strongest[MAX_VOTERS:]
    votes, bias = votes_EC.tolist(), prediction.bias.tolist()
    widest = max([1e-9, *(abs(row[c]) for row in [*(votes[expert] for expert in shown), bias] for c in classes)])

    def cells(values_C: list[float], bars: bool = True) -> list[dict[str, Any]]:
        return cells_of(values_C, classes, names, widest if bars else None, digits)

    rows = [
        {
            "expert": expert,
            "colour": shade_of(expert, record.num_experts),
            "tokens": counted(kept_E[expert], "token"),
            "kind": "",
            "cells": cells(votes[expert]),
        }
        for expert in shown
    ]
    if rest:
        together = cells(votes_EC[rest].sum(0).tolist())
        rows.append({"expert": None, "name": f"{len(rest)} more experts", "kind": "", "cells": together})
    rows.append({"expert": None, "name": "bias", "kind": "", "cells": cells(bias)})
    sums = cells(prediction.logits.tolist(), bars=False)
    rows.append({"expert": None, "name": "logit", "kind": "sum", "cells": sums})
    if view.changed and view.base.votes is not None:
        before = cells(view.base.logits.tolist(), bars=False)
        rows.append({"expert": None, "name": "before", "kind": "before", "cells": before})
    return render(
        "cards/votes.html",
        title=TITLE,
        layer=layer,
        verdict=_verdict(votes, names[classes[0]], classes[0], voters, digits),
        classes=[names[c] for c in classes],
        rows=rows,
        facts=_facts(layer, len(names) - len(classes), int(record.dropped.sum()) if voters else 0, still or not voters),
        still=still,
    )


def _facts(layer: str, more: int, dropped: int, still: bool) -> list[str]:
    """How to read the table: `more` classes are not in it, `dropped` tokens had no vote."""
    return [
        f"A column adds up to the logit of its class: what the tokens of each expert of {layer} say, and a bias that "
        "is the same for every text. Nothing else has a say.",
        *([] if still else ["A click leads to the tokens."]),
        *([f"{dropped} token{'s were' if dropped > 1 else ' was'} dropped: no vote."] if dropped else []),
        *([f"{more} less likely class{'es' if more > 1 else ''} not shown."] if more else []),
    ]


def strip_bar(vote: float | None, name: str, most: float, digits: int) -> dict[str, Any]:
    """A token's vote without a script: a bar up (for the class) or down (against it), or a mark for none."""
    if vote is None:
        return {"side": "", "said": "no vote"}
    side, at = ("helps", "bottom") if vote >= 0 else ("harms", "top")
    height = f"{11 * abs(vote) / max(most, 1e-9):.1f}"
    return {"side": side, "at": at, "height": height, "said": f"vote for {name}: {signed(vote, digits)}"}


def _verdict(votes: list[list[float]], name: str, c: int, voters: list[int], digits: int) -> str:
    if not voters:
        return "No expert read a token: the bias alone is left."
    most, least = max(voters, key=lambda e: votes[e][c]), min(voters, key=lambda e: votes[e][c])
    said = []
    if votes[most][c] > 0:
        said.append(f"Expert {most} says most for {name} ({signed(votes[most][c], digits)})")
    if votes[least][c] < 0:
        who = f"expert {least} most against it" if said else f"Expert {least} says most against {name}"
        said.append(f"{who} ({signed(votes[least][c], digits)})")
    return (", ".join(said) or f"No expert says anything about {name}") + "."
