"""Settings of an evaluation, for all tasks."""

from dataclasses import dataclass

from switch_model.analysis.reliance import ROWS as RELIANCE_ROWS
from train.evaluation.reliance import Progress


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation besides the data.

    Attributes:
        batch_size: texts per batch.
        num_samples: number of rows, the first ones; None = all.
        num_beams, save_text: for encoder-decoder models: beams, and a file for the generated texts, one per line.
        metrics: further metrics of generated texts: "none" or "rouge".
        reliance: number of random rows for expert reliance; 0 = none.
        progress: called with (texts done, total) during the measurement of reliance.
    """

    batch_size: int = 64
    num_samples: int | None = None
    num_beams: int = 1
    save_text: str | None = None
    metrics: str = "none"
    reliance: int = RELIANCE_ROWS
    progress: Progress = None

    def rows_of(self, rows: int) -> range:
        """The indices of the rows to evaluate, of `rows` rows."""
        return range(rows if self.num_samples is None else min(self.num_samples, rows))
