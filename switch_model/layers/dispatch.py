"""Queues: which place a token has in its expert's queue, and which tokens an expert works on.

On a CPU this is NumPy's work: a call costs it a third of what it costs torch, which tells with a few tokens, and its
stable sort of 16-bit numbers is a radix sort, which tells with many. CUDA and compilers want tensors and shapes that
do not depend on the routing.
Legend: E experts, G capacity groups of N tokens, K tokens that are computed.
Try it: join_queues(torch.tensor([[2, 0, 2]]), torch.tensor([[True, True, True]]), 3).place
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from switch_model.tracing import is_exported, is_traced


@dataclass(frozen=True, eq=False)
class Queues:
    """Who stands where.

    Attributes:
        place: (G, N) int64, each token's place in its queue counted from 0, -1 where it joins none.
        length: (E, G) how many joined each queue of each group.
        order: (J,) int64, the tokens that joined, indices into G·N: queue by queue, of the first group first. None
            where shapes must not depend on the routing.
    """

    place: Tensor
    length: Tensor
    order: Tensor | None


def join_queues(choice: Tensor, joins: Tensor, num_queues: int) -> Queues:
    """Tokens (G, N), each row from first to last, join the queue of their `choice` (int64) where `joins` (bool)."""
    if _by_numpy(choice):
        return _join_by_sorting(choice.numpy(), joins.numpy(), num_queues)
    # As many steps as there are logits, but without branches. Queues first, so that the counts run along memory.
    queue_Q11 = torch.arange(num_queues, device=choice.device).view(-1, 1, 1)
    chose_QGN = (queue_Q11 == choice) & joins
    count_QGN = chose_QGN.cumsum(dim=-1, dtype=torch.int32)
    return Queues((count_QGN * chose_QGN).sum(dim=0) - 1, count_QGN[..., -1], None)


def join_in_turn(choice: Tensor, joins: Tensor, turn: Tensor, num_queues: int) -> Queues:
    """The same where the tokens of a row come in the order of `turn` (G, N), indices within the row."""
    queues = join_queues(choice.gather(1, turn), joins.gather(1, turn), num_queues)
    place_GN, order = torch.empty_like(queues.place).scatter_(1, turn, queues.place), queues.order
    if order is not None:
        first_G1 = torch.arange(len(turn), device=turn.device).unsqueeze(1) * turn.shape[1]
        order = (turn + first_G1).flatten()[order]
    return Queues(place_GN, queues.length, order)


def highest_first(values: Tensor) -> Tensor:
    """(G, N) the indices of each row's float32 values of at least 0, highest first; of equal ones the first."""
    if not is_exported():
        return values.argsort(stable=True, descending=True)
    # ONNX has no stable sort. In double precision there is room below float32's last bit to make equals unequal.
    earlier_N = 1 - torch.arange(values.shape[1], device=values.device).double() * 2.0**-50
    return ((values.double() + 2.0**-200) * earlier_N).sort(descending=True).indices


def line_up(expert: Tensor, kept: Tensor, queues: Queues) -> tuple[Tensor, Tensor, list[int]]:
    """Kept tokens in the order of their experts.

    Args:
        expert, kept: (N,) each token's expert, and whether it goes there.

    Returns:
        the tokens in line (K,) int64; each token's place in that line (N,), K for those that are not in it; and how
        many each expert has.
    """
    num_experts = len(queues.length)
    if queues.order is None:
        expert_N = torch.where(kept, expert, num_experts)
        lengths = torch.bincount(expert_N, minlength=num_experts + 1)[:-1].tolist()
        order_K = expert_N.argsort(stable=True)[: sum(lengths)]
        return order_K, inverse(order_K, len(expert)), lengths
    expert_N, kept_N, order_K = expert.numpy(), kept.numpy(), queues.order.numpy()
    computed = np.count_nonzero(kept_N)
    if computed < len(order_K):
        order_K = order_K[kept_N[order_K]]
    complete = computed == len(kept_N)
    lengths = np.bincount(expert_N if complete else expert_N[kept_N], minlength=num_experts).tolist()
    place_N = np.empty(computed, np.int64) if complete else np.full(len(kept_N), computed)
    place_N[order_K] = np.arange(computed)
    return torch.from_numpy(order_K), torch.from_numpy(place_N), lengths


def padded_places(expert: Tensor, place: Tensor, lengths: list[int]) -> Tensor:
    """(N,) the places of `line_up` where every expert has as many places as the busiest; behind them all for a token
    that is not in line."""
    longest, firsts, computed = max(lengths), accumulate(lengths, initial=0), sum(lengths)
    further_E = np.array([index * longest - first for index, first in zip(range(len(lengths)), firsts, strict=False)])
    padded_N = place.numpy() + further_E[expert.numpy()]
    if computed < len(padded_N):
        padded_N[place.numpy() == computed] = longest * len(lengths)
    return torch.from_numpy(padded_N)


def inverse(order: Tensor, tokens: int) -> Tensor:
    """(tokens,) where in `order` (K,) each token stands; K, one past the end, for a token that is not in it."""
    place_N = order.new_full((tokens,), len(order))
    return place_N.scatter_(0, order, torch.arange(len(order), device=order.device))


def _by_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not is_traced()


def _join_by_sorting(choice_GN: np.ndarray, joins_GN: np.ndarray, num_queues: int) -> Queues:
    # 1. In a stable order by queue a token stands behind all of earlier groups and, in its own, of earlier places.
    # Whoever joins none stands in one queue more, behind all others.
    groups, tokens = choice_GN.shape
    everyone = np.count_nonzero(joins_GN) == joins_GN.size
    choice_M = choice_GN.ravel() if everyone else np.where(joins_GN, choice_GN, num_queues).ravel()
    order_M = choice_M.astype(np.min_scalar_type(num_queues)).argsort(kind="stable")
    index_M = np.empty_like(order_M)
    index_M[order_M] = np.arange(len(order_M))

    # 2. Its place is its index less that of the first of its queue in its group.
    queue_M = choice_M if groups == 1 else choice_M * groups + np.arange(groups).repeat(tokens)
    length_M = np.bincount(queue_M, minlength=(num_queues + 1) * groups)
    place_M = index_M - (length_M.cumsum() - length_M)[queue_M]
    joined = num_queues * groups
    if not everyone:
        place_M[choice_M == num_queues] = -1
        order_M = order_M[: length_M[:joined].sum()]
    length_QG = length_M[:joined].reshape(num_queues, groups)
    return Queues(*map(torch.from_numpy, (place_M.reshape(choice_GN.shape), length_QG, order_M)))


def permute_rows(source: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Rows of `source` in the order of `index`; an index past the end gives a row of zeros.

    `inverse` is where each row of `source` went. Knowing it, backward gathers too, where autograd would scatter.
    """
    return _PermuteRows.apply(source, index, inverse)


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def rows(source: Tensor, index: Tensor) -> Tensor:
        if len(index) > len(source):
            source = torch.cat([source, source.new_zeros(1, source.shape[1])])
            index = index.clamp(max=len(source) - 1)
        return source.index_select(0, index)

    @staticmethod
    def forward(ctx, source: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return _PermuteRows.rows(source, index)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return _PermuteRows.rows(gradient, inverse), None, None
