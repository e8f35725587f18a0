"""Predictions with the checkpoints that a run keeps for resuming: a text over the steps of training.

These are Trainer checkpoints: weights, perhaps their average, optimizer (a pickle, which is never opened), no
tokenizer. Configuration and tokenizer come from the run's best checkpoint.
Try it: for step, prediction in predictions(Run.open("runs/toy"), "a text"): print(step, prediction.label)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from switch_model import CheckpointError, Prediction, Predictor
from switch_model.checkpoint import compare_header, read_training
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.safetensors_io import read_header, read_tensors
from train.evaluation.calibration import TEMPERATURE
from train.runs.run import Run
from train.runs.trainer_files import AVERAGE_FILE, keeps_average

WEIGHTS_FILE = "model.safetensors"
# AveragedModel's prefix.
_PREFIX = "module."


def open_run(run: Run, device: str | None = None) -> Predictor:
    """A predictor with a run's best checkpoint, for `go_to`. Raises CheckpointError when there is none."""
    if not run.best.is_dir():
        raise CheckpointError(f"{run.name} has no checkpoint yet.")
    return Predictor.from_checkpoint(run.best, device)


def go_to(predictor: Predictor, folder: Path) -> None:
    """Load the weights of a checkpoint (their average, if the run takes one) into a predictor, with the temperature of
    the run's best checkpoint, so that probabilities are comparable.

    Args:
        predictor: of the same run; not used by other threads meanwhile.
        folder: one of `Run.kept_checkpoints`.

    Raises:
        CheckpointError: when it is damaged, or gone: a running run deletes its earliest.
    """
    put_weights(predictor.model, folder)
    temperature = read_training(folder.parent.parent / "best").get(TEMPERATURE)
    if temperature is not None:
        predictor.model.fold_temperature(temperature)


def put_weights(model: SwitchPreTrainedModel, folder: Path) -> None:
    """Load the weights of a checkpoint, or their average, into a model. Raises CheckpointError as `go_to`."""
    average = folder / AVERAGE_FILE
    path = average if average.is_file() or keeps_average(folder) else folder / WEIGHTS_FILE
    try:
        header = read_header(path, others=True)  # An average's step counter is an integer.
        compare_header(_plain(header), model.state_dict())
        weights = _plain(read_tensors(path, header))
    except OSError as error:
        raise CheckpointError(f"{folder.name} is gone, or can't be read: {error.strerror}.") from error
    model.load_state_dict(weights)


def _plain(values: dict) -> dict:
    return {name.removeprefix(_PREFIX): value for name, value in values.items()}


def predictions(
    run: Run, text: str, steps: Sequence[int] | None = None, predictor: Predictor | None = None
) -> Iterator[tuple[int, Prediction]]:
    """Predictions for a text with a run's checkpoints: (step, prediction), the earliest first.

    Args:
        steps: of the kept checkpoints to use; None = all.
        predictor: from `open_run`, used by this call only; None = open one.

    Checkpoints that have been deleted meanwhile, or can't be read, are skipped.

    Raises:
        CheckpointError: when the run has no best checkpoint, or is not a classifier's.
        ValueError: when the text has no tokens.
    """
    predictor = predictor or open_run(run)
    for step, folder in run.kept_checkpoints().items():
        if steps is not None and step not in steps:
            continue
        try:
            go_to(predictor, folder)
        except CheckpointError:
            continue
        yield step, predictor(text)


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` (2 or more) of the steps, evenly spaced, including the first and the last."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def weight_bytes(folder: Path) -> int:
    """Size of a checkpoint's weights file, in bytes; 0 when it is gone."""
    try:
        return (folder / WEIGHTS_FILE).stat().st_size
    except OSError:
        return 0
