"""The routing grid: a column per token, below it one cell per sparse layer, coloured and numbered by expert.

The component's value is plain data. Its script builds every element itself and writes text with textContent: gr.HTML
evaluates ${…} in what a template has rendered, so that a visitor's text must never pass through one.
A value with the whole `text` belongs to Explore's box: the script says so when that has been edited since.
Try it: create_routing_grid(grid_value(prediction.trace, default_selection(prediction.trace)))
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from markupsafe import Markup

from switch_model import Prediction, Routing
from switch_model.analysis.layer_names import layer_label, layer_title
from switch_model.inference.traces import TokenTrace
from switch_model.routing import UNLIMITED
from ui.components.grid_tokens import tokens_value
from ui.components.routing_matrix import matrix_value, needs_matrix
from ui.look.html import render
from ui.views.view import View

# One scope: what the first one names, the second calls.
_SCRIPTS = (
    Path(__file__).with_name("grid_bars.js"),
    Path(__file__).with_name("routing_matrix.js"),
    Path(__file__).with_suffix(".js"),
)
_READS, _WRITES = "Encoder: what it reads", "Decoder: what it writes"
_GOES_ON = "Decoder: the beginning, and what the model wrote"
# Classes whose votes are shown, the likeliest ones: as many as the card of the prediction has bars.
MAX_CLASSES = 12
_TEMPLATE = '<p class="notice" role="status" hidden></p><div class="grid-root"></div>'


def grid_script() -> Markup:
    """The script of all grids, for the head of the page: in each grid it would be sent five times."""
    code = "\n".join(script.read_text(encoding="utf-8") for script in _SCRIPTS)
    return render("components/grid_script.html", code=Markup(code))


def create_routing_grid(value: dict[str, Any] | None = None, elem_id: str = "routing-grid") -> gr.HTML:
    """The component. Its event `look` tells which token and layer a person chose: evt.token, evt.layer."""
    return gr.HTML(
        value,
        html_template=_TEMPLATE,
        # Gradio reads here which events there are.
        js_on_load='drawRoutingGrid(element, props, trigger, watch); // trigger("look", …)',
        apply_default_css=False,
        elem_id=elem_id,
    )


def grid_value(trace: TokenTrace, selected: tuple[int, int], base: TokenTrace | None = None) -> dict[str, Any]:
    """What the script draws: tokens, and per layer the lists expert, gate (in thousandths), slot and dropped.

    Args:
        selected: (token, layer) indices to start with.
        base: the same before the routing was changed: where a token went then is told apart.
    """
    records = trace.routing
    tokens = tokens_value(trace) | {
        "selected": {"token": selected[0], "layer": selected[1]},
        "experts": records[0].num_experts if records else 0,
        "matters": None,
        "label": "",
    }
    if not records:
        return tokens | {"layers": []}
    # All layers at once: a few tensor operations however long the text is.
    expert_LT = torch.cat([record.expert for record in records])
    gate_LT = torch.cat([record.gate for record in records])
    slot_LT = torch.cat([record.slot for record in records])
    capacity_L = torch.cat([record.capacity for record in records])
    changed = base is not None and base is not trace
    dropped_LT = slot_LT >= capacity_L.unsqueeze(-1)
    lists = zip(
        records,
        capacity_L.tolist(),
        expert_LT.tolist(),
        (gate_LT * 1000).round().int().tolist(),
        slot_LT.tolist(),
        dropped_LT.int().tolist(),
        strict=True,
    )
    return tokens | {
        "layers": [
            {
                "title": layer_title(record.name),
                "label": layer_label(record.name),
                "capacity": None if capacity == UNLIMITED else capacity,
                "expert": expert_T,
                "gate": gate_T,
                "slot": slot_T,
                "dropped": dropped_T,
                "before": _before(record, base.routing[index]) if changed else None,
            }
            for index, (record, capacity, expert_T, gate_T, slot_T, dropped_T) in enumerate(lists)
        ]
    }


def view_grid(view: View) -> dict[str, Any]:
    """The grid of a view: one stack, with what only a class has (what its tokens matter, votes), or one stack below the
    other."""
    return matrix_value(view) if needs_matrix(view.records) else plain_grid(view)


def plain_grid(view: View) -> dict[str, Any]:
    """One cell for each token and layer, also where a token has several experts: then its first choice."""
    if view.two_stacks or view.trace.stack == "decoder":
        return stacked_value(view)
    value = grid_value(view.trace, view.place, view.base.traces[0])
    if view.importance is not None:
        matters = (view.importance.tokens * 1000).round().int().tolist()
        value |= {"matters": matters, "label": view.importance.label}
    return value | ({"text": view.text, "votes": votes_strip(view.answer)} if view.classifies else {})


def stacked_value(view: View) -> dict[str, Any]:
    """The grid of a model that writes: tokens and layers are counted through all its stacks, and a layer knows nothing
    (None) of the tokens of another stack."""
    titles = (_READS, _WRITES) if view.two_stacks else (_GOES_ON,)
    parts = []
    for trace, base in zip(view.traces, view.base.traces, strict=True):
        # What was written after the first difference is another text: its routes have nothing to be compared with.
        same = _alike(trace, base) if view.changed else 0
        part = grid_value(trace, (0, 0))
        for layer, record, was in zip(part["layers"], trace.routing, base.routing, strict=True):
            layer["title"] = layer_title(record.name, both=view.two_stacks)
            if view.changed:
                routes = _before(_first(record, same), _first(was, same))
                layer["before"] = routes + [None] * (len(trace.tokens) - same)
        parts.append(part)
    value: dict[str, Any] = {
        key: [one for part in parts for one in part[key]] for key in ("tokens", "joined", "unknown", "special")
    }
    token, layer = view.place
    value |= {"selected": {"token": token, "layer": layer}, "matters": None, "label": "", "layers": []}
    value |= {"experts": max(part["experts"] for part in parts), "stacks": []}
    total, start = len(value["tokens"]), 0
    for title, trace, part in zip(titles, view.traces, parts, strict=True):
        end = start + len(trace.tokens)
        for layer in part["layers"]:
            for key in ("expert", "gate", "slot", "dropped", "before"):
                if layer[key] is not None:
                    layer[key] = [None] * start + layer[key] + [None] * (total - end)
            value["layers"].append(layer)
        value["stacks"].append({"title": title, "start": start, "end": end, "written": start + trace.written})
        start = end
    return value


def votes_strip(prediction: Prediction, rounded: int = 6) -> dict[str, Any] | None:
    """What the grid draws below each word: the votes of the tokens for the classes of the card, the predicted one
    first; None stands for a token without a vote. None without votes.

    Args:
        rounded: digits behind the point.
    """
    if prediction.votes is None:
        return None
    record, names = prediction.voters, list(prediction.scores)
    kept = record.kept[0].tolist()
    classes = classes_shown(prediction)
    votes = prediction.votes.T.tolist()
    return {
        "layer": prediction.routing.index(record),
        "digits": digits_of(prediction) + 1,
        "classes": [
            {
                "name": names[c],
                "votes": [round(vote, rounded) if voted else None for vote, voted in zip(votes[c], kept, strict=True)],
            }
            for c in classes
        ],
    }


def classes_shown(prediction: Prediction) -> list[int]:
    """Indices of the likeliest classes, the predicted one first."""
    scores = list(prediction.scores.values())
    return sorted(range(len(scores)), key=lambda c: -scores[c])[:MAX_CLASSES]


def digits_of(prediction: Prediction) -> int:
    """Digits behind the point that sums of votes are shown with: more where all are small."""
    largest = max(float(prediction.votes_of_experts.abs().max()), float(prediction.logits.abs().max()))
    return 2 if largest >= 1 else 3 if largest >= 0.1 else 4


def _alike(one: TokenTrace, other: TokenTrace) -> int:
    """How many tokens two traces begin with alike."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.tokens), len(other.tokens)))


def _first(record: Routing, tokens: int) -> Routing:
    parts = ("logits", "expert", "slot", "mask")
    return replace(record, **{name: getattr(record, name)[:, :tokens] for name in parts})


def _before(record: Routing, base: Routing) -> list[list[int] | None]:
    """[expert, dropped] of each token whose route was another one before; None where it was the same."""
    same_T = ((record.expert == base.expert) & (record.dropped == base.dropped))[0].tolist()
    routes = zip(same_T, base.expert[0].tolist(), base.dropped[0].int().tolist(), strict=True)
    return [None if same else [expert, dropped] for same, expert, dropped in routes]
