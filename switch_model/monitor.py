"""RoutingMonitor: the routing of any mixture-of-experts model of transformers while a Trainer trains it.

What it writes is a run's folder as `python app.py --runs_dir` lists it: metrics.jsonl, progress.json, state.json and a
small arguments.json. Hooks on the routers read what they return; nothing of the model or of the training changes.
Try it: Trainer(model, args, train_dataset=rows, callbacks=[RoutingMonitor("runs/olmoe")]).train()
"""

import json
import math
import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from switch_model.adapters.hooks import Hooks
from switch_model.adapters.model import routers_and_stacks
from switch_model.analysis.statistics import RoutingTotals
from switch_model.storage.whole_files import write_atomically

# An expert with less than this share of an even load counts as dead.
DEAD_SHARE = 0.01
# Most keys of one report to TensorBoard or Weights & Biases; metrics.jsonl has everything.
MAX_KEYS = 100
PROGRESS_SECONDS = 1.0
# What a line of metrics takes from the Trainer's own log.
_FROM_LOG = ("loss", "grad_norm", "learning_rate")


class RoutingMonitor(TrainerCallback):
    """A callback for transformers' Trainer and those made from it, such as TRL's.

    Args:
        folder: for what is written; None = the Trainer's output_dir.
        data: the name of the data set, to be shown beside the run.
        every: look at every n-th step, which costs less; evaluation is looked at whole.

    Raises, at the start of training:
        ValueError: when the model has no routers that can be read.
    """

    def __init__(self, folder: str | Path | None = None, *, data: str = "own data", every: int = 1):
        if every < 1:
            raise ValueError("every must be 1 or more.")
        self.folder = None if folder is None else Path(folder)
        self.data, self.every = data, every
        self._hooked = ExitStack()
        self._hooks: Hooks | None = None
        self._totals = {"train": RoutingTotals(), "eval": RoutingTotals()}
        self._begun = self._told = 0.0
        self._writer: Any = None
        self._writes = False

    # Events of the Trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **_: Any
    ) -> None:
        routers, stacks = routers_and_stacks(model)
        if not routers:
            raise ValueError(f"RoutingMonitor: {type(model).__name__} has no routers that can be read.")
        self._hooked.close()
        self._hooks = self._hooked.enter_context(Hooks(routers, stacks, []).on())
        self._begun, self._writes = time.time(), state.is_world_process_zero
        if not self._writes:
            return
        self.folder = self.folder or Path(args.output_dir or "runs/watched")
        self.folder.mkdir(parents=True, exist_ok=True)
        if state.global_step == 0:  # Another training there before; a resumed one goes on with its lines.
            (self.folder / "metrics.jsonl").unlink(missing_ok=True)
        layers = len({router.name for router in routers})
        task = "classification" if type(model).__name__.endswith("Classification") else "clm"
        self._write(
            "arguments.json",
            {
                "dataset": self.data,
                "task": task,
                "num_experts": max(router.num_experts for router in routers),
                "num_layers": layers,
                "max_steps": state.max_steps,
                "output_dir": str(self.folder),
            },
        )
        self._write("watched.json", {"model": type(model).__name__, "family": model.config.model_type})
        self._write_state("running")
        if "tensorboard" in (args.report_to or ()):
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(os.environ.get("TENSORBOARD_LOGGING_DIR") or str(self.folder / "tensorboard"))

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._look("train", state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._look("train", state.global_step)
        # The page's Stop button leaves an empty file.
        if self._writes and self.folder is not None and (self.folder / "stop").exists():
            control.should_training_stop = True
        if self._writes and time.time() - self._told >= PROGRESS_SECONDS:
            self._tell(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._look("eval", 0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        found = {key: float(logs[key]) for key in _FROM_LOG if logs and _is_finite(logs.get(key))}
        if "loss" in found:
            self._write_line("train", state, args, found)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        found = {key.removeprefix("eval_"): float(value) for key, value in (metrics or {}).items() if _is_finite(value)}
        kept: dict[str, float] = {key: found[key] for key in ("loss", "accuracy") if key in found}
        if "loss" in kept and "accuracy" not in kept:
            kept["perplexity"] = math.exp(min(kept["loss"], 100.0))
        self._write_line("eval", state, args, kept)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._hooked.close()
        self._hooks = None
        if not self._writes:
            return
        self._tell(state)
        stopped = state.global_step < state.max_steps
        self._append({"kind": "end", "step": state.global_step, "seconds": self._seconds()})
        assert self.folder is not None
        (self.folder / "stop").unlink(missing_ok=True)
        self._write_state("stopped" if stopped else "finished", "Training was ended early." if stopped else "")
        if self._writer:
            self._writer.close()

    # What it looks at

    def _look(self, phase: str, step: int) -> None:
        """Add what the routers returned in the last pass. A pass repeated by gradient checkpointing counts once."""
        hooks = self._hooks
        if hooks is None or not hooks.seen:
            return
        if step % self.every == 0:
            self._totals[phase].add(hooks.records())
        hooks.seen.clear()

    def _write_line(self, phase: str, state: TrainerState, args: TrainingArguments, found: dict[str, float]) -> None:
        routing = self._totals[phase].summary()
        self._totals[phase] = RoutingTotals()
        if not self._writes or not routing:
            return
        line = {"kind": phase, "step": state.global_step, "epoch": state.epoch, "seconds": self._seconds()}
        with_dead = [layer | {"dead_experts": dead_experts(layer["load"])} for layer in routing]
        self._append(line | found | {"routing": with_dead})
        prefix = "routing" if phase == "train" else "eval_routing"
        self._report(state.global_step, routing_keys(routing, prefix), args)

    # Where it writes

    def _report(self, step: int, keys: dict[str, float], args: TrainingArguments) -> None:
        for key, value in keys.items() if self._writer else ():
            self._writer.add_scalar(key, value, step)
        if "wandb" in (args.report_to or ()):
            import wandb

            if wandb.run is not None:
                wandb.log(keys | {"train/global_step": step})

    def _append(self, line: dict[str, Any]) -> None:
        assert self.folder is not None
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def _tell(self, state: TrainerState) -> None:
        self._told, seconds = time.time(), self._seconds()
        self._write(
            "progress.json",
            {
                "phase": "training",
                "step": state.global_step,
                "max_steps": state.max_steps,
                "seconds": seconds,
                "steps_per_second": state.global_step / max(seconds, 1e-9),
            },
        )

    def _write_state(self, name: str, message: str = "") -> None:
        process, over = psutil.Process(), name in ("stopped", "finished")
        self._write(
            "state.json",
            {
                "name": name,
                "message": message,
                "queued": None,
                "started": self._begun,
                "ended": time.time() if over else None,
                "pid": process.pid,
                "born": process.create_time(),
                "host": socket.gethostname(),
            },
        )

    def _write(self, name: str, values: dict[str, Any]) -> None:
        assert self.folder is not None
        write_atomically(self.folder / name, json.dumps(values, indent=2) + "\n")

    def _seconds(self) -> float:
        return round(time.time() - self._begun, 2)


def dead_experts(load: list[float]) -> int:
    """Number of experts with less than a hundredth of an even share."""
    return sum(share < DEAD_SHARE / len(load) for share in load)


def routing_keys(routing: list[dict[str, Any]], prefix: str, most: int = MAX_KEYS) -> dict[str, float]:
    """Scalars for TensorBoard and W&B: over all layers first, then layer by layer while there is room for all layers.

    A model of 48 layers with 128 experts would have thousands of keys, which both tools choke on.
    """
    per_layer = {
        layer["layer"]: {key: layer[key] for key in ("load_cv", "load_entropy", "token_entropy", "drop_rate")}
        | {"dead_experts": dead_experts(layer["load"])}
        for layer in routing
    }
    names = list(next(iter(per_layer.values())))
    keys: dict[str, float] = {}
    for name in names:
        values = [measures[name] for measures in per_layer.values()]
        keys |= {f"{prefix}/{name}_mean": sum(values) / len(values), f"{prefix}/{name}_max": max(values)}
    for name in names:
        if len(keys) + len(per_layer) <= most:
            keys |= {f"{prefix}/{layer}/{name}": measures[name] for layer, measures in per_layer.items()}
    return keys


def _is_finite(value: Any) -> bool:
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
