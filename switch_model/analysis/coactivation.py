"""Which experts are chosen together, and how much weight each has, beside what chance would give.

Metrics as defined in docs/metrics.md. Legend: T tokens, E experts, K choices of a token.
Try it: coactivation(TextGenerator.from_checkpoint("a/mixtral")("Once upon").routing[0]).lift
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from switch_model.topk_routing import AnyRouting


@dataclass(frozen=True, eq=False)
class Coactivation:
    """Pairs of experts of one layer.

    Attributes:
        counts: (E, E) number of real tokens that chose both experts; the diagonal is 0.
        expected: (E, E) the same by chance: each pair in proportion to the product of both experts' tokens, with the
            same total.
    """

    counts: Tensor
    expected: Tensor

    @property
    def lift(self) -> Tensor:
        """(E, E) log2 of counts over expected, half a token added to both; 0 = as by chance, and on the diagonal."""
        return ((self.counts + 0.5) / (self.expected + 0.5)).log2().fill_diagonal_(0.0)

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """The pairs with the highest lift, the smaller number first."""
        experts = len(self.counts)
        above = torch.ones(experts, experts, dtype=torch.bool, device=self.counts.device).triu(1)
        best = self.lift.masked_fill(~above, -torch.inf).flatten().topk(min(count, experts * (experts - 1) // 2))
        return [divmod(place, experts) for place in best.indices.tolist()]


def coactivation(record: AnyRouting) -> Coactivation:
    """Pairs of experts chosen by the same token. With one choice for each token there are none."""
    return beside_chance(pair_counts(record), record.choices)


def beside_chance(counts: Tensor, choices: Tensor) -> Coactivation:
    """Counts of pairs (E, E) of any number of records, and of tokens that chose each expert (E,)."""
    product = torch.outer(choices.double(), choices.double()).fill_diagonal_(0.0)
    return Coactivation(counts, product * (counts.sum() / product.sum().clamp(min=1)))


def pair_counts(record: AnyRouting) -> Tensor:
    """(E, E) number of real tokens that chose both experts; the diagonal is 0."""
    chose_BTE = torch.zeros(*record.mask.shape, record.num_experts, device=record.mask.device)
    chose_TE = chose_BTE.scatter_add(-1, record.experts, record.chosen.float()).flatten(0, 1)
    return (chose_TE.T @ chose_TE).double().fill_diagonal_(0.0)


def weight_flow(here: AnyRouting, there: AnyRouting) -> Tensor:
    """(E, E') weight that flows from each expert of one layer to each of another, in tokens: every token hands on what
    it has from each of its experts to each of its next ones in proportion to both weights. Sums to the tokens."""
    shares_TE, shares_TF = weight_shares(here), weight_shares(there)
    return shares_TE.T @ shares_TF


def weight_shares(record: AnyRouting) -> Tensor:
    """(T, E) share of each expert in each real token's weights."""
    sizes_TK = record.weights[record.mask].double().abs()
    shares_TK = sizes_TK / sizes_TK.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    empty_TE = shares_TK.new_zeros(len(shares_TK), record.num_experts)
    return empty_TE.scatter_add(-1, record.experts[record.mask], shares_TK)


def expert_weights(record: AnyRouting) -> Tensor:
    """(E,) sum of each expert's weights over real tokens."""
    weights_BTK = record.weights.float().abs() * record.mask.unsqueeze(-1)
    return weights_BTK.new_zeros(record.num_experts).index_add(0, record.experts.flatten(), weights_BTK.flatten())


def weight_mass(record: AnyRouting) -> Tensor:
    """(E,) share of each expert in the sum of all weights of real tokens. Where every choice weighs the same, it is the
    expert's load."""
    weight_E = expert_weights(record)
    return weight_E / weight_E.sum().clamp(min=torch.finfo(torch.float32).tiny)
