"""Each expert chooses its tokens: those with the highest probability for it, equally many for all experts.

Expert Choice (2202.09368) section 3.2: with c experts per token on average (`num_experts_per_tok`), an expert takes
n · c / E of n tokens, so that loads are even by construction; a token may have many experts, or none. An expert
compares all tokens of a text: in a decoder, whether a token is chosen would depend on later ones (section 6), and a
config for one is refused.
Legend: B batch, T tokens, E experts, G groups of N tokens that compete: one sequence each, or the whole batch.
Try it: SparseMLP(SwitchConfig(router="expert_choice"))(torch.randn(1, 9, 128), torch.ones(1, 9))[1].choices
"""

import torch
from torch import Tensor

from switch_model.layers.dispatch import highest_first
from switch_model.layers.routers.choosing import Changes, ChoiceRouter


class ExpertChoiceRouter(ChoiceRouter):
    """Softmax over experts; each expert takes its best tokens. A record has K = E choices, most of them not used.

    A capacity factor, among interventions, is the paper's c.
    """

    def choose(self, logits: Tensor, mask: Tensor, changes: Changes) -> tuple[Tensor, Tensor, Tensor | None]:
        scores_BTE = self.scores(logits)
        slots_B = self._tokens_of_an_expert(mask, changes)

        # 1. Each expert's ranking of the tokens that compete; padding last, a token that is forced to it first.
        groups = 1 if changes.per_batch else mask.shape[0]
        ranks_BTE = scores_BTE.detach().masked_fill(~mask.unsqueeze(-1), -1.0)
        forced_BTE = changes.is_forced(torch.arange(logits.shape[-1], device=logits.device).expand_as(logits))
        if forced_BTE is not None:
            ranks_BTE = ranks_BTE.masked_fill(forced_BTE, 2.0)
        ranks_MN = ranks_BTE.reshape(groups, -1, logits.shape[-1]).transpose(1, 2).flatten(0, 1)
        order_MN = highest_first(ranks_MN)
        index_N = torch.arange(order_MN.shape[1], device=logits.device)
        place_MN = torch.empty_like(order_MN).scatter_(1, order_MN, index_N.expand_as(order_MN))
        place_BTE = place_MN.unflatten(0, (groups, -1)).transpose(1, 2).reshape(logits.shape)

        # 2. The best n · c / E of them.
        taken_BTE = (place_BTE < slots_B.view(-1, 1, 1)) & mask.unsqueeze(-1)
        weights_BTE = scores_BTE * taken_BTE * self.config.routed_scaling_factor

        # 3. The same, token by token.
        size_BTE = weights_BTE.detach()
        if forced_BTE is not None:
            size_BTE = size_BTE.masked_fill(forced_BTE & mask.unsqueeze(-1), 2.0 * self.config.routed_scaling_factor)
        experts_BTE = highest_first(size_BTE.flatten(0, 1)).view(logits.shape)
        return experts_BTE, weights_BTE.gather(-1, experts_BTE), slots_B

    def _tokens_of_an_expert(self, mask: Tensor, changes: Changes) -> Tensor:
        """(B,) ⌈n · c / E⌉, where c is `num_experts_per_tok` or an intervention's capacity factor."""
        tokens_B = mask.sum(dim=1)
        if changes.per_batch:
            tokens_B = tokens_B.sum().expand(mask.shape[0])
        asked = [float(self.config.num_experts_per_tok if one is None else one) for one in changes.factors]
        most = float(self.config.num_experts)  # All tokens.
        factor_B = torch.tensor([min(one, most) for one in asked], dtype=torch.float64, device=mask.device)
        return torch.ceil(tokens_B.double() * factor_B / self.config.num_experts - 1e-6).long()
