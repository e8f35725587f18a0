"""How a checkpoint is measured, whatever its task."""

from dataclasses import dataclass

from switch_model.analysis.reliance import ROWS as RELIANCE_ROWS
from train.evaluation.reliance import Progress


@dataclass(frozen=True)
class EvaluationSettings:
    """What an evaluation may be asked for besides the data.

    Attributes:
        batch_size: texts per pass.
        num_samples: the first so many rows only; None = all.
        num_beams, save_text: of a model that writes: how it searches, and a file for what it writes, a line per row.
        reliance: rows, drawn at random, to measure on how much the model relies on its experts; 0 = none.
        progress: called with (passes done, passes in all) while that is measured.
    """

    batch_size: int = 64
    num_samples: int | None = None
    num_beams: int = 1
    save_text: str | None = None
    reliance: int = RELIANCE_ROWS
    progress: Progress = None

    def rows_of(self, rows: int) -> range:
        """Which of so many rows are measured."""
        return range(rows if self.num_samples is None else min(self.num_samples, rows))
