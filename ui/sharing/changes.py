"""Changes to the routing, and how a text is written, as JSON: what links and records have in common."""

import math
from typing import Any

from switch_model import Interventions
from switch_model.inference.decoding import Decoding
from ui.views.output_view import MAX_BEAMS, MAX_LENGTH, MAX_SECONDS, PLAIN

VERSION = 1


def decoding_from_json(values: Any) -> Decoding:
    """How a text was written, within what a page allows. Raises ValueError, TypeError for what is no such thing."""
    if values is None:
        return PLAIN
    decoding = Decoding(**values | {"max_seconds": MAX_SECONDS})
    if decoding.max_new_tokens > MAX_LENGTH or decoding.num_beams > MAX_BEAMS:
        raise ValueError("the text is too long, or follows too many others")
    return decoding


def check_version(content: dict[str, Any]) -> None:
    if content.get("v") != VERSION:
        raise ValueError("it is of another version")


def changes_to_json(changes: Interventions) -> dict[str, Any]:
    """Changes as plain data."""
    factor = changes.capacity_factor
    return {
        "ablate": sorted(map(list, changes.ablate)),
        "force": [[layer, token, expert] for (layer, token), expert in sorted(changes.force.items())],
        "capacity": "none" if factor is not None and math.isinf(factor) else factor,
        "group": changes.capacity_group,
    }


def changes_from_json(content: dict[str, Any]) -> Interventions:
    """The inverse. Raises ValueError, TypeError for what is no such thing."""
    factor = content.get("capacity")
    return Interventions(
        ablate={(layer, expert) for layer, expert in content.get("ablate", [])},
        force={(layer, token): expert for layer, token, expert in content.get("force", [])},
        capacity_factor=math.inf if factor == "none" else factor,
        capacity_group=content.get("group"),
    )
