"""Models with one encoder: raw hidden states, a class for a text, a token for each place.

Legend: B batch, T tokens, D d_model, C classes, V tokens in the vocabulary.
Try it: SwitchForSequenceClassification(SwitchConfig(num_labels=3))(input_ids=torch.ones(1, 9, dtype=torch.long)).logits
"""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.base import IGNORED_LABEL, SwitchPreTrainedModel, real_tokens
from switch_model.config import SwitchConfig
from switch_model.dropout import Dropout
from switch_model.embedding import HashedBigrams
from switch_model.importer import import_switch_transformers
from switch_model.interventions import AnyInterventions
from switch_model.outputs import SwitchClassifierOutput, SwitchEncoderOutput, SwitchMaskedLMOutput
from switch_model.positions import EMBEDDING_STD
from switch_model.routing import Routing
from switch_model.stack import Stack


class EncoderPart(SwitchPreTrainedModel):
    """Token ids or embeddings -> hidden states: what every model with an encoder does before anything of its own."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        self.bigrams = HashedBigrams(config) if config.bigram_buckets else None
        self.cls = nn.Parameter(torch.empty(config.d_model)) if config.cls_token else None
        self.encoder = Stack(config, name="encoder")

    @classmethod
    def from_switch_transformers(cls, path_or_hub_id: str | Path, dtype: torch.dtype | None = torch.float32) -> Self:
        """The model with the weights of a transformers SwitchTransformers checkpoint, and with its logits.

        Args:
            path_or_hub_id: a folder with config.json and model.safetensors (or its shards), or a hub repository's name.
            dtype: of the weights; None = as they are in the file.

        Raises:
            CheckpointError: (switch_model.checkpoint) with the reason, and what to do.
        """
        return import_switch_transformers(cls, path_or_hub_id, dtype)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.cls is not None:
            init.normal_(self.cls, std=EMBEDDING_STD * self.config.initializer_factor)

    def _encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        interventions: AnyInterventions,
    ) -> tuple[Tensor, Tensor, tuple[Routing, ...]]:
        """Hidden states (B, T, D), the mask (B, T) of what the model saw, and the records; one token more with a CLS
        token."""
        embeddings_BTD = self._embed(input_ids, inputs_embeds)
        self._check(interventions, len(embeddings_BTD))
        mask_BT = real_tokens(attention_mask, embeddings_BTD.shape[:2], embeddings_BTD.device)
        mask_BT = self._hide_tokens(mask_BT)
        if self.bigrams is not None and input_ids is not None:
            embeddings_BTD = embeddings_BTD + self.bigrams(input_ids, mask_BT)
        if self.cls is not None:
            embeddings_BTD, mask_BT = self._with_cls(embeddings_BTD, mask_BT)
        hidden_BTD, records = self.encoder(embeddings_BTD, mask_BT, interventions)
        return hidden_BTD, mask_BT, records

    def _hide_tokens(self, mask_BT: Tensor) -> Tensor:
        """Token dropout, in training."""
        if not (self.training and self.config.token_dropout > 0):
            return mask_BT
        seen_BT = torch.rand(mask_BT.shape, device=mask_BT.device) >= self.config.token_dropout
        seen_BT = seen_BT & mask_BT
        # A text of which nothing is left would teach noise.
        return torch.where(seen_BT.any(dim=1, keepdim=True), seen_BT, mask_BT)

    def _with_cls(self, embeddings_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """One token more, right before the first real one: behind padding that stands on the left."""
        batch, tokens, width = embeddings_BTD.shape
        none_B1D, place_T = embeddings_BTD.new_zeros(batch, 1, width), torch.arange(tokens + 1, device=mask_BT.device)
        first_B1 = _first_real(mask_BT).unsqueeze(1)
        plain_BTD = torch.cat([embeddings_BTD, none_B1D], dim=1)
        shifted_BTD = torch.cat([none_B1D, embeddings_BTD], dim=1)
        after_BT1, here_BT1 = (place_T > first_B1).unsqueeze(-1), (place_T == first_B1).unsqueeze(-1)
        joined_BTD = torch.where(here_BT1, self.cls, torch.where(after_BT1, shifted_BTD, plain_BTD))
        none_B1 = mask_BT.new_zeros(batch, 1)
        moved_BT = torch.where(
            place_T > first_B1, torch.cat([none_B1, mask_BT], dim=1), torch.cat([mask_BT, none_B1], dim=1)
        )
        return joined_BTD, moved_BT | (place_T == first_B1)


def _first_real(mask_BT: Tensor) -> Tensor:
    """(B,) index of the first real token. Not always 0: padding may stand on the left."""
    return mask_BT.long().argmax(dim=1)


def without_cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, T + 1, D) -> (B, T, D): the states of the tokens that came in."""
    place_T = torch.arange(hidden.shape[1] - 1, device=mask.device)
    before_BT1 = (place_T < _first_real(mask).unsqueeze(1)).unsqueeze(-1)
    return torch.where(before_BT1, hidden[:, :-1], hidden[:, 1:])


class SwitchEncoderModel(EncoderPart):
    """An encoder alone: the raw hidden states."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        return_dict: bool | None = None,
    ) -> SwitchEncoderOutput | tuple:
        """Hidden states (B, T, D) of (B, T) token ids, or of (B, T, D) embeddings; T + 1 with a CLS token.

        The arguments are those of SwitchForSequenceClassification.
        """
        hidden_BTD, _, records = self._encode(input_ids, attention_mask, inputs_embeds, interventions)
        aux_loss, z_loss, _ = self._auxiliary(records, self.training or output_routing)
        output = SwitchEncoderOutput(hidden_BTD, aux_loss, z_loss, records if output_routing else None)
        return output if return_dict is None or return_dict else output.to_tuple()


class SwitchForSequenceClassification(EncoderPart):
    """An encoder, a pooled vector, a linear layer or a small MLP: one class for a text."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        pooled = config.d_model * (2 if config.pooling == "mean+max" else 1)
        self.dropout = Dropout(config.classifier_dropout)
        self.hidden_layer = nn.Linear(pooled, config.d_model) if config.classifier_head == "mlp" else None
        self.classifier = nn.Linear(config.d_model if self.hidden_layer else pooled, config.num_labels)
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
        """Classify (B, T) token ids, or (B, T, D) embeddings: continuous features, or another encoder's states.

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
        pooled_BD = self.dropout(pool(hidden_BTD, mask_BT, self.config.pooling))
        if self.hidden_layer is not None:
            pooled_BD = self.dropout(nn.functional.gelu(self.hidden_layer(pooled_BD)))
        logits_BC = self.classifier(pooled_BD)

        # 3. Losses.
        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(records, wanted)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = nn.functional.cross_entropy(logits_BC.float(), labels, label_smoothing=smoothing) + auxiliary
        output = SwitchClassifierOutput(loss, logits_BC, aux_loss, z_loss, records if output_routing else None)
        return output if return_dict is None or return_dict else output.to_tuple()


class SwitchForMaskedLM(EncoderPart):
    """An encoder that says which token stood where: BERT's pretraining task (1810.04805, section 3.1).

    The output layer is the embedding table itself (unless tie_word_embeddings=False), after one small layer of its own.
    With `inputs_embeds` it reads the states of any other encoder:
    SwitchForMaskedLM(config)(inputs_embeds=bert(**tokens).last_hidden_state).
    """

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.transform_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        # Tied, the embedding table itself is the output layer.
        tied = self.config.tie_word_embeddings
        self.lm_head = None if tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head or self.shared

    def set_output_embeddings(self, value: nn.Module) -> None:
        if self.lm_head is not None:
            self.lm_head = value

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:  # Where only an encoder's weights are loaded, nothing else fills it.
            init.zeros_(self.bias)

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
        hidden_BTD, mask_BT, records = self._encode(input_ids, attention_mask, inputs_embeds, interventions)
        if self.cls is not None:
            hidden_BTD = without_cls(hidden_BTD, mask_BT)
        if labels is not None:
            hidden_BTD = hidden_BTD[labels != IGNORED_LABEL]
        inner = self.transform_norm(nn.functional.gelu(self.transform(hidden_BTD)))
        logits = nn.functional.linear(inner, self.get_output_embeddings().weight, self.bias)

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
        first_B = _first_real(mask)
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
