"""SparseMLP: route each token to one expert, or to several, and add up the experts' outputs times their weights.

Legend: B batch, T tokens, N = B·T, D d_model, F hidden width of an expert, E experts.
Switch Transformers (2101.03961) eq. 2; several experts: Shazeer et al. (1701.06538) eq. 1; shared experts: DeepSeekMoE
(2401.06066) eq. 9. Try it: SparseMLP(SwitchConfig())(torch.randn(1, 9, 128), torch.ones(1, 9))
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.layers.experts import ChoiceExperts, Experts
from switch_model.layers.router import Top1Router
from switch_model.layers.routers.kinds import router_of
from switch_model.topk_routing import AnyRouting


class SparseMLP(nn.Module):
    """A sparse layer: one router, E experts, one of them for each token as in a Switch Transformer, or several; and
    shared experts, if any, which every token goes through.

    Usable alone: it initialises itself. `name` becomes the record's ("encoder.0"); `causal` as in Top1Router.
    """

    def __init__(self, config: SwitchConfig, name: str = "", causal: bool = False):
        super().__init__()
        self.config = config
        self.router = router_of(config, name, causal)
        self.experts = Experts(config) if config.router == "switch" else ChoiceExperts(config)
        width = config.num_shared_experts * config.expert_width
        # Shared experts are one wide MLP: their outputs add up.
        self.shared_experts = DenseMLP(config, width) if width else None
        # For use alone; inside a model, transformers does the same once more.
        init.normal_(self.router.classifier.weight, std=config.initializer_factor * config.d_model**-0.5)

    def forward(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> tuple[Tensor, AnyRouting]:
        """Hidden states (B, T, D) and mask (B, T) -> (B, T, D), zero at padding and dropped tokens, and the record.

        `past_tokens` as in Top1Router.
        """
        if not isinstance(self.router, Top1Router):
            return self._several(hidden, mask.bool(), interventions, past_tokens)
        # 1. Choose experts and assign slots.
        routing, positions = self.router.with_positions(hidden, mask.bool(), interventions, past_tokens)

        # 2. Compute the experts.
        output_ND = self.experts(hidden, routing, positions)

        # 3. Gate (eq. 2). In place without gradients; else the gate's gradient needs the rows unchanged.
        multiply = torch.mul if torch.is_grad_enabled() else Tensor.mul_
        output_ND = multiply(output_ND, self.router.gate(routing).flatten().unsqueeze(-1)).to(hidden.dtype)
        return output_ND.view_as(hidden), routing

    def _several(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions, past_tokens: Tensor | None
    ) -> tuple[Tensor, AnyRouting]:
        """`forward` where a token has several experts; its weights are in the record."""
        routing = self.router(hidden, mask, interventions, past_tokens)
        output_ND = self.experts(hidden.flatten(0, 1), routing.experts.flatten(0, 1), routing.weights.flatten(0, 1))
        output_BTD = output_ND.view_as(hidden)
        if self.shared_experts is not None:
            output_BTD = output_BTD + self.shared_experts(hidden) * mask.unsqueeze(-1)
        return output_BTD, routing
