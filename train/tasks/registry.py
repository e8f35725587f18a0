"""What a run can learn: for each task its model, its rows and batches, its words, and the metric that says which
checkpoint is best. What else depends on the task asks it here.

Try it: python -m train --help (--task)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
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
        purpose: what the model does, for its card: "A mixture of experts that …"; the names of classes follow.
        pipeline_tag: what the hub calls that.
        best: the validation metric that chooses the best checkpoint.
        higher_is_better: which way.
        curves: what its curves show beside the loss, by the names of train.tasks.metrics.
        hits: (logits, labels) of a batch -> (answers that are right, answers in all).
        collator: how rows become a batch.
        metrics: what the Trainer computes from all validation logits; None = loss and hits are enough.
        hides_tokens: whether tokens are hidden behind a mask, to be guessed.
        restores_gaps: whether spans are cut out of what is read, to be written again.
    """

    model_class: type[SwitchPreTrainedModel]
    rows: Literal["classes", "texts", "pairs", "blocks"]
    aim: str
    title: str
    learns: str
    purpose: str
    pipeline_tag: str
    best: str
    higher_is_better: bool
    curves: tuple[str, ...]
    hits: Callable[[Tensor, Tensor], tuple[Tensor, int]]
    collator: Collator
    metrics: Callable[[EvalPrediction], dict[str, float]] | None = None
    hides_tokens: bool = False
    restores_gaps: bool = False

    @property
    def labelled(self) -> bool:
        """Whether rows need a class."""
        return self.rows == "classes"

    @property
    def paired(self) -> bool:
        """Whether rows have a second text, which is to be written: at evaluations, an answer to each."""
        return self.rows == "pairs"

    @property
    def streamed(self) -> bool:
        """Whether texts are read one after the other and cut into blocks; at evaluations, a few are gone on with."""
        return self.rows == "blocks"

    @property
    def keeps_every_row(self) -> bool:
        """Whether each row of the data is one to train on: no pair is too long, nothing is cut into blocks."""
        return not (self.paired or self.streamed)

    @property
    def writes_samples(self) -> bool:
        """Whether a run writes texts at its evaluations."""
        return self.paired or self.streamed

    @property
    def takes_language(self) -> bool:
        """Whether a data set on the hub may be asked for one of its languages."""
        return self.paired or self.streamed

    @property
    def row(self) -> str:
        """What a row is, in a word."""
        return {"pairs": "pair", "blocks": "block"}.get(self.rows, "text")

    def rows_in_words(self, seq_len: int) -> tuple[str, str]:
        """What one row and several rows are: ("pair of texts", "pairs of texts")."""
        more = {"pairs": " of texts", "blocks": f" of {seq_len} tokens"}.get(self.rows, "")
        return f"{self.row}{more}", f"{self.row}s{more}"

    def labels_to_time(self, ids_BT: Tensor, target_BT: Tensor | None) -> Tensor:
        """Labels for texts drawn at random, to time a step of training with."""
        if self.labelled:
            return torch.zeros(len(ids_BT), dtype=torch.long, device=ids_BT.device)
        if not self.writes:
            every = torch.arange(ids_BT.shape[1], device=ids_BT.device) % 7 == 0  # About the share that is hidden.
            return ids_BT.masked_fill(~every, IGNORED_LABEL)
        return ids_BT if target_BT is None else target_BT

    @property
    def rewrites(self) -> bool:
        """Whether one text is read and another one written."""
        return self.paired or self.restores_gaps

    @property
    def writes(self) -> bool:
        """Whether the model generates text."""
        return self.model_class.can_generate()

    def better(self, value: float, than: float) -> bool:
        return value > than if self.higher_is_better else value < than

    def describe(self, value: float) -> str:
        """The metric that chooses the best checkpoint, with its name."""
        return MEASURES[self.best].words(value)


def accuracy_and_f1(prediction: EvalPrediction) -> dict[str, float]:
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
        purpose="sorts texts into",
        pipeline_tag="text-classification",
        best="accuracy",
        curves=("accuracy",),
        higher_is_better=True,
        hits=_classification_hits,
        collator=_padding,
        metrics=accuracy_and_f1,
    ),
    "mlm": Task(
        model_class=SwitchForMaskedLM,
        rows="texts",
        aim="hidden tokens to guess",
        title="masked LM",
        learns="Learns to guess words that are hidden from it, as BERT does, from a column of texts.",
        purpose="guesses hidden tokens of a text",
        pipeline_tag="fill-mask",
        best="loss",
        curves=("accuracy",),
        higher_is_better=False,
        hits=_masked_hits,
        collator=_masking,
        hides_tokens=True,
    ),
    "span_corruption": Task(
        model_class=SwitchForConditionalGeneration,
        rows="texts",
        aim="spans cut out of texts to write again",
        title="span corruption",
        learns="Learns to write again what was cut out of a text, as T5 does, from a column of texts.",
        purpose="writes what was cut out of a text",
        pipeline_tag="text2text-generation",
        best="loss",
        curves=("accuracy",),
        higher_is_better=False,
        hits=_token_hits,
        collator=_corrupting,
        restores_gaps=True,
    ),
    "translation": Task(
        model_class=SwitchForConditionalGeneration,
        rows="pairs",
        aim="translations to write",
        title="translate",
        learns="Learns to write the second text of a pair from the first: a translation, an answer, a summary.",
        purpose="translates",
        pipeline_tag="translation",
        best="bleu",
        curves=("bleu", "chrf"),
        higher_is_better=True,
        hits=_token_hits,
        collator=_pairing,
    ),
    "clm": Task(
        model_class=SwitchForCausalLM,
        rows="blocks",
        aim="the next token to guess",
        title="causal LM",
        learns="Learns to go on with a text token by token, as GPT does, from a column of texts.",
        purpose="goes on with a text",
        pipeline_tag="text-generation",
        best="loss",
        curves=("perplexity",),
        higher_is_better=False,
        hits=_next_token_hits,
        collator=_blocks,
    ),
}
