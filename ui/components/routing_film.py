"""The film of a routing: every token's way through router, buffer, expert, gate and residual, layer by layer; with
several experts for each token, to all of them at once and back.

The component's value is plain data, drawn on a canvas by its script, so that the picture can be saved as a video.
Try it: create_routing_film(film_value(view, loaded.config))
"""

import base64
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch

from switch_model import Routing, SwitchConfig
from switch_model.grid.matrix import layers_value, needs_matrix
from switch_model.grid.palette import shade_of
from switch_model.grid.plain import grid_value
from switch_model.grid.tokens import tokens_value
from switch_model.topk_routing import TopKRouting
from train.formatting import percent
from ui.views.view import View

# Probabilities of a token that are shown: the largest ones.
SHOWN_EXPERTS = 8
# Characters of a text that stand in the picture's title.
SHOWN_CHARACTERS = 400
_SCRIPTS = ("film_stage.js", "film_one.js", "film_several.js", "routing_film.js")
# What a button runs in the browser: the film plays as soon as it has its next value.
WANT_FILM = "() => { window.filmWanted = true; }"
_TEMPLATE = Path(__file__).with_suffix(".html")


def create_routing_film(elem_id: str = "film") -> gr.HTML:
    """The component. Its event `look` tells which token and layer a person looks at: evt.token, evt.layer."""
    return gr.HTML(
        None,
        html_template=_TEMPLATE.read_text(encoding="utf-8"),
        js_on_load="\n".join(_TEMPLATE.with_name(name).read_text(encoding="utf-8") for name in _SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
    )


def film_value(view: View | None, config: SwitchConfig | None) -> dict[str, Any] | None:
    """What the script draws: the grid's tokens and layers of the stack in view, for each token the experts it finds
    likeliest, and the answer. None where nothing is routed.

    Args:
        config: of the model; None = a saved view, of which only the record is known.
    """
    if view is None or view.record is None:
        return None
    value = _several(view, config) if isinstance(view.record, TopKRouting) else _one(view)
    experts, records = value["experts"], view.trace.routing
    return value | {
        "shades": [shade_of(one, experts) if needs_matrix(records) else one for one in range(experts)],
        "text": view.text[:SHOWN_CHARACTERS],
        "answer": _answer(view),
        "width": getattr(config, "d_model", None),
        "residual": config.expert_residual if config else 1.0,
        "biased": getattr(config, "balances_by_bias", False),
    }


def _one(view: View) -> dict[str, Any]:
    """Layers with one expert for each token."""
    value = grid_value(view.trace, (view.token, view.layer))
    for layer, record in zip(value["layers"], view.trace.routing, strict=True):
        layer["likeliest"] = likeliest(record)
        # Switched off, an expert has no probability for any token.
        layer["off"] = record.logits[0].isneginf().all(0).nonzero().flatten().tolist()
    return value


def _several(view: View, config: SwitchConfig | None) -> dict[str, Any]:
    """Layers with several experts for each token: which, and their weights in thousandths, packed for long texts."""
    value = layers_value([view.trace.routing], [len(view.trace.tokens)])
    choices = value.pop("matrix")
    weights = np.zeros((len(view.trace.routing), len(view.trace.tokens), choices["k"]), "<u2")
    shared = getattr(config, "shared_experts", ())
    for number, (layer, record) in enumerate(zip(value["layers"], view.trace.routing, strict=True)):
        used = record.weights[0].abs()
        # What is used at all has at least one part.
        thousandths = torch.where(used > 0, (used * 1000).round().clamp(1, 65535), 0)
        weights[number, :, : used.shape[-1]] = thousandths.numpy()
        layer["off"] = sorted(expert for name, expert in view.changes.ablate if name == record.name)
        layer["forced"] = sorted(token for name, token in view.changes.force if name == record.name)
        # Modules are named by their place in the library's model: model.layers.3.mlp.shared_experts.
        layer["shared"] = any(record.name.rpartition(".")[2] in module.split(".") for module in shared)
    selected = {"selected": {"token": view.token, "layer": view.layer}, "choices": choices["k"]}
    packed = {"experts": choices["experts"], "weights": base64.b64encode(weights.tobytes()).decode()}
    return value | tokens_value(view.trace) | selected | {"packed": packed}


def likeliest(record: Routing) -> list[list[list[float]]]:
    """For each token its likeliest experts and their probabilities in thousandths, the largest first; the one that was
    chosen is always among them."""
    found = []
    probs_TE, expert_T = record.probs[0], record.expert[0].tolist()
    top = probs_TE.topk(min(SHOWN_EXPERTS, record.num_experts), dim=-1)
    for token, (experts, probs) in enumerate(zip(top.indices.tolist(), top.values.tolist(), strict=True)):
        if expert_T[token] not in experts:
            experts[-1], probs[-1] = expert_T[token], float(probs_TE[token, expert_T[token]])
        # One digit more than is shown, so that the film rounds as the cards do.
        found.append([[expert, round(1000 * prob, 1)] for expert, prob in zip(experts, probs, strict=True)])
    return found


def _answer(view: View) -> str:
    """The answer in one line."""
    if view.classifies:
        prediction = view.answer
        return f"Prediction: {prediction.label} {percent(prediction.scores[prediction.label])}"
    return ""
