"""`best/` of a run: the best checkpoint so far, written when it appears, and finished when training ends.

The Trainer's own checkpoints stay as trained, so that a resumed run does not train on the changes made to `best/`.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import transformers
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import load_checkpoint, read_training, save_checkpoint
from switch_model.models.pretrained import SwitchPreTrainedModel
from train.arguments.arguments import Arguments
from train.data.fingerprint import Fingerprint
from train.evaluation.calibration import FEWEST_HELD_OUT, TEMPERATURE, Calibration, calibrate_model
from train.evaluation.typical_texts import typical_of_rows
from train.release.card import model_card
from train.runs.run import Run
from train.tasks.registry import TASKS
from train.tasks.rows import Rows
from train.training.word_counts import join_counts


@dataclass(frozen=True)
class BestCheckpoint:
    """What `best/` is written from, beside a model and its metrics."""

    run: Run
    arguments: Arguments
    tokenizer: PreTrainedTokenizerFast
    rows: Rows
    fingerprint: Fingerprint

    @cached_property
    def typical_texts(self) -> dict[str, Any]:
        """Bounds of a classifier's training texts, for training.json; {} for other tasks, or too few texts."""
        if not TASKS[self.arguments.train.task].labelled or self.rows.width:
            return {}
        typical = typical_of_rows(self.rows.looked_at, self.tokenizer)
        return typical.to_note() if typical else {}

    @cached_property
    def _digest(self) -> dict[str, str]:
        return self.fingerprint.digest()

    def keep(
        self,
        model: SwitchPreTrainedModel,
        metrics: dict[str, Any],
        seconds: float,
        calibration: Calibration | None = None,
    ) -> None:
        """Write weights, tokenizer, card, and training.json (arguments, rows, metrics, typical texts)."""
        rows, arguments = self.rows, self.arguments
        training = {
            "arguments": arguments.portable(),
            "command": arguments.command(),
            "rows": {"train": len(rows.train) if rows.sample is None else None, "validation": len(rows.validation)},
            "fingerprint": self._digest,
            "validation": {key.removeprefix("eval_"): value for key, value in metrics.items()},
            "seconds": round(seconds, 1),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        training |= self.typical_texts | (calibration.noted if calibration else {})
        aside = self.run.folder / "best.new"
        card = model_card(model.config, training, model.parameter_counts())
        self.run.replace_best(save_checkpoint(model, self.tokenizer, aside, training=training, card=card))

    def finish(self, device: str, seconds: float) -> None:
        """Add word counts to a classifier, if asked for and helpful, and calibrate it on the validation rows. Only
        once: the best checkpoint of a stopped run may still be the best after it is resumed."""
        if not TASKS[self.arguments.train.task].labelled or TEMPERATURE in read_training(self.run.best):
            return
        rows = self.rows
        if self.arguments.train.word_counts and (
            joined := join_counts(self.run, rows.looked_at, rows.validation, device)
        ):
            self.keep(joined.model, joined.metrics, seconds)
            print(joined.words, flush=True)
        model, tokenizer = load_checkpoint(self.run.best, device)
        calibration = calibrate_model(model, rows.validation, tokenizer.pad_token_id)
        if calibration is None:
            print(
                f"Probabilities are not calibrated: {len(rows.validation)} rows held out are too few "
                f"({FEWEST_HELD_OUT} are enough); a higher --validation_size holds out more.",
                flush=True,
            )
            return
        self.keep(model, read_training(self.run.best)["validation"], seconds, calibration)
        print(calibration.words, flush=True)
