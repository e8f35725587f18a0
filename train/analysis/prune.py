"""What a model would lose without its least valuable experts, predicted and measured, and a checkpoint without them.

Try it: python -m train prune --checkpoint assets/models/ag_news --dataset mini_news --split train
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from switch_model.adapters.loading import load_any
from switch_model.analysis.corpus import route_corpus
from switch_model.analysis.pruning import (
    SCORES,
    Removed,
    Worths,
    check_prunable,
    expert_worths,
    nats_per_label,
    plan,
    predicted_loss,
    random_plan,
)
from switch_model.analysis.scoring import Batch, batches_of, score
from switch_model.checkpoint import read_training, save_checkpoint
from switch_model.inference.classifier import CLASSIFIERS, Predictor
from switch_model.inference.pipeline import TextPipeline
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.archive import PRUNING as FILE
from train.analysis.analyze import rows_to_analyze, with_overlap
from train.data.errors import DataError
from train.data.source import DataSource
from train.evaluation.measured_rows import rows_of
from train.formatting import aligned, percent, signed
from train.weights.pruned import without_experts

# Random choices of experts, whose mean a score has to beat.
RANDOM, RANDOM_PLANS = "random", 5
# What of training.json is about the rows: it holds for the smaller model too.
OF_ROWS = ("arguments", "rows", "fingerprint")
# Rows below which losses are too uncertain.
LEAST_ROWS = 20


@dataclass(frozen=True)
class Loss:
    """A model's loss in nats per label (a class, or a token), and the share of labels that it predicts."""

    nats: float
    right: float


@dataclass(frozen=True)
class Case:
    """A smaller model.

    Attributes:
        keep: experts left in each layer.
        by: the score, or RANDOM.
        predicted: what the loss grows by according to the effects of single experts.
        measured: of the model without these experts; of RANDOM means over RANDOM_PLANS choices.
    """

    keep: int
    by: str
    predicted: float
    measured: Loss


@dataclass(frozen=True)
class Pruning:
    """A model, what its experts are worth, its loss, and the smaller models.

    Attributes:
        rows, other_rows: number of rows for the scores, and for the losses.
        note: a remark on the data, or "".
        training: what training.json says of the rows that the model was trained on, and of those held out.
    """

    model: SwitchPreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    worths: Worths
    whole: Loss
    cases: list[Case]
    rows: int
    other_rows: int
    note: str
    training: dict[str, Any]


def pruning_of(
    checkpoint: str,
    source: DataSource,
    keep: int | None,
    rows: int,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pruning:
    """Rank the experts on some rows, and measure smaller models on others.

    Args:
        keep: experts kept in each layer; None = three quarters, half and a quarter of them.
        rows: at most so many for the scores, and as many others for the losses.

    Raises:
        CheckpointError: when the checkpoint can't be opened.
        DataError: when there are too few rows.
        ValueError: for a model without experts to remove, or a `keep` that removes none or all.
    """
    model, tokenizer = load_any(checkpoint, device)
    check_prunable(model)
    classifies = isinstance(model, CLASSIFIERS)
    pipeline = Predictor(model, tokenizer) if classifies else TextPipeline(model, tokenizer)
    labels = model.config.labels if classifies else []
    found = with_overlap(rows_to_analyze(labels, source, num_samples=2 * rows, checkpoint=checkpoint), checkpoint)
    corpus = route_corpus(pipeline, found.texts, found.true, classes=found.classes)
    if classifies and (corpus.true < 0).any():
        raise DataError(
            f"{source.dataset} has rows without a class that the model knows ({', '.join(labels)}): a loss needs one "
            "for each."
        )
    read = rows_of(corpus, pipeline)
    half = len(read) // 2
    if half < LEAST_ROWS:
        raise DataError(f"{source.dataset} has {len(read)} rows to measure on: at least {2 * LEAST_ROWS} are needed.")
    scored, measured = batches_of(model, read[:half]), batches_of(model, read[half:])
    experts = model.config.num_experts
    least = 1 if model.config.router == "switch" else model.config.num_experts_per_tok
    kept = [keep] if keep else sorted({max(experts * part // 4, least) for part in (3, 2, 1)} - {experts}, reverse=True)
    if not kept or not all(least <= number < experts for number in kept):
        which = f"{least} to {experts - 1} can be kept" if least < experts else "none can be removed"
        raise ValueError(f"--keep {keep or 'none'} is not possible: of {experts} experts {which}.")
    worths = expert_worths(model, scored, progress)
    cases = [case for number in kept for case in _cases(model, worths, number, measured)]
    whole = _loss(model, measured)
    training = {name: value for name, value in read_training(checkpoint).items() if name in OF_ROWS}
    return Pruning(model, tokenizer, worths, whole, cases, half, len(read) - half, found.note, training)


def _cases(model: SwitchPreTrainedModel, worths: Worths, keep: int, batches: Sequence[Batch]) -> list[Case]:
    cases = []
    for by in SCORES:
        removed = plan(worths, keep, by)
        cases.append(Case(keep, by, predicted_loss(worths, removed), _loss(without_experts(model, removed), batches)))
    plans = [random_plan(worths, keep, seed) for seed in range(RANDOM_PLANS)]
    losses = [_loss(without_experts(model, removed), batches) for removed in plans]
    mean = Loss(
        *(sum(values) / RANDOM_PLANS for values in zip(*((one.nats, one.right) for one in losses), strict=True))
    )
    predicted = sum(predicted_loss(worths, removed) for removed in plans) / RANDOM_PLANS
    return [*cases, Case(keep, RANDOM, predicted, mean)]


def _loss(model: SwitchPreTrainedModel, batches: Sequence[Batch]) -> Loss:
    scores = score(model, batches)
    return Loss(nats_per_label(scores), float(scores.right.sum() / max(scores.asked.sum(), 1)))


def table_in_words(found: Pruning) -> str:
    """The experts with their scores, and the smaller models beside the whole one."""
    experts = [["layer", "expert", "load", "REAP", "loss without it"]]
    for layer, own in found.worths.items():
        for expert, worth in enumerate(own):
            experts.append([layer, str(expert), percent(worth.load), f"{worth.reap:.3f}", signed(worth.effect, 4)])
    smaller = [["experts kept", "by", "predicted loss", "measured loss", "change", "right"]]
    whole = found.whole
    smaller.append([str(found.model.config.num_experts), "", "", f"{whole.nats:.4f}", "", percent(whole.right)])
    for case in found.cases:
        change = signed(case.measured.nats - whole.nats, 4)
        row = [f"{whole.nats + case.predicted:.4f}", f"{case.measured.nats:.4f}", change, percent(case.measured.right)]
        smaller.append([str(case.keep), case.by, *row])
    lines = [
        f"Scores on {found.rows:,} rows, losses (nats per label) on {found.other_rows:,} others. {found.note}".rstrip(),
        aligned(experts),
        "",
        aligned(smaller),
        f"Predicted: the sum of what the loss grows by without each removed expert alone. {RANDOM}: mean of "
        f"{RANDOM_PLANS} choices.",
    ]
    return "\n".join(lines)


def write_pruned(found: Pruning, keep: int, by: str, folder: str | Path) -> str:
    """Write the checkpoint without the experts that a score ranks lowest; returns what was written, in words."""
    removed: Removed = plan(found.worths, keep, by)
    smaller = without_experts(found.model, removed)
    written = save_checkpoint(smaller, found.tokenizer, folder, training=found.training or None)
    case = next(one for one in found.cases if one.by == by and one.keep == keep)
    about = {"by": by, "removed": removed, "whole": asdict(found.whole), "smaller": asdict(case.measured)}
    (written / FILE).write_text(json.dumps(about, indent=1), encoding="utf-8")
    before, after = (sum(weight.numel() for weight in one.parameters()) for one in (found.model, smaller))
    return f"{folder}: {after:,} parameters of {before:,}. {FILE} has the experts that were removed."
