"""Knowledge distillation (1503.02531): a run learns from labels and from the probabilities of other checkpoints.

The probabilities of several teachers are averaged: a small model distilled from an ensemble keeps a part of the
ensemble's gain over its members. Of classes, all are worked out before training; of tokens, batch by batch.

Legend: B texts, C classes, M labelled tokens of a batch, V tokens of the vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import load_checkpoint, require_classifier
from switch_model.models.pretrained import IGNORED_LABEL
from switch_model.storage.errors import a_class
from switch_model.storage.tokenizer_io import target_of
from train.arguments.device import pick_device
from train.arguments.groups import TrainArguments
from train.data.errors import DataError
from train.data.tokenizers import tokenize
from train.names import split_names
from train.tasks.collators import TEACHER, PaddingCollator
from train.tasks.registry import Task

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


def token_teachers(task: Task, settings: TrainArguments, tokenizer: PreTrainedTokenizerFast) -> "TokenTeachers | None":
    """The teachers of a run that learns from tokens; None without any. Raises as TokenTeachers does."""
    if not settings.teachers or task.labelled:
        return None
    return TokenTeachers(settings.teachers, task, tokenizer, pick_device(settings.device))


class TokenTeachers:
    """Teachers of a task whose labels are tokens: each batch passes through them too.

    Raises:
        CheckpointError: when one can't be opened.
        DataError: when one is a model of another task, or has another vocabulary.
    """

    def __init__(self, names: str, task: Task, tokenizer: PreTrainedTokenizerFast, device: str):
        self.task, self.models = task, []
        for name in split_names(names):
            model, theirs = load_checkpoint(name, device)
            if type(model) is not task.model_class:
                raise DataError(f"--teachers {name} is {a_class(model)}: it does not teach --task {task.title}.")
            same = [one.get_vocab() == own.get_vocab() for one, own in _both(theirs, tokenizer)]
            if not all(same):
                raise DataError(
                    f"--teachers {name} has another vocabulary, so that its probabilities are of other tokens: start "
                    f"from it with --init_from {name}, or give --tokenizer its folder."
                )
            self.models.append(model.eval().requires_grad_(False))

    def loss(self, inputs: Mapping[str, Tensor], logits: Tensor) -> Tensor:
        """Cross-entropy of a batch's logits against the teachers' probabilities, mean over labelled tokens. Scalar."""
        labels = inputs["labels"]
        with torch.no_grad():
            each = [self._at_labels(model(**inputs).logits, labels).float().softmax(-1) for model in self.models]
        return distillation_loss(self._at_labels(logits, labels), torch.stack(each).mean(dim=0))

    def _at_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(M, V) logits of the labelled tokens."""
        if self.task.hides_tokens:  # A masked model gives no others.
            return logits
        if self.task.streamed:  # Each token is the one before's label.
            logits, labels = logits[:, :-1], labels[:, 1:]
        return logits[labels != IGNORED_LABEL]


def _both(
    one: PreTrainedTokenizerFast, other: PreTrainedTokenizerFast
) -> list[tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]]:
    return [(one, other), (target_of(one), target_of(other))]


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
