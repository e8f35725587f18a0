"""A router's own code, run with changed scores: without ablated experts, with a forced one first, with another k.

Legend: N tokens of all sequences, E experts, K choices.
Families differ in the order of softmax and top-k, in sigmoid scores, selection biases, groups and scaling. None of
this is repeated here: while a router runs, two of its steps see other numbers. Its logits are -inf for ablated experts,
and where it chooses (`topk`, `max`, `argmax` over all experts), ablated experts are last and a forced one is first; the
values of what is chosen stay the router's own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True, eq=False)
class Changes:
    """Changes to the choices of N tokens in one layer; None = none.

    Attributes:
        ablated: (N, E) True where the expert can't be chosen.
        forced: (N,) the expert that comes first; -1 = none.
        top_k: another number of experts.
        assigned: (N, K) experts that replace the chosen ones under their weights.
    """

    ablated: Tensor | None = None
    forced: Tensor | None = None
    top_k: int | None = None
    assigned: Tensor | None = None

    @property
    def rechooses(self) -> bool:
        """Whether the router has to choose again."""
        return any(one is not None for one in (self.ablated, self.forced, self.top_k))


LOGITS = {torch.nn.functional.linear, torch.mm, torch.matmul, torch.Tensor.matmul}


class ChangedScores(TorchFunctionMode):
    """While it is on, the router sees changed scores.

    Args:
        changes: what to change.
        tokens, num_experts: N and E.
        grouped: whether the router chooses among groups of experts first.

    `chose` tells whether the router has chosen among all experts.
    """

    def __init__(self, changes: Changes, tokens: int, num_experts: int, grouped: bool):
        super().__init__()
        self.changes, self.tokens, self.num_experts, self.grouped = changes, tokens, num_experts, grouped
        self.chose = False
        # A router with two choices takes a maximum twice: a forced expert is the first one alone.
        self.forced_by: set[str] = set()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in LOGITS:
            return self._logits(func(*args, **kwargs))
        change = {torch.Tensor.topk: self._topk, torch.topk: self._topk} | {
            torch.Tensor.max: self._max,
            torch.max: self._max,
            torch.Tensor.argmax: self._argmax,
            torch.argmax: self._argmax,
        }
        changed = change[func](*args, **kwargs) if func in change else None
        return func(*args, **kwargs) if changed is None else changed

    def _logits(self, logits: Tensor) -> Tensor:
        if self.changes.ablated is None or not self._are_scores(logits):
            return logits
        return logits.masked_fill(self.changes.ablated.view_as(logits), -math.inf)

    def _topk(self, input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
        if self._are_groups(input):
            values = self._ranked(input).topk(k, dim=-1)
            # An ablated expert adds nothing to its group; with all of its experts ablated, a group is the last.
            left = values.values.isfinite().any(-1, keepdim=True) | (values.values == math.inf).any(-1, keepdim=True)
            scores = values.values.masked_fill((values.values == -math.inf) & left, 0.0)
            return torch.return_types.topk((scores, values.indices))
        if not self._are_scores(input):
            return None
        self.chose = True
        indices = self._ranked(input).topk(self.changes.top_k or k, dim=-1).indices
        return torch.return_types.topk((input.gather(-1, indices), indices))

    def _max(self, input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        if not isinstance(dim, int):
            return None
        if self._are_groups(input):
            best = self._ranked(input).max(dim=-1, keepdim=keepdim)
            return torch.return_types.max((best.values, best.indices))
        indices = self._first(input, "max")
        if indices is None:
            return None
        values = input.gather(-1, indices)
        first = (values, indices) if keepdim else (values.squeeze(-1), indices.squeeze(-1))
        return torch.return_types.max(first)

    def _argmax(self, input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        indices = None if dim is None else self._first(input, "argmax")
        return indices if indices is None or keepdim else indices.squeeze(-1)

    def _first(self, input: Tensor, by: str) -> Tensor | None:
        """(…, 1) the first choice, or None where it is not changed."""
        if not self._are_scores(input):
            return None
        self.chose = True
        if self.changes.forced is None or by in self.forced_by:
            return None
        self.forced_by.add(by)
        return self._ranked(input).argmax(-1, keepdim=True)

    def _ranked(self, scores: Tensor) -> Tensor:
        """The scores with ablated experts last and forced ones first."""
        flat = scores.reshape(self.tokens, self.num_experts)
        if self.changes.ablated is not None:
            flat = flat.masked_fill(self.changes.ablated, -math.inf)
        if self.changes.forced is not None:
            place = self.changes.forced.unsqueeze(-1)
            first = torch.zeros_like(flat, dtype=torch.bool).scatter(-1, place.clamp(min=0), place >= 0)
            flat = flat.masked_fill(first, math.inf)
        return flat.view_as(scores)

    def _are_scores(self, scores: Any) -> bool:
        """Whether these are scores of all experts."""
        return self._cover(scores) and scores.shape[-1] == self.num_experts and not self._are_groups(scores)

    def _are_groups(self, scores: Any) -> bool:
        """Whether these are scores of all experts, in their groups."""
        return self.grouped and self._cover(scores) and scores.dim() == 3

    def _cover(self, scores: Any) -> bool:
        return isinstance(scores, Tensor) and scores.numel() == self.tokens * self.num_experts and scores.dim() >= 2
