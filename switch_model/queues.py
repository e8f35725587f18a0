"""Queues: which place a token has in its expert's queue, and which tokens an expert works on.

On a CPU this is NumPy's work: a call costs it a third of what it costs torch, which tells with a few tokens, and its
stable sort of 16-bit numbers is a radix sort, which tells with many. CUDA and compilers want tensors and shapes that
do not depend on the routing.
Legend: E experts, G capacity groups of N tokens, K tokens that are computed.
Try it: place_in_queue(torch.tensor([[2, 0, 2]]), torch.tensor([[True, True, True]]), 3)
"""

import numpy as np
import torch
from torch import Tensor


def place_in_queue(choice: Tensor, joins: Tensor, num_queues: int) -> tuple[Tensor, Tensor]:
    """For each element of a row, how many before it joined the same queue; and how long queues get.

    Args:
        choice: (G, N) int64, whose queue.
        joins: (G, N) bool, whether it joins one at all.

    Returns:
        places (G, N) int64, counted from 0, -1 where it joins none; and lengths (num_queues, G).
    """
    if _by_numpy(choice):
        return _place_by_sorting(np.where(joins.numpy(), choice.numpy(), num_queues), num_queues)
    # As many steps as there are logits, but without branches. Queues first, so that the counts run along memory.
    queue_Q11 = torch.arange(num_queues, device=choice.device).view(-1, 1, 1)
    chose_QGN = (queue_Q11 == choice) & joins
    count_QGN = chose_QGN.cumsum(dim=-1, dtype=torch.int32)
    place_GN = (count_QGN * chose_QGN).sum(dim=0) - 1
    return place_GN, count_QGN[..., -1]


def line_up(expert: Tensor, kept: Tensor, num_experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Kept tokens in the order of their experts.

    Args:
        expert, kept: (N,) each token's expert, and whether it goes there.

    Returns:
        the tokens in line (K,) int64; each token's place in that line (N,), K for those that are not in it; and how
        many each expert has.
    """
    if not _by_numpy(expert):
        expert_N = torch.where(kept, expert, num_experts)
        lengths = torch.bincount(expert_N, minlength=num_experts + 1)[:-1].tolist()
        order_K = expert_N.argsort(stable=True)[: sum(lengths)]
        return order_K, inverse(order_K, len(expert)), lengths
    expert_N = np.where(kept.numpy(), expert.numpy(), num_experts)
    lengths = np.bincount(expert_N, minlength=num_experts + 1)[:-1].tolist()
    computed = sum(lengths)
    order_K = _stable_order(expert_N, num_experts)[:computed]
    place_N = np.full(len(expert_N), computed)
    place_N[order_K] = np.arange(computed)
    return torch.from_numpy(order_K), torch.from_numpy(place_N), lengths


def inverse(order: Tensor, tokens: int) -> Tensor:
    """(tokens,) where in `order` (K,) each token stands; K, one past the end, for a token that is not in it."""
    place_N = order.new_full((tokens,), len(order))
    return place_N.scatter_(0, order, torch.arange(len(order), device=order.device))


def _by_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def _stable_order(choice: np.ndarray, largest: int) -> np.ndarray:
    return choice.astype(np.min_scalar_type(largest)).argsort(axis=-1, kind="stable")


def _place_by_sorting(choice_GN: np.ndarray, num_queues: int) -> tuple[Tensor, Tensor]:
    # 1. Queues of all groups, each with one more for those that stand in none.
    groups, tokens = choice_GN.shape
    group_G1 = np.arange(groups)[:, None]
    queue_M = (choice_GN + group_G1 * (num_queues + 1)).ravel()
    lengths = np.bincount(queue_M, minlength=groups * (num_queues + 1))

    # 2. In a stable order by queue, a token's place is its index less that of the first of its queue.
    order_M = (_stable_order(choice_GN, num_queues) + group_G1 * tokens).ravel()
    index_M = np.empty_like(order_M)
    index_M[order_M] = np.arange(len(order_M))
    place_M = index_M - (lengths.cumsum() - lengths)[queue_M]
    place_M[choice_GN.ravel() == num_queues] = -1
    length_GQ = lengths.reshape(groups, -1)[:, :-1]
    return torch.from_numpy(place_M.reshape(choice_GN.shape)), torch.from_numpy(length_GQ.T)
