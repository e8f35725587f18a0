"""The training tasks: for each its model, rows, batches, texts, and the metric that selects the best checkpoint.
Everything else that depends on the task is an attribute of it.

Try it: python -m train --help (--task)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import IGNORED_LABEL, SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from train.arguments.groups import TrainArguments
from train.data.loading import TrainingData, load_training_data
from train.data.pairs import load_training_pairs
from train.data.source import Selection
from train.tasks.collators import BlockCollator, MaskingCollator, PaddingCollator, PairCollator, SpanCorruptionCollator
from train.tasks.metrics import MEASURES
from train.tasks.scores import accuracy, by_class

if TYPE_CHECKING:  # It brings peft along, where that is installed, which the page does not need.
    from transformers import EvalPrediction

READERS: dict[str, Callable[[Selection], TrainingData | None]] = {
    "classes": load_training_data,
    "texts": partial(load_training_data, labelled=False),
    "pairs": load_training_pairs,
    "blocks": lambda chosen: None,
}
Collator = Callable[[PreTrainedTokenizerFast, TrainArguments], Callable[[list], dict[str, Tensor]]]


@dataclass(frozen=True)
class Task:
    """One kind of training.

    Attributes:
        model_class: the model that is trained.
        rows: kind of rows: a text with its class, a text, a pair of source and target, or a block of a stream of texts.
        aim: what the model predicts, for the log.
        title: what the model does, in two words, for a picker.
        learns: what it learns and from which columns, in a sentence.
        purpose: what the model does, for its card: "A mixture of experts that …"; the names of classes follow.
        pipeline_tag: the task's name on the hub.
        best: the validation metric that selects the best checkpoint.
        higher_is_better: direction of that metric.
        curves: metrics of its curves besides the loss, by the names of train.tasks.metrics.
        hits: (logits, labels) of a batch -> (correct predictions, all predictions).
        collator: makes batches of rows.
        metrics: metrics from all validation logits, for the Trainer; None = loss and hits suffice.
        hides_tokens: whether tokens are masked (masked LM).
        restores_gaps: whether spans are masked by sentinels (span corruption).
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
    metrics: Callable[["EvalPrediction"], dict[str, float]] | None = None
    hides_tokens: bool = False
    restores_gaps: bool = False

    @property
    def read(self) -> Callable[[Selection], TrainingData | None]:
        """Reads the texts of a run; None for a stream, which is read while it is packed. Raises DataError."""
        return READERS[self.rows]

    @property
    def labelled(self) -> bool:
        """Whether rows need a class."""
        return self.rows == "classes"

    @property
    def paired(self) -> bool:
        """Whether rows are pairs of source and target text; at evaluations, every source is translated."""
        return self.rows == "pairs"

    @property
    def streamed(self) -> bool:
        """Whether texts are one stream, cut into blocks; at evaluations, a few prompts are continued."""
        return self.rows == "blocks"

    @property
    def keeps_every_row(self) -> bool:
        """Whether every row of the data is a training row: no pair is excluded for its length, and there are no
        blocks."""
        return not (self.paired or self.streamed)

    @property
    def writes_samples(self) -> bool:
        """Whether a run generates texts at its evaluations."""
        return self.paired or self.streamed

    @property
    def takes_language(self) -> bool:
        """Whether --language may select a subset of a data set on the hub."""
        return self.paired or self.streamed

    @property
    def row(self) -> str:
        """The name of a row: text, pair or block."""
        return {"pairs": "pair", "blocks": "block"}.get(self.rows, "text")

    def rows_in_words(self, seq_len: int) -> tuple[str, str]:
        """Singular and plural of a row's name: ("pair of texts", "pairs of texts")."""
        more = {"pairs": " of texts", "blocks": f" of {seq_len} tokens"}.get(self.rows, "")
        return f"{self.row}{more}", f"{self.row}s{more}"

    def labels_to_time(self, ids_BT: Tensor, target_BT: Tensor | None) -> Tensor:
        """Labels (of random texts) with which to time a training step."""
        if self.labelled:
            return torch.zeros(len(ids_BT), dtype=torch.long, device=ids_BT.device)
        if not self.writes:
            every = torch.arange(ids_BT.shape[1], device=ids_BT.device) % 7 == 0  # About the masked share.
            return ids_BT.masked_fill(~every, IGNORED_LABEL)
        return ids_BT if target_BT is None else target_BT

    @property
    def rewrites(self) -> bool:
        """Whether the model is an encoder-decoder: source in, target out."""
        return self.paired or self.restores_gaps

    @property
    def writes(self) -> bool:
        """Whether the model generates text."""
        return self.model_class.can_generate()

    def better(self, value: float, than: float) -> bool:
        """Whether a value of the best-checkpoint metric is better than another."""
        return value > than if self.higher_is_better else value < than

    def describe(self, value: float) -> str:
        """The value of the best-checkpoint metric, with its name."""
        return MEASURES[self.best].words(value)


def accuracy_and_f1(prediction: "EvalPrediction") -> dict[str, float]:
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
        learns="Learns the class of a text, from a column of texts and one of classes.",
        purpose="classifies texts into",
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
        aim="masked tokens to predict",
        title="masked LM",
        learns="Learns to predict masked tokens, as BERT does, from a column of texts.",
        purpose="predicts masked tokens of a text",
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
        aim="masked spans to generate",
        title="span corruption",
        learns="Learns to generate masked spans of a text (span corruption), as T5 does, from a column of texts.",
        purpose="fills gaps in a text (span corruption)",
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
        aim="translations to generate",
        title="translate",
        learns="Learns to generate the second text of a pair from the first: a translation, an answer, a summary.",
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
        aim="the next token to predict",
        title="causal LM",
        learns="Learns to continue a text token by token, as GPT does, from a column of texts.",
        purpose="continues a text",
        pipeline_tag="text-generation",
        best="loss",
        curves=("perplexity",),
        higher_is_better=False,
        hits=_next_token_hits,
        collator=_blocks,
    ),
}
