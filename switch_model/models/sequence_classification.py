"""SwitchForSequenceClassification: one class, several, or a number for a text.

Legend: B batch, T tokens, D d_model, C classes.
Try it: SwitchForSequenceClassification(SwitchConfig(num_labels=3))(input_ids=torch.ones(1, 9, dtype=torch.long)).logits
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.config_rules import ADDING_POOLINGS
from switch_model.interventions import AnyInterventions
from switch_model.layers.dropout import Dropout
from switch_model.layers.initial import start_with
from switch_model.layers.pooling import pool
from switch_model.layers.word_counts import WordCounts
from switch_model.models.encoder import EncoderPart
from switch_model.models.outputs import SwitchClassifierOutput
from switch_model.models.pretrained import (
    plus,
    real_tokens,
)


class SwitchForSequenceClassification(EncoderPart):
    """An encoder, a pooled vector, a linear layer or a small MLP: one class for a text."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        pooled = config.d_model * (2 if config.pooling == "mean+max" else 1)
        self.dropout = Dropout(config.classifier_dropout)
        self.hidden_layer = nn.Linear(pooled, config.d_model) if config.classifier_head == "mlp" else None
        self.classifier = nn.Linear(config.d_model if self.hidden_layer else pooled, len(config.labels))
        self.token_scores = nn.Linear(config.d_model, 1, bias=False) if config.pooling == "attention" else None
        # A small classifier starts undecided whatever the pooling.
        start_with(self.classifier, 0.02)
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
        if voting and output_routing and not self.training and weight_BT is not None:
            votes_BTC = nn.functional.linear(read_BTD, self.classifier.weight) * weight_BT.unsqueeze(-1)
        if self.counts is not None and input_ids is not None:
            real_BT = real_tokens(attention_mask, input_ids.shape, input_ids.device)
            logits_BC = logits_BC + self.counts(input_ids, real_BT).to(logits_BC.dtype)

        # 3. Losses.
        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(encoded.records, wanted)
        loss = None
        if labels is not None:
            if self.training and self.config.layer_loss_coef and len(encoded.expert_outputs) > 1:
                early = [self._pooled(early_BTD, mask_BT, weight_BT) for early_BTD in encoded.expert_outputs[:-1]]
                auxiliary = plus(self.config.layer_loss_coef * self._loss_of_layers(early, labels), auxiliary)
            loss = plus(self._loss(logits_BC, labels), auxiliary)
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

    def _loss(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing if self.training else 0.0
        return class_loss(logits_BC.float(), labels, self.config.problem_type, smoothing)

    def _loss_of_layers(self, pooled: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The mean loss of what the classifier makes of each of these (B, D): the earlier layers' votes."""
        return torch.stack([self._loss(self.classifier(self.dropout(one_BD)), labels) for one_BD in pooled]).mean()

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
