"""The card “what if”: one token under each expert of a layer, what the model then says; a click sends it there.

Try it: what_if_card(view, what_if(predictor, view.text, view.token, "encoder.1", view.changes))
"""

from html import escape

import gradio as gr

from switch_model.analysis.layer_names import layer_title
from switch_model.counterfactuals import WhatIf
from ui.look.html import quoted
from ui.look.palette import MAX_COLOURS
from ui.views.view import PredictionView, View

_TITLE = "What if this token went elsewhere?"
_SAVED, _NO_TEXT = "A saved view can’t be asked.", "Appears once a text is routed by a sparse model."
_GROUP = '<div class="what-if" role="group" aria-label="Experts for this token">'
_BACK = '<button type="button" class="panel-act" data-expert="-1">Let the router choose</button>'
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


def what_if_card(view: PredictionView, answer: WhatIf | None, still: bool = False) -> str:
    """A row per expert, the best one for the predicted class first. `still` = nothing in it can be clicked."""
    record = view.record
    if answer is None and view.model and record is not None and not view.asked:
        return (
            f"<h2>{_title(view)}</h2>"
            f'<p class="facts">Each of the {record.num_experts} experts can be tried for it: what the model would say '
            "then, and which choice would have been the best. A click on any token asks too.</p>"
            '<button type="button" class="panel-act" data-ask>Try every expert</button>'
        )
    if answer is None:
        return _empty(_SAVED if not view.model else _NO_TEXT)
    if answer.probability[answer.expert] is None:
        return _empty(f"Every expert of {layer_title(record.name)} is off: none reads its tokens.")
    probs_E = record.probs[0, view.token].tolist()
    forced = view.changes.force.get((record.name, view.token))
    on = [expert for expert, probability in enumerate(answer.probability) if probability is not None]
    now = answer.probability[answer.expert]
    widest = max(NOTHING, *(abs(answer.probability[expert] - now) for expert in on))
    rows = "".join(
        _row(expert, answer, probs_E[expert], expert == answer.expert, widest, still)
        for expert in sorted(on, key=lambda expert: (-answer.probability[expert], expert))
    )
    return (
        f"<h2>{_title(view)}</h2>{_GROUP}{rows}</div>"
        f'<p class="facts">{_verdict(answer, forced, bool(record.dropped[0, view.token]))}</p>'
        f"{_BACK if forced is not None and not still else ''}"
    )


def force_card(view: View) -> str:
    """The experts of the chosen layer for the chosen token of a text that was written or filled; a click sends it
    there."""
    record, title = view.record, "Send this token elsewhere"
    if record is None or not view.model:
        return _empty(_SAVED if not view.model else "Appears with a model that has a sparse layer.", title)
    probs, own = record.probs[0, view.token].tolist(), int(record.expert[0, view.token])
    off = {expert for layer, expert in view.changes.ablate if layer == record.name}
    rows = "".join(
        _button(expert, expert == own)
        + f'<span class="what-gate">router</span><i><u class="helps" style="width:{100 * probs[expert]:.1f}%"></u></i>'
        f"<span>{probs[expert]:.2f}</span></button>"
        for expert in sorted(range(len(probs)), key=lambda expert: -probs[expert])
        if expert not in off
    )
    again = "written" if view.writes else "filled in"
    where = f"{quoted(view.trace.tokens[view.token])} elsewhere in {layer_title(record.name, view.two_stacks)}"
    return (
        f"<div{' class=writes' if view.writes else ''}><h2>Send {where}</h2>{_GROUP}{rows}</div>"
        f'<p class="facts">Click an expert: the token goes there, and the text is {again} again.</p>'
        f"{_BACK if (record.name, view.token) in view.changes.force else ''}</div>"
    )


def no_text_card() -> str:
    """Before there is a text."""
    return _empty(_NO_TEXT)


def _empty(sentence: str, title: str = _TITLE) -> str:
    return f'<h2>{title}</h2><p class="facts">{sentence}</p>'


def _title(view: PredictionView) -> str:
    return f"What if {quoted(view.trace.tokens[view.token])} went elsewhere in {layer_title(view.record.name)}?"


def _button(expert: int, own: bool) -> str:
    """The beginning of a row that can be clicked."""
    hint = "this is where it goes" if own else f"send it to expert {expert}"
    return (
        f'<button type="button" class="what-row{" own" if own else ""}" data-expert="{expert}" title="{hint}">'
        f'<span class="cell chip x{expert % MAX_COLOURS}">{expert}</span>'
    )


def _row(expert: int, answer: WhatIf, gate: float, own: bool, widest: float, still: bool) -> str:
    change = answer.probability[expert] - answer.probability[answer.expert]
    probability, label = answer.probability[expert], answer.labels[expert]
    says = "" if label == answer.label else f'<b class="wrong"> → {escape(label)}</b>'
    value = f"{100 * probability:.2f} %" if own else f"{100 * change:+.2f}".replace("-", "−")
    begin, end = _button(expert, own), "</button>"
    if still:
        chip = f'<span class="cell chip x{expert % MAX_COLOURS}">{expert}</span>'
        begin, end = f'<div class="what-row{" own" if own else ""}">{chip}', "</div>"
    return (
        f'{begin}<span class="what-gate">router {gate:.2f}</span>'
        f'<i><u class="{"harms" if change < 0 else "helps"}" style="width:{100 * abs(change) / widest:.1f}%"></u></i>'
        f"<span>{value}{says}</span>{end}"
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
