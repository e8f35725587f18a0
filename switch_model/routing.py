"""Routing: the one record of what a sparse layer did with every token, and the two losses on it.

Legend: B batch, T tokens, E experts.
Balance loss: Switch Transformers (2101.03961) eq. 4-6. z-loss: ST-MoE (2202.08906) eq. 5.
Try it: load_balancing_loss(model(ids, output_routing=True).routing[0])
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

# Slots per expert where nothing is ever dropped. Fits 32 bits, so that JSON and JavaScript keep it exact.
UNLIMITED = 2**31 - 1


def may_drop(records: "Iterable[Routing]") -> bool:
    """Whether an expert of these layers can be full. One without slots, as all experts of a layer are off, is not."""
    return any(bool(((record.capacity > 0) & (record.capacity < UNLIMITED)).any()) for record in records)


@dataclass(frozen=True, eq=False)  # Tensors have no single truth value to compare by.
class Routing:
    """What one sparse layer decided. Stores facts only; everything else is derived, so that no two fields disagree.

    Attributes:
        name: stack and block, counted from 0: "encoder.0", "decoder.3"; "encoder.0.attention" for attention experts.
        logits: (B, T, E) float32, raw router logits after noise and interventions; -inf for an ablated expert.
        expert: (B, T) int64, the chosen expert (0 at padding, where it means nothing).
        slot: (B, T) int64, position of the token in its expert's buffer, counted from 0; -1 for padding.
        mask: (B, T) bool, True = a real token.
        capacity: (B,) int64, slots per expert for each sequence; UNLIMITED = nothing is dropped.
    """

    name: str
    logits: Tensor
    expert: Tensor
    slot: Tensor
    mask: Tensor
    capacity: Tensor

    @property
    def num_experts(self) -> int:
        """E."""
        return self.logits.shape[-1]

    @property
    def probs(self) -> Tensor:
        """(B, T, E) router probabilities. A token whose experts are all ablated has zeros, not NaN."""
        return self.logits.movedim(-1, 0).softmax(dim=0).movedim(0, -1).nan_to_num(nan=0.0)

    @property
    def router_probs(self) -> Tensor:
        """(B, T, E) as `probs`: what the balance losses are computed from."""
        return self.probs

    @property
    def gate(self) -> Tensor:
        """(B, T) router probability of the chosen expert, which scales that expert's output."""
        probs_EBT = self.logits.movedim(-1, 0).softmax(dim=0)
        return probs_EBT.gather(0, self.expert.unsqueeze(0)).squeeze(0).nan_to_num(nan=0.0)

    @property
    def chosen_logit(self) -> Tensor:
        """(B, T) the chosen expert's logit; -inf where every expert was ablated."""
        return self.logits.gather(-1, self.expert.unsqueeze(-1)).squeeze(-1)

    @property
    def experts(self) -> Tensor:
        """(B, T, 1) the chosen expert, as in a record with several choices (`TopKRouting`)."""
        return self.expert.unsqueeze(-1)

    @property
    def weights(self) -> Tensor:
        """(B, T, 1) what the expert's output is multiplied by: the gate, 0 for a dropped token and for padding."""
        return (self.gate * self.kept).unsqueeze(-1)

    @property
    def chosen(self) -> Tensor:
        """(B, T, 1) True where a real token chose an expert, dropped or not."""
        return (self.mask & self.chosen_logit.isfinite()).unsqueeze(-1)

    @property
    def kept(self) -> Tensor:
        """(B, T) True where the expert had a slot for the token."""
        return self.mask & (self.slot < self.capacity.unsqueeze(-1))

    @property
    def dropped(self) -> Tensor:
        """(B, T) True where a real token found its expert's buffer full."""
        return self.mask & (self.slot >= self.capacity.unsqueeze(-1))

    @property
    def choices(self) -> Tensor:
        """(E,) number of real tokens that chose each expert, before drops. A token whose experts are all ablated chose
        none."""
        chose = self.mask & self.chosen_logit.isfinite()
        counts_E = torch.zeros(self.num_experts, dtype=torch.int64, device=self.expert.device)
        return counts_E.index_add(0, self.expert.flatten(), chose.flatten().to(torch.int64))

    @property
    def per_token(self) -> float:
        """Experts of a real token: 1, as in a record with several choices."""
        return 1

    @property
    def load(self) -> Tensor:
        """(E,) share of real tokens choosing each expert, before drops: f in the paper."""
        return self.choices / self.mask.sum().clamp(min=1)

    @property
    def importance(self) -> Tensor:
        """(E,) mean router probability over real tokens: P in the paper. Carries gradient."""
        return (self.probs * self.mask.unsqueeze(-1)).sum(dim=(0, 1)) / self.mask.sum().clamp(min=1)

    @property
    def token_entropy(self) -> Tensor:
        """(B, T) H(p) / log E of each token's router probabilities: 0 = certain, 1 = undecided; 0 at padding."""
        if self.num_experts == 1:
            return torch.zeros_like(self.mask, dtype=torch.float32)
        # xlogy(0, 0) = 0: an ablated expert adds nothing.
        return -torch.special.xlogy(self.probs, self.probs).sum(-1) / math.log(self.num_experts) * self.mask

    @property
    def entropy(self) -> Tensor:
        """Scalar: mean of `token_entropy` over real tokens."""
        return self.token_entropy.sum() / self.mask.sum().clamp(min=1)

    def detached(self) -> "Routing":
        """A copy on the CPU, outside the autograd graph."""
        tensors = {key: getattr(self, key).detach().cpu() for key in _TENSORS}
        return replace(self, **tensors)

    def example(self, index: int) -> "Routing":
        """Sequence `index` alone, without its padding: a record with B = 1 and every token real."""
        real_T = self.mask[index]
        return Routing(
            name=self.name,
            logits=self.logits[index, real_T].unsqueeze(0),
            expert=self.expert[index, real_T].unsqueeze(0),
            slot=self.slot[index, real_T].unsqueeze(0),
            mask=real_T[real_T].unsqueeze(0),
            capacity=self.capacity[index : index + 1],
        )

    def examples(self) -> list["Routing"]:
        """`example` of every sequence. Where padding is on the right alone they are views of this record's tensors,
        which is several times as fast."""
        lengths = lengths_of_right_padded(self.mask)
        if lengths is None:
            return [self.example(index) for index in range(len(self.mask))]
        return [
            Routing(
                name=self.name,
                logits=self.logits[row : row + 1, :length],
                expert=self.expert[row : row + 1, :length],
                slot=self.slot[row : row + 1, :length],
                mask=self.mask[row : row + 1, :length],
                capacity=self.capacity[row : row + 1],
            )
            for row, length in enumerate(lengths)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON. An ablated expert's logit of -inf becomes null."""
        values = {key: getattr(self, key).detach().cpu().tolist() for key in _TENSORS if key != "logits"}
        return {"name": self.name, "logits": json_logits(self.logits), **values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Routing":
        """The inverse of `to_dict`. Raises ValueError when a field is missing or shapes disagree."""
        missing = [key for key in ("name", *_TENSORS) if key not in values]
        if missing:
            raise ValueError(f"A routing record lacks {', '.join(missing)}.")
        record = cls(
            name=values["name"],
            logits=logits_of_json(values["logits"]),
            expert=torch.tensor(values["expert"], dtype=torch.int64),
            slot=torch.tensor(values["slot"], dtype=torch.int64),
            mask=torch.tensor(values["mask"], dtype=torch.bool),
            capacity=torch.tensor(values["capacity"], dtype=torch.int64),
        )
        shape_BT = record.expert.shape
        if (
            record.logits.dim() != 3
            or record.logits.shape[:2] != shape_BT
            or record.slot.shape != shape_BT
            or record.mask.shape != shape_BT
            or record.capacity.shape != shape_BT[:1]
        ):
            raise ValueError(f"The tensors of routing record {record.name!r} do not fit together.")
        return record


_TENSORS = ("logits", "expert", "slot", "mask", "capacity")


def lengths_of_right_padded(mask: Tensor) -> list[int] | None:
    """Number of real tokens of each row of a (B, T) mask; None where padding is not on the right alone."""
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    return mask.sum(dim=1).tolist()


def json_logits(logits: Tensor) -> list[list[list[float | None]]]:
    """(B, T, E) logits as plain numbers for JSON, null for one that is not finite."""
    return [
        [[logit if math.isfinite(logit) else None for logit in token] for token in row]
        for row in logits.detach().cpu().tolist()
    ]


def logits_of_json(values: list[list[list[float | None]]]) -> Tensor:
    """The inverse of `json_logits`: null is -inf."""
    logits = [[[-math.inf if logit is None else logit for logit in token] for token in row] for row in values]
    return torch.tensor(logits, dtype=torch.float32)


def load_balancing_loss(routing: Routing, load: Tensor | None = None) -> Tensor:
    """E · Σ fᵢPᵢ of one layer: 1 when uniform, E when collapsed. Scalar; its gradient flows through P alone.

    `load` (E,): f, where the record is a part of a larger batch; None = the record's own.
    """
    load_E = routing.load if load is None else load
    return routing.num_experts * (load_E * routing.importance).sum()  # eq. 4


def sequence_balance(routing: Routing) -> Tensor:
    """(B,) E · Σ fᵢPᵢ of one layer over each sequence by itself; 0 for one without tokens."""
    count_B1 = routing.mask.sum(dim=1, keepdim=True).clamp(min=1)
    probs_BTE = routing.router_probs
    load_BE = probs_BTE.new_zeros(routing.mask.shape[0], routing.num_experts)  # len() would fix it in a graph.
    load_BE = load_BE.scatter_add(1, routing.experts.flatten(1), routing.chosen.flatten(1).to(load_BE.dtype))
    each = routing.experts.shape[-1]
    whole_B1 = count_B1 * each if each < routing.num_experts else load_BE.sum(dim=1, keepdim=True).clamp(min=1)
    load_BE = load_BE / whole_B1
    importance_BE = (probs_BTE * routing.mask.unsqueeze(-1)).sum(dim=1) / count_B1
    return routing.num_experts * (load_BE * importance_BE).sum(dim=1)


def sequence_balance_loss(routing: Routing) -> Tensor:
    """Mean of `sequence_balance` over the sequences: 1 when each uses all experts evenly, E when each uses a single
    one. Scalar; DeepSeek-V3 (2412.19437) eq. 17-20 with top-1."""
    return sequence_balance(routing).sum() / routing.mask.any(dim=1).sum().clamp(min=1)


def router_z_loss(routing: Routing) -> Tensor:
    """Mean over real tokens of logsumexp(logits)² of one layer: keeps logits small. Scalar."""
    # A token whose experts are all ablated has logsumexp = -inf, and would make the loss infinite.
    z_BT = routing.logits.logsumexp(dim=-1)
    z_BT = torch.where(routing.mask & z_BT.isfinite(), z_BT, 0.0)
    return z_BT.square().sum() / routing.mask.sum().clamp(min=1)


def transitions(here: Routing, there: Routing) -> Tensor:
    """(E, E') number of real tokens that chose expert i of one layer and expert j of another. A token whose experts
    are all ablated in either layer is not counted."""
    pair_BT = here.expert * there.num_experts + there.expert
    chose_BT = here.mask & here.chosen_logit.isfinite() & there.chosen_logit.isfinite()
    counts = torch.bincount(pair_BT[chose_BT], minlength=here.num_experts * there.num_experts)
    return counts.view(here.num_experts, there.num_experts)
