"""The tab “How it works”: one sparse layer step by step, with the numbers of the token that is looked at in Explore.

Pure functions of a View; formulas stand beside their source.
Try it: steps_html(view, config)
"""

import math
from html import escape
from typing import Any

import gradio as gr

from switch_model import CheckpointError, SwitchConfig
from switch_model.analysis.layer_names import layer_title
from switch_model.routing import UNLIMITED, Routing, load_balancing_loss, router_z_loss, sequence_balance_loss
from ui.explore.tab import ExploreTab
from ui.how_it_works.scaling import loss_plot, read_scaling, scaling_html, speed_up_plot
from ui.look.html import quoted, signed
from ui.look.palette import MAX_COLOURS
from ui.views.changes import own_factor
from ui.views.view import View

_SWITCH = '<a href="https://arxiv.org/abs/2101.03961" target="_blank" rel="noreferrer">Switch Transformers</a>'
_ST_MOE = '<a href="https://arxiv.org/abs/2202.08906" target="_blank" rel="noreferrer">ST-MoE</a>'
_LOSS_FREE = '<a href="https://arxiv.org/abs/2408.15664" target="_blank" rel="noreferrer">Loss-Free Balancing</a>'
_DEEPSEEK = '<a href="https://arxiv.org/abs/2412.19437" target="_blank" rel="noreferrer">DeepSeek-V3</a>'
_NOTHING = '<p class="facts">Route a text with a sparse model in Explore: its numbers appear here.</p>'
SHOWN = 16

# What each parameter of a Switch layer does: field -> words.
_PARAMETERS = {
    "num_experts": "how many small networks a layer has; a token uses one of them, so that more cost memory, not time",
    "d_model": "width of a hidden state: what the router sees, and what an expert takes in and gives back",
    "d_ff": "width inside an expert",
    "encoder_sparse_step": "every which layer is sparse; the others have one dense MLP for all tokens",
    "capacity_factor": "slots per expert in training over an even share: tight drops tokens, loose wastes room",
    "eval_capacity_factor": "the same when the model is used",
    "min_expert_capacity": "slots that an expert has at least, so that short texts are not starved",
    "router_priority": "who gets the slots: first come (position), or the surest tokens first (probability)",
    "capacity_group": "over what slots are counted: each text by itself, or the whole batch",
    "expert_capacity": "an absolute number of slots instead of a factor",
    "router_jitter_noise": "in training, the router’s input times random numbers near 1, to try other experts too",
    "router_noise_eps": "for the same end, random numbers of this size added to the logits in training",
    "switch_dropout": "parts of the router’s input that are silenced at random in training; the experts see them",
    "router_aux_loss_coef": "weight of the balance loss: too little, one expert takes all; too much, routing is blind",
    "router_z_loss_coef": "weight of the z-loss, which keeps logits small and training steady",
    "balance": "how loads are kept even over a batch: by the balance loss, or by a bias on the choice",
    "balance_rate": "with balance = bias, how far a training step moves that bias",
    "sequence_balance_coef": "weight of a balance loss over each text by itself, so that one text uses many experts",
    "expert_residual": "how much of a token passes by its expert: 1 = all of it, 0 = only what the expert made of it",
    "readout": "what the classifier reads: the residual stream, or the last sparse layer’s experts alone (votes)",
    "layer_loss_coef": "with readout = experts, weight of what the experts of earlier layers would vote in training",
    "expert_dropout": "hidden units of an expert that are silenced at random in training",
}


def steps_html(view: View | None, config: SwitchConfig | None) -> str:
    """Seven steps from hidden state to hidden state, the two losses, other ways to read and to balance a model, with
    this token's numbers."""
    if view is None or view.record is None:
        return _NOTHING
    record, token = view.record, quoted(view.trace.tokens[view.token])
    steps = [*_steps_of_router(view, record, config, token), *_steps_of_expert(view, record, config)]
    rows = "".join(
        f'<li><h3>{number}. {name}</h3><p class="formula">{formula}</p><p>{words}</p>{cells}</li>'
        for number, (name, formula, words, cells) in enumerate(steps, 1)
    )
    title = f"<h2>{token} in {layer_title(record.name, view.two_stacks)}, step by step</h2>"
    return f'{title}<ol class="steps">{rows}</ol>{_losses(record)}{_other_ways(view, record, config, token)}'


# A step: its name, its formula, what it does with this token, and numbers of the experts.
Step = tuple[str, str, str, str]


def _steps_of_router(view: View, record: Routing, config: SwitchConfig | None, token: str) -> list[Step]:
    """From the hidden state to the choice of an expert."""
    logits, probs = record.logits[0, view.token].tolist(), record.probs[0, view.token].tolist()
    expert, experts = int(record.expert[0, view.token]), record.num_experts
    forced = view.changes.force.get((record.name, view.token)) is not None
    biased = config is not None and config.balance == "bias"
    wins = "The largest wins once each expert’s bias is added" if biased else "The largest wins"
    order = sorted(range(experts), key=lambda one: (one != expert, -probs[one]))
    width = f"{config.d_model} numbers" if config else "a list of numbers"
    return [
        (
            "Hidden state",
            "<i>n</i> = RMSNorm(<i>x</i>)",
            f"What the layers before have made of {token}: {width}, scaled. Router and experts see the same.",
            "",
        ),
        (
            "Router logits",
            "<i>h</i> = <i>W</i>ᵣ · <i>n</i>",
            f"One matrix gives a number for each of the {experts} experts, in float32.",
            _cells(order, [f"{logits[one]:+.2f}" if math.isfinite(logits[one]) else "off" for one in range(experts)]),
        ),
        (
            "Softmax",
            "<i>p</i>ᵢ = exp(<i>h</i>ᵢ) / Σⱼ exp(<i>h</i>ⱼ)",
            f"They become probabilities, which add up to 1. ({_SWITCH}, eq. 1)",
            _cells(order, [f"{probs[one]:.2f}" for one in range(experts)]),
        ),
        (
            "Choice",
            "<i>i</i> = argmax (<i>h</i> + <i>b</i>)" if biased else "<i>i</i> = argmax <i>p</i>",
            f"You sent it to expert {expert}." if forced else f"{wins}: expert {expert} alone will work.",
            "",
        ),
    ]


def _steps_of_expert(view: View, record: Routing, config: SwitchConfig | None) -> list[Step]:
    """From the expert's buffer to the hidden state that goes on."""
    expert, slot, capacity = int(record.expert[0, view.token]), int(record.slot[0, view.token]), int(record.capacity)
    gate, dropped = float(record.probs[0, view.token, expert]), slot >= capacity
    residual = config.expert_residual if config else 1.0
    passes = "the token passes on unchanged, on the residual alone"
    if residual != 1.0:
        passes = f"{residual:g} of the token passes on" if residual else "nothing of the token passes on"
    return [
        ("Buffer and capacity", *_buffer(view, record, config, slot, capacity, len(view.trace.tokens))),
        (
            "Expert",
            "<i>E</i>ᵢ(<i>n</i>) = <i>W</i>ₒ · act(<i>W</i>ᵢ · <i>n</i>)",
            "Dropped: no expert sees it." if dropped else f"Expert {expert} is a small MLP with weights of its own.",
            "",
        ),
        (
            "Gate and residual",
            f"<i>y</i> = {_times(residual)}<i>p</i>ᵢ · <i>E</i>ᵢ(<i>n</i>)",
            f"Its output counts as zero: {passes}."
            if dropped
            else f"The output is multiplied with {gate:.2f}{_added(residual)}. Through this factor the router "
            f"learns: without it the choice would have no gradient. ({_SWITCH}, eq. 2)",
            "",
        ),
    ]


def _buffer(
    view: View, record: Routing, config: SwitchConfig | None, slot: int, capacity: int, tokens: int
) -> tuple[str, str, str]:
    formula = "slots = max(least, ⌈tokens / experts · factor⌉)"
    if capacity == UNLIMITED:
        words = "Without a capacity limit every token is served."
    else:
        factor = view.changes.capacity_factor or (own_factor(record, config) if config else None)
        absolute = config is not None and config.expert_capacity and not view.changes.capacity_factor
        how = f"⌈{tokens} / {record.num_experts} · {factor:g}⌉ = " if factor and not absolute else ""
        least = config.min_expert_capacity if config else 0
        how = f"max({least}, {how.removesuffix(' = ')}) = " if how and capacity == least else how
        place = f"This token has position {slot + 1} in its expert’s buffer"
        verdict = "beyond the last one: it is dropped" if slot >= capacity else "there is room"
        words = f"An expert serves {how}{capacity} tokens of this text at most. {place}: {verdict}. ({_SWITCH}, eq. 3)"
    return formula, words, ""


def _losses(record: Routing) -> str:
    balance, z = float(load_balancing_loss(record)), float(router_z_loss(record))
    loads = " ".join(f"{load:.2f}" for load in record.load.tolist()[:SHOWN])
    means = " ".join(f"{mean:.2f}" for mean in record.importance.tolist()[:SHOWN])
    experts = record.num_experts
    return f"""<h2>Two losses that train the router beside the task</h2>
<ol class="steps">
<li><h3>Balance loss</h3><p class="formula">L = E · Σᵢ <i>f</i>ᵢ · <i>P</i>ᵢ</p>
<p><i>f</i>: share of the tokens that chose each expert ({loads}). <i>P</i>: mean probability ({means}).
This text, this layer: <b>{balance:.2f}</b>; 1 = even, {experts} = all on one expert. ({_SWITCH}, eq. 4 to 6)</p></li>
<li><h3>z-loss</h3><p class="formula">L = mean over tokens of (log Σⱼ exp <i>h</i>ⱼ)²</p>
<p>Large logits make a router sure of itself and its training unsteady. This text, this layer: <b>{z:.2f}</b>.
({_ST_MOE}, eq. 5)</p></li>
</ol>"""


def _times(residual: float) -> str:
    """What comes before the expert's output in a formula."""
    return {1.0: "<i>x</i> + ", 0.0: ""}.get(residual, f"{residual:g} · <i>x</i> + ")


def _added(residual: float) -> str:
    if residual == 1.0:
        return " and added to what came in"
    return f" and added to {residual:g} of what came in" if residual else " and takes the place of what came in"


def _other_ways(view: View, record: Routing, config: SwitchConfig | None, token: str) -> str:
    """How a model may be read, what may pass by its experts, and two more ways to keep loads even: two sentences each,
    then what this model and this text have of it."""
    text_balance = float(sequence_balance_loss(record))
    weight = f" Its weight in this model’s training: {config.sequence_balance_coef:g}." if config else ""
    ways = [
        (
            "Votes",
            "<i>z</i> = <i>b</i> + Σₜ <i>V</i> · <i>w</i>ₜ <i>p</i>ᵢ <i>E</i>ᵢ(<i>n</i>ₜ)",
            "With readout = experts a classifier reads nothing but what the experts of the last sparse layer gave. So "
            f"each logit is a bias and a sum of votes, one for each token and its expert. {_own_vote(view, token)}",
        ),
        (
            "What passes by the experts",
            "<i>y</i> = <i>r</i> · <i>x</i> + <i>p</i>ᵢ · <i>E</i>ᵢ(<i>n</i>)",
            "A token is added to what its expert makes of it, and so may reach the classifier past every expert. A "
            "smaller <i>r</i> (expert_residual) leaves more to the experts; with 0 nothing passes by them."
            + (f" This model: <b>{config.expert_residual:g}</b>." if config else ""),
        ),
        (
            "Balance of each text",
            "L = mean over texts of E · Σᵢ <i>f</i>ᵢ · <i>P</i>ᵢ",
            "A batch can be even while each of its texts keeps to one expert. This loss is the balance loss counted "
            f"over each text by itself. This text, this layer: <b>{text_balance:.2f}</b>.{weight} ({_DEEPSEEK}, "
            "eq. 17 to 20)",
        ),
        (
            "Balance by a bias",
            "<i>i</i> = argmax (<i>h</i> + <i>b</i>)",
            "With balance = bias a number for each expert is added to its logit for the choice alone: each step of "
            "training raises it where too few tokens came, and lowers it where too many did. Gates and losses do not "
            f"see it, so that no loss pulls at the router. {_own_bias(view, record, config)} ({_LOSS_FREE})",
        ),
    ]
    rows = "".join(
        f'<li><h3>{name}</h3><p class="formula">{formula}</p><p>{words}</p></li>' for name, formula, words in ways
    )
    return f'<h2>Other ways to read a model, and to keep it even</h2><ol class="steps">{rows}</ol>'


def _own_vote(view: View, token: str) -> str:
    if not view.classifies:
        return "This model does not classify."
    prediction = view.answer
    if prediction.votes is None:
        return "This model reads the residual stream: its logits have no such parts."
    label = list(prediction.scores).index(prediction.label)
    vote, bias, logit = (
        float(values[label]) for values in (prediction.votes[view.token], prediction.bias, prediction.logits)
    )
    name, record = escape(prediction.label), prediction.voters
    if record.dropped[0, view.token]:
        said = f"{token} was dropped in {layer_title(record.name)} and has no vote"
    else:
        expert = int(record.expert[0, view.token])
        said = f"{token} adds <b>{signed(vote, 3)}</b> to the logit of {name}, through expert {expert}"
    return f"{said}; with the bias ({signed(bias, 3)}) all votes make <b>{signed(logit, 3)}</b>."


def _own_bias(view: View, record: Routing, config: SwitchConfig | None) -> str:
    if config is None or config.balance != "bias":
        return "This model is kept even by the balance loss." if config else ""
    forced = {token for layer, token in view.changes.force if layer == record.name}
    best_T = record.logits[0].argmax(-1)
    other = [token for token in (best_T != record.expert[0]).nonzero().flatten().tolist() if token not in forced]
    tokens = record.mask.shape[1]
    return f"This text, this layer: <b>{len(other)}</b> of {tokens} tokens go elsewhere than their highest logit says."


def parameters_html(config: SwitchConfig | None) -> str:
    """A row for each parameter of a Switch layer: its name, its value in this model, what it does."""
    if config is None:
        return ""
    rows = "".join(
        f"<tr><th>{name}</th><td>{escape(str(getattr(config, name)))}</td><td>{words}</td></tr>"
        for name, words in _PARAMETERS.items()
        if hasattr(config, name)
    )
    head = "<tr><th>parameter</th><th>here</th><th>what it does</th></tr>"
    return (
        "<h2>What each parameter of a Switch layer does</h2>"
        f'<div class="run-diff"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    )


def _cells(order: list[int], values: list[str]) -> str:
    shown = "".join(
        f'<span class="how-cell"><span class="cell chip x{one % MAX_COLOURS}">{one}</span>{values[one]}</span>'
        for one in order[:SHOWN]
    )
    more = f'<span class="facts">and {len(order) - SHOWN} more</span>' if len(order) > SHOWN else ""
    return f'<div class="how-cells">{shown}{more}</div>'


def create_how_it_works(tab: gr.Tab, explore: ExploreTab) -> None:
    """Lay the tab out; it is filled with what Explore shows when it is opened."""
    with gr.Column(elem_classes="card"):
        steps = gr.HTML(_NOTHING, apply_default_css=False, elem_id="how-steps")
    with gr.Column(elem_classes="card"):
        parameters = gr.HTML("", apply_default_css=False, elem_id="how-parameters")
    scaling = read_scaling()
    with gr.Column(elem_classes="card", visible=scaling is not None):
        gr.HTML(scaling_html(scaling), apply_default_css=False, elem_id="how-scaling")
        with gr.Row():
            losses, speed_up = (
                gr.Plot(show_label=False, container=False, buttons=[], elem_id=name)
                for name in ("how-scaling-loss", "how-scaling-speed")
            )

    def explain(view: View | None) -> tuple[str, str]:
        try:
            config = explore.shelf.load(view.model).config if view and view.model else None
        except CheckpointError:
            config = None
        return steps_html(view, config), parameters_html(config)

    tab.select(explain, [explore.view], [steps, parameters], show_progress="hidden", api_visibility="private")
    if scaling is not None:

        def picture() -> tuple[Any, Any]:
            return loss_plot(scaling), speed_up_plot(scaling)

        tab.select(picture, None, [losses, speed_up], show_progress="hidden", api_visibility="private")
