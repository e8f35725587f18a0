"""The tab “How it works”: one sparse layer step by step, with the numbers of the token that is looked at in Explore.

Pure functions of a View; words and formulas stand beside their source in steps.html.
Try it: steps_html(view, config)
"""

import math
import time
from dataclasses import replace
from typing import Any

import gradio as gr

from switch_model import CheckpointError, SwitchConfig
from switch_model.config_fields import OPTIONS
from switch_model.grid.layer_names import layer_title
from switch_model.grid.palette import shade_of
from switch_model.grid.tokens import visible
from switch_model.routing import UNLIMITED, Routing, load_balancing_loss, router_z_loss, sequence_balance_loss
from switch_model.topk_routing import TopKRouting
from train.formatting import signed
from ui.components.events import EACH, LAST
from ui.components.routing_film import WANT_FILM, create_routing_film, film_value
from ui.components.training_record import create_training_record, read_record
from ui.explore.tab import ExploreTab
from ui.how_it_works.scaling import loss_plot, read_scaling, scaling_html, speed_up_plot
from ui.look.html import heading, note, quiet, render
from ui.views.changes import own_factor
from ui.views.view import View

_NOTHING = quiet("Run a text with a sparse model in Explore: its numbers appear here.")
_IN_PLAIN_WORDS = (
    "A sparse layer has several small networks, its experts, and a router that sends every token to one or a few of "
    "them: so a model can know much and still do little work for each word. Press Play to watch the tokens of the text "
    "in Explore find their experts; the same steps as formulas stand below."
)
_RECORDED = (
    "Two small classifiers from the same random start, on the same data: one is trained with the balance loss, one "
    "without. Neither was trained on these ten sentences. A token’s colour is the expert that reads it, its strength "
    "the gate. Without the loss two of eight experts take over 90 % of the tokens by step 22; later some come back. "
    "What that costs stands below: experts that are stored for nothing, tokens that buffers of an even share would "
    "drop, and in the end a higher loss. Mutual information does not tell: a few busy experts can say as much of the "
    "class as many, and in layer 1 they end with more. (One run each, measured on 128 held-out texts, on which an "
    "accuracy is known to some 4 points.)"
)
SHOWN = 16

# The parameters that are explained, in the order of a reader; config_fields.py has the words.
_PARAMETERS = (
    "num_experts",
    "router",
    "num_experts_per_tok",
    "num_shared_experts",
    "d_model",
    "d_ff",
    "encoder_sparse_step",
    "capacity_factor",
    "eval_capacity_factor",
    "min_expert_capacity",
    "router_priority",
    "capacity_group",
    "expert_capacity",
    "router_jitter_noise",
    "router_noise_eps",
    "switch_dropout",
    "router_aux_loss_coef",
    "router_z_loss_coef",
    "balance",
    "balance_rate",
    "sequence_balance_coef",
    "expert_residual",
    "readout",
    "layer_loss_coef",
    "expert_dropout",
)


def steps_html(view: View | None, config: SwitchConfig | None) -> str:
    """Seven steps from hidden state to hidden state, the two losses, other ways to read and to balance a model, with
    this token's numbers."""
    if view is None or view.record is None:
        return _NOTHING
    if isinstance(view.record, TopKRouting):
        return _several(view, config)
    record = view.record
    return render(
        "how_it_works/steps.html",
        token=visible(view.trace.tokens[view.token]),
        layer=layer_title(record.name, view.two_stacks),
        tokens=record.mask.shape[1],
        config=config,
        residual=config.expert_residual if config else 1.0,
        router=_router(view, record, config),
        buffer=_buffer(view, record, config),
        losses=_losses(record),
        classifies=view.classifies,
        vote=_vote(view),
        moved=_moved(view, record),
    )


def _several(view: View, config: SwitchConfig | None) -> str:
    """The steps of a layer with several experts for each token."""
    record = view.record
    used = record.used[0, view.token]
    if not record.by_experts:  # All that the token chose, also those that were full.
        used = used.new_ones(used.shape)
    experts, weights = (one[0, view.token][used].tolist() for one in (record.experts, record.weights))
    scores = None if record.logits is None else record.logits[0, view.token].tolist()
    shown = [
        {
            "expert": expert,
            "colour": shade_of(expert, record.num_experts),
            "score": "" if scores is None else signed(scores[expert], 2) if math.isfinite(scores[expert]) else "off",
            "weight": f"{weight:.2f}",
        }
        for expert, weight in list(zip(experts, weights, strict=True))[:SHOWN]
    ]
    return render(
        "how_it_works/several.html",
        token=visible(view.trace.tokens[view.token]),
        layer=layer_title(record.name, view.two_stacks),
        experts=record.num_experts,
        choices=len(experts),
        score=record.score,
        gated=getattr(config, "dense_act_fn", "gated").startswith("gated"),
        by_experts=record.by_experts,
        taken=int(record.limit) if record.limit is not None else None,
        full=bool(record.full[0, view.token].any()),
        shown=shown,
        scored=scores is not None,
        forced=view.changes.force.get((record.name, view.token)) is not None,
        sum=f"{sum(weights):.2f}",
        shared=bool(getattr(config, "shared_experts", ())),
        balance=f"{float(load_balancing_loss(record)):.2f}",
        per_token=f"{record.per_token:.3g}",
        most=f"{record.num_experts / max(record.per_token, 1):.3g}",
    )


def _router(view: View, record: Routing, config: SwitchConfig | None) -> dict[str, Any]:
    """The router's numbers for the token: `shown` are the experts whose numbers are shown, the chosen one first."""
    logits, probs = record.logits[0, view.token].tolist(), record.probs[0, view.token].tolist()
    expert, experts = int(record.expert[0, view.token]), record.num_experts
    order = sorted(range(experts), key=lambda one: (one != expert, -probs[one]))
    return {
        "experts": experts,
        "expert": expert,
        "gate": f"{probs[expert]:.2f}",
        "forced": view.changes.force.get((record.name, view.token)) is not None,
        "biased": getattr(config, "balances_by_bias", False),
        "shown": [
            {
                "expert": one,
                "colour": shade_of(one, experts),
                "logit": signed(logits[one], 2) if math.isfinite(logits[one]) else "off",
                "prob": f"{probs[one]:.2f}",
            }
            for one in order[:SHOWN]
        ],
        "more": experts - SHOWN,
    }


def _buffer(view: View, record: Routing, config: SwitchConfig | None) -> dict[str, Any]:
    """The token's place among its expert's slots; `how` their number is counted. `capacity` None = no limit."""
    slot, capacity = int(record.slot[0, view.token]), int(record.capacity)
    factor = view.changes.capacity_factor or (own_factor(record, config) if config else None)
    absolute = config is not None and config.expert_capacity and not view.changes.capacity_factor
    how = f"⌈{len(view.trace.tokens)} / {record.num_experts} · {factor:g}⌉" if factor and not absolute else ""
    least = config.min_expert_capacity if config else 0
    how = f"max({least}, {how})" if how and capacity == least else how
    return {
        "capacity": None if capacity == UNLIMITED else capacity,
        "how": f"{how} = " if how else "",
        "place": slot + 1,
        "dropped": slot >= capacity,
    }


def _losses(record: Routing) -> dict[str, str]:
    return {
        "loads": " ".join(f"{load:.2f}" for load in record.load.tolist()[:SHOWN]),
        "means": " ".join(f"{mean:.2f}" for mean in record.importance.tolist()[:SHOWN]),
        "balance": f"{float(load_balancing_loss(record)):.2f}",
        "text_balance": f"{float(sequence_balance_loss(record)):.2f}",
        "z": f"{float(router_z_loss(record)):.2f}",
    }


def _vote(view: View) -> dict[str, Any] | None:
    """What the token adds to the logit of the predicted class; None where no logit is a sum of votes."""
    prediction = view.answer
    if not view.classifies or prediction.votes is None:
        return None
    label, record = list(prediction.scores).index(prediction.label), prediction.voters
    vote, bias, logit = (
        float(values[label]) for values in (prediction.votes[view.token], prediction.bias, prediction.logits)
    )
    return {
        "label": prediction.label,
        "layer": layer_title(record.name),
        "dropped": bool(record.dropped[0, view.token]),
        "expert": int(record.expert[0, view.token]),
        "own": signed(vote, 3),
        "bias": signed(bias, 3),
        "logit": signed(logit, 3),
    }


def _moved(view: View, record: Routing) -> int:
    """How many tokens did not go where their highest logit says, but for those that were sent."""
    forced = {token for layer, token in view.changes.force if layer == record.name}
    best_T = record.logits[0].argmax(-1)
    return sum(token not in forced for token in (best_T != record.expert[0]).nonzero().flatten().tolist())


def parameters_html(config: SwitchConfig | None) -> str:
    """A row for each parameter of a Switch layer: its name, its value in this model, what it does."""
    if not isinstance(config, SwitchConfig):
        return ""
    rows = [(name, getattr(config, name), OPTIONS[name].metadata["effect"]) for name in _PARAMETERS]
    return render("how_it_works/parameters.html", rows=rows)


def create_how_it_works(tab: gr.Tab, pages: gr.Tabs, explore: ExploreTab) -> None:
    """Lay the tab out; it is filled with what Explore shows when it is opened."""
    with gr.Column(elem_classes="card"):
        gr.HTML(heading("One text on its way through the experts") + note(_IN_PLAIN_WORDS), apply_default_css=False)
        film = create_routing_film()
    with gr.Column(elem_classes="card"):
        steps = gr.HTML("", apply_default_css=False, elem_id="how-steps")
    with gr.Column(elem_classes="card"):
        parameters = gr.HTML("", apply_default_css=False, elem_id="how-parameters")
    recorded = read_record()
    with gr.Column(elem_classes="card", visible=recorded is not None):
        gr.HTML(heading("How experts form while a model trains"), apply_default_css=False)
        gr.HTML(quiet(_RECORDED), apply_default_css=False)
        training = create_training_record()
    scaling = read_scaling()
    with gr.Column(elem_classes="card run-plots", visible=scaling is not None):
        gr.HTML(scaling_html(scaling), apply_default_css=False, elem_id="how-scaling")
        with gr.Row():
            # An empty plot names itself where no name may be.
            losses, speed_up = (
                gr.Plot(show_label=False, container=False, buttons=[], visible=False, min_width=300, elem_id=name)
                for name in ("how-scaling-loss", "how-scaling-speed")
            )

    def config_of(view: View | None) -> SwitchConfig | None:
        try:
            return explore.shelf.load(view.model).config if view and view.model else None
        except CheckpointError:
            return None

    def explain(view: View | None) -> tuple[dict[str, Any] | None, str, str]:
        config = config_of(view)
        film = film_value(view, config)
        # The script is told of a value only where it is another one.
        film = film and film | {"opened": time.monotonic()}
        return film, steps_html(view, config), parameters_html(config)

    def look(view: View | None, event: gr.EventData) -> str:
        """The formulas for the place that the film shows."""
        if view is not None and view.record is not None:
            token = min(max(int(event.token), 0), len(view.trace.tokens) - 1)
            layer = min(max(int(event.layer), 0), len(view.trace.routing) - 1)
            view = replace(view, token=token, layer=layer)
        return steps_html(view, config_of(view))

    tab.select(explain, [explore.view], [film, steps, parameters], **LAST)
    explore.film.click(None, None, None, js=WANT_FILM, **LAST)
    explore.film.click(lambda: gr.Tabs(selected="how"), None, [pages], **LAST)
    tab.select(lambda: recorded, None, [training], **LAST)
    film.look(look, [explore.view], [steps], **EACH)
    if scaling is not None:

        def picture() -> tuple[Any, Any]:
            return tuple(gr.update(value=plot(scaling), visible=True) for plot in (loss_plot, speed_up_plot))

        tab.select(picture, None, [losses, speed_up], **LAST)
