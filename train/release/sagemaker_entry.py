"""A training job of SageMaker: python -m train.release.sagemaker_entry, with what the platform sets.

SM_CHANNEL_TRAINING is the folder with the data, SM_HPS the flags of a run as JSON, SM_MODEL_DIR what becomes
model.tar.gz: the folder of --format sagemaker, ready to be deployed. The run lies in /opt/ml/checkpoints, which
SageMaker keeps for a job that is started again: it then resumes. The training is a process of its own, python -m train,
which gets the signals of the job: SIGTERM saves a checkpoint.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switch_model.storage.errors import CheckpointError
from train.data.table_file import is_table
from train.launch import prepare_streams
from train.runs.process import command_and_wait
from train.runs.run import Run

CHECKPOINTS = Path("/opt/ml/checkpoints")
# Hyperparameters that SageMaker's toolkit adds for itself.
PLATFORMS_OWN = "sagemaker_"


def main(environment: Mapping[str, str] = os.environ, checkpoints: Path = CHECKPOINTS) -> int:
    """Train or resume, then write the model; returns the exit status."""
    run = Run(checkpoints / "run")
    try:
        if status := _train(run, flags_of(environment, run.folder)):
            return status
        if run.best.is_dir():
            _write_model(run, Path(environment.get("SM_MODEL_DIR", "/opt/ml/model")))
    except (CheckpointError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(run: Run, flags: list[str]) -> int:
    if not run.arguments_path.is_file():
        return command_and_wait(flags)
    if run.state().name == "finished":
        return 0
    # Of a job that was ended without warning: nobody works on it any more.
    run.set_state("stopped", "The machine was taken away.")
    return command_and_wait(["resume", str(run.folder)])


def flags_of(environment: Mapping[str, str], folder: Path) -> list[str]:
    """The flags of the run. Raises ValueError for hyperparameters or a channel that can't be read."""
    try:
        given = json.loads(environment.get("SM_HPS", "{}"))
    except ValueError as error:
        raise ValueError(f"SM_HPS is not JSON: {error}.") from error
    if not isinstance(given, dict):
        raise ValueError("SM_HPS must be an object: the flags of a run and their values.")
    if "output_dir" in given:
        raise ValueError("output_dir can't be set here: the run lies where SageMaker keeps checkpoints.")
    values: dict[str, Any] = {name: value for name, value in given.items() if not name.startswith(PLATFORMS_OWN)}
    if channel := environment.get("SM_CHANNEL_TRAINING"):
        values |= _data(Path(channel), "dataset" in values)
    return [*(f"--{name}={value}" for name, value in values.items()), f"--output_dir={folder}"]


def _data(channel: Path, named: bool) -> dict[str, str]:
    """The channel as the data: its only table, or the folder; beside the name of a data set, the folder it lies in."""
    if not channel.is_dir():
        raise ValueError(f"SM_CHANNEL_TRAINING={channel}: there is no such folder.")
    if named:
        return {"data_dir": str(channel)}
    files = [path for path in channel.iterdir() if path.is_file() and is_table(path.name)]
    return {"dataset": str(files[0] if len(files) == 1 else channel)}


def _write_model(run: Run, target: Path) -> None:
    from train.release.export import export

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        export(run.folder, "sagemaker", folder)
        (folder / "model.tar.gz").unlink()  # The platform packs the folder itself.
        shutil.copytree(folder, target, dirs_exist_ok=True)


if __name__ == "__main__":
    prepare_streams()
    sys.exit(main())
