"""Experts in self-attention: for each token's query, key and value, or a whole attention for each sequence.

Legend: B batch, T query tokens, D d_model, H heads, K d_kv, E experts, N = B·T tokens.
The first is "Attention with experts" of Switch Transformers (2101.03961, appendix A); the second follows Mixture of
Attention Heads (2210.05144), with one choice for all heads.
Try it: SwitchConfig(attention_experts="projections", attention_sparse_step=2)
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions, Interventions
from switch_model.layers.attention import CacheUpdate, attend, split_heads
from switch_model.layers.dispatch import permute_tokens
from switch_model.layers.grouped_linear import LinearEach, each_expert
from switch_model.layers.initial import query_std, residual_scale, start_with
from switch_model.layers.router import Top1Router
from switch_model.routing import UNLIMITED, Routing
from switch_model.tracing import is_exported


class _ExpertWeights(nn.Module):
    """Router and stacked weights of E experts, shared by both kinds."""

    def __init__(self, config: SwitchConfig, name: str, causal: bool):
        super().__init__()
        self.config, self.num_heads, self.dropout_rate = config, config.num_heads, config.dropout_rate
        self.router = Top1Router(config, name, causal)
        inner = config.num_heads * config.d_kv
        self.q, self.k, self.v = (
            nn.Parameter(torch.empty(config.num_experts, inner, config.d_model)) for _ in range(3)
        )

    @property
    def weights(self) -> list[Tensor]:
        return [self.q, self.k, self.v]

    def reset_parameters(self) -> None:
        """As in dense attention: standard deviation initializer_factor · fan_in^-½, the query's times 1/√K."""
        factor, fan_in = self.config.initializer_factor, self.config.d_model
        init.normal_(self.q, std=factor * query_std(self.config))
        for weight in (self.k, self.v):
            init.normal_(weight, std=factor * fan_in**-0.5)


class ProjectionExperts(_ExpertWeights):
    """Self-attention where a token's query, key and value come from the expert it is routed to, times the gate.

    A dropped token has zero query, key and value, and its output is zero: only the residual is left.
    """

    def __init__(self, config: SwitchConfig, name: str, causal: bool):
        super().__init__(config, name, causal)
        inner = config.num_heads * config.d_kv
        self.o = nn.Linear(inner, config.d_model, bias=False)
        start_with(self.o, inner**-0.5 * residual_scale(config))
        self.reset_parameters()

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor,
        bias: Tensor,
        interventions: AnyInterventions = None,
        update_cache: CacheUpdate | None = None,
        past_tokens: Tensor | None = None,
        weights_wanted: bool = False,
    ) -> tuple[Tensor, Routing, Tensor | None]:
        """(B, T, D) -> (B, T, D), the record, and the attention weights (B, H, T, S) where they are wanted."""
        routing, positions = self.router.with_positions(hidden, mask, interventions, past_tokens)

        # 1. Each expert's three projections as one product, times the gate.
        dtype, hidden_ND = hidden.dtype, hidden.flatten(0, 1)
        weight_EPD = torch.cat([self.q, self.k, self.v], dim=1).to(dtype)
        if is_exported():
            expert_N = torch.where(routing.kept, routing.expert, -1).flatten()
            projected_NP = each_expert(hidden_ND, expert_N, [weight_EPD], torch.mm)
        else:
            # Sort tokens by expert, project, and restore the original order.
            kept_N = routing.kept.flatten()
            order_K, _, lengths = permute_tokens(routing.expert.flatten(), kept_N, positions)
            projected_KP = LinearEach.apply(lengths, hidden_ND[order_K], weight_EPD)
            projected_NP = projected_KP.new_zeros(len(kept_N), weight_EPD.shape[1]).index_copy(0, order_K, projected_KP)
        projected_NP = projected_NP * self.router.gate(routing).flatten().unsqueeze(-1).to(dtype)
        parts = projected_NP.view(*hidden.shape[:2], -1).chunk(3, dim=-1)
        query_BHTK, key_BHSK, value_BHSK = (split_heads(part, self.num_heads) for part in parts)

        # 2. Attention as usual.
        if update_cache is not None:
            key_BHSK, value_BHSK = update_cache(key_BHSK, value_BHSK)
        rate = self.dropout_rate if self.training else 0.0
        context_BTI, weights_BHTS = attend(query_BHTK, key_BHSK, value_BHSK, bias, rate, weights_wanted)
        return self.o(context_BTI).masked_fill(~routing.kept.unsqueeze(-1), 0.0), routing, weights_BHTS


class AttentionModules(_ExpertWeights):
    """E whole self-attentions; the router reads the mean of a sequence's tokens and chooses one for all of them.

    In the record every token has its sequence's logits and expert. Nothing is dropped: sequences take no slots.
    """

    def __init__(self, config: SwitchConfig, name: str, causal: bool):
        super().__init__(config, name, causal)
        inner = config.num_heads * config.d_kv
        self.o = nn.Parameter(torch.empty(config.num_experts, config.d_model, inner))
        self.reset_parameters()

    @property
    def weights(self) -> list[Tensor]:
        return [*super().weights, self.o]

    def reset_parameters(self) -> None:
        super().reset_parameters()
        std = self.config.initializer_factor * self.o.shape[-1] ** -0.5 * residual_scale(self.config)
        init.normal_(self.o, std=std)

    def forward(
        self,
        hidden: Tensor,
        mask: Tensor,
        bias: Tensor,
        interventions: AnyInterventions = None,
        update_cache: CacheUpdate | None = None,
        past_tokens: Tensor | None = None,
        weights_wanted: bool = False,
    ) -> tuple[Tensor, Routing, Tensor | None]:
        """As ProjectionExperts. `update_cache` and `past_tokens` belong to causal stacks, which have none."""
        # 1. One expert for each sequence.
        mask_BT1 = mask.unsqueeze(-1)
        mean_B1D = (hidden * mask_BT1).sum(dim=1, keepdim=True) / mask_BT1.sum(dim=1, keepdim=True).clamp(min=1)
        whole = self.router(mean_B1D, mask.any(dim=1, keepdim=True), _for_sequences(interventions, self.router.name))
        choice_B, gate_B = whole.expert[:, 0], self.router.gate(whole)[:, 0]

        # 2. That expert's attention.
        def project(states: Tensor, weight: Tensor) -> Tensor:
            return torch.bmm(states, weight.to(states.dtype)[choice_B].transpose(1, 2))

        query, key, value = (
            split_heads(project(hidden, weight), self.num_heads) for weight in (self.q, self.k, self.v)
        )
        rate = self.dropout_rate if self.training else 0.0
        context_BTI, weights_BHTS = attend(query, key, value, bias, rate, weights_wanted)
        output_BTD = project(context_BTI, self.o)

        # 3. The record: the sequence's choice at each of its tokens.
        routing = replace(
            whole,
            logits=whole.logits.expand(*mask.shape, -1),
            expert=whole.expert.expand(mask.shape).masked_fill(~mask, 0),
            slot=(mask.cumsum(dim=1) - 1).masked_fill(~mask, -1),
            mask=mask,
            capacity=torch.where(whole.capacity > 0, UNLIMITED, 0),
        )
        return output_BTD * gate_B[:, None, None].to(hidden.dtype) * mask_BT1, routing, weights_BHTS


def _for_sequences(interventions: AnyInterventions, name: str) -> AnyInterventions:
    """Token interventions as sequence interventions: a forced or assigned token moves its whole sequence; capacity does
    not apply."""
    if interventions is None:
        return None
    if not isinstance(interventions, Interventions):
        return [_for_sequence(row, name) for row in interventions]
    return _for_sequence(interventions, name)


def _for_sequence(interventions: Interventions, name: str) -> Interventions:
    forced = [expert for (layer, _), expert in interventions.force.items() if layer == name]
    given = interventions.choices.get(name, ())[:1]
    return Interventions(
        ablate=interventions.ablate,
        force={(name, 0): forced[0]} if forced else {},
        choices={name: given} if given else {},
    )
