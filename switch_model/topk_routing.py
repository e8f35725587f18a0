"""TopKRouting: the record of a sparse layer that sends each token to several experts, as the model's router chose them.

Legend: B batch, T tokens, E experts, K choices of a token.
It has everything that a `Routing` has; `AnyRouting` is either of the two.
Try it: TextGenerator.from_checkpoint("a/mixtral")("Once upon").routing[0].experts
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from switch_model.routing import UNLIMITED, Routing, json_logits, lengths_of_right_padded, logits_of_json


@dataclass(frozen=True, eq=False)  # Tensors have no single truth value to compare by.
class TopKRouting:
    """What one sparse layer with K choices decided, as its router returned it. What its logits mean differs by family:
    `score` says so where it is known, as in this package's own models.

    Attributes:
        name: stack and block, counted from 0: "decoder.3".
        experts: (B, T, K) int64, the chosen experts: the largest weight first, but a forced expert before it.
        weights: (B, T, K) float32, what the experts' outputs are multiplied by; 0 = not used, such as an ablated
            expert where fewer than K are left, or one whose buffer is full.
        mask: (B, T) bool, True = a real token.
        num_experts: E, without shared experts, which every token goes through.
        logits: (B, T, E) the router's scores of all experts as it gives them (in some families probabilities); -inf for
            an ablated expert. None where there are none.
        score: how logits become the router's probabilities: "softmax", "sigmoid" (each divided by their sum), or "" =
            not known.
        slots: (B, T, K) int64, position of each choice in its expert's buffer, from 0; -1 where there is no choice, or
            at padding. None = experts have no buffers.
        limit: (B,) int64, slots per expert for each sequence; None as `slots`.
    """

    name: str
    experts: Tensor
    weights: Tensor
    mask: Tensor
    num_experts: int
    logits: Tensor | None = None
    score: str = ""
    slots: Tensor | None = None
    limit: Tensor | None = None

    @property
    def expert(self) -> Tensor:
        """(B, T) the first choice."""
        return self.experts[..., 0]

    @property
    def gate(self) -> Tensor:
        """(B, T) weight of the first choice."""
        return self.weights[..., 0]

    @property
    def by_experts(self) -> bool:
        """Whether experts chose their tokens: then `limit` is how many each took, and nothing is full."""
        return self.limit is not None and self.slots is None

    @property
    def used(self) -> Tensor:
        """(B, T, K) True where the expert computes a real token."""
        return self.mask.unsqueeze(-1) & (self.weights != 0)

    @property
    def full(self) -> Tensor:
        """(B, T, K) True where a real token's expert had no slot left for it."""
        if self.slots is None or self.limit is None:
            return torch.zeros_like(self.experts, dtype=torch.bool)
        return self.mask.unsqueeze(-1) & (self.slots >= self.limit.view(-1, 1, 1))

    @property
    def chosen(self) -> Tensor:
        """(B, T, K) True where a real token chose an expert, whether it had a slot or not."""
        return self.used | self.full

    @property
    def choices(self) -> Tensor:
        """(E,) number of real tokens that chose each expert, as whichever of their K choices."""
        counts_E = torch.zeros(self.num_experts, dtype=torch.int64, device=self.experts.device)
        return counts_E.index_add(0, self.experts.flatten(), self.chosen.flatten().to(torch.int64))

    @property
    def per_token(self) -> float:
        """Experts of a real token: K; with expert choice, where K = E and few are used, their mean number."""
        most = self.experts.shape[-1]
        return most if most < self.num_experts else float(self.choices.sum() / self.mask.sum().clamp(min=1))

    @property
    def load(self) -> Tensor:
        """(E,) share of all assignments that go to each expert: K for each real token; with expert choice, where K = E
        and most are not used, those that are."""
        choices_E, most = self.choices, self.experts.shape[-1]
        whole = choices_E.sum() if most == self.num_experts else self.mask.sum() * most
        return choices_E / whole.clamp(min=1)

    @property
    def probs(self) -> Tensor:
        """(B, T, E) share of each expert in a token's weights: they sum to 1, or are all 0 where no expert is used."""
        sizes_BTK = self.weights.float().abs()
        shares_BTK = sizes_BTK / sizes_BTK.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        empty_BTE = shares_BTK.new_zeros(*self.mask.shape, self.num_experts)
        return empty_BTE.scatter_add(-1, self.experts, shares_BTK)

    @property
    def router_probs(self) -> Tensor:
        """(B, T, E) the router's probabilities of all experts, chosen or not, which the balance losses are computed
        from; `probs` where it is not known how logits become probabilities."""
        if self.logits is None or not self.score:
            return self.probs
        if self.score == "softmax":
            return self.logits.softmax(dim=-1).nan_to_num(nan=0.0)
        scores_BTE = self.logits.sigmoid()
        return scores_BTE / scores_BTE.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)

    @property
    def importance(self) -> Tensor:
        """(E,) mean of `router_probs` over real tokens: P of the balance loss. Carries gradient."""
        return (self.router_probs * self.mask.unsqueeze(-1)).sum(dim=(0, 1)) / self.mask.sum().clamp(min=1)

    @property
    def chosen_logit(self) -> Tensor:
        """(B, T) the first choice's logit, its weight where there are no logits; -inf where no expert is used."""
        logits = self.logits
        first_BT = self.gate if logits is None else logits.gather(-1, self.experts[..., :1]).squeeze(-1)
        return torch.where((self.weights != 0).any(-1), first_BT, -math.inf)

    @property
    def token_entropy(self) -> Tensor:
        """(B, T) H(probs) / log K: 1 = all K choices weigh the same, 0 = one has all the weight; 0 at padding."""
        choices = self.experts.shape[-1]
        if choices == 1:
            return torch.zeros_like(self.mask, dtype=torch.float32)
        return torch.special.entr(self.probs).sum(-1) / math.log(choices) * self.mask

    @property
    def entropy(self) -> Tensor:
        """Scalar: mean of `token_entropy` over real tokens."""
        return self.token_entropy.sum() / self.mask.sum().clamp(min=1)

    @property
    def slot(self) -> Tensor:
        """(B, T) the first choice's position in its expert's buffer, 0 where experts have none; -1 at padding."""
        return self.mask.to(torch.int64) - 1 if self.slots is None else self.slots[..., 0]

    @property
    def capacity(self) -> Tensor:
        """(B,) slots per expert for each sequence; UNLIMITED where nothing is dropped."""
        if self.limit is not None:
            return self.limit
        return torch.full(self.mask.shape[:1], UNLIMITED, dtype=torch.int64, device=self.mask.device)

    @property
    def kept(self) -> Tensor:
        """(B, T) every real token that is not dropped."""
        return self.mask & ~self.dropped

    @property
    def dropped(self) -> Tensor:
        """(B, T) True where all experts that a real token chose were full, or no expert chose it: the residual alone
        carries it on."""
        if self.limit is None or self.logits is None:
            return torch.zeros_like(self.mask)
        return self.mask & ~self.used.any(-1) & self.logits.isfinite().any(-1)

    def detached(self) -> "TopKRouting":
        """A copy on the CPU, outside the autograd graph."""
        return self._with(lambda tensor: tensor.detach().cpu())

    def example(self, index: int) -> "TopKRouting":
        """Sequence `index` alone, without its padding: a record with B = 1 and every token real."""
        real_T = self.mask[index]
        return self._with(lambda one: one[index, real_T].unsqueeze(0) if one.dim() > 1 else one[index : index + 1])

    def examples(self) -> list["TopKRouting"]:
        """`example` of every sequence; views where padding is on the right alone."""
        lengths = lengths_of_right_padded(self.mask)
        if lengths is None:
            return [self.example(index) for index in range(len(self.mask))]

        def first(row: int, length: int) -> "TopKRouting":
            return self._with(lambda one: one[row : row + 1] if one.dim() == 1 else one[row : row + 1, :length])

        return [first(row, length) for row, length in enumerate(lengths)]

    def _with(self, changed: Any) -> "TopKRouting":
        own = {name: getattr(self, name) for name in ("experts", "weights", "mask", "logits", "slots", "limit")}
        return replace(self, **{name: changed(tensor) for name, tensor in own.items() if tensor is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON. A logit that is not finite becomes null; what is not known is left out."""
        names = ("experts", "weights", "mask", "slots", "limit")
        tensors = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        values = {name: tensor.detach().cpu().tolist() for name, tensor in tensors.items()}
        values |= {} if self.logits is None else {"logits": json_logits(self.logits)}
        return {"name": self.name, "num_experts": self.num_experts, **values} | (
            {"score": self.score} if self.score else {}
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TopKRouting":
        """The inverse of `to_dict`. Raises ValueError when a field is missing, shapes disagree or an expert is none."""
        missing = [key for key in ("name", "num_experts", "experts", "weights", "mask") if key not in values]
        if missing:
            raise ValueError(f"A routing record lacks {', '.join(missing)}.")
        logits, slots, limit = (values.get(name) for name in ("logits", "slots", "limit"))
        record = cls(
            name=values["name"],
            experts=torch.tensor(values["experts"], dtype=torch.int64),
            weights=torch.tensor(values["weights"], dtype=torch.float32),
            mask=torch.tensor(values["mask"], dtype=torch.bool),
            num_experts=int(values["num_experts"]),
            logits=None if logits is None else logits_of_json(logits),
            score=str(values.get("score", "")),
            slots=None if slots is None else torch.tensor(slots, dtype=torch.int64),
            limit=None if limit is None else torch.tensor(limit, dtype=torch.int64),
        )
        shape_BT, experts = record.mask.shape, record.experts
        if (
            experts.dim() != 3
            or experts.shape[:2] != shape_BT
            or record.weights.shape != experts.shape
            or (record.logits is not None and record.logits.shape != (*shape_BT, record.num_experts))
            or (record.slots is not None and record.slots.shape != experts.shape)
            or (record.limit is not None and record.limit.shape != shape_BT[:1])
        ):
            raise ValueError(f"The tensors of routing record {record.name!r} do not fit together.")
        if experts.numel() and not 0 <= int(experts.min()) <= int(experts.max()) < record.num_experts:
            raise ValueError(f"Routing record {record.name!r} names experts beyond its {record.num_experts}.")
        return record


AnyRouting = Routing | TopKRouting


def record_of_dict(values: dict[str, Any]) -> AnyRouting:
    """A record of either kind from its `to_dict`. Raises ValueError as their `from_dict` does."""
    return TopKRouting.from_dict(values) if "experts" in values else Routing.from_dict(values)
