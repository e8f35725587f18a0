"""The routing grid: a column per token, below it one cell per sparse layer, coloured and numbered by expert.

The component's value is plain data. Its script builds every element itself and writes text with textContent: gr.HTML
evaluates ${…} in what a template has rendered, so that a visitor's text must never pass through one.
A value with the whole `text` belongs to Explore's box: the script says so when that has been edited since.
Try it: create_routing_grid(grid_value(prediction, default_selection(prediction)))
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from switch_model import Prediction, Routing
from switch_model.analysis.layer_names import layer_label, layer_title
from switch_model.inference.traces import TokenTrace
from switch_model.routing import UNLIMITED

# One scope: what the first one names, the second calls.
_SCRIPTS = (Path(__file__).with_name("grid_bars.js"), Path(__file__).with_suffix(".js"))
_TEMPLATE = '<p class="notice" role="status" hidden></p><div class="grid-root"></div>'


def create_routing_grid(value: dict[str, Any] | None = None, elem_id: str = "routing-grid") -> gr.HTML:
    """The component. Its event `look` tells which token and layer a person chose: evt.token, evt.layer."""
    return gr.HTML(
        value,
        html_template=_TEMPLATE,
        js_on_load="\n".join(script.read_text(encoding="utf-8") for script in _SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
    )


def grid_value(
    prediction: Prediction | TokenTrace,
    selected: tuple[int, int],
    base: Prediction | TokenTrace | None = None,
    matters_T: torch.Tensor | None = None,
) -> dict[str, Any]:
    """What the script draws: tokens, and per layer the lists expert, gate (in thousandths), slot and dropped.

    Args:
        selected: (token, layer) indices to start with.
        base: the prediction before the routing was changed: where a token went then is told apart.
        matters_T: the change of the predicted class's probability without each token.
    """
    records = prediction.routing
    tokens = {
        "tokens": [token.strip() or "␣" for token in prediction.tokens],
        "joined": joined_tokens(prediction),
        "unknown": prediction.unknown,
        "special": [start == end for start, end in prediction.offsets],
        "selected": {"token": selected[0], "layer": selected[1]},
        "experts": records[0].num_experts if records else 0,
        "matters": None if matters_T is None else (matters_T * 1000).round().int().tolist(),
        "label": "" if matters_T is None else prediction.label,
    }
    if not records:
        return tokens | {"layers": []}
    # All layers at once: a few tensor operations however long the text is.
    expert_LT = torch.cat([record.expert for record in records])
    gate_LT = torch.cat([record.gate for record in records])
    slot_LT = torch.cat([record.slot for record in records])
    capacity_L = torch.cat([record.capacity for record in records])
    changed = base is not None and base is not prediction
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


def bands_value(
    bands: list[tuple[str, TokenTrace, TokenTrace]], selected: tuple[int, int], changed: bool = False
) -> dict[str, Any]:
    """The same for several stacks, one below the other: tokens and layers are counted through all of them, and a layer
    knows nothing (None) of the tokens of another stack.

    Args:
        bands: a title, the stack, and the same stack before the routing was changed.
        selected: (token, layer), counted through.
    """
    parts = []
    for _, band, base in bands:
        # What was written after the first difference is another text: its routes have nothing to be compared with.
        same = _alike(band, base) if changed else 0
        part = grid_value(band, (0, 0))
        for layer, record, was in zip(part["layers"], band.routing, base.routing, strict=True):
            layer["title"] = layer_title(record.name, both=len(bands) > 1)
            if changed:
                routes = _before(_first(record, same), _first(was, same))
                layer["before"] = routes + [None] * (len(band.tokens) - same)
        parts.append(part)
    value: dict[str, Any] = {
        key: [one for part in parts for one in part[key]] for key in ("tokens", "joined", "unknown", "special")
    }
    value |= {"selected": {"token": selected[0], "layer": selected[1]}, "matters": None, "label": "", "layers": []}
    value |= {"experts": max(part["experts"] for part in parts), "bands": []}
    total, start = len(value["tokens"]), 0
    for (title, band, _), part in zip(bands, parts, strict=True):
        end = start + len(band.tokens)
        for layer in part["layers"]:
            for key in ("expert", "gate", "slot", "dropped", "before"):
                if layer[key] is not None:
                    layer[key] = [None] * start + layer[key] + [None] * (total - end)
            value["layers"].append(layer)
        value["bands"].append({"title": title, "start": start, "end": end, "written": start + band.written})
        start = end
    return value


def _alike(one: TokenTrace, other: TokenTrace) -> int:
    """How many tokens two bands begin with alike."""
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


def joined_tokens(prediction: Prediction | TokenTrace) -> list[int]:
    """1 where a token continues the word of the one before it: both are letters or digits with nothing between."""
    joined, previous_end, previous_token = [], -1, ""
    for (start, end), token in zip(prediction.offsets, prediction.tokens, strict=True):
        touches = start == previous_end and end > start and token[:1].isalnum() and previous_token[-1:].isalnum()
        # Scripts without spaces would make one endless word, which could not wrap.
        joined.append(int(touches and token[:1] < "\u2e80"))
        previous_end, previous_token = end, token
    return joined
