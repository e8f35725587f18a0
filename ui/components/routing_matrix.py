"""The grid of models with several choices for each token, many experts or many layers: a table that scrolls.

Drawn by routing_matrix.js, of which only the cells in view exist.
Try it: matrix_value(view)["matrix"]["k"]
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from switch_model.analysis.layer_names import layer_label, layer_title
from switch_model.topk_routing import AnyRouting
from ui.components.grid_tokens import tokens_value
from ui.look.palette import expert_colour
from ui.views.view import View

# Beyond this many layers, or experts, or with several for each token, the grid is a table that scrolls.
MAX_GRID_LAYERS, MAX_GRID_EXPERTS = 12, 32
# Experts that are told apart by colour there.
MAX_COLOURED = 16


def needs_matrix(records: Sequence[AnyRouting]) -> bool:
    """Whether the layers have too many choices, experts or rows for the plain grid."""
    widest = max((record.experts.shape[-1] for record in records), default=1)
    most = max((record.num_experts for record in records), default=0)
    return widest > 1 or len(records) > MAX_GRID_LAYERS or most > MAX_GRID_EXPERTS


def matrix_value(view: View) -> dict[str, Any]:
    """What routing_matrix.js draws: tokens and layers counted through all stacks, and every choice, packed, since lists
    of a long text would be megabytes. A layer has no choice (weight 0) for the tokens of another stack."""
    records = view.records
    total, choices = sum(len(trace.tokens) for trace in view.traces), max(one.experts.shape[-1] for one in records)
    count = max(record.num_experts for record in records)
    experts = np.zeros((len(records), total, choices), dtype="<u2")
    shares = np.zeros((len(records), total, choices), dtype="u1")
    start, layer = 0, 0
    for trace in view.traces:
        own = slice(start, start + len(trace.tokens))
        for record in trace.routing:
            width = record.experts.shape[-1]
            experts[layer, own, :width] = record.experts[0].numpy()
            shares[layer, own, :width] = _in_bytes(record.weights[0])
            layer += 1
        start = own.stop
    token, chosen = view.place
    parts = [tokens_value(trace) for trace in view.traces]
    joined = {key: [one for part in parts for one in part[key]] for key in ("tokens", "unknown", "special")}
    return joined | {
        "selected": {"token": token, "layer": chosen},
        "experts": count,
        "layers": [
            {"title": layer_title(one.name, both=view.two_stacks), "label": layer_label(one.name, both=view.two_stacks)}
            for one in records
        ],
        "written": total - len(view.traces[-1].tokens) + view.traces[-1].written,
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
