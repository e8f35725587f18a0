"""A routed data set: the experts of every token of every text, as flat arrays from which metrics are computed.

Legend: N texts, K tokens of all texts in the order of the texts, L sparse layers, E experts, J choices of a token.
Try it: route_corpus(Predictor.from_checkpoint("assets/models/ag_news"), ["Oil prices rose.", "The team won."])
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from switch_model.analysis.statistics import RoutingTotals
from switch_model.inference.batching import batches_by_length, padded
from switch_model.inference.classifier import CLASSIFIERS
from switch_model.inference.pipeline import CLS_NAME, MAX_CHARACTERS, TextPipeline, replace_surrogates
from switch_model.routing import may_drop
from switch_model.stepping import to_the_end
from switch_model.topk_routing import AnyRouting

# What is said beside a corpus that an encoder-decoder routed.
ENCODER_ALONE = (
    "These are the encoder’s experts: which of the decoder’s a token goes to depends on what it writes "
    "(Explore shows that for one text)."
)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Predictions and routing of many texts.

    Attributes:
        texts: the N texts that have a token.
        classes: names, in the model's order; of a model without classes those of the data, if they have any.
        true: (N,) class indices; -1 = unknown.
        predicted, probability: (N,) the most probable class and its probability; -1 and 0 from a model without classes.
        layers: names of the L sparse layers.
        num_experts: E.
        text: (K,) index of each token's text.
        position: (K,) position of the token in its text, from 0.
        token: (K,) token id; the vocabulary size for the model's own CLS token.
        start, end: (K,) character offsets of the token in its text.
        expert: (L, K) the expert that the token chose: of several the one with the largest weight.
        dropped: (L, K) whether the token was dropped.
        may_drop: whether an expert can be full at all.
        measures: per layer, the metrics of `RoutingTotals.summary`.
        names: token id -> readable name, for the tokens that occur.
        experts: (L, K, J) all experts that the token chose, -1 = none further; None where each has one.
    """

    texts: list[str]
    classes: list[str]
    true: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    layers: tuple[str, ...]
    num_experts: int
    text: np.ndarray
    position: np.ndarray
    token: np.ndarray
    start: np.ndarray
    end: np.ndarray
    expert: np.ndarray
    dropped: np.ndarray
    may_drop: bool
    measures: list[dict[str, Any]]
    names: dict[int, str]
    experts: np.ndarray | None = None

    @property
    def classified(self) -> bool:
        """Whether the model gives a text a class."""
        return bool((self.predicted >= 0).all())

    @property
    def labels(self) -> np.ndarray:
        """(N,) the class of each text, the predicted one where the true one is unknown; -1 = neither is known."""
        return np.where(self.true >= 0, self.true, self.predicted)

    def choices(self, layer: str) -> np.ndarray:
        """(K, J) all experts that each token chose, -1 = none further. Raises ValueError for no such layer."""
        index = self.layer_index(layer)
        return self.expert[index, :, None] if self.experts is None else self.experts[index]

    def takes(self, layer: str, expert: int) -> np.ndarray:
        """(K,) whether each token chose the expert. Raises ValueError when there is no such layer."""
        return (self.choices(layer) == expert).any(axis=1)

    @property
    def labelled(self) -> bool:
        """Whether any text has a known class."""
        return bool((self.true >= 0).any())

    @property
    def accuracy(self) -> float | None:
        """Over the texts whose class is known; None without any, or from a model without classes."""
        known = self.true >= 0
        return float((self.predicted == self.true)[known].mean()) if known.any() and self.classified else None

    def layer_index(self, name: str) -> int:
        """Index of a layer in `layers`. Raises ValueError when there is no such layer."""
        if name not in self.layers:
            raise ValueError(f"The model has no sparse layer {name!r}: it has {', '.join(self.layers) or 'none'}.")
        return self.layers.index(name)

    def tokens_table(self) -> dict[str, Any]:
        """One row per token: columns text, position, token, and per layer expert and dropped, and experts (a list)
        where each token has several."""
        columns = {
            "text": self.text,
            "position": self.position,
            "token": [self.names[one] for one in self.token.tolist()],
        }
        for index, layer in enumerate(self.layers):
            columns |= {f"{layer} expert": self.expert[index], f"{layer} dropped": self.dropped[index]}
            if self.experts is not None:
                columns[f"{layer} experts"] = [chosen[chosen >= 0] for chosen in self.experts[index]]
        return columns

    def texts_table(self) -> dict[str, Any]:
        """One row per text: columns text, true class ("" = unknown), predicted class ("" = none) and its
        probability."""
        names = [*self.classes, ""]  # The last one stands for -1.
        return {
            "text": self.texts,
            "true": [names[one] for one in self.true.tolist()],
            "predicted": [names[one] for one in self.predicted.tolist()],
            "probability": self.probability.round(4),
        }


def route_corpus(
    pipeline: TextPipeline,
    texts: Sequence[str],
    true: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    classes: Sequence[str] = (),
) -> Corpus:
    """Route every text, and classify it where the model is a classifier.

    Args:
        pipeline: of any model; of one with two stacks the encoder's routing alone is kept, since texts are all that
            there is.
        true: class indices in the model's order, -1 = unknown; None = all unknown.
        progress: called with (texts done, total) after each batch.
        classes: names for `true`, for a model without classes.

    Raises:
        ValueError: when no text has a token, or the model has no sparse layer that reads texts.
    """
    return to_the_end(route_in_steps(pipeline, texts, true, classes), progress)


@torch.inference_mode()
def route_in_steps(
    pipeline: TextPipeline, texts: Sequence[str], true: Sequence[int] | None = None, classes: Sequence[str] = ()
) -> Generator[tuple[int, int], None, Corpus]:
    """`route_corpus` as a generator, to show progress or to cancel: yields (texts done, total)."""
    model, config = pipeline.model, pipeline.model.config
    layers = _layers_that_read(config)
    classifies, two_stacks = isinstance(model, CLASSIFIERS), config.is_encoder_decoder
    texts, encodings, kept = _encoded(pipeline, texts)
    added = pipeline.added
    lengths = np.array([added + len(encoding.ids) for encoding in encodings])
    first = np.concatenate([[0], np.cumsum(lengths)])
    routes = np.zeros((len(layers), first[-1], getattr(config, "num_choices", 1)), dtype=np.int16)
    all_dropped = np.zeros(routes.shape[:2], dtype=bool)
    predicted, probability = np.full(len(texts), -1), np.zeros(len(texts))
    totals, done, limited = RoutingTotals(), 0, False

    for rows in batches_by_length(lengths):
        ids, mask = padded([encodings[row].ids for row in rows], config.pad_token_id)
        # A decoder gets its start token alone.
        start = {"decoder_input_ids": model.shift_right(ids[:, :1])[0].to(model.device)} if two_stacks else {}
        output = model(ids.to(model.device), mask.to(model.device), output_routing=True, **start)
        records = tuple(record for record in output.routing if record.name in layers)
        totals.add(records)
        if classifies:
            best = output.logits.float().softmax(-1).cpu().max(dim=-1)
            predicted[rows], probability[rows] = best.indices.numpy(), best.values.numpy()
        # (L, B, T, J) and (L, B, T): all layers at once, then copied text by text.
        experts = torch.stack([_chosen(record) for record in records]).cpu().numpy()
        dropped = torch.stack([record.dropped for record in records]).cpu().numpy()
        limited = limited or may_drop(records)
        for place, row in enumerate(rows):
            routes[:, first[row] : first[row + 1]] = experts[:, place, : lengths[row]]
            all_dropped[:, first[row] : first[row + 1]] = dropped[:, place, : lengths[row]]
        done += len(rows)
        yield done, len(texts)

    own = [config.vocab_size] * added
    token = np.concatenate([own + encoding.ids for encoding in encodings]).astype(np.int64)
    offsets = np.concatenate([np.array([(0, 0)] * added + encoding.offsets, dtype=np.int64) for encoding in encodings])
    text = np.repeat(np.arange(len(texts)), lengths)
    return Corpus(
        texts=texts,
        classes=list(config.labels if classifies else classes),
        true=np.full(len(texts), -1) if true is None else np.array(true, dtype=np.int64)[kept],
        predicted=predicted,
        probability=probability,
        layers=layers,
        num_experts=config.num_experts,
        text=text,
        position=np.arange(first[-1]) - first[text],
        token=token,
        start=offsets[:, 0],
        end=offsets[:, 1],
        expert=routes[..., 0],
        dropped=all_dropped,
        may_drop=limited,
        measures=totals.summary(),
        names=_names(pipeline, texts, token, text, offsets),
        experts=routes if routes.shape[-1] > 1 else None,
    )


def _chosen(record: AnyRouting) -> Tensor:
    """(B, T, J) experts; with expert choice, where a token may have any number, -1 for the rest."""
    any_number = record.experts.shape[-1] == record.num_experts > 1
    return record.experts.masked_fill(~record.chosen, -1) if any_number else record.experts


def _layers_that_read(config: Any) -> tuple[str, ...]:
    """The sparse layers that read a text: of a model with two stacks, the encoder's."""
    layers = tuple(config.sparse_layers)
    if not layers:
        raise ValueError("This model has no sparse layer: there is no routing to analyse.")
    if not config.is_encoder_decoder:
        return layers
    layers = tuple(name for name in layers if name.startswith("encoder."))
    if not layers:
        raise ValueError(
            "This model has experts in its decoder alone, and which of them a token goes to depends on what it writes: "
            "evaluate it on pairs of texts instead."
        )
    return layers


def _encoded(pipeline: TextPipeline, texts: Sequence[str]) -> tuple[list[str], list[Any], list[int]]:
    """(the texts that have a token, what the tokenizer makes of them, their indices)."""
    texts = [replace_surrogates(text[:MAX_CHARACTERS]) for text in texts]
    encodings = pipeline.encode_all(texts)
    kept = [index for index, encoding in enumerate(encodings) if encoding.ids]
    if not kept:
        raise ValueError("None of the texts has a visible character: there is nothing to analyse.")
    return [texts[index] for index in kept], [encodings[index] for index in kept], kept


def _names(
    pipeline: TextPipeline, texts: list[str], token: np.ndarray, text: np.ndarray, offsets: np.ndarray
) -> dict[int, str]:
    """Token id -> the characters of its first occurrence: byte-level pieces of a vocabulary are not readable. The
    unknown token keeps its name."""
    numbers, where = np.unique(token, return_index=True)
    names = {}
    for number, index in zip(numbers.tolist(), where.tolist(), strict=True):
        if number == pipeline.model.config.vocab_size:
            names[number] = CLS_NAME
            continue
        start, end = offsets[index]
        own = str(pipeline.tokenizer.convert_ids_to_tokens(number))
        surface = "" if number == pipeline.tokenizer.unk_token_id else texts[text[index]][start:end].strip()
        piece = own.startswith("##")
        names[number] = f"##{surface}" if piece and surface else own if piece or not surface else surface.lower()
    return names
