"""A recorded routing trace, which no model is at hand for, as routing_matrix.js draws it.

Try it: recorded_value(open_trace("capture.jsonl"), 0)["matrix"]["k"]
"""

from dataclasses import replace
from typing import Any

import numpy as np

from switch_model.grid.matrix import layers_value
from switch_model.grid.tokens import visible
from switch_model.traces.trace import RoutingTrace

# Tokens of a trace that are drawn.
MAX_TOKENS = 4000


def recorded_value(trace: RoutingTrace, text: int) -> dict[str, Any]:
    """What the script draws of one text of a trace, counted from 0; at most MAX_TOKENS tokens."""
    own = np.flatnonzero(trace.text == text)[:MAX_TOKENS]
    names = [trace.tokens[index] for index in own] if trace.tokens else [str(trace.position[index]) for index in own]
    part = replace(
        trace,
        experts=trace.experts[:, own],
        weights=None if trace.weights is None else trace.weights[:, own],
        text=trace.text[own],
        position=trace.position[own],
    )
    nothing = [False] * len(names)
    return layers_value([next(part.texts())], [len(names)]) | {
        "tokens": [visible(name) for name in names],
        "unknown": nothing,
        "special": nothing,
        "selected": {"token": 0, "layer": 0},
        "written": len(names),
        "still": True,
    }
