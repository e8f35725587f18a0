"""The metrics that runs are judged by: their names and how they are written, once for logs, tables and curves.

Try it: MEASURES["bleu"].words(31.4)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One metric of a run.

    Attributes:
        word: its name on the page and in the log.
        number: how it is written, as a format specification.
        top: the highest it can be, where there is such.
        wide: whether it runs over orders of magnitude, so that an axis should be logarithmic.
    """

    word: str
    number: str
    top: float | None = None
    wide: bool = False

    def words(self, value: float) -> str:
        """Name and number: "BLEU 31.4"."""
        return f"{self.word} {value:{self.number}}"


MEASURES = {
    "loss": Measure("loss", ".4f"),
    "accuracy": Measure("accuracy", ".2%", top=1.0),
    "bleu": Measure("BLEU", ".1f"),
    "chrf": Measure("chrF", ".1f"),
    "perplexity": Measure("perplexity", ".2f", wide=True),
    "bits_per_character": Measure("bits per character", ".3f"),
    "macro_f1": Measure("macro-F1", ".2%", top=1.0),
}


# What sacreBLEU splits words by: its default, which takes Devanagari as it stands between spaces and punctuation.
BLEU_TOKENIZER = "13a"


def bleu_and_chrf(answers: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """bleu and chrf from 0 to 100 over all answers together, and sacreBLEU's signature of both."""
    from sacrebleu.metrics import BLEU, CHRF  # Slow to import, and only asked for by what measures translations.

    bleu, chrf = BLEU(tokenize=BLEU_TOKENIZER), CHRF()
    return {
        "bleu": bleu.corpus_score(list(answers), [list(references)]).score,
        "chrf": chrf.corpus_score(list(answers), [list(references)]).score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }
