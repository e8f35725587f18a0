"""The checkpoints that a run keeps to resume from, opened to look at: a text under the model as it was at a step.

Such a folder is the Trainer's: weights, maybe their average, optimizer (a pickle, which is never opened), no tokenizer.
What all of a run's checkpoints share, configuration and tokenizer, comes from its best one.
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
# AveragedModel's name for what it averages.
_PREFIX = "module."


def open_run(run: Run, device: str | None = None) -> Predictor:
    """A run's best checkpoint, in whose place `go_to` puts others. Raises CheckpointError when there is none."""
    if not run.best.is_dir():
        raise CheckpointError(f"{run.name} has no checkpoint yet.")
    return Predictor.from_checkpoint(run.best, device)


def go_to(predictor: Predictor, folder: Path) -> None:
    """Put the weights that a run would have kept at this checkpoint (their average, where it takes one) into a model,
    with the temperature of its best checkpoint: a probability then means the same in all of them.

    Args:
        predictor: of the same run; nobody else may be using it.
        folder: one of `Run.kept_checkpoints`.

    Raises:
        CheckpointError: when it is damaged, or gone: a run that trains removes its earliest.
    """
    put_weights(predictor.model, folder)
    temperature = read_training(folder.parent.parent / "best").get(TEMPERATURE)
    if temperature is not None:
        predictor.model.fold_temperature(temperature)


def put_weights(model: SwitchPreTrainedModel, folder: Path) -> None:
    """`go_to` for a model alone."""
    average = folder / AVERAGE_FILE
    path = average if average.is_file() or keeps_average(folder) else folder / WEIGHTS_FILE
    try:
        header = read_header(path, others=True)  # An average counts its steps in a whole number.
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
    """A text under a run's checkpoints, one after the other in one model: (step, prediction), the earliest first.

    Args:
        steps: some of those that are kept; None = all.
        predictor: from `open_run`, and this call's own; None = it is opened here.

    Checkpoints that are gone by the time they are reached, or can't be read, are passed over.

    Raises:
        CheckpointError: when the run has no best checkpoint, or learns no classes.
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
    """At most `most` (2 or more) of the steps, evenly chosen, the first and the last among them."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)]


def weight_bytes(folder: Path) -> int:
    """What reading a checkpoint's weights takes; 0 when it is gone."""
    try:
        return (folder / WEIGHTS_FILE).stat().st_size
    except OSError:
        return 0
