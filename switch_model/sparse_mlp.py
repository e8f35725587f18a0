"""SparseMLP: route each token to one expert, and weigh the expert's output by the gate.

Legend: B batch, T tokens, D d_model, F d_ff, E experts, G capacity groups of N tokens each (elsewhere N = B·T),
K tokens that are computed.
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

    Usable alone: it initialises itself. `name` labels the record ("encoder.0").
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
        """(B, T, D) -> (B, T, D), zero at padding and at dropped tokens, and the record.

        `past_tokens` as in Top1Router.
        """
        # 1. Who goes where, and who has a slot.
        routing, positions = self.router.with_positions(hidden, mask.bool(), interventions, past_tokens)

        # 2. To the experts.
        output_ND = self.experts(hidden, routing, positions)

        # 3. Gate. In place where no gradient is needed; else the gate's gradient needs the rows unchanged.
        multiply = torch.mul if torch.is_grad_enabled() else Tensor.mul_
        output_ND = multiply(output_ND, self.router.gate(routing).flatten().unsqueeze(-1)).to(hidden.dtype)
        return output_ND.view_as(hidden), routing
