"""SparseMLP: route each token to one expert, and multiply the expert's output by the gate.

Legend: B batch, T tokens, N = B·T, D d_model, F d_ff, E experts.
Switch Transformers (2101.03961) eq. 2. Try it: SparseMLP(SwitchConfig())(torch.randn(1, 9, 128), torch.ones(1, 9))
"""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.layers.experts import Experts
from switch_model.layers.router import Top1Router
from switch_model.routing import Routing


class SparseMLP(nn.Module):
    """A Switch layer: one router, E experts, one expert per token.

    Usable alone: it initialises itself. `name` becomes Routing.name ("encoder.0"); `causal` as in Top1Router.
    """

    def __init__(self, config: SwitchConfig, name: str = "", causal: bool = False):
        super().__init__()
        self.config = config
        self.router = Top1Router(config, name, causal)
        self.experts = Experts(config)
        # For use alone; inside a model, transformers does the same once more.
        init.normal_(self.router.classifier.weight, std=config.initializer_factor * config.d_model**-0.5)

    def forward(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> tuple[Tensor, Routing]:
        """Hidden states (B, T, D) and mask (B, T) -> (B, T, D), zero at padding and dropped tokens, and the record.

        `past_tokens` as in Top1Router.
        """
        # 1. Choose experts and assign slots.
        routing, positions = self.router.with_positions(hidden, mask.bool(), interventions, past_tokens)

        # 2. Compute the experts.
        output_ND = self.experts(hidden, routing, positions)

        # 3. Gate (eq. 2). In place without gradients; else the gate's gradient needs the rows unchanged.
        multiply = torch.mul if torch.is_grad_enabled() else Tensor.mul_
        output_ND = multiply(output_ND, self.router.gate(routing).flatten().unsqueeze(-1)).to(hidden.dtype)
        return output_ND.view_as(hidden), routing
