"""Measures of a trace, layer by layer, each beside chance (docs/metrics.md).

Try it: layer_measures(open_trace("capture.csv", top_k=8))[0]["load_cv"]
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from switch_model.analysis.statistics import RoutingTotals, distinct_experts
from switch_model.traces.trace import RoutingTrace

# Measures that need what a trace without logits, or without weights, does not have.
_OF_LOGITS = ("balance_loss", "sequence_balance_loss", "z_loss", "drop_rate")
_OF_WEIGHTS = ("token_entropy", "weight_mass")


def layer_measures(trace: RoutingTrace, rounds: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """One dict per layer: what `RoutingTotals.summary` gives, and

    idle, idle_chance: experts without a token, and how many there would be if each token chose k at random.
    repeated, repeated_chance: mean share of a token's experts that the token before it in its text had too, and the
        mean when the tokens of all texts are shuffled; None without two tokens in a text.
    distinct_experts: mean, chance and texts of `DistinctExperts`; None without a long text.
    """
    totals = RoutingTotals()
    for records in trace.texts():
        totals.add(records)
    left_out = _OF_LOGITS + (_OF_WEIGHTS if trace.weights is None else ())
    found = [{key: value for key, value in layer.items() if key not in left_out} for layer in totals.summary()]
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(trace.text)) for _ in range(rounds)]
    follows = np.flatnonzero((trace.text[1:] == trace.text[:-1]) & (trace.position[1:] == trace.position[:-1] + 1)) + 1
    share_idle = (1 - trace.top_k / trace.num_experts) ** len(trace.text)
    for layer, experts in zip(found, trace.experts, strict=True):
        layer |= {"idle": sum(share == 0 for share in layer["load"]), "idle_chance": trace.num_experts * share_idle}
        distinct = distinct_experts(trace.text, experts, trace.num_experts)
        layer |= {"distinct_experts": distinct and asdict(distinct), "repeated": None, "repeated_chance": None}
        if len(follows):
            shuffled = [_overlap(experts[order][follows], experts[order][follows - 1]) for order in orders]
            layer["repeated"] = _overlap(experts[follows], experts[follows - 1])
            layer["repeated_chance"] = float(np.mean(shuffled))
    return found


def _overlap(here: np.ndarray, there: np.ndarray) -> float:
    """Mean share of the experts in rows of `here` (T, K) that the same rows of `there` have."""
    return float((here[:, :, None] == there[:, None, :]).any(-1).mean())
