"""The grid of models with several choices for each token, many experts or many layers: a table that scrolls.

Drawn by routing_matrix.js, of which only the cells in view exist.
Try it: matrix_value(view)["matrix"]["k"]
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
    """The same of one text of a trace, of which nothing else is known; at most MAX_TOKENS tokens."""
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
