"""Dispatch: each token's position in its expert's buffer, and the tokens sorted by expert.

On a CPU this uses NumPy: a call costs a third of torch's, which matters with few tokens, and its stable sort of 16-bit
numbers is a radix sort, which matters with many. CUDA and compilers need tensors, and shapes that do not depend on the
routing.
Legend: E experts, G capacity groups of N tokens each, K tokens that are computed, D width of a row.
Try it: assign_positions(torch.tensor([[2, 0, 2]]), torch.tensor([[True, True, True]]), 3).position
"""

from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from switch_model.tracing import is_exported, is_traced


@dataclass(frozen=True, eq=False)
class ExpertPositions:
    """Each token's position in its expert's buffer, within capacity or beyond.

    Attributes:
        position: (G, N) int64, position of each token in its expert's buffer, counted from 0; -1 for padding.
        count: (E, G) number of tokens that chose each expert in each group.
        order: (J,) int64, the J real tokens sorted by expert and then group, as indices into G·N. None where shapes
            must not depend on the routing.
    """

    position: Tensor
    count: Tensor
    order: Tensor | None


def assign_positions(expert: Tensor, mask: Tensor, num_experts: int) -> ExpertPositions:
    """Positions first come, first served along each row.

    Args:
        expert: (G, N) int64, each token's expert.
        mask: (G, N) bool, True = a real token.
    """
    if _by_numpy(expert):
        return _assign_by_sorting(expert.numpy(), mask.numpy(), num_experts)
    # Work for every logit, but without branches. Experts come first, so that the sums run along contiguous memory.
    index_E11 = torch.arange(num_experts, device=expert.device).view(-1, 1, 1)
    chose_EGN = (index_E11 == expert) & mask
    count_EGN = chose_EGN.cumsum(dim=-1, dtype=torch.int32)
    return ExpertPositions((count_EGN * chose_EGN).sum(dim=0) - 1, count_EGN[..., -1], None)


def assign_positions_in_order(expert: Tensor, mask: Tensor, order: Tensor, num_experts: int) -> ExpertPositions:
    """`assign_positions` where each row's tokens are served in `order` (G, N), indices within the row."""
    served = assign_positions(expert.gather(1, order), mask.gather(1, order), num_experts)
    position_GN, tokens_J = torch.empty_like(served.position).scatter_(1, order, served.position), served.order
    if tokens_J is not None:
        first_G1 = torch.arange(len(order), device=order.device).unsqueeze(1) * order.shape[1]
        tokens_J = (order + first_G1).flatten()[tokens_J]
    return ExpertPositions(position_GN, served.count, tokens_J)


def highest_first(values: Tensor) -> Tensor:
    """(G, N) indices that sort each row of non-negative float32 values in descending order; stable."""
    if not is_exported():
        return values.argsort(stable=True, descending=True)
    # ONNX has no stable sort. Double precision has room below float32's last bit to break ties by position.
    earlier_N = 1 - torch.arange(values.shape[1], device=values.device).double() * 2.0**-50
    return ((values.double() + 2.0**-200) * earlier_N).sort(descending=True).indices


def permute_tokens(expert: Tensor, kept: Tensor, positions: ExpertPositions) -> tuple[Tensor, Tensor, list[int]]:
    """The permutation that sorts kept tokens by expert.

    Args:
        expert, kept: (N,) each token's expert, and whether the token has a slot.

    Returns:
        order: (K,) int64, the kept tokens sorted by expert.
        position: (N,) int64, index of each token in `order`; K for a dropped token.
        lengths: number of tokens that each expert computes.
    """
    num_experts = len(positions.count)
    if positions.order is None:
        # Dropped tokens go after all experts.
        last_N = torch.where(kept, expert, num_experts)
        lengths = torch.bincount(last_N, minlength=num_experts + 1)[:-1].tolist()
        order = last_N.argsort(stable=True)[: sum(lengths)]
        return order, inverse(order, len(expert)), lengths
    expert_N, kept_N, order_K = expert.numpy(), kept.numpy(), positions.order.numpy()
    computed = np.count_nonzero(kept_N)
    if computed < len(order_K):
        order_K = order_K[kept_N[order_K]]
    complete = computed == len(kept_N)
    lengths = np.bincount(expert_N if complete else expert_N[kept_N], minlength=num_experts).tolist()
    position_N = np.empty(computed, np.int64) if complete else np.full(len(kept_N), computed)
    position_N[order_K] = np.arange(computed)
    return torch.from_numpy(order_K), torch.from_numpy(position_N), lengths


def padded_positions(expert: Tensor, position: Tensor, lengths: list[int]) -> Tensor:
    """(N,) the positions of `permute_tokens` when every expert's rows are padded to as many as the busiest has; one
    past the end for a dropped token."""
    longest, firsts, computed = max(lengths), accumulate(lengths, initial=0), sum(lengths)
    shift_E = np.array([index * longest - first for index, first in zip(range(len(lengths)), firsts, strict=False)])
    padded_N = position.numpy() + shift_E[expert.numpy()]
    if computed < len(padded_N):
        padded_N[position.numpy() == computed] = longest * len(lengths)
    return torch.from_numpy(padded_N)


def inverse(order: Tensor, tokens: int) -> Tensor:
    """(tokens,) index of each token in `order` (K,); K, one past the end, for a token that is not in it."""
    position_N = order.new_full((tokens,), len(order))
    return position_N.scatter_(0, order, torch.arange(len(order), device=order.device))


def permute_rows(source: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Rows of `source` (·, D) in the order of `index`; an index past the end gives a row of zeros.

    `inverse`: index of each row of `source` in the result. With it, backward gathers as forward does; autograd would
    scatter, which is slower.
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


def _by_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not is_traced()


def _assign_by_sorting(expert_GN: np.ndarray, mask_GN: np.ndarray, num_experts: int) -> ExpertPositions:
    # 1. A stable sort by expert keeps the order of groups and, within a group, of tokens. Padding gets an expert number
    # of its own, after all others.
    groups, tokens = expert_GN.shape
    all_real = np.count_nonzero(mask_GN) == mask_GN.size
    expert_M = expert_GN.ravel() if all_real else np.where(mask_GN, expert_GN, num_experts).ravel()
    order_M = expert_M.astype(np.min_scalar_type(num_experts)).argsort(kind="stable")
    index_M = np.empty_like(order_M)
    index_M[order_M] = np.arange(len(order_M))

    # 2. A token's position is its sorted index minus that of the first token of its buffer (its expert in its group).
    buffer_M = expert_M if groups == 1 else expert_M * groups + np.arange(groups).repeat(tokens)
    count_M = np.bincount(buffer_M, minlength=(num_experts + 1) * groups)
    position_M = index_M - (count_M.cumsum() - count_M)[buffer_M]
    buffers = num_experts * groups
    if not all_real:
        position_M[expert_M == num_experts] = -1
        order_M = order_M[: count_M[:buffers].sum()]
    count_EG = count_M[:buffers].reshape(num_experts, groups)
    return ExpertPositions(*map(torch.from_numpy, (position_M.reshape(expert_GN.shape), count_EG, order_M)))
