"""Predictor: a classifier checkpoint; text -> class probabilities and the routing of every token.

Legend: B texts, T tokens, C classes.
Try it: Predictor.from_checkpoint("assets/models/ag_news")("Oil prices rose.").label
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from switch_model.adapters.model import AdaptedClassifier
from switch_model.checkpoint import require_classifier
from switch_model.inference.batching import padded, passes
from switch_model.inference.pipeline import AnyModel, ReadText, TextPipeline
from switch_model.inference.traces import OneTrace
from switch_model.interventions import AnyInterventions
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting


@dataclass(frozen=True)
class Prediction(OneTrace):
    """The prediction for one text.

    Attributes:
        label: the most probable class.
        scores: class -> probability, in the model's order; they sum to 1 except in multi-label models.
        trace: the input tokens and their routing; the model's CLS token, if any, comes first.
        votes: (T, C) contribution of each token to each class's logit: the logits are the votes' sum plus `bias`. None
            unless the classifier reads the experts alone (SwitchConfig.readout).
        bias: (C,) bias of the classifier; None without votes.
    """

    label: str
    scores: dict[str, float]
    trace: TokenTrace
    votes: Tensor | None = None
    bias: Tensor | None = None

    @property
    def voters(self) -> AnyRouting:
        """The record of the layer whose experts vote: the last sparse MLP."""
        return next(record for record in reversed(self.routing) if not record.name.endswith(".attention"))

    @property
    def votes_of_experts(self) -> Tensor:
        """(E, C) contribution of each expert to the logits: the sum of its tokens' votes."""
        (votes, _), record = self._votes_and_bias(), self.voters
        return votes.new_zeros(record.num_experts, len(self.scores)).index_add(0, record.expert[0], votes)

    @property
    def logits(self) -> Tensor:
        """(C,) the votes' sum plus the bias. Raises ValueError without votes."""
        votes, bias = self._votes_and_bias()
        return votes.sum(0) + bias

    def votes_to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON: "votes" (T, C) and "bias" (C,), classes in the order of `scores`; {} without votes."""
        if self.votes is None:
            return {}
        votes, bias = self._votes_and_bias()
        return {"votes": votes.tolist(), "bias": bias.tolist()}

    def _votes_and_bias(self) -> tuple[Tensor, Tensor]:
        if self.votes is None or self.bias is None:
            raise ValueError(
                'This prediction has no votes: only models with SwitchConfig(readout="experts") have them.'
            )
        return self.votes, self.bias


CLASSIFIERS = (SwitchForSequenceClassification, AdaptedClassifier)


class Predictor(TextPipeline):
    """Classifies texts with a loaded model."""

    @classmethod
    def check_kind(cls, model: AnyModel) -> None:
        """Raise CheckpointError unless the model is a classifier."""
        require_classifier(model)

    def __call__(self, text: str, interventions: AnyInterventions = None) -> Prediction:
        """Classify one text. Raises ValueError when it has no tokens, or when interventions do not fit."""
        return self.batch([text], interventions)[0]

    @torch.inference_mode()
    def batch(self, texts: Sequence[str], interventions: AnyInterventions = None) -> list[Prediction]:
        """Classify several texts, those of similar length in one padded pass; each result is the same as for the text
        alone, unless the texts of a batch share their capacity.

        Raises:
            ValueError: when a text has no tokens, or when interventions do not fit.
            TypeError: for anything but a list of texts.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("Give a list of texts, each a str.")
        # 1. Tokenise.
        read = self.read_all(texts)
        for index, one in enumerate(read):
            if not one.ids:
                which = "The text" if len(texts) == 1 else f"Text {index}"
                raise ValueError(f"{which} is empty, or has no visible character: there is nothing to classify.")
        if not read:
            return []

        # 2. Run, texts of similar length together.
        predictions: list[Prediction | None] = [None] * len(read)
        for rows, changes in passes(self.model, [len(one.tokens) for one in read], interventions):
            for row, prediction in zip(rows, self._in_one_pass([read[row] for row in rows], changes), strict=True):
                predictions[row] = prediction
        return [prediction for prediction in predictions if prediction is not None]

    def _in_one_pass(self, read: Sequence[ReadText], interventions: AnyInterventions) -> list[Prediction]:
        # 1. Pad on the right and run.
        input_ids_BT, mask_BT = padded([one.ids for one in read], self.model.config.pad_token_id)
        device = self.model.device
        output = self.model(
            input_ids_BT.to(device), mask_BT.to(device), interventions=interventions, output_routing=True
        )
        logits_BC = output.logits.float()
        # Multi-label: an independent probability for each class.
        several = self.model.config.problem_type == "multi_label_classification"
        scores_BC = (logits_BC.sigmoid() if several else logits_BC.softmax(-1)).cpu().tolist()
        records = [record.detached().examples() for record in output.routing]
        votes_BTC = bias_C = None
        if output.votes is not None:
            votes_BTC, bias_C = output.votes.float().cpu(), self.model.classifier.bias.detach().float().cpu()

        # 2. One Prediction per text.
        predictions = []
        for row, one in enumerate(read):
            scores = dict(zip(self.model.config.labels, scores_BC[row], strict=True))
            trace = one.trace(tuple(record[row] for record in records))
            votes = None if votes_BTC is None else votes_BTC[row, : len(one.tokens)]
            predictions.append(Prediction(max(scores, key=scores.__getitem__), scores, trace, votes, bias_C))
        return predictions

    def token_ids(self, text: str) -> list[int]:
        """The text's token ids, without the model's own CLS token. Raises ValueError when there are none."""
        ids = self.read(text).ids
        if not ids:
            raise ValueError("The text is empty, or has no visible character: there is nothing to classify.")
        return ids
