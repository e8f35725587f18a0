"""Predictor: a checkpoint and its tokenizer -> the class of a text and where each of its tokens went.

Legend: B texts, T tokens, C classes.
Try it: Predictor.from_checkpoint("assets/models/ag_news")("Oil prices rose.").label
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import load_checkpoint, require_classifier
from switch_model.inference.traces import Band, read_tokens
from switch_model.interventions import AnyInterventions
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.routing import Routing

# Far above what any model reads, so that a pasted book costs no more than a long text.
MAX_CHARACTERS = 200_000
# What a token is called that the model itself puts before the text (SwitchConfig.cls_token).
CLS_NAME = "[CLS]"


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text.

    Attributes:
        label: the most probable class.
        scores: class -> probability, in the model's order; they add up to 1 unless a text may have several classes.
        trace: the tokens that were read and where each of them went; the model's CLS token, where it has one, is the
            first.
        votes: (T, C) what each token adds to each class's logit: their sum and the classifier's bias are the logits.
            None of a model whose classifier does not read its experts alone (SwitchConfig.readout).
        bias: (C,) what the classifier adds whatever the text says; None without votes.
    """

    label: str
    scores: dict[str, float]
    trace: Band
    votes: Tensor | None = None
    bias: Tensor | None = None

    @property
    def bands(self) -> tuple[Band, ...]:
        """One for each stack, as of a text that was written."""
        return (self.trace,)

    @property
    def tokens(self) -> list[str]:
        """Readable tokens: the text's own characters, or a special token's name."""
        return self.trace.tokens

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(start, end) characters of each token in the text."""
        return self.trace.offsets

    @property
    def unknown(self) -> list[bool]:
        """For each token, whether the vocabulary lacks it (the model saw only "unknown word")."""
        return self.trace.unknown

    @property
    def truncated(self) -> bool:
        """Whether the text was longer than the model reads."""
        return self.trace.truncated

    @property
    def routing(self) -> tuple[Routing, ...]:
        """One record per sparse layer, for this text alone, on the CPU."""
        return self.trace.routing

    @property
    def voters(self) -> Routing:
        """The record of the layer whose experts vote: the last one that is none of attention."""
        return next(record for record in reversed(self.routing) if not record.name.endswith(".attention"))

    @property
    def votes_of_experts(self) -> Tensor:
        """(E, C) what each expert adds to the logits: the votes of its tokens together."""
        record = self.voters
        return self.votes.new_zeros(record.num_experts, len(self.scores)).index_add(0, record.expert[0], self.votes)

    @property
    def logits(self) -> Tensor:
        """(C,) of a prediction with votes: their sum and the bias."""
        return self.votes.sum(0) + self.bias

    def votes_to_dict(self) -> dict[str, Any]:
        """Plain lists for JSON: "votes" (T, C) and "bias" (C,), classes as the scores have them; {} without votes."""
        return {} if self.votes is None else {"votes": self.votes.tolist(), "bias": self.bias.tolist()}


class Predictor:
    """Classifies texts with a loaded model. Holds no state between calls; safe to share between threads."""

    def __init__(self, model: SwitchForSequenceClassification, tokenizer: PreTrainedTokenizerFast):
        self.model = model.eval()
        self.tokenizer = tokenizer
        # Once, not per call: the backend keeps truncation as state, which threads must not change under each other.
        config, limit = model.config, tokenizer.model_max_length
        if config.position == "learned":
            limit = min(limit, config.max_positions - int(config.cls_token))
        tokenizer.backend_tokenizer.enable_truncation(limit)

    @classmethod
    def from_checkpoint(
        cls, folder_zip_or_hub_id: str | Path, device: str | torch.device | None = None, revision: str | None = None
    ) -> "Predictor":
        """Open a checkpoint. Raises CheckpointError (switch_model.checkpoint) when it can't, or knows no classes."""
        model, tokenizer = load_checkpoint(folder_zip_or_hub_id, device, revision)
        require_classifier(model)
        return cls(model, tokenizer)

    def __call__(self, text: str, interventions: AnyInterventions = None) -> Prediction:
        """Classify one text. Raises ValueError when it has no tokens, or when interventions do not fit."""
        return self.batch([text], interventions)[0]

    @torch.inference_mode()
    def batch(self, texts: Sequence[str], interventions: AnyInterventions = None) -> list[Prediction]:
        """Classify several texts in one padded pass; each comes out as it would alone.

        Raises:
            ValueError: when a text has no tokens, or when interventions do not fit.
            TypeError: when something else than a list of texts is given.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("Give a list of texts, each a str.")
        # 1. Tokenise. A lone surrogate has no UTF-8 form; one character takes its place, so that offsets hold.
        texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        encodings = [self._encode(text) for text in texts]
        for index, encoding in enumerate(encodings):
            if not encoding.ids:
                which = "The text" if len(texts) == 1 else f"Text {index}"
                raise ValueError(f"{which} is empty, or holds no visible character: there is nothing to classify.")

        # 2. Pad on the right and run.
        lengths = [len(encoding.ids) for encoding in encodings]
        input_ids_BT = torch.full((len(texts), max(lengths, default=0)), self.model.config.pad_token_id)
        mask_BT = torch.zeros_like(input_ids_BT)
        for row, (encoding, length) in enumerate(zip(encodings, lengths, strict=True)):
            input_ids_BT[row, :length] = torch.tensor(encoding.ids)
            mask_BT[row, :length] = 1
        if not texts:
            return []
        device = self.model.device
        output = self.model(
            input_ids_BT.to(device), mask_BT.to(device), interventions=interventions, output_routing=True
        )
        logits_BC = output.logits.float()
        # Of several classes to a text each has a probability of its own.
        several = self.model.config.problem_type == "multi_label_classification"
        scores_BC = (logits_BC.sigmoid() if several else logits_BC.softmax(-1)).cpu().tolist()
        records = [record.detached() for record in output.routing]
        votes_BTC = bias_C = None
        if output.votes is not None:
            votes_BTC, bias_C = output.votes.float().cpu(), self.model.classifier.bias.detach().float().cpu()

        # 3. One Prediction per text.
        labels, unknown_id = self.model.config.labels, self.tokenizer.unk_token_id
        added = int(self.model.config.cls_token)
        predictions = []
        for row, (text, encoding) in enumerate(zip(texts, encodings, strict=True)):
            scores = dict(zip(labels, scores_BC[row], strict=True))
            tokens, offsets = read_tokens(text, encoding)
            trace = Band(
                stack="encoder",
                text=text,
                tokens=[CLS_NAME] * added + tokens,
                offsets=[(0, 0)] * added + offsets,
                unknown=[False] * added + [token_id == unknown_id for token_id in encoding.ids],
                truncated=bool(encoding.overflowing) or len(text) > MAX_CHARACTERS,
                routing=tuple(record.example(row) for record in records),
                written=added + len(tokens),
            )
            votes = None if votes_BTC is None else votes_BTC[row, : lengths[row] + added]
            predictions.append(Prediction(max(scores, key=scores.get), scores, trace, votes, bias_C))
        return predictions

    def token_ids(self, text: str) -> list[int]:
        """The tokens that the model reads of a text, without its own CLS token. Raises ValueError when there are
        none."""
        ids = self._encode(text.encode("utf-8", "replace").decode("utf-8")).ids
        if not ids:
            raise ValueError("The text is empty, or holds no visible character: there is nothing to classify.")
        return ids

    def _encode(self, text: str):
        return self.tokenizer.backend_tokenizer.encode(text[:MAX_CHARACTERS])
