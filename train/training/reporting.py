"""Reporting to TensorBoard and Weights & Biases, with the Trainer's own callbacks.

Both packages are optional. Routing metrics, which the Trainer does not know, are reported as routing/<layer>/<metric>
in training and eval_routing/<layer>/<metric> in evaluation.
Try it: pip install tensorboard; python -m train --report_to tensorboard; tensorboard --logdir runs
"""

import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.arguments.groups import TrainArguments
from train.runs.run import Run, RunError
from train.runs.trainer_files import checkpoint_step

ROUTING_MEASURES = (
    "balance_loss",
    "sequence_balance_loss",
    "z_loss",
    "drop_rate",
    "load_cv",
    "load_entropy",
    "token_entropy",
)
PREFIXES = {"train": "routing", "eval": "eval_routing"}
# W&B's maximum number of bins.
MOST_BINS = 512


class Reporting:
    """The destinations of a run's metrics.

    Attributes:
        callbacks: for the Trainer.
    """

    def __init__(self):
        self.callbacks: list[TrainerCallback] = []
        self._destinations: list[Callable[[int, dict[str, float], dict[str, list[int]]], None]] = []
        self._listeners: list[Callable[[int, list[dict[str, str]]], None]] = []

    def add(
        self,
        callback: TrainerCallback,
        send: Callable[[int, dict[str, float], dict[str, list[int]]], None],
        tell: Callable[[int, list[dict[str, str]]], None],
    ):
        """Add a destination: `send` takes metrics, `tell` samples of text, both with their step."""
        self.callbacks.append(callback)
        self._destinations.append(send)
        self._listeners.append(tell)

    def record(self, record: dict[str, Any]) -> None:
        """Report the routing metrics or samples of a line of metrics."""
        if samples := record.get("samples"):
            for tell in self._listeners:
                tell(record["step"], samples)
            return
        scalars, loads = routing_metrics(record)
        if scalars or loads:
            for send in self._destinations:
                send(record["step"], scalars, loads)


def routing_metrics(record: dict[str, Any]) -> tuple[dict[str, float], dict[str, list[int]]]:
    """A line of metrics -> (name -> metric, name -> tokens per expert)."""
    scalars: dict[str, float] = {}
    loads: dict[str, list[int]] = {}
    prefix = PREFIXES.get(record["kind"])
    if prefix is None:
        return scalars, loads
    if record["kind"] == "train" and "accuracy" in record:
        scalars["train/accuracy"] = record["accuracy"]
    for layer in record.get("routing", []):
        name = f"{prefix}/{layer['layer']}"
        scalars |= {f"{name}/{measure}": layer[measure] for measure in ROUTING_MEASURES}
        loads[f"{name}/load"] = [round(share * layer["tokens"]) for share in layer["load"]]
    return scalars, loads


def log_in(train: TrainArguments) -> None:
    """Log in to W&B before training, if it is used. Raises RunError when that fails."""
    if "wandb" not in train.reporters or os.environ.get("WANDB_MODE", "online") != "online":
        return
    import wandb

    try:
        wandb.login()
    except wandb.Error as error:
        raise _no_wandb(error) from error


@contextmanager
def reporting(run: Run, arguments: Arguments, resume_from: Path | None) -> Iterator[Reporting]:
    """Context with the destinations in `arguments` open. Raises RunError when W&B can't be reached.

    Args:
        resume_from: the checkpoint from which a run is resumed: later steps are reported again.
    """
    # Not by the Trainer's report_to, which takes folder, project and name from environment variables: they would apply
    # to every other run of this process.
    found = Reporting()
    names = arguments.train.reporters
    if "tensorboard" in names:
        _open_tensorboard(found, run, resume_from)
    if "wandb" not in names:
        yield found
        return
    import wandb

    _open_wandb(found, run, arguments)
    try:
        yield found
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    try:
        _keep_artifacts(run, arguments)
        wandb.finish()
    except wandb.Error as error:
        # Not an error of the run: the model is trained and saved.
        print(f"The upload to Weights & Biases is incomplete: {_reason(error)}.", file=sys.stderr)


def _open_tensorboard(found: Reporting, run: Run, resume_from: Path | None) -> None:
    from torch.utils.tensorboard import SummaryWriter

    folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or run.folder / "tensorboard"
    purge = None if resume_from is None else checkpoint_step(resume_from) + 1
    writer = SummaryWriter(str(folder), purge_step=purge)

    def send(step: int, scalars: dict[str, float], loads: dict[str, list[int]]) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        for name, counts in loads.items():
            # One bin per expert, centred on its number.
            experts = range(len(counts))
            writer.add_histogram_raw(
                name,
                min=-0.5,
                max=len(counts) - 0.5,
                num=sum(counts),
                sum=sum(expert * count for expert, count in zip(experts, counts, strict=True)),
                sum_squares=sum(expert**2 * count for expert, count in zip(experts, counts, strict=True)),
                bucket_limits=[expert + 0.5 for expert in experts],
                bucket_counts=counts,
                global_step=step,
            )

    def tell(step: int, samples: list[dict[str, str]]) -> None:
        lines = [f"**{what}** {text}" for sample in samples for what, text in sample.items()]
        writer.add_text("samples", "\n\n".join(lines), step)

    # The callback closes the writer when training ends.
    found.add(TensorBoardCallback(writer), send, tell)


def _open_wandb(found: Reporting, run: Run, arguments: Arguments) -> None:
    import wandb

    train = arguments.train
    default = TrainArguments.wandb_project
    project = os.environ.get("WANDB_PROJECT", default) if train.wandb_project == default else train.wandb_project
    identity = run.folder / "wandb_id"
    if not identity.exists():
        write_atomically(identity, secrets.token_hex(4) + "\n")
    try:
        wandb.init(
            project=project,
            entity=train.wandb_entity,
            name=train.run_name or os.environ.get("WANDB_NAME") or run.name,
            dir=os.environ.get("WANDB_DIR") or str(run.folder),
            config=arguments.portable(),
            # A resumed run continues its curves.
            id=identity.read_text(encoding="utf-8").strip(),
            resume="allow",
        )
    except wandb.Error as error:
        raise _no_wandb(error) from error

    def send(step: int, scalars: dict[str, float], loads: dict[str, list[int]]) -> None:
        histograms = {
            name: wandb.Histogram(np_histogram=(counts, [expert - 0.5 for expert in range(len(counts) + 1)]))
            for name, counts in loads.items()
            if len(counts) <= MOST_BINS
        }
        # The Trainer's callback uses this name for steps.
        wandb.log({**scalars, **histograms, "train/global_step": step})

    def tell(step: int, samples: list[dict[str, str]]) -> None:
        table = wandb.Table(columns=list(samples[0]), data=[list(sample.values()) for sample in samples])
        wandb.log({"samples": table, "train/global_step": step})

    # The callback uses the open W&B run.
    found.add(WandbCallback(), send, tell)


def _keep_artifacts(run: Run, arguments: Arguments) -> None:
    """Upload the best checkpoint and the history as W&B artifacts."""
    import wandb

    name = re.sub(r"[^\w.-]", "-", wandb.run.name or run.name)
    best = wandb.Artifact(f"{name}-best", type="model", description="The best checkpoint on validation.")
    best.add_dir(str(run.best))
    history = wandb.Artifact(f"{name}-history", type="history", description="Metrics and arguments of the run.")
    if run.metrics_path.exists():
        history.add_file(str(run.metrics_path))
    with history.new_file("arguments.json", mode="w", encoding="utf-8") as file:
        # Without local paths.
        json.dump(arguments.portable(), file, indent=2)
    wandb.log_artifact(best, aliases=["best"])
    wandb.log_artifact(history)


def _no_wandb(error: Exception) -> RunError:
    return RunError(
        f"Weights & Biases can't be used: {_reason(error)}. Log in with `wandb login`, or set WANDB_MODE=offline "
        "to keep the metrics on this machine."
    )


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".")
