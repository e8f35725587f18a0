"""The base class of all models: config, embedding table, initialisation, auxiliary losses.

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
from switch_model.layers.expert_parallel import ExpertGroup
from switch_model.layers.experts import Experts
from switch_model.layers.initial import EMBEDDING_STD, start_with
from switch_model.layers.router import Router
from switch_model.layers.sparse_attention import AttentionModules, ProjectionExperts
from switch_model.layers.word_counts import WordCounts
from switch_model.models.routing_losses import RoutingLosses, routing_losses
from switch_model.models.stack import Block, Extras
from switch_model.routing import Routing

IGNORED_LABEL = -100
# Keywords that transformers, its tokenizers and peft pass to every model's `forward`, and that have no meaning here:
# the tokenizer of `generate(stop_strings=…)`, the segments of BERT's tokenizers, older libraries' cache position.
IGNORED_KEYWORDS = frozenset(
    ["tokenizer", "assistant_tokenizer", "token_type_ids", "cache_position", "num_items_in_batch", "task_ids"]
)


class SwitchPreTrainedModel(PreTrainedModel):
    """Base class of all models of this package."""

    config_class = SwitchConfig
    config: SwitchConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    # The loss is a mean over the batch: Trainer divides it by the number of gradient accumulation steps.
    accepts_loss_kwargs = False
    # For `device_map`: modules that must stay on one device, and inputs that must not be moved.
    _no_split_modules = ["Block"]
    _skip_keys_device_placement = ["cache", "past_key_values"]

    stacks: tuple[str, ...] = ("encoder",)

    def __init__(self, config: SwitchConfig):
        both, decoder = len(self.stacks) > 1, self.stacks == ("decoder",)
        if config.decoder_vocab_size is not None and not both:
            raise ValueError(
                f"decoder_vocab_size={config.decoder_vocab_size} is not allowed in a {type(self).__name__}: with one "
                "stack it has one vocabulary."
            )
        lacks_start = both and config.decoder_start_token_id is None
        if lacks_start or (config.is_encoder_decoder, config.is_decoder) != (both, decoder):
            config = copy.deepcopy(config)  # The caller may use it for another model too.
            config.is_encoder_decoder, config.is_decoder = both, decoder
            if lacks_start:
                config.decoder_start_token_id = config.pad_token_id
            config.validate()
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        start_with(self.shared, EMBEDDING_STD)
        wide = config.inputs_embeds_size
        self.input_projection = nn.Linear(wide, config.d_model) if wide else None

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Standard deviation initializer_factor · fan_in^-½ as in T5, unless the module has its own `initial_std` (and
        `initial_mean`).

        transformers calls this only for modules that own a weight themselves.
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
        """Never reentrant: that would silently lose the gradient of the records' logits."""
        not_reentrant = partial(gradient_checkpointing_func, use_reentrant=False)
        super()._set_gradient_checkpointing(enable, not_reentrant, *args, **options)

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, active parameters per token).

        For one token, a sparse layer computes `active_experts` and the embedding table gives one row.
        """
        total = self.num_parameters()
        tables = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        idle = sum((table.num_embeddings - 1) * table.embedding_dim for table in tables)
        for module in self.modules():
            if isinstance(module, (Experts, ProjectionExperts, AttentionModules)):
                experts = sum(weight.numel() for weight in module.weights)
                idle += experts - experts * self.config.active_experts // len(module.weights[0])
        return total, total - idle

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def set_input_embeddings(self, value: Any) -> None:
        self.shared = value

    def _embed(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        """(B, T) token ids, or (B, T, width) vectors -> (B, T, D). Raises ValueError unless exactly one of them is
        given, for an empty input, or for vectors of another width."""
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
        inputs_embeds = inputs_embeds.to(self.shared.weight.dtype)  # From NumPy they are float64.
        return inputs_embeds if self.input_projection is None else self.input_projection(inputs_embeds)

    def _extras(
        self, output_attentions: bool | None, output_hidden_states: bool | None, others: dict[str, Any]
    ) -> Extras:
        """The optional outputs that are requested, by keyword or else by config.

        Raises TypeError for an unknown keyword with a value in `others`.
        """
        unknown = [name for name, value in others.items() if value is not None and name not in IGNORED_KEYWORDS]
        if unknown:
            raise TypeError(f"{type(self).__name__}.forward() got an unexpected keyword argument '{unknown[0]}'.")
        config = self.config
        return Extras(
            hidden_states=bool(config.output_hidden_states if output_hidden_states is None else output_hidden_states),
            attentions=bool(config.output_attentions if output_attentions is None else output_attentions),
        )

    def _check(self, interventions: AnyInterventions, batch: int) -> None:
        """Raise ValueError when interventions name a layer that the model lacks, or are not one per row."""
        for row in rows_of(interventions, batch):
            row.check_layers(self.config.sparse_layers)
            row.check_number_of_choices(self.config.num_choices, self.config.num_experts, self.config.any_choices)

    def rebalance(self, choices: Mapping[str, Tensor]) -> None:
        """Update the routers' balance biases by one step, with balance="bias"; call it after every optimizer step, as
        this package's trainer does.

        Args:
            choices: sparse layer -> (E,) number of tokens that chose each expert since the last call, summed over
                batches (`Routing.choices`).
        """
        for module in self.modules():
            if isinstance(module, Router) and module.balance_bias is not None and module.name in choices:
                module.rebalance(choices[module.name])

    def spread_experts(self, group: ExpertGroup) -> None:
        """Keep this process's share of every sparse MLP's experts; the group's other processes must do the same.
        Experts in attention stay whole. The model then computes only together with theirs, and its state dict has its
        own experts alone; it loads whole ones. Raises ValueError when the experts can't be divided evenly."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.spread(group)

    def set_expert_residual(self, share: float) -> None:
        """Scale the residual connection around the experts, 0 to 1, from now on; the config does not change."""
        for module in self.modules():
            if isinstance(module, Block):
                module.expert_residual = share

    def _auxiliary(self, records: tuple[Routing, ...], wanted: bool) -> RoutingLosses:
        """The losses on the routing; None each where they are not wanted, so that a plain prediction does not compute
        them."""
        return routing_losses(records, self.config) if wanted and records else RoutingLosses()

    def _with_auxiliary(
        self,
        loss: Tensor | None,
        records: tuple[Routing, ...],
        output_routing: bool,
        other_loss: Tensor | None = None,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """The task's loss plus the auxiliary losses, and the output fields about routing (models/outputs.py).

        `other_loss`: a further weighted auxiliary loss, not on the routing.
        """
        found = self._auxiliary(records, loss is not None or self.training)
        terms = [term for term in (other_loss, found.weighted) if term is not None]
        auxiliary = sum(terms[1:], terms[0]) if loss is not None and terms else None
        fields = {
            "aux_loss": found.balance,
            "z_loss": found.z,
            "auxiliary_loss": auxiliary,
            "routing": records if output_routing else None,
        }
        return (loss if loss is None or auxiliary is None else loss + auxiliary), fields


def token_logits(hidden: Tensor, head: nn.Module | None, table: nn.Embedding) -> Tensor:
    """(…, D) -> (…, V) by the output layer `head`, or by the tied embedding table."""
    if head is not None:
        return head(hidden)
    weight_VD = table.weight
    if weight_VD.is_meta and not hidden.is_meta:
        # Offloaded by accelerate, which loads a module's weights only when the module itself is called.
        weight_VD = table(torch.arange(table.num_embeddings, device=hidden.device))
    return nn.functional.linear(hidden, weight_VD)


def as_int64(values: Tensor, name: str) -> Tensor:
    """Token ids or labels of any integer dtype as int64. Raises ValueError for other dtypes."""
    if values.dtype == torch.bool or values.is_floating_point() or values.is_complex():
        raise ValueError(f"{name} has dtype {values.dtype}: give an integer dtype, such as torch.int64.")
    return values.long()


def require_tokens(inputs: Tensor) -> None:
    """Raise ValueError for ids of shape (B, 0) or (0, T), or such vectors: there is nothing to route or pool."""
    if inputs.shape[0] == 0 or inputs.shape[1] == 0:
        raise ValueError(
            f"The input has no tokens: its shape is {tuple(inputs.shape)}. Give at least one text, and each text at "
            "least one token, such as the beginning- or end-of-sequence token."
        )


def real_tokens(attention_mask: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    """(B, T) bool mask from an attention mask, non-zero at real tokens; None = all are real."""
    return torch.ones(shape, dtype=torch.bool, device=device) if attention_mask is None else attention_mask.bool()
