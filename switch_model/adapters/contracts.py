"""What routers return, as weights and experts of each token, and the same without ablated experts.

Legend: N tokens of all sequences, E experts, K choices.
One class for each kind of router. All are pure functions of what the router returned.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Choice:
    """What a router returned for N tokens: logits (N, E), weights (N, K) and experts (N, K)."""

    logits: Tensor
    weights: Tensor
    experts: Tensor

    def detached(self) -> "Choice":
        """The same outside the autograd graph, which would live as long as it."""
        return Choice(self.logits.detach(), self.weights.detach(), self.experts)


class TopKContract:
    """(logits, weights, experts, …), the order of most families since transformers 5.24."""

    # Whether the number of choices can be changed.
    any_k = True

    def read(self, output: Any, choices: int | None) -> Choice:
        """`choices`: the number that an intervention asks for. Raises ValueError for an output of another form."""
        if not (isinstance(output, tuple) and len(output) >= 3 and all(isinstance(one, Tensor) for one in output[:3])):
            raise ValueError(f"its router returned {_kinds(output)} instead of logits, weights and experts")
        logits, weights, experts = output[:3]
        fits = logits.dim() >= 2 and weights.shape == experts.shape and weights.dim() >= 2
        if not fits or experts.is_floating_point() or not logits.is_floating_point():
            shapes = ", ".join(str(tuple(one.shape)) for one in output[:3])
            raise ValueError(f"its router returned shapes {shapes} instead of logits, weights and experts")
        if choices is not None and experts.shape[-1] != choices:
            raise ValueError("its router can't choose another number of experts")
        return Choice(logits.flatten(0, -2), weights.flatten(0, -2), experts.flatten(0, -2))

    def without(self, output: Any, ablated: Tensor) -> Any:
        """The output with weight 0 for ablated experts, (N, E) bool, and for one that is chosen a second time: both
        happen only where fewer than K are left."""
        logits, weights, experts, *others = output
        off = ablated.gather(-1, experts.flatten(0, -2)).view_as(experts)
        off = off | (experts.unsqueeze(-1) == experts.unsqueeze(-2)).tril(-1).any(-1)
        return logits, weights.masked_fill(off, 0.0), experts, *others

    def assigned(self, output: Any, experts: Tensor) -> Any:
        """The output with other experts (N, K) under the same weights."""
        logits, weights, own, *others = output
        return logits, weights, experts.view_as(own), *others


class DenseContract(TopKContract):
    """llama4: (scores (N, E), 0 for the experts that are not chosen; logits)."""

    def __init__(self, router: Any):
        self.top_k = int(router.top_k)

    def read(self, output: Any, choices: int | None) -> Choice:
        scores, logits = output
        weights, experts = scores.topk(choices or self.top_k, dim=-1)
        return Choice(logits, weights, experts)

    def without(self, output: Any, ablated: Tensor) -> Any:
        return output[0].masked_fill(ablated, 0.0), output[1]

    def assigned(self, output: Any, experts: Tensor) -> Any:
        weights = self.read(output, experts.shape[-1]).weights
        return torch.zeros_like(output[0]).scatter(-1, experts, weights), output[1]


class MaskContract(TopKContract):
    """nllb_moe: (mask of the first choice (N, E), weights (N, E), 0 for the experts that are not chosen; logits)."""

    any_k = False

    def read(self, output: Any, choices: int | None) -> Choice:
        mask, dense, logits = output
        first, rest = dense * mask, dense * (1 - mask)
        experts = torch.stack([mask.argmax(-1), rest.argmax(-1)], dim=-1)
        weights = torch.stack([first.sum(-1), rest.amax(-1)], dim=-1)
        return Choice(logits, weights, experts)

    def without(self, output: Any, ablated: Tensor) -> Any:
        mask, dense, logits = output
        return mask.masked_fill(ablated, 0), dense.masked_fill(ablated, 0.0), logits

    def assigned(self, output: Any, experts: Tensor) -> Any:
        weights = self.read(output, None).weights
        mask, dense, logits = output
        mask = torch.zeros_like(mask).scatter(-1, experts[:, :1], (weights[:, :1] != 0).to(mask.dtype))
        return mask, torch.zeros_like(dense).scatter(-1, experts, weights), logits


class OneHotContract(TopKContract):
    """switch_transformers: (one-hot of the expert (B, T, E), all 0 for a dropped token; its probability; logits)."""

    any_k = False

    def read(self, output: Any, choices: int | None) -> Choice:
        mask, probability, logits = (one.flatten(0, -2) for one in output)
        weights = probability * mask.sum(-1, keepdim=True)
        # A dropped token's expert is not in the mask.
        return Choice(logits, weights, torch.where(mask.any(-1), mask.argmax(-1), logits.argmax(-1)).unsqueeze(-1))

    def without(self, output: Any, ablated: Tensor) -> Any:
        mask, probability, logits = output
        return mask.masked_fill(ablated.view_as(mask), 0), probability.nan_to_num(nan=0.0), logits

    def assigned(self, output: Any, experts: Tensor) -> Any:
        mask, probability, logits = output
        kept = mask.sum(-1, keepdim=True)
        return torch.zeros_like(mask).scatter(-1, experts.view_as(kept), kept), probability, logits


def contract_of(router: nn.Module) -> TopKContract:
    """What the router of a layer returns, by its class."""
    name = type(router).__name__
    if name == "Llama4Router":
        return DenseContract(router)
    kinds = {"NllbMoeTop2Router": MaskContract, "SwitchTransformersTop1Router": OneHotContract}
    return kinds.get(name, TopKContract)()


def _kinds(output: Any) -> str:
    return ", ".join(type(one).__name__ for one in output) if isinstance(output, tuple) else type(output).__name__
