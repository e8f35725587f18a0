"""Knowledge distillation (1503.02531): a run learns from labels and from the probabilities of other checkpoints.

The probabilities of several teachers are averaged: a small model distilled from an ensemble keeps a part of the
ensemble's gain over its members.
"""

from collections.abc import Sequence

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

from switch_model.checkpoint import load_checkpoint, require_classifier
from train.arguments.groups import TrainArguments
from train.data.errors import DataError
from train.data.tokenizers import tokenize
from train.names import split_names
from train.tasks.collators import TEACHER, PaddingCollator

TEXTS_AT_ONCE = 128


def with_teachers(rows: Dataset, texts: Sequence[str], labels: Sequence[str], settings: TrainArguments) -> Dataset:
    """Tokenized rows with a new column TEACHER: the mean of the teachers' (C,) class probabilities.

    Args:
        rows: with the column `row`, the index of each row's text.
        labels: class names by index.
        settings: the teachers, and the device to run them on.

    Raises:
        CheckpointError: when a teacher can't be opened, or is not a classifier.
        DataError: when a teacher has other classes.
    """
    names, wanted = split_names(settings.teachers), [texts[row] for row in rows["row"]]
    total_NC = torch.zeros(len(wanted), len(labels))
    for name in names:
        print(f"Teacher {name}: predicting {len(wanted):,} training texts …", flush=True)
        total_NC += _probabilities(name, wanted, labels, settings.device)
    return rows.add_column(TEACHER, (total_NC / len(names)).tolist())


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy of (B, C) logits against the teachers' (B, C) probabilities, mean over texts. Scalar."""
    return nn.functional.cross_entropy(logits.float(), teacher.to(logits.device))


@torch.inference_mode()
def _probabilities(checkpoint: str, texts: Sequence[str], labels: Sequence[str], device: str | None) -> Tensor:
    """(N, C) in the order of `labels`."""
    model, tokenizer = load_checkpoint(checkpoint, device)
    require_classifier(model)
    if sorted(model.config.labels) != sorted(labels):
        raise DataError(
            f"--teachers {checkpoint} has the classes {', '.join(model.config.labels)}: a teacher must have those of "
            f"the data, {', '.join(labels)}."
        )
    order = [model.config.labels.index(name) for name in labels]
    model.eval()
    rows = tokenize(Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)}), tokenizer).sort("length")
    # Uniform for a text in which this tokenizer finds no token.
    found_NC = torch.full((len(texts), len(labels)), 1 / len(labels))
    at = 0
    for batch in DataLoader(rows, TEXTS_AT_ONCE, collate_fn=PaddingCollator(tokenizer.pad_token_id)):
        logits_BC = model(batch["input_ids"].to(model.device), batch["attention_mask"].to(model.device)).logits
        places = torch.tensor(rows[at : at + len(logits_BC)]["row"])
        found_NC[places] = logits_BC.float().softmax(-1)[:, order].cpu()
        at += len(logits_BC)
    return found_NC
