"""What every model of the family shares: config, embedding table, initialisation, auxiliary losses.

Legend: B batch, T tokens, D d_model.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions, rows_of
from switch_model.layers.experts import Experts
from switch_model.layers.initial import EMBEDDING_STD, start_with
from switch_model.layers.router import Top1Router
from switch_model.layers.sparse_attention import AttentionModules, ProjectionExperts
from switch_model.layers.word_counts import WordCounts
from switch_model.models.stack import Block, Extras
from switch_model.routing import Routing, load_balancing_loss, router_z_loss, sequence_balance_loss

IGNORED_LABEL = -100
# Keywords that transformers, its tokenizers and peft hand to every model's `forward`, and that say nothing to these:
# the tokenizer of `generate(stop_strings=…)`, the segments of BERT's tokenizers, older libraries' place in the cache.
HANDED_ON = frozenset(
    ["tokenizer", "assistant_tokenizer", "token_type_ids", "cache_position", "num_items_in_batch", "task_ids"]
)


class SwitchPreTrainedModel(PreTrainedModel):
    """What every head shares: the config class and the initialisation."""

    config_class = SwitchConfig
    config: SwitchConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    # The loss is a mean over the batch at hand: Trainer divides it by the steps that it gathers gradients over.
    accepts_loss_kwargs = False
    # What `device_map` may not tear apart, and may not move.
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["cache", "past_key_values"]

    # Which stacks a model of this class has.
    stacks: tuple[str, ...] = ("encoder",)

    def __init__(self, config: SwitchConfig):
        both, decoder = len(self.stacks) > 1, self.stacks == ("decoder",)
        if config.decoder_vocab_size is not None and not both:
            raise ValueError(
                f"decoder_vocab_size={config.decoder_vocab_size} is not allowed in a {type(self).__name__}: it has one "
                "stack, and so one vocabulary."
            )
        unstarted = both and config.decoder_start_token_id is None
        if unstarted or (config.is_encoder_decoder, config.is_decoder) != (both, decoder):
            config = copy.deepcopy(config)  # It may serve another model too.
            config.is_encoder_decoder, config.is_decoder = both, decoder
            if unstarted:
                config.decoder_start_token_id = config.pad_token_id
            config.validate()
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        start_with(self.shared, EMBEDDING_STD)
        wide = config.inputs_embeds_size
        self.input_projection = nn.Linear(wide, config.d_model) if wide else None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Standard deviation initializer_factor · fan_in^-½ as in T5, unless the module carries its own `initial_std`
        (and `initial_mean`).

        Only modules that own a weight are asked for here: transformers passes over all others outside its own code.
        """
        if isinstance(module, (nn.Linear, nn.Embedding)):
            fan_in = module.weight.shape[-1]
            std = getattr(module, "initial_std", fan_in**-0.5)
            init.normal_(module.weight, std=std * self.config.initializer_factor)
            if (mean := getattr(module, "initial_mean", None)) is not None:
                init.copy_(module.weight, module.weight + module.weight.new_tensor(mean))
            if (bias := getattr(module, "bias", None)) is not None:
                init.zeros_(bias)
        elif isinstance(module, nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, (Experts, ProjectionExperts, AttentionModules)):
            module.reset_parameters()
        elif isinstance(module, WordCounts):
            init.zeros_(module.marks)
            init.zeros_(module.table)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] = checkpoint,
        *args: Any,
        **options: Any,
    ) -> None:
        """Never the reentrant kind: it loses the gradient of the records' logits, and says nothing."""
        not_reentrant = partial(gradient_checkpointing_func, use_reentrant=False)
        super()._set_gradient_checkpointing(enable, not_reentrant, *args, **options)

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, those that take part in computing one token).

        For one token, a sparse layer computes one expert and the embedding table gives one row.
        """
        total = self.num_parameters()
        tables = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        idle = sum((table.num_embeddings - 1) * table.embedding_dim for table in tables)
        for module in self.modules():
            if isinstance(module, (Experts, ProjectionExperts, AttentionModules)):
                experts = sum(weight.numel() for weight in module.weights)
                idle += experts - experts // self.config.num_experts
        return total, total - idle

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def set_input_embeddings(self, value: Any) -> None:
        self.shared = value

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """(B, T) token ids, or (B, T, width) vectors -> (B, T, D). Raises ValueError when there is not exactly one of
        both, when they hold no token, or when the vectors are of another width."""
        if input_ids is not None and inputs_embeds is None:
            require_tokens(input_ids)
            return self.shared(as_int64(input_ids, "input_ids"))
        if input_ids is not None or inputs_embeds is None:
            raise ValueError("Give either input_ids or inputs_embeds.")
        require_tokens(inputs_embeds)
        expected = self.config.inputs_embeds_size or self.config.d_model
        if inputs_embeds.shape[-1] != expected:
            raise ValueError(
                f"inputs_embeds has width {inputs_embeds.shape[-1]}, this model takes {expected}: "
                f"make it with SwitchConfig(inputs_embeds_size={inputs_embeds.shape[-1]})."
            )
        inputs_embeds = inputs_embeds.to(self.shared.weight.dtype)  # NumPy's are float64.
        return inputs_embeds if self.input_projection is None else self.input_projection(inputs_embeds)

    def _extras(
        self, output_attentions: bool | None, output_hidden_states: bool | None, others: dict[str, Any]
    ) -> Extras:
        """What is asked for besides, by keyword or else by config.

        Raises TypeError for a keyword in `others` that has a value and a meaning no model of this family knows.
        """
        unknown = [name for name, value in others.items() if value is not None and name not in HANDED_ON]
        if unknown:
            raise TypeError(f"{type(self).__name__}.forward() got an unexpected keyword argument '{unknown[0]}'.")
        config = self.config
        return Extras(
            hidden_states=bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states),
            attentions=bool(config.output_attentions if output_attentions is None else output_attentions),
        )

    def _check(self, interventions: AnyInterventions, batch: int) -> None:
        """Raise ValueError when interventions name a layer that no stack has, or are not one per row."""
        for row in rows_of(interventions, batch):
            row.check_layers(self.config.sparse_layers)

    def rebalance(self, choices: Mapping[str, Tensor]) -> None:
        """Move the routers' biases by one step, with balance="bias": to be called after every step of the optimizer, as
        this package's own trainer does.

        Args:
            choices: sparse layer -> (E,) how many tokens chose each expert since the last call, summed over its batches
                (`Routing.choices`).
        """
        for module in self.modules():
            if isinstance(module, Top1Router) and module.balance_bias is not None and module.name in choices:
                module.rebalance(choices[module.name])

    def set_expert_residual(self, share: float) -> None:
        """How much of a token passes by the experts from now on; the configuration keeps what it says."""
        for module in self.modules():
            if isinstance(module, Block):
                module.expert_residual = share

    def _auxiliary(
        self, records: tuple[Routing, ...], wanted: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Balance loss, z-loss, and what all losses on the routing add to the loss. A plain prediction pays nothing for
        them."""
        if not (wanted and records):
            return None, None, None
        config = self.config
        aux_loss = mean_over_layers(load_balancing_loss, records)
        z_loss = mean_over_layers(router_z_loss, records)
        added = config.router_z_loss_coef * z_loss
        if config.balance == "loss":
            added = added + config.router_aux_loss_coef * aux_loss
        if config.sequence_balance_coef:
            added = added + config.sequence_balance_coef * mean_over_layers(sequence_balance_loss, records)
        return aux_loss, z_loss, added


def mean_over_layers(loss: Callable[[Routing], Tensor], records: tuple[Routing, ...]) -> Tensor:
    """`loss(record)` averaged over the sparse layers, so that a collapsed layer can't hide behind another one."""
    return torch.stack([loss(record) for record in records]).mean()


def plus(loss: Tensor, auxiliary_loss: Tensor | None) -> Tensor:
    """A task's loss with what is added to it."""
    return loss if auxiliary_loss is None else loss + auxiliary_loss


def token_logits(hidden: Tensor, head: nn.Module | None, table: nn.Embedding) -> Tensor:
    """(…, D) -> (…, V) by an output layer, or by the embedding table that it is tied to."""
    if head is not None:
        return head(hidden)
    weight_VD = table.weight
    if weight_VD.is_meta and not hidden.is_meta:
        # Offloaded by accelerate, which brings a module's weights back for a call of the module alone.
        weight_VD = table(torch.arange(table.num_embeddings, device=hidden.device))
    return nn.functional.linear(hidden, weight_VD)


def as_int64(values: Tensor, name: str) -> Tensor:
    """Token ids or labels in whole numbers of any size, as torch's embeddings and losses take them.

    Raises ValueError for other numbers.
    """
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise ValueError(f"{name} holds {values.dtype}: give whole numbers, such as torch.int64.")
    return values.long()


def require_tokens(inputs: Tensor) -> None:
    """Raise ValueError for ids (B, 0) or (0, T), or vectors of such shapes: nothing could be routed, or pooled."""
    if inputs.shape[0] == 0 or inputs.shape[1] == 0:
        raise ValueError(
            f"There is no token to read: the input has shape {tuple(inputs.shape)}. Give at least one text, and each "
            "text at least one token, such as the one that opens or ends it."
        )


def real_tokens(attention_mask: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    """(B, T) bool from an attention mask, non-zero at real tokens; None = all are real."""
    return torch.ones(shape, dtype=torch.bool, device=device) if attention_mask is None else attention_mask.bool()
