"""Exported files beside their model, on the same tokens: how far logits differ, and which experts are chosen otherwise.

Legend: B texts, T tokens, V words or classes.
Try it: compare(model, onnx_runner(Path("news-onnx")), random_batches(model))
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from switch_model.export.graphs import SOURCE_MASK, Graph, as_past, graphs_of
from switch_model.models.pretrained import SwitchPreTrainedModel

# Largest difference of logits from the model's, relative where logits exceed 1.
TOLERANCE = 1e-4
# (texts, tokens) of the batches that a file is checked with before it is written.
CHECKED = ((1, 1), (1, 2), (3, 9), (4, 32), (1, 64), (2, 128))
# A graph and its inputs -> its outputs, by whatever runs it.
Runner = Callable[[Graph, dict[str, Tensor]], dict[str, Tensor]]


@dataclass
class Agreement:
    """Outputs of exported files beside the model's.

    Attributes:
        batches, texts: how many were compared.
        difference: largest difference of two logits.
        words, other_words: number of most probable words or classes, and of those that differ.
        choices, other_choices: number of experts chosen by the model for real tokens, and of those that differ; 0 for
            files without routing.
        reached: (layer, expert) of all experts that the model chose for a token.
    """

    batches: int = 0
    texts: int = 0
    difference: float = 0.0
    words: int = 0
    other_words: int = 0
    choices: int = 0
    other_choices: int = 0
    reached: set[tuple[str, int]] = field(default_factory=set)


@torch.no_grad()
def compare(
    model: SwitchPreTrainedModel,
    run: Runner,
    batches: Iterable[tuple[Tensor, Tensor]],
    tolerance: float | None = TOLERANCE,
) -> Agreement:
    """Run exported files and their model on batches of ids and masks, (B, T) each.

    Raises ValueError where logits differ by more than the tolerance; None = they may.
    """
    graphs, found = graphs_of(model, with_routing=True), Agreement()
    for ids, mask in batches:
        found.batches, found.texts = found.batches + 1, found.texts + len(ids)
        expected = answers(model, graphs, lambda graph, inputs: graph.run(inputs), ids, mask)
        for (real, own), (_, other) in zip(expected, answers(model, graphs, run, ids, mask), strict=True):
            _compare_logits(found, own, other, real, tolerance)
            _compare_choices(found, own, other, real)
    return found


def _compare_logits(found: Agreement, own: dict, other: dict, real: Tensor, tolerance: float | None) -> None:
    if "logits" not in own:
        return
    logits, others = own["logits"], other["logits"]
    if logits.dim() == 3:  # A text without a token has no logits that mean something; here each has one.
        logits, others = logits[real], others[real]
    apart = (logits - others).abs()
    # Written so that a difference that is no number fails too.
    if tolerance is not None and not (apart <= tolerance * logits.abs().clamp(min=1)).all():
        raise ValueError(
            f"The exported logits differ from the model's by {apart.max():.1g} ({real.shape[0]} texts of "
            f"{real.shape[1]} tokens): nothing was written."
        )
    found.difference = max(found.difference, float(apart.max()))
    found.words += logits.shape[0]
    found.other_words += int((logits.argmax(-1) != others.argmax(-1)).sum())


def _compare_choices(found: Agreement, own: dict, other: dict, real: Tensor) -> None:
    for name in (name for name in own if name.endswith(".expert")):
        expert = own[name]
        if expert.shape[1] > real.shape[1]:  # The model's CLS token.
            real = torch.cat([torch.ones_like(real[:, :1]), real], dim=1)
        found.reached |= {(name.removesuffix(".expert"), chosen) for chosen in expert[real].unique().tolist()}
        if name in other:
            found.choices += int(real.sum())
            found.other_choices += int((expert != other[name])[real].sum())


def answers(
    model: SwitchPreTrainedModel, graphs: list[Graph], run: Runner, ids: Tensor, mask: Tensor
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Each pass of a model over texts: which tokens are real, (B, T) bool, and the outputs. A model that writes reads
    all tokens first, then one more with the cache of them."""
    given, writer = {"input_ids": ids, "attention_mask": mask}, graphs[-1]
    if len(graphs) > 1 or writer.is_whole:
        first = run(graphs[0], given)
        yield mask.bool(), first
        if writer.is_whole:
            return
        # The decoder reads the same ids as a target without padding.
        vocabulary = model.config.decoder_vocab_size or model.config.vocab_size
        given |= {SOURCE_MASK: mask, **as_past(first)}
        ids, mask = ids % vocabulary, torch.ones_like(mask)
    past = writer.empty_past(len(ids))
    for own_ids, own_mask in ((ids, mask), (ids[:, :1], torch.ones_like(mask[:, :1]))):
        seen = own_mask if own_mask is mask else torch.cat([mask, own_mask], dim=1)
        outputs = run(writer, {**given, **past, "input_ids": own_ids, "attention_mask": seen})
        yield own_mask.bool(), outputs
        past = as_past(outputs)


def random_batches(
    model: SwitchPreTrainedModel, sizes: Iterable[tuple[int, int]] = CHECKED
) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids and mask of random tokens, each (texts, tokens) padded on the left, then on the right."""
    for texts, length in sizes:
        for side in ("left", "right"):
            yield padded(model, texts, min(length, _longest(model)), side)


def _longest(model: SwitchPreTrainedModel) -> int:
    """Most tokens that a text may have: a model with learned positions has as many, and may write one."""
    config = model.config
    return config.max_positions - 1 if config.position == "learned" else 2**31


def padded(model: SwitchPreTrainedModel, texts: int, length: int, side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask; every text with more padding than the one before."""
    places, gaps = torch.arange(length), (torch.arange(texts) * 3 % length).unsqueeze(1)
    mask = (places >= gaps) if side == "left" else (places < length - gaps)
    random = torch.Generator().manual_seed(length)
    ids = torch.randint(model.config.vocab_size, (texts, length), generator=random)
    return torch.where(mask, ids, model.config.pad_token_id), mask.long()
