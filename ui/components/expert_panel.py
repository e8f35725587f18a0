"""The expert panel: every expert of every layer as a switch, the capacity as a slider, and steps back.

The component's value is plain data, drawn by its script (as in routing_grid.py). Its event `intervene` tells what a
person did: evt.kind "change" with all it asks for (evt.off, evt.capacity, evt.top_k), "undo" or "reset". It sends one
at a time, numbered (evt.serial), and waits some seconds for a value with that number; one without a number shows
something else, and ends the waiting. evt.sliding = the capacity slides on, which is no step of its own: of several
quick moves of the slider the last one counts. Try it: create_expert_panel(panel_value(view, config))"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from switch_model import Interventions, SwitchConfig
from switch_model.grid.layer_names import layer_label, layer_title
from switch_model.routing import UNLIMITED
from ui.views.changes import own_factor, words_of_changes
from ui.views.view import View

# One scope: what the first one names, the second calls.
_SCRIPTS = (Path(__file__).with_name("expert_map.js"), Path(__file__).with_suffix(".js"))
# Where the slider stops; the model's own factor is added.
CAPACITY_STOPS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, math.inf)


def create_expert_panel(value: dict[str, Any] | None = None) -> gr.HTML:
    """The component."""
    return gr.HTML(
        value,
        html_template='<h2 class="panel-title">Change the routing</h2><div class="panel-root"></div>',
        js_on_load="\n".join(script.read_text(encoding="utf-8") for script in _SCRIPTS),
        apply_default_css=False,
        elem_id="expert-panel",
    )


def panel_value(view: View, config: SwitchConfig, serial: int = 0) -> dict[str, Any]:
    """What the script draws: per layer which experts are off, how many tokens chose each, what each matters; the
    capacity's stops ("none" = dropless; none at all where nothing is ever dropped), which one is the model's own, and
    the slots per expert that come of it; the changes in words.

    Args:
        serial: of the event that is answered.
    """
    changes, records, both = view.changes, view.records, view.two_stacks
    found = view.importance and (1000 * view.importance.experts).round().int().tolist()
    # A layer with all experts off has no slots: another one tells.
    open_layer = next((record for record in records if int(record.capacity)), records[0] if records else None)
    own = own_factor(open_layer, config) if open_layer else math.inf
    stops = sorted({*CAPACITY_STOPS, own})
    factor = own if changes.capacity_factor is None else changes.capacity_factor
    # A decoder has room for every token.
    drops = view.traces[0].stack == "encoder" and view.traces[0].routing
    value = {
        "layers": [
            {
                "name": record.name,
                "title": layer_title(record.name, both),
                "label": layer_label(record.name, both),
                "off": [int((record.name, expert) in changes.ablate) for expert in range(record.num_experts)],
                "tokens": record.choices.tolist(),
                "matters": found[index] if found else None,
            }
            for index, record in enumerate(records)
        ],
        "label": view.importance.label if view.importance else "",
        "stops": ["none" if math.isinf(stop) else stop for stop in stops] if drops else [],
        "own": stops.index(own),
        "at": min(range(len(stops)), key=lambda index: _apart(stops[index], factor)),
        "slots": None if open_layer is None or int(open_layer.capacity) == UNLIMITED else int(open_layer.capacity),
        "choices": _choices(view, config),
        "said": words_of_changes(view),
        "undo": bool(view.past),
        "writes": view.writes,
        "serial": serial,
    }  # fmt: skip
    if both and drops:
        value["capacity_note"] = "Acts on the encoder: the decoder always has room for every token."
    return value


def _choices(view: View, config: SwitchConfig) -> dict[str, Any] | None:
    """How many experts a token has: the model's own number, the one asked for (None = by layer) and the most; None
    where that can't be changed."""
    own = getattr(config, "num_choices", 1)
    if own == 1 or not config.any_choices:
        return None
    numbers = view.changes.numbers
    at = numbers.get("", own) if set(numbers) <= {""} else None
    return {"own": own, "at": at, "most": min(record.num_experts for record in view.records)}


def changes_from_panel(
    view: View, changes: Interventions, config: SwitchConfig, request: dict[str, Any]
) -> Interventions:
    """The changes after what a person asked for. A browser may ask for anything: what makes no sense is left out.

    Args:
        view: what is looked at.
        changes: those before.
    """
    kind, layers = request.get("kind"), config.sparse_layers
    if kind == "reset":
        return Interventions()
    if kind == "force" and view.record is not None:
        place = (view.record.name, view.token)
        expert = _whole(request.get("expert"), config.num_experts)
        force = {other: chosen for other, chosen in changes.force.items() if other != place}
        if expert is not None and (place[0], expert) not in changes.ablate:
            force[place] = expert
        return replace(changes, force=force)
    if kind == "change":
        off = request.get("off") if isinstance(request.get("off"), list) else []
        places = [place for place in off if isinstance(place, list) and len(place) == 2]
        indices = [(_whole(layer, len(layers)), _whole(expert, config.num_experts)) for layer, expert in places]
        ablate = {(layers[layer], expert) for layer, expert in indices if None not in (layer, expert)}
        force = {place: expert for place, expert in changes.force.items() if (place[0], expert) not in ablate}
        top_k = changes.top_k
        if "top_k" in request and getattr(config, "num_choices", 1) > 1 and config.any_choices:
            most = min((record.num_experts for record in view.records), default=0)
            top_k = _whole(request["top_k"], most + 1) or None
            top_k = None if top_k == config.num_choices else top_k
        return Interventions(ablate, force, _factor(request.get("capacity")), top_k=top_k)
    return changes


def serial_of(request: dict[str, Any]) -> int:
    """The number of the event that tells a request; 0 where it has none."""
    return _whole(request.get("serial"), 2**53) or 0


def _whole(value: Any, below: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below else None


def _factor(value: Any) -> float | None:
    if value == "none":
        return math.inf
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e6 else None


def _apart(one: float, other: float) -> float:
    return 0.0 if one == other else abs(one - other)
