"""SwitchForSequenceClassification: one class, several classes, or a number for each text.

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
from switch_model.models.pretrained import real_tokens


class SwitchForSequenceClassification(EncoderPart):
    """Encoder, pooling, and a linear or MLP classifier."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        pooled = config.d_model * (2 if config.pooling == "mean+max" else 1)
        self.dropout = Dropout(config.classifier_dropout)
        self.hidden_layer = nn.Linear(pooled, config.d_model) if config.classifier_head == "mlp" else None
        self.classifier = nn.Linear(config.d_model if self.hidden_layer else pooled, len(config.labels))
        self.token_scores = nn.Linear(config.d_model, 1, bias=False) if config.pooling == "attention" else None
        # Small, so that initial predictions are near uniform whatever the pooling.
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
            labels: adds the loss. (B,) class indices; multi-label: (B, C) floats, 1.0 = the text has the class;
                regression (config.num_labels = 1): (B,) or (B, 1) floats. config.problem_type decides which; where it
                is None, the labels' dtype and num_labels do, as in transformers.
            interventions: one for all texts, or a list with one per text.
            output_routing: return the records too.
            output_attentions, output_hidden_states: return these too, as in transformers.
            others: keywords that libraries pass to every model; ignored (IGNORED_KEYWORDS).

        Raises:
            ValueError: without input, or when interventions or labels do not fit.
            TypeError: for an unknown keyword.
        """
        extras = self._extras(output_attentions, output_hidden_states, others)
        # 1. Embed, mask some tokens in training, and encode.
        input_ids, attention_mask = with_padding_for_empty(input_ids, attention_mask)
        encoded, mask_BT = self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)

        # 2. Pool and classify.
        read_BTD = encoded.expert_outputs[-1] if self.config.readout == "experts" else encoded.hidden
        weight_BT = self._token_weights(encoded.hidden, mask_BT)
        logits_BC = self._classify(self._pooled(read_BTD, mask_BT, weight_BT))
        votes_BTC = self._votes(read_BTD, weight_BT) if output_routing and not self.training else None
        if self.counts is not None and input_ids is not None:
            real_BT = real_tokens(attention_mask, input_ids.shape, input_ids.device)
            logits_BC = logits_BC + self.counts(input_ids, real_BT).to(logits_BC.dtype)

        # 3. Losses.
        loss = layer_loss = None
        if labels is not None:
            loss = self._loss(logits_BC, labels)
            layer_loss = self._layer_loss(encoded.expert_outputs[:-1], mask_BT, weight_BT, labels)
        loss, routing_fields = self._with_auxiliary(loss, encoded.records, output_routing, layer_loss)
        output = SwitchClassifierOutput(
            loss=loss,
            logits=logits_BC,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            votes=votes_BTC,
            **routing_fields,
        )
        return output if return_dict is None or return_dict else output.to_tuple()

    def _classify(self, pooled_BD: Tensor) -> Tensor:
        """(B, D) -> (B, C) logits."""
        pooled_BD = self.dropout(pooled_BD)
        if self.hidden_layer is not None:
            pooled_BD = self.dropout(nn.functional.gelu(self.hidden_layer(pooled_BD)))
        return self.classifier(pooled_BD)

    def _votes(self, read_BTD: Tensor, weight_BT: Tensor | None) -> Tensor | None:
        """(B, T, C) each token's contribution to the logits; None unless the classifier reads the experts alone."""
        if self.config.readout != "experts" or weight_BT is None:
            return None
        return nn.functional.linear(read_BTD, self.classifier.weight) * weight_BT.unsqueeze(-1)

    @torch.no_grad()
    def fold_temperature(self, temperature: float) -> None:
        """Divide the weights of all logits by a temperature > 0: votes, bias and word counts. Predicted classes stay
        the same."""
        counted = [] if self.counts is None else [self.counts.table]
        for weights in (self.classifier.weight, self.classifier.bias, *counted):
            weights.div_(temperature)

    def _loss(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.config.label_smoothing if self.training else 0.0
        return class_loss(logits_BC.float(), labels, self.config.problem_type, smoothing)

    def _layer_loss(
        self, early: Sequence[Tensor], mask_BT: Tensor, weight_BT: Tensor | None, labels: Tensor
    ) -> Tensor | None:
        """Weighted mean loss of the classifier on the earlier layers' expert outputs, (B, T, D) each; None without
        layer_loss_coef, and in evaluation."""
        if not (self.training and self.config.layer_loss_coef and early):
            return None
        logits = [self._classify(self._pooled(early_BTD, mask_BT, weight_BT)) for early_BTD in early]
        return self.config.layer_loss_coef * torch.stack([self._loss(logits_BC, labels) for logits_BC in logits]).mean()

    def _token_weights(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor | None:
        """(B, T) weight of each token in the pooled vector, 0 at padding; None where pooling is not a weighted sum."""
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


def with_padding_for_empty(input_ids: Tensor | None, mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Ids and mask; ids of shape (B, 0) become one padding token per text.

    An empty text alone then gives the same result as inside a padded batch, and does not stop transformers' pipeline,
    which passes texts on one by one.
    """
    if input_ids is None or input_ids.shape[0] == 0 or input_ids.shape[1] > 0:
        return input_ids, mask
    # New tensors: a tokenizer returns floats for an empty text.
    padding_B1 = torch.zeros(input_ids.shape[0], 1, dtype=torch.long, device=input_ids.device)
    return padding_B1, padding_B1


def class_loss(logits: Tensor, labels: Tensor, problem: str | None, smoothing: float) -> Tensor:
    """The loss of (B, C) logits by transformers' rules (its ForSequenceClassificationLoss). Scalar.

    "regression": mean squared error. "multi_label_classification": binary cross-entropy, mean over texts and classes.
    "single_label_classification": cross-entropy. None: regression with one output, single-label with integer labels,
    else multi-label. Label smoothing has no effect in a regression.

    Raises ValueError when the labels have the wrong shape.
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
