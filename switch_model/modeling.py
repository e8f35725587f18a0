"""The PreTrainedModel family: one stack, several heads. Saving, loading and the hub are transformers' own.

Legend: B batch, T tokens, D d_model, C classes.
Try it: SwitchForSequenceClassification(SwitchConfig(num_labels=3))(input_ids=torch.ones(1, 9, dtype=torch.long)).logits
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.dropout import Dropout
from switch_model.embedding import HashedBigrams
from switch_model.interventions import AnyInterventions
from switch_model.outputs import SwitchClassifierOutput, SwitchMaskedLMOutput
from switch_model.routing import Routing, load_balancing_loss, router_z_loss
from switch_model.sparse_mlp import Experts, SparseMLP
from switch_model.stack import Stack

IGNORED_LABEL = -100


class SwitchPreTrainedModel(PreTrainedModel):
    """What every head shares: the config class and the initialisation."""

    config_class = SwitchConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Standard deviation initializer_factor · fan_in^-½ as in T5, unless the module carries its own `initial_std`.

        Only modules that own a weight are asked for here: transformers passes over all others outside its own code.
        """
        if isinstance(module, (nn.Linear, nn.Embedding)):
            fan_in = module.weight.shape[-1]
            std = getattr(module, "initial_std", fan_in**-0.5)
            init.normal_(module.weight, std=std * self.config.initializer_factor)
            if getattr(module, "bias", None) is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.RMSNorm):
            init.ones_(module.weight)
        elif isinstance(module, Experts):
            module.reset_parameters()

    def parameter_counts(self) -> tuple[int, int]:
        """(all parameters, those that take part in computing one token).

        For one token, a sparse layer computes one expert and the embedding table gives one row.
        """
        total = self.num_parameters()
        tables = [module for module in self.modules() if isinstance(module, nn.Embedding)]
        idle = sum((table.num_embeddings - 1) * table.embedding_dim for table in tables)
        for module in self.modules():
            if isinstance(module, SparseMLP):
                experts = sum(weight.numel() for weight in module.experts.weights)
                idle += experts - experts // self.config.num_experts
        return total, total - idle

    def get_input_embeddings(self) -> nn.Embedding:
        return self.shared

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.shared = value


def mean_over_layers(loss, records: tuple[Routing, ...]) -> Tensor | None:
    """`loss(record)` averaged over the sparse layers, so that a collapsed layer can't hide behind another one."""
    return torch.stack([loss(record) for record in records]).mean() if records else None


class _EncoderHead(SwitchPreTrainedModel):
    """Token ids or embeddings -> hidden states: what every model with one encoder does before its own head."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        # Not T5's 1.0: Adam moves a weight by about the learning rate whatever its size, so that rare words could not
        # leave a large random start.
        self.shared.initial_std = 0.02
        self.bigrams = HashedBigrams(config) if config.bigram_buckets else None
        self.encoder = Stack(config, name="encoder")

    def _encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        interventions: AnyInterventions,
    ) -> tuple[Tensor, Tensor, tuple[Routing, ...]]:
        """Hidden states (B, T, D), the mask (B, T) of what the model saw, and the records."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        embeddings_BTD = self.shared(input_ids) if inputs_embeds is None else inputs_embeds
        mask_BT = self._mask(attention_mask, embeddings_BTD)
        if self.bigrams is not None and input_ids is not None:
            embeddings_BTD = embeddings_BTD + self.bigrams(input_ids, mask_BT)
        if self.config.embedding_norm:
            embeddings_BTD = nn.functional.rms_norm(embeddings_BTD, embeddings_BTD.shape[-1:])
        hidden_BTD, records = self.encoder(embeddings_BTD, mask_BT, interventions)
        return hidden_BTD, mask_BT, records

    def _mask(self, attention_mask: Tensor | None, embeddings_BTD: Tensor) -> Tensor:
        shape_BT = embeddings_BTD.shape[:2]
        if attention_mask is None:
            mask_BT = torch.ones(shape_BT, dtype=torch.bool, device=embeddings_BTD.device)
        else:
            mask_BT = attention_mask.bool()
        if self.training and self.config.token_dropout > 0:
            seen_BT = torch.rand(shape_BT, device=mask_BT.device) >= self.config.token_dropout
            seen_BT = seen_BT & mask_BT
            # A text of which nothing is left would teach noise.
            mask_BT = torch.where(seen_BT.any(dim=1, keepdim=True), seen_BT, mask_BT)
        return mask_BT

    def _auxiliary(
        self, records: tuple[Routing, ...], wanted: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | float]:
        """Balance loss, z-loss, and what they add to the loss. A plain prediction pays nothing for them."""
        if not (wanted and records):
            return None, None, 0.0
        aux_loss = mean_over_layers(load_balancing_loss, records)
        z_loss = mean_over_layers(router_z_loss, records)
        return aux_loss, z_loss, self.config.router_aux_loss_coef * aux_loss + self.config.router_z_loss_coef * z_loss


class SwitchForSequenceClassification(_EncoderHead):
    """An encoder, a pooled vector, a linear layer: one class for a text."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        pooled = config.d_model * (2 if config.pooling == "mean+max" else 1)
        self.dropout = Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(pooled, config.num_labels)
        # A small classifier starts undecided whatever the pooling.
        self.classifier.initial_std = 0.02
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        return_dict: bool | None = None,
    ) -> SwitchClassifierOutput | tuple:
        """Classify (B, T) token ids, or (B, T, D) embeddings.

        Args:
            attention_mask: (B, T), non-zero at real tokens; None = all are real.
            labels: (B,) class indices; adds the loss.
            interventions: one for all texts, or a list with one per text.
            output_routing: return the records too.

        Raises:
            ValueError: without input, or when interventions do not fit.
        """
        # 1. Embed, hide some tokens in training, and encode.
        hidden_BTD, mask_BT, records = self._encode(input_ids, attention_mask, inputs_embeds, interventions)

        # 2. Pool and classify.
        logits_BC = self.classifier(self.dropout(pool(hidden_BTD, mask_BT, self.config.pooling)))

        # 3. Losses.
        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(records, wanted)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = nn.functional.cross_entropy(logits_BC.float(), labels, label_smoothing=smoothing) + auxiliary
        output = SwitchClassifierOutput(loss, logits_BC, aux_loss, z_loss, records if output_routing else None)
        return output if return_dict is None or return_dict else output.to_tuple()


class SwitchForMaskedLM(_EncoderHead):
    """An encoder that says which token stood where: BERT's pretraining task (1810.04805, section 3.1).

    The output layer is the embedding table itself, after one small layer of its own.
    """

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.transform_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        return_dict: bool | None = None,
    ) -> SwitchMaskedLMOutput | tuple:
        """Token logits for (B, T) token ids, or (B, T, D) embeddings.

        Args:
            labels: (B, T) token ids where one is asked for, -100 elsewhere; adds the loss. The logits are then those
                of the M labelled places only, (M, V) in reading order: the others would cost most of the step.
            The others as in SwitchForSequenceClassification.

        Raises:
            ValueError: without input, or when interventions do not fit.
        """
        hidden_BTD, _, records = self._encode(input_ids, attention_mask, inputs_embeds, interventions)
        if labels is not None:
            hidden_BTD = hidden_BTD[labels != IGNORED_LABEL]
        inner = self.transform_norm(nn.functional.gelu(self.transform(hidden_BTD)))
        logits = nn.functional.linear(inner, self.shared.weight, self.bias)

        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(records, wanted)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED_LABEL]) + auxiliary
        output = SwitchMaskedLMOutput(loss, logits, aux_loss, z_loss, records if output_routing else None)
        return output if return_dict is None or return_dict else output.to_tuple()


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """(B, T, D) -> (B, D), or (B, 2 D) for "mean+max", over real tokens; zeros for a row without any."""
    if how == "first":
        first_B = mask.long().argmax(dim=1)  # Not index 0: padding may stand on the left.
        chosen_BD = hidden[torch.arange(len(hidden), device=hidden.device), first_B]
        return chosen_BD * mask.any(dim=1, keepdim=True)
    parts = []
    if "mean" in how:
        mask_BT1 = mask.unsqueeze(-1)
        parts.append((hidden * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1))
    if "max" in how:
        lowest = torch.finfo(hidden.dtype).min
        best_BD = hidden.masked_fill(~mask.unsqueeze(-1), lowest).amax(dim=1)
        parts.append(best_BD * mask.any(dim=1, keepdim=True))
    return torch.cat(parts, dim=-1)
