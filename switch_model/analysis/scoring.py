"""Scores of a model per text, with or without interventions: classes, next tokens, masked tokens, target texts.

Legend: N texts, B texts of a batch, T tokens, C classes, V tokens in the vocabulary, M labelled tokens.
Try it: score(model, batches_of(model, [{"input_ids": [5, 6, 7], "labels": 0}])).right
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from switch_model.adapters.model import AdaptedCausalLM
from switch_model.inference.batching import CPU_TOKENS, batches_by_length
from switch_model.inference.classifier import CLASSIFIERS
from switch_model.inference.pipeline import AnyModel
from switch_model.inference.text_generator import ENCODER_DECODERS, WRITERS
from switch_model.interventions import Interventions
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import IGNORED_LABEL
from switch_model.storage.errors import class_name

# Models whose answers can be measured on texts alone.
MEASURED = (*CLASSIFIERS, SwitchForCausalLM, AdaptedCausalLM, SwitchForMaskedLM)
# Fewer tokens per batch for a model with logits over a vocabulary.
VOCABULARY_TOKENS = CPU_TOKENS // 2


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of texts: their indices among all, the model's inputs, and labels, padded on the right."""

    rows: np.ndarray
    inputs: dict[str, Tensor]
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of N texts.

    Attributes:
        asked: (N,) number of labels: 1 or 0 for a class, else a number of tokens.
        right: (N,) number of labels that the model predicts.
        nats: (N,) negative log-likelihood of the labels, summed, in nats.
        probs: (N, C) class probabilities; None for a model without classes.
        choices: per sparse layer and text, the experts of its T tokens, (T,), or (T, K) where each has several; None if
            not requested.
        dropped: whether any token was dropped.
    """

    asked: np.ndarray
    right: np.ndarray
    nats: np.ndarray
    probs: np.ndarray | None
    choices: list[list[np.ndarray]] | None = None
    dropped: bool = False


def batches_of(model: AnyModel, rows: Sequence[Mapping[str, Any]]) -> list[Batch]:
    """Batches of texts of similar length.

    Args:
        rows: one per text: `input_ids`, and `labels`: its class (negative = unknown); for a masked model or an
            encoder-decoder token ids, -100 = ignored; not used for a causal model, which predicts each next token.

    Raises:
        ValueError: for a model without a head.
    """
    classifies = isinstance(model, CLASSIFIERS)
    if not classifies and not isinstance(model, (SwitchForMaskedLM, *WRITERS)):
        raise ValueError(f"{class_name(model)} has no head: there is nothing to measure it by. Give a model with one.")
    ids = [torch.as_tensor(row["input_ids"]) for row in rows]
    asked = [torch.as_tensor(row.get("labels", row["input_ids"])) for row in rows]
    lengths = np.array([max(len(own), 0 if classifies else len(label)) for own, label in zip(ids, asked, strict=True)])
    batches = []
    for chosen in batches_by_length(lengths, CPU_TOKENS if classifies else VOCABULARY_TOKENS):
        own = [ids[row] for row in chosen]
        input_ids_BT = pad_sequence(own, batch_first=True, padding_value=model.config.pad_token_id)
        length_B1 = torch.tensor([len(one) for one in own]).unsqueeze(1)
        inputs = {"input_ids": input_ids_BT, "attention_mask": torch.arange(input_ids_BT.shape[1]) < length_B1}
        wanted = [asked[row] for row in chosen]
        labels = torch.stack(wanted) if classifies else pad_sequence(wanted, True, IGNORED_LABEL)
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        batches.append(Batch(chosen, inputs, labels.to(model.device)))
    return batches


@torch.inference_mode()
def score(
    model: AnyModel,
    batches: Sequence[Batch],
    interventions: Interventions | Sequence[Interventions] | None = None,
    choices_wanted: bool = False,
) -> Scores:
    """One pass over all texts.

    Args:
        interventions: for all texts, or one per text, by its index.
        choices_wanted: whether to return the experts of all tokens.
    """
    texts = sum(len(batch.rows) for batch in batches)
    asked, right = np.zeros(texts, dtype=np.int64), np.zeros(texts, dtype=np.int64)
    nats, probs = np.zeros(texts), None
    choices: list[list[np.ndarray]] = [[np.empty(0)] * texts for _ in model.config.sparse_layers]
    dropped = False
    for batch in batches:
        own = interventions
        if isinstance(interventions, Sequence):
            own = [interventions[row] for row in batch.rows]
        output, logits_MC, labels_M, text_M = _answers(model, batch, own, choices_wanted)
        log_probs_MC = logits_MC.float().log_softmax(dim=-1)
        known_M = labels_M >= 0
        found_M = (log_probs_MC.argmax(dim=-1) == labels_M) & known_M
        given_M = -log_probs_MC.gather(1, labels_M.clamp(min=0).unsqueeze(1)).squeeze(1) * known_M
        size = len(batch.rows)
        for total, one_M in ((asked, known_M), (right, found_M), (nats, given_M)):
            sums_B = torch.zeros(size, dtype=torch.float64).index_add(0, text_M.cpu(), one_M.double().cpu())
            total[batch.rows] = sums_B.numpy()
        if isinstance(model, CLASSIFIERS):
            probs = np.zeros((texts, logits_MC.shape[1])) if probs is None else probs
            probs[batch.rows] = log_probs_MC.exp().cpu().numpy()
        for layer, record in enumerate(output.routing if choices_wanted else ()):
            dropped |= bool(record.dropped.any())
            several = record.experts.shape[-1] > 1
            expert_BT = (record.experts if several else record.expert).cpu().numpy()
            mask_BT = record.mask.cpu().numpy()
            for place, row in enumerate(batch.rows):
                choices[layer][row] = expert_BT[place, mask_BT[place]]
    return Scores(asked, right, nats, probs, choices if choices_wanted else None, dropped)


def _answers(
    model: AnyModel, batch: Batch, interventions: Any, records_wanted: bool
) -> tuple[Any, Tensor, Tensor, Tensor]:
    """The model's output, and for every label: logits (M, C or V), labels (M,), and its text's index in the batch."""
    inputs: dict[str, Any] = batch.inputs | {"interventions": interventions, "output_routing": records_wanted}
    if isinstance(model, CLASSIFIERS):
        output = model(**inputs)
        return output, output.logits, batch.labels, torch.arange(len(batch.rows))
    if isinstance(model, SwitchForMaskedLM):
        output = model(**inputs, labels=batch.labels)  # Logits of the labelled positions only.
        chosen_BT = batch.labels != IGNORED_LABEL
        return output, output.logits, batch.labels[chosen_BT], chosen_BT.nonzero()[:, 0]
    if isinstance(model, ENCODER_DECODERS):
        ids_BT, mask_BT = model.shift_right(batch.labels)
        output = model(**inputs, decoder_input_ids=ids_BT, decoder_attention_mask=mask_BT)
        logits_BTV, labels_BT = output.logits, batch.labels
        chosen_BT = labels_BT != IGNORED_LABEL
    else:
        output = model(**inputs)
        logits_BTV, labels_BT = output.logits[:, :-1], batch.inputs["input_ids"][:, 1:]
        chosen_BT = batch.inputs["attention_mask"][:, 1:]
    return output, logits_BTV[chosen_BT], labels_BT[chosen_BT], chosen_BT.nonzero()[:, 0]
