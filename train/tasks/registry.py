"""What a run can learn: for each task its model, its rows and batches, and the figure that says which checkpoint is
best.

Try it: python -m train --help (--task)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from transformers import EvalPrediction, PreTrainedTokenizerFast

from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import IGNORED_LABEL, SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from train.arguments.groups import TrainArguments
from train.tasks.collators import BlockCollator, MaskingCollator, PaddingCollator, PairCollator, SpanCorruptionCollator
from train.tasks.metrics import MEASURES
from train.tasks.scores import accuracy, by_class

Collator = Callable[[PreTrainedTokenizerFast, TrainArguments], Callable[[list], dict[str, Tensor]]]


@dataclass(frozen=True)
class Task:
    """One kind of training.

    Attributes:
        model_class: what is trained.
        rows: what a row is: a text with its class, a text, a text and its translation, or a block of a stream of texts.
        aim: what the model learns to tell, in words.
        title: what the model can do in the end, in two words: for a picker.
        learns: what it learns and from which columns, in a sentence.
        best: the validation figure that chooses the best checkpoint.
        higher_is_better: which way.
        figures: what its curves show beside the loss, by the names of train.tasks.metrics.
        hits: (logits, labels) of a batch -> (answers that are right, answers in all).
        collator: how rows become a batch.
        metrics: what the Trainer computes from all validation logits; None = loss and hits are enough.
    """

    model_class: type[SwitchPreTrainedModel]
    rows: Literal["classes", "texts", "pairs", "blocks"]
    aim: str
    title: str
    learns: str
    best: str
    higher_is_better: bool
    figures: tuple[str, ...]
    hits: Callable[[Tensor, Tensor], tuple[Tensor, int]]
    collator: Collator
    metrics: Callable[[EvalPrediction], dict[str, float]] | None = None

    @property
    def labelled(self) -> bool:
        """Whether rows need a class."""
        return self.rows == "classes"

    @property
    def writes(self) -> bool:
        """Whether the model generates text."""
        return self.model_class.can_generate()

    def better(self, value: float, than: float) -> bool:
        return value > than if self.higher_is_better else value < than

    def describe(self, value: float) -> str:
        """The figure that chooses the best checkpoint, with its name."""
        return MEASURES[self.best].words(value)


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and macro-F1 over the classes that occur."""
    expected, predicted = prediction.label_ids, prediction.predictions.argmax(-1)
    each = by_class(expected, predicted, classes=prediction.predictions.shape[-1])
    return {"accuracy": accuracy(expected, predicted), "macro_f1": each.macro("f1")}


def _classification_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return (logits.argmax(-1) == labels).sum(), len(labels)


def _masked_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return (logits.argmax(-1) == labels[labels != IGNORED_LABEL]).sum(), len(logits)


def _token_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    asked = labels != IGNORED_LABEL
    return ((logits.argmax(-1) == labels) & asked).sum(), int(asked.sum())


def _next_token_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    return _token_hits(logits[:, :-1], labels[:, 1:])


def _padding(tokenizer: PreTrainedTokenizerFast, train: TrainArguments) -> PaddingCollator:
    return PaddingCollator(tokenizer.pad_token_id)


def _masking(tokenizer: PreTrainedTokenizerFast, train: TrainArguments) -> MaskingCollator:
    return MaskingCollator(tokenizer, train.mlm_probability, train.seed)


def _corrupting(tokenizer: PreTrainedTokenizerFast, train: TrainArguments) -> SpanCorruptionCollator:
    return SpanCorruptionCollator(tokenizer, train.mlm_probability, train.seed)


def _pairing(tokenizer: PreTrainedTokenizerFast, train: TrainArguments) -> PairCollator:
    return PairCollator(tokenizer.pad_token_id)


def _blocks(tokenizer: PreTrainedTokenizerFast, train: TrainArguments) -> BlockCollator:
    return BlockCollator()


TASKS = {
    "classification": Task(
        model_class=SwitchForSequenceClassification,
        rows="classes",
        aim="classes",
        title="classify",
        learns="Learns which class a text has, from a column of texts and one of classes.",
        best="accuracy",
        figures=("accuracy",),
        higher_is_better=True,
        hits=_classification_hits,
        collator=_padding,
        metrics=classification_metrics,
    ),
    "mlm": Task(
        model_class=SwitchForMaskedLM,
        rows="texts",
        aim="hidden tokens to guess",
        title="fill blanks",
        learns="Learns to guess words that are hidden from it, as BERT does, from a column of texts.",
        best="loss",
        figures=("accuracy",),
        higher_is_better=False,
        hits=_masked_hits,
        collator=_masking,
    ),
    "span_corruption": Task(
        model_class=SwitchForConditionalGeneration,
        rows="texts",
        aim="spans cut out of texts to write again",
        title="restore gaps",
        learns="Learns to write again what was cut out of a text, as T5 does, from a column of texts.",
        best="loss",
        figures=("accuracy",),
        higher_is_better=False,
        hits=_token_hits,
        collator=_corrupting,
    ),
    "translation": Task(
        model_class=SwitchForConditionalGeneration,
        rows="pairs",
        aim="translations to write",
        title="translate",
        learns="Learns to write the second text of a pair from the first: a translation, an answer, a summary.",
        best="bleu",
        figures=("bleu", "chrf"),
        higher_is_better=True,
        hits=_token_hits,
        collator=_pairing,
    ),
    "clm": Task(
        model_class=SwitchForCausalLM,
        rows="blocks",
        aim="the next token to guess",
        title="write on",
        learns="Learns to go on with a text token by token, as GPT does, from a column of texts.",
        best="loss",
        figures=("perplexity",),
        higher_is_better=False,
        hits=_next_token_hits,
        collator=_blocks,
    ),
}
