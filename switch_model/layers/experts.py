"""Experts: the MLPs of one sparse layer, with stacked weights, and the implementations that compute them.

Legend: B batch, T tokens, N = B·T tokens, D d_model, F d_ff, E experts, G capacity groups, K tokens that are computed,
R rows of all experts' buffers.
Device, gradients and tracing decide which implementation runs; all give the same numbers
(tests/switch_model/test_routing.py).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.layers.allocator import keep_freed_memory
from switch_model.layers.dense_mlp import activation
from switch_model.layers.dispatch import ExpertPositions, inverse, padded_positions, permute_rows, permute_tokens
from switch_model.layers.dropout import Dropout
from switch_model.layers.expert_parallel import ExpertGroup, computed_by_owners
from switch_model.layers.grouped_linear import LinearEach, ReluExperts, each_expert, grouped_linear
from switch_model.layers.initial import residual_scale
from switch_model.routing import Routing
from switch_model.tracing import is_exported

# Up to this many tokens for the busiest expert, padding all experts to its length is faster than calling them one by
# one, unless most of it is padding.
PADDED_TOKENS = 32


def _output_scale(config: SwitchConfig) -> float:
    """Initial standard deviation of `wo`, in units of fan_in^-½. Small with a residual stream; without one, large
    enough that hidden states keep their norm from layer to layer, which the gate and ReLU reduce."""
    return residual_scale(config) if config.expert_residual == 1.0 else 4.0


class Experts(nn.Module):
    """All experts of one layer, their weights stacked: wi (E, F, D) and wo (E, D, F).

    With "gated-gelu" or "gated-silu" there are two inner projections, wi_0 (activated) and wi_1, as in T5 v1.1.
    """

    def __init__(self, config: SwitchConfig):
        super().__init__()
        shape_EFD = (config.num_experts, config.expert_width, config.d_model)
        self.gated, self.is_relu = config.dense_act_fn.startswith("gated"), config.dense_act_fn == "relu"
        if self.gated:
            self.wi_0 = nn.Parameter(torch.empty(shape_EFD))
            self.wi_1 = nn.Parameter(torch.empty(shape_EFD))
        else:
            self.wi = nn.Parameter(torch.empty(shape_EFD))
        self.wo = nn.Parameter(torch.empty(config.num_experts, config.d_model, config.expert_width))
        self.activation = activation(config.dense_act_fn)
        self.dropout = Dropout(config.expert_dropout)
        self.initializer_factor, self.residual_scale = config.initializer_factor, _output_scale(config)
        self.aligned = config.expert_width % 8 == 0 and config.d_model % 8 == 0
        self.num_experts = config.num_experts
        self.group: ExpertGroup | None = None
        self.reset_parameters()
        keep_freed_memory()

    def reset_parameters(self) -> None:
        """Normal with standard deviation initializer_factor · fan_in^-½, and `wo` scaled by the residual scale."""
        for weight in self.weights:
            scale = self.residual_scale if weight is self.wo else 1.0
            init.normal_(weight, std=self.initializer_factor * scale * weight.shape[-1] ** -0.5)

    @property
    def weights(self) -> list[Tensor]:
        return [self.wi_0, self.wi_1, self.wo] if self.gated else [self.wi, self.wo]

    def spread(self, group: ExpertGroup) -> None:
        """Keep this process's experts alone; the group's other processes keep the others. Gradients are then averaged
        over processes here, and by nothing else. Raises ValueError when the experts can't be divided evenly."""
        if self.num_experts % group.count:
            raise ValueError(f"{self.num_experts} experts can't be spread evenly over {group.count} processes.")
        for name, weight in list(self.named_parameters(recurse=False)):
            own = nn.Parameter(group.own(weight.detach()).clone(), requires_grad=weight.requires_grad)
            if own.requires_grad:
                own.register_hook(group.average_gradient)
            setattr(self, name, own)
        self.group = group

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """torch's, which takes this process's experts out of whole weights."""
        if self.group is not None:
            whole = {prefix + name for name, _ in self.named_parameters(recurse=False)} & state_dict.keys()
            state_dict = state_dict | {
                name: self.group.own(state_dict[name]) for name in whole if len(state_dict[name]) == self.num_experts
            }
        super()._load_from_state_dict(state_dict, prefix, *args)

    def computes_in_groups(self, hidden: Tensor) -> bool:
        """Whether to use one grouped matrix product for all experts, with shapes that do not depend on the routing.

        On CUDA it saves a transfer of the counts to the host and E kernel launches; on the CPU one product per expert
        is at least as fast. The grouped kernel needs compute capability 8.0 and rows aligned to 16 bytes, which are 8
        numbers of 2 bytes (autocast may halve the weights' precision). A compiler needs fixed shapes everywhere.
        """
        if torch.compiler.is_compiling():
            return True
        return hidden.is_cuda and self.aligned and torch.cuda.get_device_capability(hidden.device) >= (8, 0)

    def forward(self, hidden: Tensor, routing: Routing, positions: ExpertPositions) -> Tensor:
        """(B, T, D) -> (B·T, D): each kept token through its expert; zeros at padding and at dropped tokens."""
        device, dtype = hidden.device.type, self._dtype(hidden)
        hidden_ND = hidden.flatten(0, 1).to(dtype)
        weights = [weight.to(dtype) for weight in self.weights]
        if is_exported():
            expert_N = torch.where(routing.kept, routing.expert, -1).flatten()
            return each_expert(hidden_ND, expert_N, weights, self._one)
        if self.group is None and self.computes_in_groups(hidden):
            return self._grouped(hidden_ND, weights, routing, positions.count)

        # Sort tokens by expert, compute each expert on its rows, and restore the original order.
        expert_N = routing.expert.flatten()
        order_K, position_N, lengths = permute_tokens(expert_N, routing.kept.flatten(), positions)
        if self.group is None and not torch.is_grad_enabled():
            longest = max(lengths)
            if device == "cpu" and 0 < longest <= PADDED_TOKENS and longest * len(lengths) <= 3 * len(hidden_ND):
                return self._padded(hidden_ND, weights, padded_positions(expert_N, position_N, lengths), lengths)
            return self._one_by_one(hidden_ND, weights, order_K, position_N, lengths)
        output_KD = self._each(weights, permute_rows(hidden_ND, order_K, position_N), lengths)
        return permute_rows(output_KD, position_N, order_K)

    def _dtype(self, hidden: Tensor) -> torch.dtype:
        device = hidden.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.wo.dtype

    def _each(self, weights: Sequence[Tensor], hidden_KD: Tensor, lengths: list[int]) -> Tensor:
        """Rows sorted by expert, `lengths` for each of all E, through the experts of this process or of its group."""
        if self.group is None:
            return self._sorted(weights, hidden_KD, lengths)
        return computed_by_owners(hidden_KD, lengths, self.group, partial(self._sorted, weights))

    def _sorted(self, weights: Sequence[Tensor], hidden_KD: Tensor, lengths: list[int]) -> Tensor:
        """Rows sorted by expert, `lengths` for each -> (K, D)."""
        if self.is_relu and hidden_KD.device.type == "cpu":
            return ReluExperts.apply(lengths, hidden_KD, *weights, self.dropout.rate if self.training else 0.0)
        *inner, wo = weights
        linear: Callable[[Tensor, Tensor], Tensor] = partial(LinearEach.apply, lengths)
        if len(hidden_KD) and self.computes_in_groups(hidden_KD):
            ends_E = torch.tensor(lengths, device=hidden_KD.device).cumsum(0, dtype=torch.int32)
            linear = partial(grouped_linear, ends=ends_E)
        return linear(self._inside(hidden_KD, inner, linear), wo)

    def _grouped(self, hidden_ND: Tensor, weights: Sequence[Tensor], routing: Routing, count_EG: Tensor) -> Tensor:
        """One grouped product, with shapes that do not depend on the routing."""
        # Buffers are contiguous, by expert and then by group, so that a slot is an offset into its buffer.
        kept_N, groups = routing.kept.flatten(), count_EG.shape[1]
        count_EG = torch.minimum(count_EG, routing.capacity[:groups])  # A shared group has one capacity.
        end_E = count_EG.sum(dim=1).cumsum(0, dtype=torch.int32)
        first_EG = count_EG.flatten().cumsum(0).view_as(count_EG) - count_EG
        expert_GN = routing.expert.view(groups, -1)
        first_GN = first_EG.t().gather(1, expert_GN)
        # Dropped tokens go after all others, to the last expert, and their outputs are masked out below.
        behind_N = end_E[-1] - 1 + (~kept_N).cumsum(0)
        position_N = torch.where(kept_N, first_GN.flatten() + routing.slot.flatten(), behind_N)
        end_E[-1] = len(position_N)
        order_N = inverse(position_N, len(position_N))
        linear = partial(grouped_linear, ends=end_E)
        *inner, wo = weights
        hidden_ND = permute_rows(hidden_ND, order_N, position_N)
        output_ND = linear(self._inside(hidden_ND, inner, linear), wo)
        return permute_rows(output_ND, position_N, order_N).masked_fill(~kept_N.unsqueeze(-1), 0.0)

    def _inside(self, hidden: Tensor, inner: Sequence[Tensor], linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The input of `wo`: product with `wi`, activation, dropout. `linear` computes the product."""
        inside = self.activation(linear(hidden, inner[0]))
        if self.gated:
            inside = inside * linear(hidden, inner[1])
        return self.dropout(inside) if self.training else inside

    def _one(self, own: Tensor, *weights: Tensor) -> Tensor:
        """One expert, with transposed weights, on its tokens (K, D) -> (K, D)."""
        *inner, wo_FD = weights
        return torch.mm(self._inside(own, inner, torch.mm), wo_FD)

    def _one_by_one(
        self, hidden_ND: Tensor, weights: Sequence[Tensor], order_K: Tensor, position_N: Tensor, lengths: list[int]
    ) -> Tensor:
        """One expert after the other, without gradients: its inner activations stay in the CPU's cache."""
        computed, complete = len(order_K), len(order_K) == len(hidden_ND)
        output_KD = hidden_ND.new_empty(computed + (not complete), hidden_ND.shape[1])
        if not complete:
            output_KD[computed:] = 0.0  # One more row, for dropped tokens.
        rows = (hidden_ND.index_select(0, order_K).split(lengths), output_KD[:computed].split(lengths))
        per_expert = (weight.transpose(1, 2).unbind(0) for weight in weights)
        for own, output, *inner, wo_FD in zip(*rows, *per_expert, strict=True):
            if len(own):
                torch.mm(self._inside(own, inner, torch.mm), wo_FD, out=output)
        return output_KD.index_select(0, position_N)

    def _padded(self, hidden_ND: Tensor, weights: Sequence[Tensor], position_N: Tensor, lengths: list[int]) -> Tensor:
        """One batched product without gradients, every expert padded to as many rows as the busiest."""
        experts, longest, complete = len(lengths), max(lengths), sum(lengths) == len(hidden_ND)
        rows = experts * longest
        # Dropped tokens share one more row.
        hidden_RD = hidden_ND.new_zeros(rows + (not complete), hidden_ND.shape[1]).index_copy_(0, position_N, hidden_ND)
        *inner, wo_EFD = (weight.transpose(1, 2) for weight in weights)
        inside = self._inside(hidden_RD[:rows].view(experts, longest, -1), inner, torch.bmm)
        output_RD = torch.bmm(inside, wo_EFD).flatten(0, 1)
        if not complete:
            output_RD = nn.functional.pad(output_RD, (0, 0, 0, 1))
        return output_RD.index_select(0, position_N)


class ChoiceExperts(Experts):
    """The same experts, several for each token: the sum of their outputs, times the weights."""

    def forward(self, hidden: Tensor, experts: Tensor, weights: Tensor) -> Tensor:  # type: ignore[override]
        """(N, D), and K choices of each token, (N, K), with their weights; 0 = not computed -> (N, D)."""
        dtype, choices = self._dtype(hidden), experts.shape[-1]
        hidden_ND, weights_M, expert_M = hidden.to(dtype), weights.flatten(), experts.flatten()
        used_M, own = weights_M != 0, [weight.to(dtype) for weight in self.weights]
        if is_exported():
            rows_MD = hidden_ND.repeat_interleave(choices, dim=0)
            output_MD = each_expert(rows_MD, torch.where(used_M, expert_M, -1), own, self._one)
            return (output_MD * weights_M.unsqueeze(-1)).view(hidden.shape[0], choices, -1).sum(dim=1).to(hidden.dtype)

        # Choices sorted by expert, those that are not used behind all others.
        last_M = torch.where(used_M, expert_M, self.num_experts)
        order_M = last_M.to(torch.int16).argsort(stable=True)
        count_E = torch.bincount(last_M, minlength=self.num_experts + 1)[:-1]
        if self.group is None and self.computes_in_groups(hidden_ND):
            # No shape may depend on the routing: unused choices go to the last expert, with weight 0.
            ends_E = count_E.cumsum(0, dtype=torch.int32)
            ends_E[-1] = order_M.shape[0]
            linear = partial(grouped_linear, ends=ends_E)
            *inner, wo = own
            output_KD = linear(self._inside(hidden_ND[order_M // choices], inner, linear), wo)
        else:
            lengths = count_E.tolist()
            order_M = order_M[: sum(lengths)]
            output_KD = self._each(own, hidden_ND.index_select(0, order_M // choices), lengths)
        weighted_KD = output_KD.to(hidden.dtype) * weights_M[order_M].unsqueeze(-1).to(hidden.dtype)
        return torch.zeros_like(hidden).index_add(0, order_M // choices, weighted_KD)
