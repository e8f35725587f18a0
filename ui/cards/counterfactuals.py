"""The card “what if”: one token under each expert of a layer, what the model then says; a click sends it there.

Try it: what_if_card(view, what_if(predictor, view.text, view.token, "encoder.1", view.changes))
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model.counterfactuals import WhatIf
from switch_model.grid.layer_names import layer_title
from switch_model.grid.palette import shade_of
from switch_model.grid.tokens import visible
from train.formatting import percent, signed
from ui.look.html import bar_scale, empty_card, render
from ui.views.view import PredictionView, View

_TITLE = "What if this token went elsewhere?"
_SAVED, _NO_TEXT = "Not available in saved views.", "Appears once a text is run by a sparse model."
_TEMPLATE = "cards/elsewhere.html"
# Differences below this are the noise of rounding.
NOTHING = 0.00005
# Effects below so many points are said to be small in words.
SMALL_POINTS = 0.5

_CLICKS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-expert]");
  if (!button) {
    if (event.target.closest("[data-ask]")) trigger("ask", {});
    return;
  }
  const expert = Number(button.dataset.expert);
  if (button.closest(".writes")) trigger("rewrite", { kind: "force", expert });
  else trigger("force", { expert });
});
"""


def create_what_if(value: str = "") -> gr.HTML:
    """The component. Its event `force` tells where to send the token: evt.expert, -1 = where the router sends it; its
    event `ask` asks about the token that is looked at.

    Where a model writes, the event is `rewrite`, with what the expert panel's says: the text comes in steps.
    """
    return gr.HTML(value, js_on_load=_CLICKS, apply_default_css=False, elem_id="what-if")


def what_if_card(view: PredictionView, answer: WhatIf | None, still: bool = False) -> Markup:
    """A row per expert, the best one for the predicted class first; without an answer, the router’s likeliest.

    Args:
        still: nothing in it can be clicked.
    """
    record = view.record
    if record is None:
        return empty_card(_TITLE, _NO_TEXT)
    if answer is None:
        can_ask = bool(view.model) and not still
        words = (
            f"Try each of the {record.num_experts} experts for this token: what the model would predict then, and "
            "which choice would have been the best."
            if can_ask
            else _SAVED
        )
        return _router_card(view, "If", f"went elsewhere in {layer_title(record.name)}", words, still, ask=can_ask)
    if answer.probability[answer.expert] is None:
        return empty_card(_TITLE, f"Every expert of {layer_title(record.name)} is off: none reads its tokens.")
    probs_E = record.probs[0, view.token].tolist()
    forced = view.changes.force.get((record.name, view.token))
    now = answer.probability[answer.expert]
    on = {expert: chance - now for expert, chance in enumerate(answer.probability) if chance is not None}
    scale = bar_scale(max(map(abs, on.values())))
    rows = [
        {
            **_row(expert, expert == answer.expert, probs_E),
            "side": "harms" if change < 0 else "helps",
            "width": f"{100 * abs(change) / scale:.1f}",
            "value": percent(now) if expert == answer.expert else f"{signed(100 * change, 2)} points",
            "label": "" if answer.labels[expert] == answer.label else answer.labels[expert],
        }
        for expert, change in sorted(on.items(), key=lambda item: (-answer.probability[item[0]], item[0]))
    ]
    effects = _largest(max(map(abs, on.values())), scale)
    verdict = _verdict(answer, forced, bool(record.dropped[0, view.token]))
    return render(
        _TEMPLATE,
        before="If",
        token=visible(view.trace.tokens[view.token]),
        after=f"went elsewhere in {layer_title(view.record.name)}",
        effect=f"change of {answer.label}",
        rows=rows,
        words=f"{effects} {verdict}",
        ask=False,
        back=forced is not None and not still,
        still=still,
        writes=False,
    )


def force_card(view: View) -> Markup:
    """The experts of the chosen layer for the chosen token of a text that was written or filled; a click sends it
    there."""
    if view.record is None:
        return empty_card("Send this token elsewhere", "Appears with a model that has a sparse layer.")
    again = "written" if view.writes else "filled in"
    words = f"Click an expert: the token goes there, and the text is {again} again." if view.model else _SAVED
    after = f"elsewhere in {layer_title(view.record.name, view.two_stacks)}"
    return _router_card(view, "Send", after, words, still=not view.model)


def _router_card(view: View, before: str, after: str, words: str, still: bool, ask: bool = False) -> Markup:
    """The experts as the router ranks them, without what the answer would be under each."""
    record = view.record
    probs, own = record.probs[0, view.token].tolist(), int(record.expert[0, view.token])
    off = {expert for layer, expert in view.changes.ablate if layer == record.name}
    rows = [
        {**_row(expert, expert == own, probs), "width": None, "value": "", "label": ""}
        for expert in sorted(range(len(probs)), key=lambda one: -probs[one])
        if expert not in off
    ]
    return render(
        _TEMPLATE,
        before=before,
        token=visible(view.trace.tokens[view.token]),
        after=after,
        effect="",
        rows=rows,
        words=words,
        ask=ask,
        back=(record.name, view.token) in view.changes.force and not still,
        still=still,
        writes=view.writes,
    )


def no_text_card() -> Markup:
    """Before there is a text."""
    return empty_card(_TITLE, _NO_TEXT)


def _row(expert: int, own: bool, probs: Sequence[float]) -> dict[str, Any]:
    return {
        "expert": expert,
        "colour": shade_of(expert, len(probs)),
        "own": own,
        "share": f"{100 * probs[expert]:.1f}",
        "prob": f"{probs[expert]:.2f}",
    }


def _largest(change: float, scale: float) -> str:
    """How large the effects are, and where their bars end."""
    points = f"{100 * change:.2f}"
    if 100 * change < SMALL_POINTS:
        return f"No expert changes it by more than {points} points." if change >= NOTHING else "No expert changes it."
    return f"Bars end at {100 * scale:.0f} points."


def _verdict(answer: WhatIf, forced: int | None, dropped: bool) -> str:
    regret = answer.regret
    who = "Your choice" if forced is not None else "The router’s choice"
    said = ""
    if dropped:
        said += f"Expert {answer.expert} was full, so that none reads the token. "
    if regret < NOTHING:
        return said + f"{who} is the best for it: regret 0."
    return said + f"{who} has a regret of {100 * regret:.2f} points: expert {answer.best} would have been the best."
