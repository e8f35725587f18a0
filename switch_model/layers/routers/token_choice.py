"""Each token chooses its K experts: by softmax (GShard, Mixtral, OLMoE), or by sigmoids and a bias (DeepSeek-V3).

Legend: B batch, T tokens, E experts in Q groups, K choices of a token.
Shazeer et al. (1701.06538), GShard (2006.16668), Mixtral (2401.04088); groups: DeepSeek-V2 (2405.04434); sigmoids, bias
and groups: DeepSeek-V3 (2412.19437) eq. 12-16, Loss-Free Balancing (2408.15664).
Try it: SparseMLP(SwitchConfig(router="topk"))(torch.randn(1, 9, 128), torch.ones(1, 9))[1].experts
"""

import math

import torch
from torch import Tensor

from switch_model.layers.dispatch import highest_first
from switch_model.layers.routers.choosing import Changes, ChoiceRouter


class TopKRouter(ChoiceRouter):
    """Softmax over all experts, and the K largest; their weights are divided by their sum with `norm_topk_prob`."""

    def ranks(self, logits: Tensor, scores: Tensor) -> Tensor:
        """(B, T, E) by which experts are compared: the highest K are chosen. Softmax keeps the order of logits."""
        return logits if self.balance_bias is None else logits + self.balance_bias.float()

    def of_group(self, ranks: Tensor) -> Tensor:
        """(B, T, Q, E / Q) -> (B, T, Q) by which groups are compared: the best expert's."""
        return ranks.amax(dim=-1)

    def choose(self, logits: Tensor, mask: Tensor, changes: Changes) -> tuple[Tensor, Tensor, Tensor | None]:
        config = self.config
        scores_BTE = self.scores(logits)

        # 1. What is compared; an ablated expert is last, a forced one first.
        ranks_BTE = self.ranks(logits.detach(), scores_BTE.detach())
        if changes.off is not None:
            ranks_BTE = ranks_BTE.masked_fill(changes.off, -math.inf)
        if changes.forced is not None:
            ranks_BTE = ranks_BTE.scatter(
                -1,
                changes.forced.clamp(min=0).unsqueeze(-1),
                torch.where(changes.forced.unsqueeze(-1) < 0, ranks_BTE[..., :1], math.inf),
            )
        ranks_BTE = self._within_groups(ranks_BTE)

        # 2. The K highest, and their scores.
        numbers = [config.num_experts_per_tok if one is None else one for one in changes.numbers]
        experts_BTK = ranks_BTE.topk(max(numbers), dim=-1).indices * mask.unsqueeze(-1)
        weights_BTK = scores_BTE.gather(-1, experts_BTK)
        if len(set(numbers)) > 1:
            number_B11 = torch.tensor(numbers, device=logits.device).view(-1, 1, 1)
            weights_BTK = weights_BTK * (torch.arange(max(numbers), device=logits.device) < number_B11)
        if changes.off is not None or max(numbers) > config.num_experts_per_tok:
            # Fewer than K are left: the others are off, or outside the token's groups.
            weights_BTK = weights_BTK.masked_fill(ranks_BTE.gather(-1, experts_BTK) == -math.inf, 0.0)

        # 3. Their weights: the largest first, but a forced expert before it.
        if config.norm_topk_prob:
            weights_BTK = weights_BTK / weights_BTK.sum(-1, keepdim=True).clamp(min=1e-20)
        if config.routed_scaling_factor != 1.0:
            weights_BTK = weights_BTK * config.routed_scaling_factor
        if self.balance_bias is not None:
            size_BTK, forced_BTK = weights_BTK.detach(), changes.is_forced(experts_BTK)
            if forced_BTK is not None:
                size_BTK = size_BTK.masked_fill(forced_BTK, math.inf)
            order_BTK = highest_first(size_BTK.flatten(0, 1)).view(size_BTK.shape)
            experts_BTK, weights_BTK = experts_BTK.gather(-1, order_BTK), weights_BTK.gather(-1, order_BTK)
        return experts_BTK, weights_BTK, None

    def _within_groups(self, ranks_BTE: Tensor) -> Tensor:
        """Ranks with -inf outside the groups that a token chooses first."""
        groups, kept = self.config.expert_groups, self.config.top_groups
        if groups == kept:
            return ranks_BTE
        ranks_BTQS = ranks_BTE.unflatten(-1, (groups, -1))
        best_BTG = self.of_group(ranks_BTQS).topk(kept, dim=-1).indices
        open_BTQ = torch.zeros(ranks_BTQS.shape[:-1], dtype=torch.bool, device=ranks_BTE.device)
        open_BTQ = open_BTQ.scatter(-1, best_BTG, torch.ones_like(best_BTG, dtype=torch.bool))
        return ranks_BTQS.masked_fill(~open_BTQ.unsqueeze(-1), -math.inf).flatten(-2)


class SigmoidBiasRouter(TopKRouter):
    """A sigmoid for each expert by itself; a bias, raised for experts with few tokens, is added for the choice alone.

    `rebalance` moves the bias after every step, so that no balance loss is needed.
    """

    score = "sigmoid"

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def ranks(self, logits: Tensor, scores: Tensor) -> Tensor:
        return scores if self.balance_bias is None else scores + self.balance_bias.float()

    def of_group(self, ranks: Tensor) -> Tensor:
        """The sum of a group's best two."""
        best_BTQ2 = ranks.topk(2, dim=-1).values
        # An ablated expert adds nothing, and a group of such experts is last.
        left_BTQ1 = best_BTQ2[..., :1] > -math.inf
        return best_BTQ2.masked_fill((best_BTQ2 == -math.inf) & left_BTQ1, 0.0).sum(dim=-1)
