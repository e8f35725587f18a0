"""Who voted for what: the logits of a classifier that reads its experts alone, as a sum of what each expert says.

Pure functions of a view, but for the component: its script asks the grid for an expert's tokens.
Try it: votes_card(view)
"""

from html import escape
from pathlib import Path

import gradio as gr
import torch

from switch_model.analysis.layer_names import layer_title
from ui.components.routing_grid import classes_shown, digits_of
from ui.look.html import empty_card, signed
from ui.look.palette import MAX_COLOURS
from ui.views.view import View

TITLE = "Who voted for what"
# Rows that a person still reads; the experts with the least to say are summed up in one.
MAX_VOTERS = 16
_RESIDUAL = (
    "This model’s classifier reads what its last layer leaves in the residual stream, to which attention and the words "
    "themselves add as well as experts: no part of a logit is an expert’s own, so there are no votes. A model trained "
    "with <code>--readout experts</code> has them."
)


def create_votes(value: str = "") -> gr.HTML:
    """The component. A click needs no handler: the script tells the grid, which looks at the token."""
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    return gr.HTML(value, js_on_load=script, apply_default_css=False, elem_id="votes")


def votes_card(view: View | None, still: bool = False) -> str:
    """A row per expert of the layer that votes, a column per class, their sums; "" for a model without classes.

    Args:
        still: nothing in it can be clicked.
    """
    if view is None:
        return empty_card(TITLE)
    if not view.classifies:
        return ""
    prediction = view.answer
    if prediction.votes is None:
        why = _RESIDUAL if prediction.routing else "This model has no experts: there is nobody to vote."
        return f'<h2>{TITLE}</h2><p class="facts">{why}</p>'
    record, votes_EC, logits_C = prediction.voters, prediction.votes_of_experts, prediction.logits.tolist()
    layer, classes, digits = layer_title(record.name), classes_shown(prediction), digits_of(prediction)
    kept_E = torch.bincount(record.expert[0][record.kept[0]], minlength=record.num_experts).tolist()
    first = classes[0]
    voters = [expert for expert, tokens in enumerate(kept_E) if tokens]
    strongest = sorted(voters, key=lambda expert: -float(votes_EC[expert].abs().max()))
    shown, rest = sorted(strongest[:MAX_VOTERS]), strongest[MAX_VOTERS:]
    votes, names = votes_EC.tolist(), list(prediction.scores)
    bias = prediction.bias.tolist()
    widest = max([1e-9, *(abs(row[c]) for row in [*(votes[expert] for expert in shown), bias] for c in classes)])

    def cells(row: list[float], expert: int | None = None) -> str:
        return "".join(
            _cell(row[c], widest, digits, expert, c, names[c], kept_E[expert] if expert is not None else 0, still)
            for c in classes
        )

    rows = "".join(
        f"<tr>{_voter(expert, kept_E[expert], still)}{cells(votes[expert], expert)}</tr>" for expert in shown
    )
    if rest:
        together = votes_EC[rest].sum(0).tolist()
        rows += f'<tr><th scope="row">{len(rest)} more experts</th>{cells(together)}</tr>'
    rows += f'<tr><th scope="row">bias</th>{cells(bias)}</tr>'
    rows += _sums("logit", logits_C, classes, digits, "sum")
    if view.changed and view.base.votes is not None:
        rows += _sums("before", view.base.logits.tolist(), classes, digits, "before")
    head = "".join(f'<th scope="col"{" class=top" if c == first else ""}>{escape(names[c])}</th>' for c in classes)
    more = len(names) - len(classes)
    dropped = int(record.dropped.sum())
    facts = [
        f"A column adds up to the logit of its class: what the tokens of each expert of {layer} say, and a bias that "
        "is the same for every text. Nothing else has a say.",
        *([] if still or not voters else ["A click leads to the tokens."]),
        *([f"{dropped} token{'s were' if dropped > 1 else ' was'} dropped: no vote."] if dropped and voters else []),
        *([f"{more} less likely class{'es' if more > 1 else ''} not shown."] if more else []),
    ]
    verdict = _verdict(votes, names[first], first, voters, digits)
    return (
        f'<h2>{TITLE}, {layer}</h2><p class="facts" role="status">{verdict}</p>'
        f'<div class="votes"><table><thead><tr><th scope="col">expert</th>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="facts">{" ".join(facts)}</p>'
    )


def strip_bar(vote: float | None, name: str, most: float, digits: int) -> str:
    """A token's vote without a script: a bar up (for the class) or down (against it), or a mark for none."""
    if vote is None:
        return '<span class="grid-vote none" title="no vote"></span>'
    side, at = ("helps", "bottom") if vote >= 0 else ("harms", "top")
    bar = f'<i class="{side}" style="{at}:50%;height:{11 * abs(vote) / max(most, 1e-9):.1f}px"></i>'
    return f'<span class="grid-vote" title="vote for {escape(name)}: {signed(vote, digits)}">{bar}</span>'


def _voter(expert: int, tokens: int, still: bool) -> str:
    count = f"{tokens} token{'s' if tokens > 1 else ''}"
    chip = f'class="cell chip x{expert % MAX_COLOURS}"'
    if still:
        chip = f"<span {chip}>{expert}</span>"
    else:
        said = f"expert {expert}, {count}: show its tokens"
        chip = f'<button type="button" {chip} data-expert="{expert}" aria-label="{said}">{expert}</button>'
    return f'<th scope="row">{chip}<span class="count"> {count}</span></th>'


def _cell(
    vote: float, widest: float, digits: int, expert: int | None, c: int, name: str, tokens: int, still: bool
) -> str:
    side, at = ("helps", "left") if vote >= 0 else ("harms", "right")
    number = signed(vote, digits)
    bar = f'<i><u class="{side}" style="{at}:50%;width:{50 * abs(vote) / widest:.1f}%"></u></i><span>{number}</span>'
    if still or expert is None:
        return f'<td><div class="vote">{bar}</div></td>'
    said = f"expert {expert} for {escape(name)}: {number}, {tokens} token{'s' if tokens > 1 else ''}"
    acts = (
        f'type="button" class="vote" tabindex="-1" data-expert="{expert}" data-class="{c}" data-name="{escape(name)}"'
    )
    return f'<td><button {acts} aria-label="{said}">{bar}</button></td>'


def _sums(title: str, logits: list[float], classes: list[int], digits: int, kind: str) -> str:
    cells = "".join(
        f'<td><div class="vote"><i></i><span>{signed(logits[c], digits)}</span></div></td>' for c in classes
    )
    return f'<tr class="{kind}"><th scope="row">{title}</th>{cells}</tr>'


def _verdict(votes: list[list[float]], name: str, c: int, voters: list[int], digits: int) -> str:
    if not voters:
        return "No expert read a token: the bias alone is left."
    most, least = max(voters, key=lambda e: votes[e][c]), min(voters, key=lambda e: votes[e][c])
    said = []
    if votes[most][c] > 0:
        said.append(f"Expert {most} says most for {escape(name)} ({signed(votes[most][c], digits)})")
    if votes[least][c] < 0:
        who = f"expert {least} most against it" if said else f"Expert {least} says most against {escape(name)}"
        said.append(f"{who} ({signed(votes[least][c], digits)})")
    return (", ".join(said) or f"No expert says anything about {escape(name)}") + "."
