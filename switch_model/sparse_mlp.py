"""SparseMLP: route, send each token to its expert, weigh the answer by the gate.

Legend: B batch, T tokens, D d_model, F d_ff, E experts, N = B·T, K tokens that are computed.
Switch Transformers (2101.03961) eq. 2. Try it: SparseMLP(SwitchConfig())(torch.randn(1, 9, 128), torch.ones(1, 9))
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.layers import activation, residual_scale
from switch_model.router import Top1Router
from switch_model.routing import Routing


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
        self.dropout = nn.Dropout(config.expert_dropout)
        self.initializer_factor, self.residual_scale = config.initializer_factor, residual_scale(config)
        self.reset_parameters()

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
        bytes, which 8 numbers of 2 bytes are (autocast may halve what the weights have).
        """
        aligned = all(size % 8 == 0 for size in self.wo.shape[1:])
        return hidden.is_cuda and aligned and torch.cuda.get_device_capability(hidden.device) >= (8, 0)

    def forward(self, hidden: Tensor, counts: Tensor) -> Tensor:
        """(K, D) tokens sorted by expert, `counts` (E,) of them for each -> (K, D)."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.wo.dtype
        hidden_KD = hidden.to(dtype)
        weights = [weight.to(dtype) for weight in self.weights]
        if self.computes_in_groups(hidden):
            return self._expert(hidden_KD, weights, partial(_grouped_linear, ends=counts.cumsum(0, dtype=torch.int32)))
        # unbind, not weight[e]: indexing would build a gradient the size of all experts for every expert.
        per_expert = zip(hidden_KD.split(counts.tolist()), *(weight.unbind(0) for weight in weights), strict=True)
        return torch.cat([self._expert(tokens, own, nn.functional.linear) for tokens, *own in per_expert])

    def _expert(
        self, hidden_KD: Tensor, weights: Sequence[Tensor], linear: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        *inner, wo = weights
        hidden_KF = self.activation(linear(hidden_KD, inner[0]))
        if self.gated:
            hidden_KF = hidden_KF * linear(hidden_KD, inner[1])
        return linear(self.dropout(hidden_KF), wo)


def _grouped_linear(hidden_KD: Tensor, weight_EFD: Tensor, ends: Tensor) -> Tensor:
    return nn.functional.grouped_mm(hidden_KD, weight_EFD.transpose(1, 2), offs=ends)


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

        # 2. Sort tokens by expert. Those without a slot are left out, or, where shapes must not depend on the
        #    routing, computed and thrown away in step 4.
        num_experts = self.config.num_experts
        static = self.experts.computes_in_groups(hidden)
        queue_N = expert_N if static else expert_N.masked_fill(~kept_N, num_experts)
        counts = torch.zeros(num_experts + 1, dtype=torch.int64, device=hidden.device)
        counts = counts.index_add(0, queue_N, torch.ones_like(queue_N))[:num_experts]
        order_K = queue_N.argsort(stable=True)
        if not static:
            order_K = order_K[: int(counts.sum())]

        # 3. Each expert works on its own tokens.
        output_KD = self.experts(hidden_ND.index_select(0, order_K), counts)

        # 4. Gate, and back to the tokens' places; a dropped token keeps a zero.
        gate_N = torch.where(kept_N, routing.gate.flatten(), 0.0)
        output_KD = (output_KD * gate_N.index_select(0, order_K).unsqueeze(-1)).to(hidden.dtype)
        output_ND = torch.zeros_like(hidden_ND).index_copy(0, order_K, output_KD)
        return output_ND.view_as(hidden), routing
