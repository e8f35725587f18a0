"""Router: logits and capacity, for routers of all kinds. Top1Router: hidden states -> Routing, one expert per token and
a position in that expert's buffer. Routers with several choices are in routers/.

Legend: B batch, T tokens, D d_model, E experts, G capacity groups of N tokens.
Switch Transformers (2101.03961) section 2.1-2.2, capacity after its eq. 3.
"""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.interventions import (
    AnyInterventions,
    Interventions,
    ablated_experts,
    assigned_experts,
    forced_experts,
    rows_of,
    swap_logits,
)
from switch_model.layers.dispatch import ExpertPositions, assign_positions, assign_positions_in_order, highest_first
from switch_model.layers.dropout import dropout
from switch_model.routing import UNLIMITED, Routing


class RouterLinear(nn.Linear):
    """A linear layer that computes in its input's dtype, not in its weights': the router's input is float32.

    Its output is stored experts first: a softmax over experts then runs along contiguous tokens; over eight adjacent
    numbers at a time it would be the slowest step of the layer. A module of its own, so that hooks, LoRA and quantizers
    find it, and may replace it.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, E)."""
        weight_ED = self.weight.to(hidden.dtype)
        bias_E = None if self.bias is None else self.bias.to(hidden.dtype)
        if type(weight_ED) not in (Tensor, nn.Parameter):
            # Quantized weights support nn.functional.linear, and few other operators.
            return nn.functional.linear(hidden, weight_ED, bias_E)
        logits_EN = torch.mm(weight_ED, hidden.flatten(0, -2).t())
        if bias_E is not None:
            logits_EN = logits_EN + bias_E.unsqueeze(-1)
        return logits_EN.view(weight_ED.shape[0], *hidden.shape[:-1]).movedim(0, -1)


class Router(nn.Module):
    """What routers of all kinds share: logits of every token and expert, a bias for the choice, and capacity.

    The linear layer runs in float32 with autocast off whatever the model's dtype: bfloat16 logits flip close choices.
    In a causal stack nothing may depend on later tokens: slots go by position, and capacity follows from
    config.block_size.
    """

    balance_bias: Tensor | None

    def __init__(self, config: SwitchConfig, name: str = "", causal: bool = False):
        super().__init__()
        self.config = config
        self.name = name
        self.causal = causal
        self.dtype = getattr(torch, config.router_dtype)
        self.classifier = RouterLinear(config.d_model, config.num_experts, bias=config.router_bias)
        # Added to what is compared for the choice alone; gates, probabilities and losses do not include it.
        bias_E = torch.zeros(config.num_experts) if config.balances_by_bias else None
        self.register_buffer("balance_bias", bias_E)

    def _logits(self, hidden: Tensor) -> Tensor:
        config = self.config
        # Entering the context costs as much as the product itself for a short text.
        autocast = torch.is_autocast_enabled(hidden.device.type)
        with torch.autocast(hidden.device.type, enabled=False) if autocast else nullcontext():
            hidden_BTD = hidden.to(self.dtype)
            if self.training:
                # All out of place: the experts must get the clean hidden states.
                if config.switch_dropout > 0:
                    hidden_BTD = dropout(hidden_BTD, config.switch_dropout, self.training)
                if config.router_jitter_noise > 0:
                    noise_BTD = torch.empty_like(hidden_BTD).uniform_(
                        1.0 - config.router_jitter_noise, 1.0 + config.router_jitter_noise
                    )
                    hidden_BTD = hidden_BTD * noise_BTD
            logits_BTE = self.classifier(hidden_BTD).float()
            if self.training and config.router_noise_eps > 0:
                noise_BTE = torch.randn(logits_BTE.shape, device=hidden.device)
                logits_BTE = logits_BTE + noise_BTE * config.router_noise_eps
            return logits_BTE

    @torch.no_grad()
    def rebalance(self, choices: Tensor) -> None:
        """Update the balance bias by one step (2408.15664, algorithm 1); does nothing without one.

        `choices` (E,): number of tokens that chose each expert since the last step.
        """
        if self.balance_bias is None:
            return
        error_E = choices.float().mean() - choices.float()
        self.balance_bias += self.config.balance_rate * error_E.sign().to(self.balance_bias)

    def _counts_over_batch(self, interventions: AnyInterventions) -> bool:
        if self.causal:
            return False
        if interventions is None:
            return self.config.capacity_group == "batch"
        if isinstance(interventions, Interventions):
            return (interventions.capacity_group or self.config.capacity_group) == "batch"
        # Rows of interventions are separate questions: they share slots only where all of them ask for it.
        return all(row.capacity_group == "batch" for row in interventions)

    def _capacity(self, mask: Tensor, rows: list[Interventions], per_batch: bool, choices: int = 1) -> Tensor:
        """(B,) slots per expert: max(min_expert_capacity, ceil(n · choices · factor / E − 1e-6))."""
        config = self.config
        own = config.capacity_factor if self.training else config.eval_capacity_factor
        if not rows and own is None and config.expert_capacity is None:
            return torch.full(mask.shape[:1], UNLIMITED, device=mask.device)
        factors = [row.capacity_factor for row in rows] or [None]
        tokens_B = mask.sum(dim=1)
        if per_batch:
            tokens_B = tokens_B.sum().expand(mask.shape[0])
        if self.causal:
            tokens_B = torch.full_like(tokens_B, config.block_size)
        if choices > 1:
            tokens_B = tokens_B * choices

        if all(factor is None for factor in factors):
            if config.expert_capacity is not None:
                return torch.full_like(tokens_B, config.expert_capacity)
            return slots_per_expert(tokens_B, own, config)
        chosen = [
            slots_per_expert(tokens_B, factor if factor is not None else own, config)
            if factor is not None or config.expert_capacity is None
            else torch.full_like(tokens_B, config.expert_capacity)
            for factor in factors
        ]
        if len(chosen) == 1:
            return chosen[0]
        return torch.stack([capacity_B[index] for index, capacity_B in enumerate(chosen)])


class Top1Router(Router):
    """Scores every token against every expert and chooses the best one."""

    def forward(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> Routing:
        """Route (B, T, D) hidden states; `mask` (B, T) is True at real tokens.

        `past_tokens` (B,): number of tokens of each sequence in the cache; None = no cache. With a cache nothing is
        dropped. Raises ValueError when interventions do not fit the batch.
        """
        return self.with_positions(hidden, mask, interventions, past_tokens)[0]

    def with_positions(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> tuple[Routing, ExpertPositions]:
        """As `forward`; also every token's position in its expert's buffer, within capacity or beyond."""
        rows = rows_of(interventions, batch=hidden.shape[0])
        for row in rows:
            row.check_experts(self.config.num_experts)

        # 1. Logits, in float32.
        logits_BTE = self._logits(hidden)

        # 2. Interventions act before the choice.
        forced_BT = None
        if rows:
            # (R, 1, E), or (B, T, E) where single tokens differ.
            off = ablated_experts(rows, self.name, self.config.num_experts, mask, past_tokens)
            if off is not None:
                logits_BTE = logits_BTE.masked_fill(off, -math.inf)
            forced_BT = forced_experts(rows, self.name, mask, past_tokens)

        # 3. The choice.
        # max gives the first of equal logits, as argmax does, and is several times faster over few experts.
        expert_BT = self._best(logits_BTE.detach()) * mask
        if forced_BT is not None:
            expert_BT = torch.where(forced_BT >= 0, forced_BT, expert_BT)
        if rows and (assigned_BT := assigned_experts(rows, self.name, expert_BT, mask, past_tokens)) is not None:
            # The token keeps its gate, whichever expert takes it.
            logits_BTE, expert_BT = swap_logits(logits_BTE, expert_BT, assigned_BT), assigned_BT

        # 4. Positions in the buffers, and capacity.
        per_batch = self._counts_over_batch(interventions)
        positions = self._positions(logits_BTE, expert_BT, mask, per_batch)
        if past_tokens is None:
            capacity_B = self._capacity(mask, rows, per_batch)
        else:
            capacity_B = torch.full(mask.shape[:1], UNLIMITED, device=mask.device)
        if rows and off is not None:
            # With every expert of the layer ablated, every token is dropped: the residual alone is left.
            capacity_B = capacity_B.masked_fill(off.all(dim=-1).all(dim=-1), 0)

        slot_BT = positions.position.view(mask.shape)
        return Routing(self.name, logits_BTE, expert_BT, slot_BT, mask, capacity_B), positions

    def _best(self, logits_BTE: Tensor) -> Tensor:
        """(B, T) expert with the highest logit, including the balance bias; the first of equal ones."""
        if self.balance_bias is not None:
            logits_BTE = logits_BTE + self.balance_bias.float()
        if self.dtype != torch.float32:  # As in transformers: probabilities that round to the same number are equal.
            logits_BTE = logits_BTE.to(self.dtype).softmax(dim=-1)
        return logits_BTE.max(dim=-1).indices

    def gate(self, routing: Routing) -> Tensor:
        """(B, T) gate of each token, rounded to the router's dtype."""
        return routing.gate if self.dtype == torch.float32 else routing.gate.to(self.dtype).float()

    def _positions(self, logits_BTE: Tensor, expert_BT: Tensor, mask: Tensor, per_batch: bool) -> ExpertPositions:
        # A group is a row: one sequence, or the whole batch. Padding takes no position.
        num_experts, groups = self.config.num_experts, 1 if per_batch else mask.shape[0]
        expert_GN, mask_GN = expert_BT.view(groups, -1), mask.reshape(groups, -1)
        if self.causal or self.config.router_priority == "position":
            return assign_positions(expert_GN, mask_GN, num_experts)
        gate_BT = logits_BTE.softmax(-1).nan_to_num(0.0).gather(-1, expert_BT.unsqueeze(-1)).squeeze(-1)
        return assign_positions_in_order(expert_GN, mask_GN, highest_first(gate_BT.view(expert_GN.shape)), num_experts)


def slots_per_expert(tokens: Tensor, factor: float | None, config: SwitchConfig) -> Tensor:
    """Capacity for each count in `tokens` (int64), any shape. `factor` None or inf = UNLIMITED."""
    if factor is None or math.isinf(factor):
        return torch.full_like(tokens, UNLIMITED)
    # 1e-6: a product such as 50 · 1.1 / 5 = 11.000000000000002 must not round up to one more slot.
    slots = torch.ceil(tokens.double() * factor / config.num_experts - 1e-6).long()  # eq. 3
    return slots.clamp(min=config.min_expert_capacity)
