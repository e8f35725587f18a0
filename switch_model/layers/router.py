"""Top1Router: hidden states -> Routing. One expert per token, and a position in that expert's buffer.

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
    exchanged,
    forced_experts,
    rows_of,
)
from switch_model.layers.dispatch import ExpertPositions, assign_positions, assign_positions_in_order, highest_first
from switch_model.layers.dropout import dropout
from switch_model.routing import UNLIMITED, Routing


class RouterLinear(nn.Linear):
    """A linear layer at the precision of what it is given, whatever its weights have: the router's input is float32.

    Its output lies in memory experts first: what is computed over experts later then runs along tokens, where a softmax
    over eight numbers at a time would be the slowest step of the layer. A module of its own, and called as one, so that
    hooks, LoRA and quantizers find it as they find any other; whatever they put in its place serves as well.
    """

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) -> (…, E)."""
        weight_ED = self.weight.to(hidden.dtype)
        bias_E = None if self.bias is None else self.bias.to(hidden.dtype)
        if type(weight_ED) not in (Tensor, nn.Parameter):
            # A quantized weight knows how to be a linear layer, and little else.
            return nn.functional.linear(hidden, weight_ED, bias_E)
        logits_EN = torch.mm(weight_ED, hidden.flatten(0, -2).t())
        if bias_E is not None:
            logits_EN = logits_EN + bias_E.unsqueeze(-1)
        return logits_EN.view(weight_ED.shape[0], *hidden.shape[:-1]).movedim(0, -1)


class Top1Router(nn.Module):
    """Scores every token against every expert and takes the best one.

    The linear layer runs in float32 with autocast off whatever the model's dtype: bfloat16 logits flip close choices.
    In a causal stack nothing may depend on what follows: slots go by position, and their number follows from the
    configured block size.
    """

    balance_bias: Tensor | None

    def __init__(self, config: SwitchConfig, name: str = "", causal: bool = False):
        super().__init__()
        self.config = config
        self.name = name
        self.causal = causal
        self.dtype = getattr(torch, config.router_dtype)
        self.classifier = RouterLinear(config.d_model, config.num_experts, bias=config.router_bias)
        # Added to the logits for the choice alone; gates, probabilities and losses know nothing of it.
        bias_E = torch.zeros(config.num_experts) if config.balance == "bias" else None
        self.register_buffer("balance_bias", bias_E)

    def forward(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> Routing:
        """Route (B, T, D) hidden states; `mask` (B, T) is True at real tokens.

        `past_tokens` (B,): how many tokens of each sequence are in the cache; None = there is no cache. With one,
        nothing is dropped. Raises ValueError when interventions do not fit the batch.
        """
        return self.with_positions(hidden, mask, interventions, past_tokens)[0]

    def with_positions(
        self, hidden: Tensor, mask: Tensor, interventions: AnyInterventions = None, past_tokens: Tensor | None = None
    ) -> tuple[Routing, ExpertPositions]:
        """The record, and every token's position in its expert's buffer, beyond capacity too."""
        rows = rows_of(interventions, batch=hidden.shape[0])
        for row in rows:
            row.check_experts(self.config.num_experts)

        # 1. Logits, in float32.
        logits_BTE = self._logits(hidden)

        # 2. Interventions act before the choice.
        forced_BT = None
        if rows:
            off_R1E = ablated_experts(rows, self.name, self.config.num_experts, hidden.device)
            if off_R1E is not None:
                logits_BTE = logits_BTE.masked_fill(off_R1E, -math.inf)
            forced_BT = forced_experts(rows, self.name, mask, past_tokens)

        # 3. The choice.
        # max names the first of equal logits, as argmax does, and is several times faster over few experts.
        expert_BT = self._best(logits_BTE.detach()) * mask
        if forced_BT is not None:
            expert_BT = torch.where(forced_BT >= 0, forced_BT, expert_BT)
        if rows and (assigned_BT := assigned_experts(rows, self.name, expert_BT, mask, past_tokens)) is not None:
            # Its gate stays with the token, whoever takes it.
            logits_BTE, expert_BT = exchanged(logits_BTE, expert_BT, assigned_BT), assigned_BT

        # 4. Positions in the buffers, and how many of them there are.
        per_batch = self._counts_over_batch(interventions)
        positions = self._positions(logits_BTE, expert_BT, mask, per_batch)
        if past_tokens is None:
            capacity_B = self._capacity(mask, rows, per_batch)
        else:
            capacity_B = torch.full(mask.shape[:1], UNLIMITED, device=mask.device)
        if rows and off_R1E is not None:
            # With every expert of the layer off nobody can take a token: the residual alone carries it on.
            capacity_B = capacity_B.masked_fill(off_R1E.all(dim=-1).squeeze(-1), 0)

        slot_BT = positions.position.view(mask.shape)
        return Routing(self.name, logits_BTE, expert_BT, slot_BT, mask, capacity_B), positions

    def _logits(self, hidden: Tensor) -> Tensor:
        config = self.config
        # Entering the context costs as much as the product itself for a short text.
        autocast = torch.is_autocast_enabled(hidden.device.type)
        with torch.autocast(hidden.device.type, enabled=False) if autocast else nullcontext():
            hidden_BTD = hidden.to(self.dtype)
            if self.training:
                # Out of place, every one of them: the experts must see the clean hidden states.
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

    def _best(self, logits_BTE: Tensor) -> Tensor:
        """(B, T) the most probable expert, or the one with the highest biased logit; the first of equal ones."""
        if self.balance_bias is not None:
            logits_BTE = logits_BTE + self.balance_bias.float()
        if self.dtype != torch.float32:  # Probabilities that round to the same number are equal ones.
            logits_BTE = logits_BTE.to(self.dtype).softmax(dim=-1)
        return logits_BTE.max(dim=-1).indices

    @torch.no_grad()
    def rebalance(self, choices: Tensor) -> None:
        """Move the bias by one step, where there is one.

        `choices` (E,) counts the tokens that chose each expert since the last step.
        """
        if self.balance_bias is None:
            return
        error_E = choices.float().mean() - choices.float()
        self.balance_bias += self.config.balance_rate * error_E.sign().to(self.balance_bias)

    def gate(self, routing: Routing) -> Tensor:
        """(B, T) what each token's output is multiplied with: the record's gate, at the router's own precision."""
        return routing.gate if self.dtype == torch.float32 else routing.gate.to(self.dtype).float()

    def _counts_over_batch(self, interventions: AnyInterventions) -> bool:
        if self.causal:
            return False
        if interventions is None:
            return self.config.capacity_group == "batch"
        if isinstance(interventions, Interventions):
            return (interventions.capacity_group or self.config.capacity_group) == "batch"
        # One row per question: the rows must not compete with each other, unless all of them ask for that.
        return all(row.capacity_group == "batch" for row in interventions)

    def _positions(self, logits_BTE: Tensor, expert_BT: Tensor, mask: Tensor, per_batch: bool) -> ExpertPositions:
        # A group is a row: one sequence, or the whole batch. Padding takes no position.
        num_experts, groups = self.config.num_experts, 1 if per_batch else mask.shape[0]
        expert_GN, mask_GN = expert_BT.view(groups, -1), mask.reshape(groups, -1)
        if self.causal or self.config.router_priority == "position":
            return assign_positions(expert_GN, mask_GN, num_experts)
        gate_BT = logits_BTE.softmax(-1).nan_to_num(0.0).gather(-1, expert_BT.unsqueeze(-1)).squeeze(-1)
        return assign_positions_in_order(expert_GN, mask_GN, highest_first(gate_BT.view(expert_GN.shape)), num_experts)

    def _capacity(self, mask: Tensor, rows: list[Interventions], per_batch: bool) -> Tensor:
        """(B,) slots per expert: max(min_expert_capacity, ceil(n · factor / E − 1e-6))."""
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


def slots_per_expert(tokens: Tensor, factor: float | None, config: SwitchConfig) -> Tensor:
    """Capacity for each count in `tokens` (int64), any shape. `factor` None or inf = UNLIMITED."""
    if factor is None or math.isinf(factor):
        return torch.full_like(tokens, UNLIMITED)
    # The 1e-6 forgives a product such as 50 · 1.1 / 5 = 11.000000000000002, which would round up to a slot too many.
    slots = torch.ceil(tokens.double() * factor / config.num_experts - 1e-6).long()  # eq. 3
    return slots.clamp(min=config.min_expert_capacity)
