"""Which texts share a pass, and their token ids padded to one length.

Legend: B texts, T tokens of the longest.
Try it: [*batches_by_length(np.array([3, 90, 4]), 100)]
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from switch_model.interventions import AnyInterventions, Interventions, rows_of

# Tokens per pass, with padding. On a CPU their hidden states fit into its cache: 4,096 tokens take a tenth longer, and
# a pass of few tokens is all overhead. Elsewhere what a pass costs by itself counts for more.
CPU_TOKENS, OTHER_TOKENS = 2048, 16_384
# What a pass costs by itself, as a share of the most tokens in one: 256 tokens on a CPU, where a small model takes 4 ms
# for one token, and 54 ms for 2,048.
PASS_SHARE = 1 / 8


def padded(ids: Iterable[Sequence[int]], pad_token_id: int, side: str = "right") -> tuple[Tensor, Tensor]:
    """(B, T) token ids of B texts, padded on the right or left, and their attention mask."""
    own = [torch.tensor(one) for one in ids]
    input_ids_BT = pad_sequence(own, batch_first=True, padding_value=pad_token_id, padding_side=side)
    mask_BT = pad_sequence([torch.ones_like(own_T) for own_T in own], batch_first=True, padding_side=side)
    return input_ids_BT, mask_BT


def batches_by_length(lengths: np.ndarray, most: int = CPU_TOKENS) -> Iterator[np.ndarray]:
    """Batches of row indices with similar lengths, of at most `most` tokens with padding (or a single row), shortest
    first: those that together cost least, where a pass costs its tokens with padding and PASS_SHARE of `most`."""
    order = np.argsort(lengths, kind="stable")
    rows, pass_cost = len(order), int(PASS_SHARE * most)
    # The least cost of the first rows, for every number of them, and where their last batch begins.
    cost, begins = np.zeros(rows + 1, dtype=np.int64), [0] * (rows + 1)
    for end, longest in enumerate(lengths[order].tolist(), start=1):
        # The last row of a batch is the longest: how many of that length fit?
        first = max(0, end - max(1, most // max(longest, 1)))
        costs = cost[first:end] + np.arange(end - first, 0, -1) * longest
        best = int(costs.argmin())
        cost[end], begins[end] = costs[best] + pass_cost, first + best
    ends, end = [], rows
    while end:
        ends.append(end)
        end = begins[end]
    for end in reversed(ends):
        yield order[begins[end] : end]


def passes(
    model: Any, lengths: Sequence[int], interventions: AnyInterventions
) -> Iterator[tuple[np.ndarray, AnyInterventions]]:
    """The texts of each pass, by index, with their interventions. All of them together where their tokens share
    capacity: then it matters which texts are in a batch.

    Raises ValueError when interventions do not fit.
    """
    rows = rows_of(interventions, len(lengths))
    several = interventions is not None and not isinstance(interventions, Interventions)
    group = {row.capacity_group for row in rows} or {None}
    if not several and group == {None}:
        group = {getattr(model.config, "capacity_group", "sequence")}
    if group == {"batch"} or len(lengths) == 1:
        yield np.arange(len(lengths)), interventions
        return
    for chosen in batches_by_length(np.array(lengths), CPU_TOKENS if model.device.type == "cpu" else OTHER_TOKENS):
        yield chosen, [rows[index] for index in chosen] if several else interventions
