"""Progress of a run: progress.json, log lines, and stopping on request or at a time limit.

Try it: python -m train --dataset toy --epochs 200, then Ctrl-C; it saves a checkpoint and can be resumed
"""

import json
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from switch_model.storage.whole_files import write_atomically
from train.distributed.processes import Processes
from train.formatting import clock
from train.runs.process import StopRequest
from train.runs.run import Run
from train.runs.trainer_files import checkpoint_step
from train.tasks.metrics import MEASURES

PROGRESS_SECONDS = 0.5
# Speed is measured over this many seconds of training, without evaluations.
SPEED_WINDOW = 30


class ProgressCallback(TrainerCallback):
    """Writes progress.json about once a second, and ends training on request or at the time limit.

    A stop saves a checkpoint at once, without an evaluation, which would change the random state: then a resumed run
    would differ from one that was never stopped.

    Attributes:
        stopped: whether training was stopped on request.
        out_of_time: whether it ended because of `max_minutes`.
    """

    def __init__(
        self,
        run: Run,
        stop: StopRequest,
        max_minutes: float | None,
        resumed_from: Path | None,
        processes: Processes | None = None,
    ):
        self.run, self.stop, self.processes = run, stop, processes or Processes()
        self.limit = 60 * max_minutes if max_minutes else None
        self.stopped = self.out_of_time = False
        self.step, self.max_steps = 0, 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=2 * SPEED_WINDOW)
        self._phase, self._written = "starting", 0.0
        self._before = last_value(run, "seconds", resumed_from)
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation, including those before a resume."""
        return self._before + time.monotonic() - self._start

    def set_phase(self, phase: str) -> None:
        """Set and write the phase: training, evaluating or ended. A long evaluation must not look like a hang."""
        self._phase = phase
        self._recent.clear()
        self._write()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._start = time.monotonic()
        self.step, self.max_steps = state.global_step, state.max_steps
        self.set_phase("training")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.step, self.max_steps = state.global_step, state.max_steps
        stop, late = self.stop.made, self.limit is not None and self.seconds >= self.limit
        if self.processes.count > 1:  # All stop after the same step.
            stop, late = self.processes.any(stop, late)
        if self.step >= self.max_steps:
            control.should_evaluate = True  # Always evaluate the last weights.
        elif stop:
            self.stopped = True
            control.should_log = control.should_save = control.should_training_stop = True
        elif late:
            self.out_of_time = True
            control.should_evaluate = control.should_save = control.should_training_stop = True
        if time.monotonic() - self._written >= PROGRESS_SECONDS:
            self._write()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if self.stopped or self.out_of_time:
            # The Trainer calls this at the end of the loop too.
            control.should_evaluate = control.should_save = control.should_log = False
        elif self.step >= self.max_steps:
            control.should_evaluate = False  # Done already, at the last step.

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.set_phase("ended")

    def _write(self) -> None:
        if not self.processes.is_main:
            return
        now = self._written = time.monotonic()
        self._recent.append((now, self.step))
        progress = {"phase": self._phase, "step": self.step, "max_steps": self.max_steps, "seconds": self.seconds}
        (first, first_step), (last, last_step) = self._recent[0], self._recent[-1]
        if last_step > first_step:
            progress["steps_per_second"] = (last_step - first_step) / (last - first)
        write_atomically(self.run.progress_path, json.dumps(progress))


def line_of_log(record: Mapping[str, Any], max_steps: int) -> str:
    """The log line of a record of metrics: "step 500 of 2,000 · loss 5.0970 · learning rate 0.00183 · 0:01:20"."""
    said = [f"step {record['step']:,} of {max_steps:,}"]
    if record["kind"] == "end":
        said.append("training ended")
    metrics = [MEASURES[name].words(record[name]) for name in MEASURES if name in record]
    if metrics and record["kind"] == "eval":
        metrics[0] = f"validation: {metrics[0]}"
    said += metrics
    if "learning_rate" in record:
        said.append(f"learning rate {record['learning_rate']:.3g}")
    return " · ".join([*said, clock(record["seconds"])])


def last_value(run: Run, key: str, resumed_from: Path | None) -> float:
    """The last value of an increasing metric up to a checkpoint; 0 for a new run."""
    if resumed_from is None:
        return 0
    step = checkpoint_step(resumed_from)
    return max((record.get(key, 0) for record in run.metrics() if record["step"] <= step), default=0)
