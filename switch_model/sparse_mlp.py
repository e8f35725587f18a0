"""SparseMLP: route, send each token to its expert, weigh the answer by the gate.

Legend: B batch, T tokens, D d_model, F d_ff, E experts, N = B·T, K tokens that are computed, Q = E + 1 queues.
Switch Transformers (2101.03961) eq. 2. Try it: SparseMLP(SwitchConfig())(torch.randn(1, 9, 128), torch.ones(1, 9))
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.dropout import Dropout
from switch_model.grouped_linear import LinearEach, batched_linear, grouped_linear
from switch_model.interventions import AnyInterventions
from switch_model.layers import activation, residual_scale
from switch_model.memory import keep_freed_memory
from switch_model.router import Top1Router, place_in_queue
from switch_model.routing import Routing

# Up to so many tokens for the busiest expert, padding all experts to its length beats calling them one by one.
PADDED_TOKENS = 32


class Experts(nn.Module):
    """All experts of one layer, their weights stacked: wi (E, F, D) and wo (E, D, F).

    With "gated-gelu" there are two inner projections, wi_0 (activated) and wi_1, as in T5 v1.1.
    """

    def __init__(self, config: SwitchConfig):
        super().__init__()
        shape_EFD = (config.num_experts, config.d_ff, config.d_model)
        self.gated = config.dense_act_fn == "gated-gelu"
        if self.gated:
            self.wi_0 = nn.Parameter(torch.empty(shape_EFD))
            self.wi_1 = nn.Parameter(torch.empty(shape_EFD))
        else:
            self.wi = nn.Parameter(torch.empty(shape_EFD))
        self.wo = nn.Parameter(torch.empty(config.num_experts, config.d_model, config.d_ff))
        self.activation = activation(config.dense_act_fn)
        self.dropout = Dropout(config.expert_dropout)
        self.initializer_factor, self.residual_scale = config.initializer_factor, residual_scale(config)
        self.aligned = config.d_ff % 8 == 0 and config.d_model % 8 == 0
        self.reset_parameters()
        keep_freed_memory()

    def reset_parameters(self) -> None:
        """Normal, standard deviation initializer_factor · fan_in^-½, and `wo` smaller by the residual scale."""
        for weight in self.weights:
            scale = self.residual_scale if weight is self.wo else 1.0
            init.normal_(weight, std=self.initializer_factor * scale * weight.shape[-1] ** -0.5)

    @property
    def weights(self) -> list[Tensor]:
        return [self.wi_0, self.wi_1, self.wo] if self.gated else [self.wi, self.wo]

    def computes_in_groups(self, hidden: Tensor) -> bool:
        """Whether one grouped matrix product serves all experts, with shapes that do not depend on the routing.

        Measured: on CUDA it saves a read-back of the counts and E launches; on the CPU one product per expert is at
        least as fast. The grouped kernel wants compute capability 8.0, and every row to start at a multiple of 16
        bytes, which 8 numbers of 2 bytes are (autocast may halve what the weights have). A compiler wants fixed shapes
        everywhere.
        """
        if torch.compiler.is_compiling():
            return True
        return hidden.is_cuda and self.aligned and torch.cuda.get_device_capability(hidden.device) >= (8, 0)

    def forward(self, hidden: Tensor, queue: Tensor) -> Tensor:
        """Each of the (N, D) tokens through the expert that `queue` (N,) names; zeros where it names none of the E."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.wo.dtype
        hidden_ND = hidden.to(dtype)
        weights = [weight.to(dtype) for weight in self.weights]
        num_experts = len(self.wo)

        # 1. Line tokens up by expert; those that go nowhere stand behind all others.
        rank_1N, length_Q1 = place_in_queue(queue.unsqueeze(0), num_experts + 1)
        rank_N, length_Q = rank_1N.squeeze(0), length_Q1.squeeze(1)
        if self.computes_in_groups(hidden):
            end_Q = length_Q.cumsum(0, dtype=torch.int32)
            place_N = rank_N + (end_Q - length_Q).index_select(0, queue)
            order_N = _inverse(place_N)
            linear = partial(grouped_linear, ends=end_Q[:num_experts])
            lined_up_ND = self._all(_Rearranged.of(hidden_ND, order_N, place_N), weights, linear)
            return _Rearranged.of(lined_up_ND, place_N, order_N)
        *lengths, nowhere = length_Q.tolist()
        longest = max(lengths)
        if longest <= PADDED_TOKENS and longest * num_experts <= 3 * len(queue):
            return self._padded(hidden_ND, weights, queue, rank_N, longest, complete=not nowhere)
        place_N = rank_N + rank_N.new_tensor([0, *accumulate(lengths)]).index_select(0, queue)
        order_K = _inverse(place_N)[: sum(lengths)]

        # 2. Each expert works on its own tokens.
        hidden_KD = _Rearranged.of(hidden_ND, order_K, place_N)
        if torch.is_grad_enabled():
            output_KD = self._all(hidden_KD, weights, partial(LinearEach.apply, lengths))
        else:
            output_KD = self._one_by_one(hidden_KD, weights, lengths)

        # 3. Back to the tokens' own places.
        return _Rearranged.of(output_KD, place_N, order_K)

    def _inside(self, hidden: Tensor, inner: Sequence[Tensor], linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What lies between `wi` and `wo`, for one expert or for all, as `linear` has it."""
        inside = self.activation(linear(hidden, inner[0]))
        if self.gated:
            inside = inside * linear(hidden, inner[1])
        return self.dropout(inside)

    def _all(self, hidden: Tensor, weights: Sequence[Tensor], linear: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        *inner, wo = weights
        return linear(self._inside(hidden, inner, linear), wo)

    def _one_by_one(self, hidden_KD: Tensor, weights: Sequence[Tensor], lengths: list[int]) -> Tensor:
        """One expert after the other, without gradient: what is inside it stays in the cache."""
        output_KD = torch.empty_like(hidden_KD)
        per_expert = (weight.unbind(0) for weight in weights)
        for tokens, output, *inner, wo_DF in zip(
            hidden_KD.split(lengths), output_KD.split(lengths), *per_expert, strict=True
        ):
            torch.mm(self._inside(tokens, inner, nn.functional.linear), wo_DF.t(), out=output)
        return output_KD

    def _padded(
        self,
        hidden_ND: Tensor,
        weights: Sequence[Tensor],
        queue_N: Tensor,
        rank_N: Tensor,
        longest: int,
        complete: bool,
    ) -> Tensor:
        """One batched product, every expert with as many rows as the busiest: for few tokens, where calls are dear."""
        shape_ELD = (len(self.wo), longest, hidden_ND.shape[1])
        rows = shape_ELD[0] * longest
        row_N = torch.add(rank_N, queue_N, alpha=longest)
        if not complete:  # Those that go nowhere share one row more.
            row_N = row_N.clamp_(max=rows)
        hidden_RD = hidden_ND.new_zeros(rows + (not complete), shape_ELD[2]).index_copy_(0, row_N, hidden_ND)
        output_RD = self._all(hidden_RD[:rows].view(shape_ELD), weights, batched_linear).flatten(0, 1)
        if not complete:
            output_RD = nn.functional.pad(output_RD, (0, 0, 0, 1))
        return output_RD.index_select(0, row_N)


def _inverse(permutation: Tensor) -> Tensor:
    index = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).scatter_(0, permutation, index)


class _Rearranged(torch.autograd.Function):
    """Rows of `source` in the order of `index`; an index past the end gives a row of zeros.

    `inverse` is where each row of `source` went. Knowing it, backward gathers too, where autograd would scatter.
    """

    @staticmethod
    def rows(source: Tensor, index: Tensor) -> Tensor:
        if len(index) > len(source):
            source = torch.cat([source, source.new_zeros(1, source.shape[1])])
            index = index.clamp(max=len(source) - 1)
        return source.index_select(0, index)

    @staticmethod
    def of(source: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        grad = torch.is_grad_enabled()
        return _Rearranged.apply(source, index, inverse) if grad else _Rearranged.rows(source, index)

    @staticmethod
    def forward(ctx, source: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return _Rearranged.rows(source, index)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return _Rearranged.rows(gradient, inverse), None, None


class SparseMLP(nn.Module):
    """A Switch layer: one router, E experts, one expert per token.

    Usable alone: it initialises itself. `name` labels the record ("encoder.0").
    """

    def __init__(self, config: SwitchConfig, name: str = ""):
        super().__init__()
        self.config = config
        self.router = Top1Router(config, name)
        self.experts = Experts(config)
        # For use alone; inside a model, transformers does the same once more.
        init.normal_(self.router.classifier.weight, std=config.initializer_factor * config.d_model**-0.5)

    def forward(self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None) -> tuple[Tensor, Routing]:
        """(B, T, D) -> (B, T, D) and the record. Zero at padding and at dropped tokens."""
        # 1. Who goes where, and who has a slot.
        mask = mask.bool()
        routing = self.router(hidden, mask, interventions)
        hidden_ND = hidden.flatten(0, 1)
        expert_N, kept_N = routing.expert.flatten(), routing.kept.flatten()

        # 2. To the experts. A token without a slot goes to none, or, where shapes must not depend on the routing, is
        #    computed and thrown away.
        static = self.experts.computes_in_groups(hidden)
        queue_N = expert_N if static else torch.where(kept_N, expert_N, self.config.num_experts)
        output_ND = self.experts(hidden_ND, queue_N)
        if static:
            output_ND = output_ND.masked_fill(~kept_N.unsqueeze(-1), 0.0)

        # 3. Gate: in place, for nobody else holds these rows; in training the gate's gradient wants them as they are.
        multiply = torch.mul if torch.is_grad_enabled() else Tensor.mul_
        output_ND = multiply(output_ND, routing.gate.flatten().unsqueeze(-1)).to(hidden.dtype)
        return output_ND.view_as(hidden), routing
