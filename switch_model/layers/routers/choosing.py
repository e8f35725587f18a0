"""ChoiceRouter: hidden states -> TopKRouting. The interface of all routers with several experts for each token.

A kind of router says how experts are chosen and weighed (`choose`); logits, interventions, capacity and the record are
the same for all. Legend: B batch, T tokens, D d_model, E experts, K choices of a token, G capacity groups of N tokens.
Try it: router_of(SwitchConfig(router="topk"), "encoder.0")(torch.randn(1, 9, 128), torch.ones(1, 9).bool())
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from switch_model.interventions import (
    AnyInterventions,
    Interventions,
    ablated_experts,
    assigned_choices,
    forced_experts,
    rows_of,
)
from switch_model.layers.dispatch import assign_positions, assign_positions_in_order, highest_first
from switch_model.layers.router import Router
from switch_model.topk_routing import TopKRouting


@dataclass(frozen=True, eq=False)
class Changes:
    """Interventions in one layer, as tensors.

    Attributes:
        off: (R, 1, E) or (B, T, E) bool, True where an expert is ablated; None = nowhere.
        forced: (B, T) the expert that a token is forced to, -1 = none; None = no token is.
        numbers: K asked for, one for all sequences or one for each; None = the model's own.
        factors: capacity factors asked for, likewise.
        per_batch: whether experts' slots are counted over the whole batch.
    """

    off: Tensor | None = None
    forced: Tensor | None = None
    numbers: tuple[int | None, ...] = (None,)
    factors: tuple[float | None, ...] = (None,)
    per_batch: bool = False

    def is_forced(self, experts: Tensor) -> Tensor | None:
        """(B, T, K) True where one of the `experts` is that which the token is forced to."""
        return None if self.forced is None else experts == self.forced.unsqueeze(-1)


class ChoiceRouter(Router):
    """Scores every token against every expert, and lets tokens choose experts, or experts tokens."""

    # How logits become the router's probabilities: `TopKRouting.score`.
    score = "softmax"

    def scores(self, logits: Tensor) -> Tensor:
        """(B, T, E) from which weights come; 0 for an ablated expert."""
        return logits.softmax(dim=-1).nan_to_num(nan=0.0)

    def choose(self, logits: Tensor, mask: Tensor, changes: Changes) -> tuple[Tensor, Tensor, Tensor | None]:
        """Experts (B, T, K) and their weights, the largest weight first but a forced expert before it, 0 where none is
        chosen; and the number of tokens (B,) that each expert takes, where that is fixed beforehand."""
        raise NotImplementedError

    def forward(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> TopKRouting:
        """Route (B, T, D) hidden states; arguments and errors as of Top1Router."""
        rows = rows_of(interventions, batch=hidden.shape[0])
        for row in rows:
            row.check_experts(self.config.num_experts)

        # 1. Logits, in float32, and what interventions change before the choice.
        logits_BTE = self._logits(hidden)
        changes = self._changes(rows, interventions, mask, past_tokens)
        if changes.off is not None:
            logits_BTE = logits_BTE.masked_fill(changes.off, -math.inf)

        # 2. The choice.
        experts_BTK, weights_BTK, limit_B = self.choose(logits_BTE, mask, changes)
        if rows and (given := assigned_choices(rows, self.name, experts_BTK, mask, past_tokens)) is not None:
            experts_BTK = given  # A token keeps its weights, whichever experts take it.

        weights_BTK = weights_BTK * mask.unsqueeze(-1)
        experts = self.config.num_experts
        record = TopKRouting(self.name, experts_BTK, weights_BTK, mask, experts, logits_BTE, self.score, limit=limit_B)

        # 3. Capacity: a choice whose expert is full has no weight.
        return (
            record if limit_B is not None or past_tokens is not None else self._within_capacity(record, rows, changes)
        )

    def _changes(
        self,
        rows: Sequence[Interventions],
        interventions: AnyInterventions,
        mask: Tensor,
        past_tokens: Tensor | None,
    ) -> Changes:
        if not rows:
            return Changes(per_batch=self._counts_over_batch(None))
        return Changes(
            off=ablated_experts(rows, self.name, self.config.num_experts, mask, past_tokens),
            forced=forced_experts(rows, self.name, mask, past_tokens),
            numbers=tuple(row.numbers.get(self.name, row.numbers.get("")) for row in rows),
            factors=tuple(row.capacity_factor for row in rows),
            per_batch=self._counts_over_batch(interventions),
        )

    def _within_capacity(self, record: TopKRouting, rows: list[Interventions], changes: Changes) -> TopKRouting:
        """The record with slots, and no weight for a choice beyond capacity; itself where nothing can be dropped.

        A factor of 1 is an even share of all K choices. Slots go to all first choices, then to all second ones, … as in
        GShard (2006.16668, algorithm 1); in a causal stack token by token, since later tokens must change nothing.
        """
        own = self.config.capacity_factor if self.training else self.config.eval_capacity_factor
        factors = [own if one is None else one for one in changes.factors]
        if self.config.expert_capacity is None and all(one in (None, math.inf) for one in factors):
            return record
        choices, experts = record.experts.shape[-1], record.num_experts
        capacity_B = self._capacity(record.mask, rows, changes.per_batch, choices)
        groups = 1 if changes.per_batch else record.mask.shape[0]
        expert_GM = record.experts.reshape(groups, -1)
        used_GM = record.used.reshape(groups, -1)
        if self.causal:
            positions = assign_positions(expert_GM, used_GM, experts)
        else:
            order_GM = self._served_first(record, groups)
            positions = assign_positions_in_order(expert_GM, used_GM, order_GM, experts)
        slots_BTK = positions.position.view(record.experts.shape)
        full_BTK = slots_BTK >= capacity_B.view(-1, 1, 1)
        weights_BTK = record.weights.masked_fill(full_BTK, 0.0)
        return replace(record, weights=weights_BTK, slots=slots_BTK, limit=capacity_B)

    def _served_first(self, record: TopKRouting, groups: int) -> Tensor:
        """(G, N · K) the order in which choices get slots, as indices into a row: first choices before second ones."""
        choices = record.experts.shape[-1]
        gate_GN = record.gate.detach().reshape(groups, -1)
        if self.config.router_priority == "position":
            order_GN = torch.arange(gate_GN.shape[1], device=gate_GN.device).expand_as(gate_GN)
        else:
            order_GN = highest_first(gate_GN)
        index_K1 = torch.arange(choices, device=gate_GN.device).unsqueeze(-1)
        return (order_GN.unsqueeze(1) * choices + index_K1).flatten(1)
