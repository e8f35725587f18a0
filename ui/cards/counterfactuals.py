"""The card “what if”: one token under each expert of a layer, what the model then says; a click sends it there.

Try it: what_if_card(view, what_if(predictor, view.text, view.token, "encoder.1", view.changes))
"""

from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model.analysis.layer_names import layer_title
from switch_model.counterfactuals import WhatIf
from ui.look.html import empty_card, render, visible
from ui.look.palette import MAX_COLOURS
from ui.views.view import PredictionView, View

_TITLE = "What if this token went elsewhere?"
_SAVED, _NO_TEXT = "A saved view can’t be asked.", "Appears once a text is routed by a sparse model."
_TEMPLATE = "cards/elsewhere.html"
# Differences below this are the noise of rounding.
NOTHING = 0.00005

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
    """The component. Its event `force` tells where the token shall go: evt.expert, -1 = where the router sends it; its
    event `ask` asks about the token that is looked at.

    Where a model writes, the event is `rewrite`, with what the expert panel's says: the text comes in steps.
    """
    return gr.HTML(value, js_on_load=_CLICKS, apply_default_css=False, elem_id="what-if")


def what_if_card(view: PredictionView, answer: WhatIf | None, still: bool = False) -> Markup:
    """A row per expert, the best one for the predicted class first. `still` = nothing in it can be clicked."""
    record = view.record
    if answer is None and view.model and record is not None and not view.asked:
        return render(
            "cards/ask.html",
            token=visible(view.trace.tokens[view.token]),
            layer=layer_title(record.name),
            experts=record.num_experts,
        )
    if answer is None:
        return empty_card(_TITLE, _SAVED if not view.model else _NO_TEXT)
    if answer.probability[answer.expert] is None:
        return empty_card(_TITLE, f"Every expert of {layer_title(record.name)} is off: none reads its tokens.")
    probs_E = record.probs[0, view.token].tolist()
    forced = view.changes.force.get((record.name, view.token))
    now = answer.probability[answer.expert]
    on = {expert: chance - now for expert, chance in enumerate(answer.probability) if chance is not None}
    widest = max(NOTHING, *map(abs, on.values()))
    rows = [
        {
            **_row(expert, expert == answer.expert, change < 0, abs(change) / widest),
            "gate": f"router {probs_E[expert]:.2f}",
            "value": f"{100 * now:.2f} %" if expert == answer.expert else f"{100 * change:+.2f}".replace("-", "−"),
            "label": "" if answer.labels[expert] == answer.label else answer.labels[expert],
        }
        for expert, change in sorted(on.items(), key=lambda item: (-answer.probability[item[0]], item[0]))
    ]
    return render(
        _TEMPLATE,
        **_asked(view),
        rows=rows,
        words=_verdict(answer, forced, bool(record.dropped[0, view.token])),
        back=forced is not None and not still,
        still=still,
        writes=False,
    )


def force_card(view: View) -> Markup:
    """The experts of the chosen layer for the chosen token of a text that was written or filled; a click sends it
    there."""
    record, title = view.record, "Send this token elsewhere"
    if record is None or not view.model:
        return empty_card(title, _SAVED if not view.model else "Appears with a model that has a sparse layer.")
    probs, own = record.probs[0, view.token].tolist(), int(record.expert[0, view.token])
    off = {expert for layer, expert in view.changes.ablate if layer == record.name}
    rows = [
        {**_row(expert, expert == own, False, prob), "gate": "router", "value": f"{prob:.2f}", "label": ""}
        for expert, prob in sorted(enumerate(probs), key=lambda item: -item[1])
        if expert not in off
    ]
    again = "written" if view.writes else "filled in"
    return render(
        _TEMPLATE,
        before="Send",
        token=visible(view.trace.tokens[view.token]),
        after=f"elsewhere in {layer_title(record.name, view.two_stacks)}",
        rows=rows,
        words=f"Click an expert: the token goes there, and the text is {again} again.",
        back=(record.name, view.token) in view.changes.force,
        still=False,
        writes=view.writes,
    )


def no_text_card() -> Markup:
    """Before there is a text."""
    return empty_card(_TITLE, _NO_TEXT)


def _asked(view: PredictionView) -> dict[str, str]:
    """The question above the rows."""
    where = f"went elsewhere in {layer_title(view.record.name)}?"
    return {"before": "What if", "token": visible(view.trace.tokens[view.token]), "after": where}


def _row(expert: int, own: bool, harms: bool, share: float) -> dict[str, Any]:
    return {
        "expert": expert,
        "colour": expert % MAX_COLOURS,
        "own": own,
        "side": "harms" if harms else "helps",
        "width": f"{100 * share:.1f}",
    }


def _verdict(answer: WhatIf, forced: int | None, dropped: bool) -> str:
    regret = answer.regret
    who = "Your choice" if forced is not None else "The router’s choice"
    said = f"Points that {answer.label} would gain or lose under each expert. "
    if dropped:
        said += f"Expert {answer.expert} was full, so that none reads the token. "
    if regret < NOTHING:
        return said + f"{who} is the best for it: regret 0."
    return said + f"{who} has a regret of {100 * regret:.2f} points: expert {answer.best} would have been the best."
