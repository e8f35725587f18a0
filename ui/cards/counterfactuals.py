"""The card “what if”: one token under each expert of a layer, what the model then says; a click sends it there.

Try it: what_if_card(view, what_if(predictor, view.text, view.token, "encoder.1", view.changes))
"""

from html import escape

import gradio as gr

from switch_model.analysis.layer_names import layer_title
from switch_model.counterfactuals import WhatIf
from switch_model.routing import Routing
from ui.look.palette import MAX_COLOURS
from ui.views.view import View

_TITLE = "What if this token went elsewhere?"
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


def what_if_card(view: View | None, answer: WhatIf | None, still: bool = False) -> str:
    """A row per expert, the best one for the predicted class first. `still` = nothing in it can be clicked."""
    if answer is None and view is not None and view.model and view.prediction.routing and not view.asked:
        record = view.prediction.routing[view.layer]
        return (
            f"<h2>{_title(view, record)}</h2>"
            f'<p class="facts">Each of the {record.num_experts} experts can be tried for it: what the model would say '
            "then, and which choice would have been the best. A click on any token asks too.</p>"
            '<button type="button" class="panel-act" data-ask>Try every expert</button>'
        )
    if view is None or answer is None:
        saved = view is not None and not view.model
        said = "A saved view can’t be asked." if saved else "Appears once a text is routed by a sparse model."
        return f'<h2>{_TITLE}</h2><p class="facts">{said}</p>'
    record = view.prediction.routing[view.layer]
    if answer.probability[answer.expert] is None:
        said = f"Every expert of {layer_title(record.name)} is off: none reads its tokens."
        return f'<h2>{_TITLE}</h2><p class="facts">{said}</p>'
    probs_E = record.probs[0, view.token].tolist()
    forced = view.changes.force.get((record.name, view.token))
    on = [expert for expert, probability in enumerate(answer.probability) if probability is not None]
    now = answer.probability[answer.expert]
    widest = max(NOTHING, *(abs(answer.probability[expert] - now) for expert in on))
    rows = "".join(
        _row(expert, answer, probs_E[expert], expert == answer.expert, widest, still)
        for expert in sorted(on, key=lambda expert: (-answer.probability[expert], expert))
    )
    back = (
        '<button type="button" class="panel-act" data-expert="-1">Let the router choose</button>'
        if forced is not None and not still
        else ""
    )
    return (
        f"<h2>{_title(view, record)}</h2>"
        f'<div class="what-if" role="group" aria-label="Experts for this token">{rows}</div>'
        f'<p class="facts">{_verdict(answer, forced, bool(record.dropped[0, view.token]))}</p>{back}'
    )


def _title(view: View, record: Routing) -> str:
    token = escape(view.prediction.tokens[view.token].strip() or "␣")
    return f'What if <bdi class="quoted">{token}</bdi> went elsewhere in {layer_title(record.name)}?'


def _row(expert: int, answer: WhatIf, gate: float, own: bool, widest: float, still: bool) -> str:
    change = answer.probability[expert] - answer.probability[answer.expert]
    probability, label = answer.probability[expert], answer.labels[expert]
    says = "" if label == answer.label else f'<b class="wrong"> → {escape(label)}</b>'
    hint = "this is where it goes" if own else f"send it to expert {expert}"
    tag = "div" if still else "button"
    acts = "" if still else f' type="button" data-expert="{expert}" title="{hint}"'
    value = f"{100 * probability:.2f} %" if own else f"{100 * change:+.2f}".replace("-", "−")
    return (
        f'<{tag} class="what-row{" own" if own else ""}"{acts}>'
        f'<span class="cell chip x{expert % MAX_COLOURS}">{expert}</span>'
        f'<span class="what-gate">router {gate:.2f}</span>'
        f'<i><u class="{"harms" if change < 0 else "helps"}" style="width:{100 * abs(change) / widest:.1f}%"></u></i>'
        f"<span>{value}{says}</span></{tag}>"
    )


def _verdict(answer: WhatIf, forced: int | None, dropped: bool) -> str:
    label, regret = escape(answer.label), answer.regret
    who = "Your choice" if forced is not None else "The router’s choice"
    said = f"Points that {label} would gain or lose under each expert. "
    if dropped:
        said += f"Expert {answer.expert} was full, so that none reads the token. "
    if regret < NOTHING:
        return said + f"{who} is the best for it: regret 0."
    return said + f"{who} has a regret of {100 * regret:.2f} points: expert {answer.best} would have been the best."
