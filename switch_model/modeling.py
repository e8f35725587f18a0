"""The PreTrainedModel family: one stack, several heads. Saving, loading and the hub are transformers' own.

Legend: B batch, T tokens, D d_model, C classes.
Try it: SwitchForSequenceClassification(SwitchConfig(num_labels=3))(input_ids=torch.ones(1, 9, dtype=torch.long)).logits
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.embedding import HashedBigrams
from switch_model.interventions import AnyInterventions
from switch_model.outputs import SwitchClassifierOutput
from switch_model.routing import Routing, load_balancing_loss, router_z_loss
from switch_model.sparse_mlp import Experts, SparseMLP
from switch_model.stack import Stack


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


class SwitchForSequenceClassification(SwitchPreTrainedModel):
    """An encoder, a pooled vector, a linear layer: one class for a text."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.bigrams = HashedBigrams(config) if config.bigram_buckets else None
        self.encoder = Stack(config, name="encoder")
        pooled = config.d_model * (2 if config.pooling == "mean+max" else 1)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(pooled, config.num_labels)
        # Not T5's 1.0: Adam moves a weight by about the learning rate whatever its size, so that rare words could not
        # leave a large random start. And a small classifier starts undecided whatever the pooling.
        self.shared.initial_std = self.classifier.initial_std = 0.02
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
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        # 1. Embed, and hide some tokens in training.
        embeddings_BTD = self.shared(input_ids) if inputs_embeds is None else inputs_embeds
        mask_BT = self._mask(attention_mask, embeddings_BTD)
        if self.bigrams is not None and input_ids is not None:
            embeddings_BTD = embeddings_BTD + self.bigrams(input_ids, mask_BT)
        if self.config.embedding_norm:
            embeddings_BTD = nn.functional.rms_norm(embeddings_BTD, embeddings_BTD.shape[-1:])

        # 2. Encode.
        hidden_BTD, records = self.encoder(embeddings_BTD, mask_BT, interventions)

        # 3. Pool and classify.
        logits_BC = self.classifier(self.dropout(pool(hidden_BTD, mask_BT, self.config.pooling)))

        # 4. Losses. Skipped where nobody asks: a plain prediction pays nothing for them.
        aux_loss = z_loss = loss = None
        if labels is not None or self.training or output_routing:
            aux_loss = mean_over_layers(load_balancing_loss, records)
            z_loss = mean_over_layers(router_z_loss, records)
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits_BC.float(), labels, label_smoothing=self.config.label_smoothing if self.training else 0.0
            )
            if records:
                loss = loss + self.config.router_aux_loss_coef * aux_loss + self.config.router_z_loss_coef * z_loss
        output = SwitchClassifierOutput(loss, logits_BC, aux_loss, z_loss, records if output_routing else None)
        return output if return_dict is None or return_dict else output.to_tuple()

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
