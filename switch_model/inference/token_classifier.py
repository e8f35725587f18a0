"""TokenClassifier: a model of transformers that gives each token a class; text -> classes and routing of its tokens.

Legend: T tokens, C classes.
Try it: TokenClassifier.from_checkpoint("a/privacy-filter")("Call Ada at noon.").labels
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from switch_model.adapters.model import AdaptedTokenClassifier
from switch_model.checkpoint import CheckpointError
from switch_model.inference.batching import padded
from switch_model.inference.pipeline import AnyModel, TextPipeline
from switch_model.inference.traces import OneTrace
from switch_model.interventions import AnyInterventions
from switch_model.storage.errors import a_class, opened_by
from switch_model.token_trace import TokenTrace


@dataclass(frozen=True, eq=False)
class TokenPrediction(OneTrace):
    """The classes of one text's tokens.

    Attributes:
        labels: T classes, each its token's most probable one.
        classes: C names, in the model's order.
        scores: (T, C) class probabilities.
        trace: the tokens and their routing.
    """

    labels: list[str]
    classes: list[str]
    scores: Tensor
    trace: TokenTrace


class TokenClassifier(TextPipeline):
    """Classifies the tokens of texts."""

    @classmethod
    def check_kind(cls, model: AnyModel) -> None:
        """Raise CheckpointError unless the model classifies tokens."""
        if not isinstance(model, AdaptedTokenClassifier):
            raise CheckpointError(
                f"This checkpoint is {a_class(model)}: it does not classify tokens.{opened_by(model)}"
            )

    def __call__(self, text: str, interventions: AnyInterventions = None) -> TokenPrediction:
        """Classify the tokens of one text. Raises ValueError when it has none, or when interventions do not fit."""
        return self.batch([text], interventions)[0]

    @torch.inference_mode()
    def batch(self, texts: Sequence[str], interventions: AnyInterventions = None) -> list[TokenPrediction]:
        """The same for several texts, in one padded pass. Raises ValueError when a text has no tokens, or when
        interventions do not fit."""
        read = self.read_all(texts)
        for index, one in enumerate(read):
            if not one.ids:
                raise ValueError(f"Text {index} is empty, or has no visible character: there is nothing to classify.")
        if not read:
            return []
        config, device = self.model.config, self.model.device
        input_ids_BT, mask_BT = padded([one.ids for one in read], config.pad_token_id)
        output = self.model(input_ids_BT.to(device), mask_BT.to(device), interventions, output_routing=True)
        scores_BTC = output.logits.float().softmax(-1).cpu()
        records = [record.detached().examples() for record in output.routing or ()]
        predictions = []
        for row, one in enumerate(read):
            scores_TC = scores_BTC[row, : len(one.tokens)]
            labels = [config.labels[index] for index in scores_TC.argmax(-1).tolist()]
            trace = one.trace(tuple(record[row] for record in records))
            predictions.append(TokenPrediction(labels, config.labels, scores_TC, trace))
        return predictions
