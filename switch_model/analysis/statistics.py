"""Corpus-level routing statistics: pure functions of routing records, summed over any number of batches.

Legend: B batch, T tokens, E experts. Metrics as defined in docs/metrics.md.
Try it: total = LayerTotals.of(record); total += LayerTotals.of(another); total.summary()
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from switch_model.analysis.coactivation import beside_chance, expert_weights, pair_counts, weight_shares
from switch_model.routing import Routing, router_z_loss, sequence_balance
from switch_model.topk_routing import AnyRouting, TopKRouting

# Pairs of experts that are named.
SHOWN_PAIRS = 5
# Tokens of a text whose distinct experts are counted: a shorter one can't use many.
LONG_TEXT = 30


@dataclass
class LayerTotals:
    """Sums over the real tokens of one sparse layer. Sums are additive over batches; metrics are not.

    They stay tensors on the records' device, so that only `summary` waits for a GPU.
    """

    tokens: Tensor
    choices: Tensor
    probability: Tensor
    dropped: Tensor
    entropy: Tensor
    squared_z: Tensor
    sequence_balance: Tensor
    sequences: Tensor
    weight: Tensor
    pairs: Tensor
    choices_of_token: int = 1

    @classmethod
    def of(cls, record: AnyRouting) -> "LayerTotals":
        """The sums of one record, of either kind."""
        return cls._of_choices(record) if isinstance(record, TopKRouting) else cls._of_one_choice(record)

    @classmethod
    @torch.no_grad()
    def _of_choices(cls, record: Any) -> "LayerTotals":
        mask_BT = record.mask
        none = torch.zeros((), device=mask_BT.device)
        return cls(
            tokens=mask_BT.sum(),
            choices=record.choices,
            probability=(record.router_probs * mask_BT.unsqueeze(-1)).sum(dim=(0, 1)),
            dropped=record.dropped.sum() if record.slots is None else record.full.sum() / record.experts.shape[-1],
            entropy=record.token_entropy.sum(),
            squared_z=none if record.logits is None else router_z_loss(record) * mask_BT.sum(),
            sequence_balance=sequence_balance(record).sum(),
            sequences=mask_BT.any(dim=1).sum(),
            weight=expert_weights(record),
            pairs=pair_counts(record),
            choices_of_token=record.experts.shape[-1],
        )

    @classmethod
    @torch.no_grad()
    def _of_one_choice(cls, record: Routing) -> "LayerTotals":
        logits_BTE, mask_BT = record.logits.detach(), record.mask
        logsumexp_BT1 = logits_BTE.logsumexp(dim=-1, keepdim=True)
        logprobs_BTE = logits_BTE - logsumexp_BT1
        probs_BTE = logprobs_BTE.exp().nan_to_num(0.0) * mask_BT.unsqueeze(-1)
        # An ablated expert has probability 0 and adds nothing to the entropy, though its log-probability is -inf.
        surprise_BTE = torch.where(probs_BTE > 0, -logprobs_BTE, 0.0)
        z_BT = torch.where(mask_BT & logsumexp_BT1.squeeze(-1).isfinite(), logsumexp_BT1.squeeze(-1), 0.0)
        return cls(
            tokens=mask_BT.sum(),
            choices=record.choices,
            probability=probs_BTE.sum(dim=(0, 1)),
            dropped=record.dropped.sum(),
            entropy=(probs_BTE * surprise_BTE).sum(),
            squared_z=z_BT.square().sum(),
            sequence_balance=sequence_balance(record).sum(),
            sequences=mask_BT.any(dim=1).sum(),
            weight=record.choices,
            pairs=record.choices.new_zeros(()),
        )

    def __iadd__(self, other: "LayerTotals") -> "LayerTotals":
        for field in fields(self):
            if field.name != "choices_of_token":
                setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def summary(self) -> dict[str, Any]:
        """Metrics as plain numbers: tokens, balance_loss, sequence_balance_loss, z_loss, load (per expert), load_cv,
        load_entropy, token_entropy, drop_rate. Rates are shares (0 to 1). With k > 1 choices of a token also what
        `_of_several` gives."""
        tokens, chosen = max(int(self.tokens), 1), self.choices_of_token
        experts, choices_E = len(self.choices), self.choices.double().cpu()
        # With expert choice, K = E and most choices are not used.
        load_E = choices_E / (tokens * chosen if chosen < max(experts, 2) else choices_E.sum().clamp(min=1))
        importance_E = self.probability.double().cpu() / tokens
        scale = math.log(experts) if experts > 1 else 1.0
        entropy_scale = scale if chosen == 1 else 1.0  # A TopKRouting divides by log k itself.
        return {
            "tokens": int(self.tokens),
            "balance_loss": float(experts * (load_E * importance_E).sum()),
            "sequence_balance_loss": float(self.sequence_balance) / max(int(self.sequences), 1),
            "z_loss": float(self.squared_z) / tokens,
            "load": [round(share, 6) for share in load_E.tolist()],
            "load_cv": float(load_E.std(correction=0) / load_E.mean()) if load_E.sum() > 0 else 0.0,
            "load_entropy": float(torch.special.entr(load_E).sum()) / scale,
            "token_entropy": float(self.entropy) / tokens / entropy_scale,
            "drop_rate": float(self.dropped) / tokens,
            **(self._of_several(experts, tokens) if chosen > 1 else {}),
        }

    def _of_several(self, experts: int, tokens: int) -> dict[str, Any]:
        """choices (k), load_cv_chance, weight_mass (per expert) and coactivation (the pairs of experts with the highest
        lift: experts, tokens, expected)."""
        chosen, weight_E = self.choices_of_token, self.weight.double().cpu()
        found = beside_chance(self.pairs.cpu(), self.choices.cpu())
        return {
            "choices": chosen,
            "load_cv_chance": math.sqrt(max(experts - chosen, 0) / (tokens * chosen)),
            "weight_mass": [round(share, 6) for share in (weight_E / weight_E.sum().clamp(min=1e-30)).tolist()],
            "coactivation": [
                {
                    "experts": [i, j],
                    "tokens": int(found.counts[i, j]),
                    "expected": round(float(found.expected[i, j]), 3),
                }
                for i, j in found.strongest(SHOWN_PAIRS)
            ],
        }


class RoutingTotals:
    """LayerTotals of every sparse layer, by name, in the order in which layers first appear."""

    def __init__(self):
        self.layers: dict[str, LayerTotals] = {}

    def add(self, records: tuple[AnyRouting, ...]) -> None:
        """Add the records of one batch."""
        own = RoutingTotals()
        own.layers = {record.name: LayerTotals.of(record) for record in records}
        self += own

    def __iadd__(self, other: "RoutingTotals") -> "RoutingTotals":
        for name, totals in other.layers.items():
            if name in self.layers:
                self.layers[name] += totals
            else:
                self.layers[name] = totals
        return self

    def cpu(self) -> "RoutingTotals":
        """The same sums on the CPU, to be sent to another process."""
        here = RoutingTotals()
        for name, totals in self.layers.items():
            sums = {field.name: getattr(totals, field.name) for field in fields(totals)}
            sums = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in sums.items()}
            here.layers[name] = LayerTotals(**sums)
        return here

    def summary(self) -> list[dict[str, Any]]:
        """One dict per sparse layer: its name under "layer", then its metrics."""
        return [{"layer": name, **totals.summary()} for name, totals in self.layers.items()]


@dataclass(frozen=True)
class DistinctExperts:
    """How many different experts of a layer the tokens of one text choose, over texts of LONG_TEXT tokens and more.

    Attributes:
        mean, chance: over these texts, and if each token drew its experts by their loads.
        texts: their number.
    """

    mean: float
    chance: float
    texts: int


def distinct_experts(text: np.ndarray, experts: np.ndarray, num_experts: int) -> DistinctExperts | None:
    """Distinct experts of long texts in one layer; None where no text is long enough.

    Args:
        text: (T,) the text of each token.
        experts: (T, K) all experts that each token chose; -1 = no further one.
    """
    _, row, length = np.unique(text, return_inverse=True, return_counts=True)
    pairs = (row[:, None] * num_experts + experts.astype(np.int64))[experts >= 0]
    counts = np.bincount(pairs, minlength=len(length) * num_experts).reshape(-1, num_experts)
    long = length >= LONG_TEXT
    if not long.any():
        return None
    shares = counts.sum(axis=0) / len(text)
    sizes, times = np.unique(length[long], return_counts=True)
    chance = (1 - (1 - shares) ** sizes[:, None]).sum(axis=1)
    mean = (counts[long] > 0).sum(axis=1).mean()
    return DistinctExperts(round(float(mean), 4), round(float(np.average(chance, weights=times)), 4), int(long.sum()))


def routed_alike(here_T: Tensor, there_T: Tensor, num_experts: int) -> tuple[float, float]:
    """For the same tokens, routed twice: (share with the same expert both times, that share expected by chance).

    Chance assumes independent choices with the two loads: Σ f(expert) f'(expert).

    Args:
        here_T, there_T: (T,) experts of T tokens, without padding.

    Raises:
        ValueError: when there are no tokens, or their numbers differ.
    """
    if here_T.shape != there_T.shape or not here_T.numel():
        raise ValueError(f"Give the same tokens twice, at least one: there are {here_T.numel()} and {there_T.numel()}.")
    here_E, there_E = (
        torch.bincount(expert_T, minlength=num_experts).double() / len(expert_T) for expert_T in (here_T, there_T)
    )
    return float((here_T == there_T).double().mean()), float(here_E @ there_E)


def saturation(records: Sequence[Routing], last: Sequence[Routing]) -> list[tuple[float, float]]:
    """Router saturation (OLMoE, 2409.02060, §5, for top-1): per sparse layer, the share of tokens that a checkpoint
    routes to the same expert as the last one, and that share expected by chance. Dropped tokens count too.

    Args:
        records: of the same texts under a checkpoint, and under the `last` one.

    Raises:
        ValueError: when tokens or layers differ.
    """
    return [
        routed_alike(one.expert[one.mask], two.expert[two.mask], two.num_experts)
        for one, two in zip(records, last, strict=True)
    ]


def shared_information(counts: Tensor) -> float:
    """Normalised mutual information of a table of counts: I(row; column) / H(column), 0 to 1; 0 where H is 0."""
    joint = counts.double() / counts.sum().clamp(min=1)
    rows, columns = joint.sum(dim=1), joint.sum(dim=0)
    entropy = float(torch.special.entr(columns).sum())
    if entropy == 0:
        return 0.0
    together = float(torch.special.entr(joint).sum())
    # Rounding may make it slightly negative.
    return max(float(torch.special.entr(rows).sum()) + entropy - together, 0.0) / entropy


def shuffled_information(here: Routing, there: Routing, rounds: int = 100, seed: int = 0) -> tuple[float, float]:
    """Mean and 95th percentile of `shared_information` when the second layer's tokens are shuffled: the chance level,
    which is far above 0 for few tokens."""
    first, second = here.expert[here.mask], there.expert[there.mask]
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(rounds):
        pair = first * there.num_experts + second[torch.randperm(len(second), generator=generator)]
        counts = torch.bincount(pair, minlength=here.num_experts * there.num_experts)
        values.append(shared_information(counts.view(here.num_experts, there.num_experts)))
    return sum(values) / len(values), sorted(values)[int(0.95 * (len(values) - 1))]


def shuffled_flow(here: AnyRouting, there: AnyRouting, rounds: int = 20, seed: int = 0) -> tuple[float, float]:
    """Mean and 95th percentile of `shared_information` of the flow when the second layer's tokens are shuffled."""
    shares_TE, shares_TF = weight_shares(here), weight_shares(there)
    generator = torch.Generator().manual_seed(seed)
    order = (torch.randperm(len(shares_TF), generator=generator) for _ in range(rounds))
    values = sorted(shared_information(shares_TE.T @ shares_TF[order_T]) for order_T in order)
    return sum(values) / rounds, values[int(0.95 * (rounds - 1))]
