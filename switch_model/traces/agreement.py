"""How far two traces of the same tokens agree, beside chance.

Try it: agreement(open_trace("a.json"), open_trace("b.json"))[0].same_first
"""

from dataclasses import dataclass

import numpy as np

from switch_model.traces.trace import RoutingTrace, TraceError


@dataclass(frozen=True)
class LayerAgreement:
    """Of one layer, shares from 0 to 1; `*_chance` = the mean when the tokens of one trace are shuffled.

    Attributes:
        same_first: share of tokens whose first choice is the same expert.
        overlap: mean share of a token's k experts that both traces chose, in any order.
        rank: mean rank-biased agreement: the overlap of the first 1, 2 … k choices, averaged.
        by_position: (bins,) overlap over tenths of the position in the text, NaN where there is no token.
    """

    layer: str
    same_first: float
    same_first_chance: float
    overlap: float
    overlap_chance: float
    rank: float
    rank_chance: float
    by_position: np.ndarray


def agreement(one: RoutingTrace, other: RoutingTrace, rounds: int = 20, seed: int = 0) -> list[LayerAgreement]:
    """Agreement layer by layer. Chance keeps each trace's loads and breaks which token they belong to.

    Raises:
        TraceError: when the traces are not of the same tokens, or of models of another shape.
    """
    if len(one.layers) != len(other.layers) or one.top_k != other.top_k:
        raise TraceError(
            f"One has {_shape(one)}, the other {_shape(other)}: only models of the same shape can be compared choice "
            "by choice."
        )
    if len(one.text) != len(other.text) or (one.position != other.position).any() or (one.text != other.text).any():
        raise TraceError("They are not of the same tokens: give both models the same texts and tokenizer.")
    if one.tokens and other.tokens and one.tokens != other.tokens:
        raise TraceError("The tokens of the two differ: give both models the same texts and tokenizer.")
    random = np.random.default_rng(seed)
    orders = [random.permutation(len(one.text)) for _ in range(rounds)]
    tenths = _tenths(one)
    found = []
    for index, layer in enumerate(one.layers):
        here, there = one.experts[index], other.experts[index]
        by_depth = _overlaps(here, there)
        chance = np.mean([_overlaps(here, there[order]).mean(axis=0) for order in orders], axis=0)
        counts = np.bincount(tenths, minlength=10)
        with np.errstate(invalid="ignore"):
            by_position = np.bincount(tenths, by_depth[:, -1], minlength=10) / counts
        at_first, overlap = by_depth.mean(axis=0)[[0, -1]]
        found.append(
            LayerAgreement(layer, at_first, chance[0], overlap, chance[-1], by_depth.mean(), chance.mean(), by_position)
        )
    return found


def _shape(trace: RoutingTrace) -> str:
    layers, top_k = len(trace.layers), trace.top_k
    return f"{layers} layer{'s' * (layers != 1)} with {top_k} expert{'s' * (top_k != 1)} per token"


def _overlaps(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """(T, K) share of the first 1, 2 … K choices that both have, of (T, K) choices."""
    same = here[:, :, None] == there[:, None, :]
    depths = range(1, here.shape[1] + 1)
    return np.stack([same[:, :depth, :depth].sum((1, 2)) / depth for depth in depths], axis=1)


def _tenths(trace: RoutingTrace) -> np.ndarray:
    """(T,) in which tenth of its text each token lies."""
    length = np.zeros(trace.text.max() + 1, dtype=np.int64)
    np.maximum.at(length, trace.text, trace.position + 1)
    return trace.position * 10 // length[trace.text]
