"""Models with one encoder: raw hidden states, a class for a text, a token for each place.

Legend: B batch, T tokens, D d_model, C classes, V tokens in the vocabulary.
Try it: SwitchForSequenceClassification(SwitchConfig(num_labels=3))(input_ids=torch.ones(1, 9, dtype=torch.long)).logits
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.config_rules import ADDING_POOLINGS
from switch_model.interventions import AnyInterventions
from switch_model.layers.dropout import Dropout
from switch_model.layers.hashed_bigrams import HashedBigrams
from switch_model.layers.pooling import first_real, pool
from switch_model.layers.positions import EMBEDDING_STD
from switch_model.layers.word_counts import WordCounts
from switch_model.models.outputs import SwitchClassifierOutput, SwitchEncoderOutput, SwitchMaskedLMOutput
from switch_model.models.pretrained import (
    IGNORED_LABEL,
    SwitchPreTrainedModel,
    as_int64,
    plus,
    real_tokens,
    token_logits,
)
from switch_model.models.stack import Extras, Stack, StackOutput
from switch_model.storage.switch_transformers import import_switch_transformers


class EncoderPart(SwitchPreTrainedModel):
    """Token ids or embeddings -> hidden states: what every model with an encoder does before anything of its own."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        self.bigrams = HashedBigrams(config) if config.bigram_buckets else None
        self.cls = nn.Parameter(torch.empty(config.d_model)) if config.cls_token else None
        self.encoder = Stack(config, name="encoder")
        self.counts: WordCounts | None = None

    @classmethod
    def from_switch_transformers(
        cls, path_or_hub_id: str | Path, dtype: torch.dtype | None = torch.float32, revision: str | None = None
    ) -> Self:
        """The model with the weights of a transformers SwitchTransformers checkpoint, and with its logits.

        Args:
            path_or_hub_id: a folder with config.json and model.safetensors (or its shards), or a hub repository's name.
            dtype: of the weights; None = as they are in the file.
            revision: of a hub repository: a branch, a tag, a commit, or refs/pr/N; None = main.

        Raises:
            CheckpointError: (switch_model.checkpoint) with the reason, and what to do.
        """
        return import_switch_transformers(cls, path_or_hub_id, dtype, revision)

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
        extras: Extras,
    ) -> tuple[StackOutput, Tensor]:
        """What the encoder gives, and the mask (B, T) of what the model saw; one token more with a CLS token."""
        pairs_of = input_ids
        if self.bigrams is not None or self.counts is not None:
            if input_ids is None:
                what, field = ("adds embeddings of", "bigram_buckets") if self.bigrams else ("counts", "counted_rows")
                raise ValueError(
                    f"This model {what} word pairs, and only token ids say which those are: give input_ids beside "
                    f"inputs_embeds, or make the model with {field}=0."
                )
            if inputs_embeds is not None:
                input_ids = None
        embeddings_BTD = self._embed(input_ids, inputs_embeds)
        self._check(interventions, embeddings_BTD.shape[0])
        mask_BT = real_tokens(attention_mask, embeddings_BTD.shape[:2], embeddings_BTD.device)
        mask_BT = self._hide_tokens(mask_BT)
        if self.bigrams is not None:
            embeddings_BTD = embeddings_BTD + self.bigrams(pairs_of, mask_BT)
        if self.cls is not None:
            embeddings_BTD, mask_BT = self._with_cls(embeddings_BTD, mask_BT)
        return self.encoder(embeddings_BTD, mask_BT, interventions, extras=extras), mask_BT

    def _hide_tokens(self, mask_BT: Tensor) -> Tensor:
        """Token dropout, in training."""
        if not (self.training and self.config.token_dropout > 0):
            return mask_BT
        # Of ten tokens, those that decide are soon among the hidden ones.
        short_B1 = mask_BT.sum(dim=1, keepdim=True) < self.config.token_dropout_from
        seen_BT = torch.rand(mask_BT.shape, device=mask_BT.device) >= self.config.token_dropout
        seen_BT = (seen_BT & mask_BT) | (mask_BT & short_B1)
        # A text of which nothing is left would teach noise.
        return torch.where(seen_BT.any(dim=1, keepdim=True), seen_BT, mask_BT)

    def _with_cls(self, embeddings_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """One token more, right before the first real one: behind padding that stands on the left."""
        batch, tokens, width = embeddings_BTD.shape
        none_B1D, place_T = embeddings_BTD.new_zeros(batch, 1, width), torch.arange(tokens + 1, device=mask_BT.device)
        first_B1 = first_real(mask_BT).unsqueeze(1)
        plain_BTD = torch.cat([embeddings_BTD, none_B1D], dim=1)
        shifted_BTD = torch.cat([none_B1D, embeddings_BTD], dim=1)
        after_BT1, here_BT1 = (place_T > first_B1).unsqueeze(-1), (place_T == first_B1).unsqueeze(-1)
        joined_BTD = torch.where(here_BT1, self.cls, torch.where(after_BT1, shifted_BTD, plain_BTD))
        none_B1 = mask_BT.new_zeros(batch, 1)
        after_BT = place_T > first_B1  # In these words, for ONNX Runtime chooses between numbers only.
        shifted_BT, plain_BT = torch.cat([none_B1, mask_BT], dim=1), torch.cat([mask_BT, none_B1], dim=1)
        moved_BT = (after_BT & shifted_BT) | (~after_BT & plain_BT)
        return joined_BTD, moved_BT | (place_T == first_B1)


def without_cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, T + 1, D) -> (B, T, D): the states of the tokens that came in."""
    place_T = torch.arange(hidden.shape[1] - 1, device=mask.device)
    before_BT1 = (place_T < first_real(mask).unsqueeze(1)).unsqueeze(-1)
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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchEncoderOutput | tuple:
        """Hidden states (B, T, D) of (B, T) token ids, or of (B, T, D) embeddings; T + 1 with a CLS token.

        The arguments are those of SwitchForSequenceClassification.
        """
        extras = self._extras(output_attentions, output_hidden_states, others)
        encoded, _ = self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)
        aux_loss, z_loss, _ = self._auxiliary(encoded.records, self.training or output_routing)
        output = SwitchEncoderOutput(
            last_hidden_state=encoded.hidden,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            aux_loss=aux_loss,
            z_loss=z_loss,
            routing=encoded.records if output_routing else None,
        )
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
        self.token_scores = nn.Linear(config.d_model, 1, bias=False) if config.pooling == "attention" else None
        # A small classifier starts undecided whatever the pooling.
        self.classifier.initial_std = 0.02
        self.counts = WordCounts(config) if config.counted_rows else None
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchClassifierOutput | tuple:
        """Classify (B, T) token ids, or (B, T, D) embeddings: continuous features, or another encoder's states.

        Args:
            attention_mask: (B, T), non-zero at real tokens; None = all are real.
            labels: adds the loss. (B,) class indices; with several classes to a text (B, C) numbers, 1.0 = it has the
                class; with config.num_labels = 1 numbers (B,) or (B, 1) to come near to. Which is meant says
                config.problem_type, and where that is None the labels' dtype and num_labels, as in transformers.
            interventions: one for all texts, or a list with one per text.
            output_routing: return the records too.
            output_attentions, output_hidden_states: return these too, as transformers' models do.
            others: what libraries hand on to every model.

        Raises:
            ValueError: without input, or when interventions or labels do not fit.
            TypeError: for a keyword that no model of this family knows.
        """
        extras = self._extras(output_attentions, output_hidden_states, others)
        # 1. Embed, hide some tokens in training, and encode.
        input_ids, attention_mask = with_place_for_nothing(input_ids, attention_mask)
        encoded, mask_BT = self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)

        # 2. Pool and classify.
        voting = self.config.readout == "experts"
        read_BTD = encoded.expert_outputs[-1] if voting else encoded.hidden
        weight_BT = self._token_weights(encoded.hidden, mask_BT)
        pooled_BD = self.dropout(self._pooled(read_BTD, mask_BT, weight_BT))
        if self.hidden_layer is not None:
            pooled_BD = self.dropout(nn.functional.gelu(self.hidden_layer(pooled_BD)))
        logits_BC = self.classifier(pooled_BD)
        votes_BTC = None
        if voting and output_routing and not self.training:
            votes_BTC = nn.functional.linear(read_BTD, self.classifier.weight) * weight_BT.unsqueeze(-1)
        if self.counts is not None:
            real_BT = real_tokens(attention_mask, input_ids.shape, input_ids.device)
            logits_BC = logits_BC + self.counts(input_ids, real_BT).to(logits_BC.dtype)

        # 3. Losses.
        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(encoded.records, wanted)
        loss = None
        if labels is not None:
            smoothing = self.config.label_smoothing if self.training else 0.0

            def loss_of(logits_BC: Tensor) -> Tensor:
                return class_loss(logits_BC.float(), labels, self.config.problem_type, smoothing)

            if self.training and self.config.layer_loss_coef and len(encoded.expert_outputs) > 1:
                early = [self._pooled(early_BTD, mask_BT, weight_BT) for early_BTD in encoded.expert_outputs[:-1]]
                of_layers = torch.stack([loss_of(self.classifier(self.dropout(early_BD))) for early_BD in early]).mean()
                auxiliary = plus(self.config.layer_loss_coef * of_layers, auxiliary)
            loss = plus(loss_of(logits_BC), auxiliary)
        output = SwitchClassifierOutput(
            loss=loss,
            logits=logits_BC,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            aux_loss=aux_loss,
            z_loss=z_loss,
            auxiliary_loss=None if loss is None else auxiliary,
            votes=votes_BTC,
            routing=encoded.records if output_routing else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()

    def _token_weights(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor | None:
        """(B, T) what each token counts in a pooled vector, 0 at padding; None where that is no weighted sum."""
        if self.config.pooling not in ADDING_POOLINGS:
            return None
        if self.token_scores is None:
            return (mask_BT / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)).to(hidden_BTD.dtype)
        scores_BT = self.token_scores(hidden_BTD).squeeze(-1)
        return scores_BT.masked_fill(~mask_BT, torch.finfo(scores_BT.dtype).min).softmax(dim=1) * mask_BT

    def _pooled(self, read_BTD: Tensor, mask_BT: Tensor, weight_BT: Tensor | None) -> Tensor:
        if weight_BT is None:
            return pool(read_BTD, mask_BT, self.config.pooling)
        return (read_BTD * weight_BT.unsqueeze(-1)).sum(dim=1)


class SwitchForMaskedLM(EncoderPart):
    """An encoder that says which token stood where: BERT's pretraining task (1810.04805, section 3.1).

    After a small layer comes the output layer: the embedding table, or one of its own (tie_word_embeddings). With
    `inputs_embeds` it reads the states of any other encoder:
    SwitchForMaskedLM(config)(inputs_embeds=bert(**tokens).last_hidden_state).
    """

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.transform_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head or self.shared

    def set_output_embeddings(self, value: nn.Module) -> None:
        if self.lm_head is not None:
            self.lm_head = value

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """transformers' own, for the bias too: new tokens begin with none."""
        table = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        added = table.num_embeddings - len(self.bias)
        if added:
            self.bias = nn.Parameter(nn.functional.pad(self.bias.data, (0, added)))
        return table

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
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchMaskedLMOutput | tuple:
        """Token logits for (B, T) token ids, or (B, T, D) embeddings.

        Args:
            labels: (B, T) token ids where one is asked for, -100 elsewhere; adds the loss. The logits are then those
                of the M labelled places only, (M, V) in reading order: the others would cost most of the step.
            The others as in SwitchForSequenceClassification.

        Raises:
            ValueError: without input, or when interventions do not fit.
        """
        extras = self._extras(output_attentions, output_hidden_states, others)
        encoded, mask_BT = self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)
        hidden_BTD = encoded.hidden
        if self.cls is not None:
            hidden_BTD = without_cls(hidden_BTD, mask_BT)
        if labels is not None:
            labels = as_int64(labels, "labels")
            hidden_BTD = hidden_BTD[labels != IGNORED_LABEL]
        inner = self.transform_norm(nn.functional.gelu(self.transform(hidden_BTD)))
        logits = token_logits(inner, self.lm_head, self.shared) + self.bias

        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(encoded.records, wanted)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED_LABEL])
            loss = plus(loss, auxiliary)
        output = SwitchMaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            aux_loss=aux_loss,
            z_loss=z_loss,
            auxiliary_loss=None if loss is None else auxiliary,
            routing=encoded.records if output_routing else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()


def with_place_for_nothing(input_ids: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Ids and mask; (B, 0) ids as (B, 1) of padding. An empty text alone is then what it is inside a padded batch, and
    ends no list of texts: transformers' pipeline hands them on one by one."""
    if input_ids is None or input_ids.shape[0] == 0 or input_ids.shape[1] > 0:
        return input_ids, mask
    # Of no token a tokenizer makes floating-point numbers.
    nothing_B1 = torch.zeros(input_ids.shape[0], 1, dtype=torch.long, device=input_ids.device)
    return nothing_B1, nothing_B1


def class_loss(logits: Tensor, labels: Tensor, problem: str | None, smoothing: float) -> Tensor:
    """The loss of (B, C) logits by transformers' rules (its ForSequenceClassificationLoss).

    "regression": mean squared error. "multi_label_classification": binary cross-entropy, mean over texts and classes.
    "single_label_classification": cross-entropy. None: the first with one output, the last with whole numbers as
    labels, else the second. Smoothing moves a 1 and a 0 towards each other; in a regression it has no meaning.

    Raises ValueError when the labels are not of the shape that this asks for.
    """
    if problem is None:
        whole = not (labels.is_floating_point() or labels.dtype == torch.bool)
        problem = "single_label_classification" if whole else "multi_label_classification"
        problem = "regression" if logits.shape[1] == 1 else problem
    if problem == "single_label_classification":
        labels = labels if labels.is_floating_point() else labels.long().flatten()
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    if problem == "regression" and logits.shape[1] == 1:
        labels = labels.reshape(-1, 1)
    if labels.shape != logits.shape:
        raise ValueError(
            f"Labels of shape {tuple(labels.shape)} do not fit a {problem.replace('_', ' ')} with {logits.shape[1]} "
            f"outputs: give {tuple(logits.shape)} numbers, a row for each text."
        )
    labels = labels.to(logits.dtype)
    if problem == "regression":
        return nn.functional.mse_loss(logits, labels)
    return nn.functional.binary_cross_entropy_with_logits(logits, labels.lerp(labels.new_tensor(0.5), smoothing))
