"""The grid of models with several choices for each token, many experts or many layers: a table that scrolls.

Drawn by routing_matrix.js, of which only the cells in view exist.
Try it: matrix_value(generation.traces, (0, 0))["matrix"]["k"]
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from switch_model.grid.layer_names import layer_label, layer_title
from switch_model.grid.palette import MAX_COLOURED, expert_colour
from switch_model.grid.tokens import tokens_value
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting

# Beyond this many layers, or experts, or with several for each token, the grid is a table that scrolls.
MAX_GRID_LAYERS, MAX_GRID_EXPERTS = 12, 32


def needs_matrix(records: Sequence[AnyRouting]) -> bool:
    """Whether the layers have too many choices, experts or rows for the plain grid."""
    widest = max((record.experts.shape[-1] for record in records), default=1)
    most = max((record.num_experts for record in records), default=0)
    return widest > 1 or len(records) > MAX_GRID_LAYERS or most > MAX_GRID_EXPERTS


def matrix_value(traces: Sequence[TokenTrace], place: tuple[int, int]) -> dict[str, Any]:
    """What routing_matrix.js draws of the traces: tokens and layers counted through all of them.

    Args:
        place: (token, layer) to start with.
    """
    parts = [tokens_value(trace) for trace in traces]
    joined = {key: [one for part in parts for one in part[key]] for key in ("tokens", "unknown", "special")}
    token, layer = place
    written = len(joined["tokens"]) - len(traces[-1].tokens) + traces[-1].written
    drawn = layers_value([trace.routing for trace in traces], [len(trace.tokens) for trace in traces])
    return joined | drawn | {"selected": {"token": token, "layer": layer}, "written": written}


def layers_value(stacks: Sequence[Sequence[AnyRouting]], lengths: Sequence[int]) -> dict[str, Any]:
    """Layers with every choice, packed, since lists of a long text would be megabytes. A layer has no choice (weight 0)
    for the tokens of another stack.

    Args:
        stacks: the records of each stack, each with B = 1.
        lengths: tokens of each.
    """
    records, both = [one for stack in stacks for one in stack], len(stacks) > 1
    choices, count = max(one.experts.shape[-1] for one in records), max(one.num_experts for one in records)
    experts = np.zeros((len(records), sum(lengths), choices), dtype="<u2")
    shares = np.zeros((len(records), sum(lengths), choices), dtype="u1")
    start, layer = 0, 0
    for stack, length in zip(stacks, lengths, strict=True):
        for record in stack:
            width = record.experts.shape[-1]
            experts[layer, start : start + length, :width] = record.experts[0].numpy()
            shares[layer, start : start + length, :width] = _in_bytes(record.weights[0])
            layer += 1
        start += length
    return {
        "experts": count,
        "layers": [
            {"title": layer_title(one.name, both=both), "label": layer_label(one.name, both=both)} for one in records
        ],
        "matrix": {
            "k": choices,
            "experts": base64.b64encode(experts.tobytes()).decode(),
            "weights": base64.b64encode(shares.tobytes()).decode(),
            "colours": [expert_colour(expert) for expert in range(count)] if count <= MAX_COLOURED else None,
        },
    }


def _in_bytes(weights: Tensor) -> np.ndarray:
    """Shares of each token's weights (T, K), 255 = all; what is used at all has at least one part."""
    sizes = weights.float().abs()
    part = sizes / sizes.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(part > 0, (part * 255).round().clamp(min=1), 0).numpy()
