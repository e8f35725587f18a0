"""Validation metrics: their names and number formats, for logs, tables and curves.

Try it: MEASURES["bleu"].words(31.4)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.formatting import percent
from train.tasks.rouge import rouge

# The number format of what is a share of 1.
SHARE = "%"


@dataclass(frozen=True)
class Measure:
    """One metric of a run.

    Attributes:
        word: its name on the page and in the log.
        number: format specification of its values, or SHARE.
        top: its maximum, if it has one.
        wide: whether it spans orders of magnitude, so that an axis should be logarithmic.
    """

    word: str
    number: str
    top: float | None = None
    wide: bool = False

    def words(self, value: float) -> str:
        """Name and number: "BLEU 31.4"."""
        return f"{self.word} {percent(value) if self.number == SHARE else f'{value:{self.number}}'}"


MEASURES = {
    "loss": Measure("loss", ".4f"),
    "accuracy": Measure("accuracy", SHARE, top=1.0),
    "bleu": Measure("BLEU", ".1f"),
    "chrf": Measure("chrF", ".1f"),
    "rouge1": Measure("ROUGE-1", ".1f"),
    "rouge2": Measure("ROUGE-2", ".1f"),
    "rougeL": Measure("ROUGE-L", ".1f"),
    "perplexity": Measure("perplexity", ".2f", wide=True),
    "bits_per_character": Measure("bits per character", ".3f"),
    "macro_f1": Measure("macro-F1", SHARE, top=1.0),
}


def noted(line: Mapping[str, Any], name: str) -> Any:
    """What a line of metrics.jsonl has of a measure; None if nothing. The loss is that of the task alone, as in an
    evaluation, where a line of training has it."""
    return line.get("task_loss", line.get("loss")) if name == "loss" else line.get(name)


# sacreBLEU's default tokenizer, which splits Devanagari at spaces and punctuation.
BLEU_TOKENIZER = "13a"


# Value of --metrics with which ROUGE is measured too.
ROUGE = "rouge"


def metrics_of_texts(answers: Sequence[str], references: Sequence[str], more: str = "none") -> dict[str, Any]:
    """Metrics of generated texts: corpus BLEU and chrF, 0 to 100, and sacreBLEU's signatures; with `more` ROUGE also
    those of `rouge`."""
    from sacrebleu.metrics import BLEU, CHRF  # Slow to import, and needed for translations only.

    bleu, chrf = BLEU(tokenize=BLEU_TOKENIZER), CHRF()
    found = {
        "bleu": bleu.corpus_score(list(answers), [list(references)]).score,
        "chrf": chrf.corpus_score(list(answers), [list(references)]).score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }
    return found | (rouge(answers, references) if more == ROUGE else {})
