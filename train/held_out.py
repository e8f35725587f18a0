"""Whether data are those that a checkpoint was trained on, and which of their rows its run held out.

Try it: held_out_rows(own_data("runs/my-run", "my.csv"), "my.csv", "my-run")
"""

from pathlib import Path

from datasets import Dataset

from switch_model.checkpoint import read_training
from train.arguments import Arguments
from train.data import DATASETS, data_folder, local_splits
from train.rows import read_data, validation_texts
from train.runs import Run, RunError
from train.table_file import is_table
from train.tasks import TASKS
from train.words import DataError

# What an evaluation says of rows that a model knows: how many of them, as far as the run's arguments tell.
MOST, SOME, NONE = "most", "some", "none"


def own_data(checkpoint: str, dataset: str, data_dir: str | None = None) -> Arguments | None:
    """The arguments of a checkpoint's run, reading from `dataset`, where that is what it was trained on; else None.

    A file is the run's own when it lies where the run read it; of a checkpoint that was moved, or whose data were, when
    it has the same name and as many rows.
    """
    training = read_training(checkpoint)
    try:
        there = _run_of(checkpoint)
        arguments = there or Arguments.from_dict(training.get("arguments") or {})
        trained_on = arguments.data.dataset
        arguments.data.dataset, arguments.data.data_dir = dataset, data_dir or arguments.data.data_dir
        if not (there or training.get("arguments")):
            return None
        if dataset == "toy":  # Others are drawn from other seeds than the split that goes by the name of train.
            data = arguments.data
            return arguments if trained_on == "toy" and not arguments.train.seed and data.num_samples is None else None
        if not is_table(dataset):
            return arguments if trained_on == dataset else None
        if there and Path(trained_on).resolve() == Path(dataset).resolve():
            return arguments
        same = Path(trained_on).name == Path(dataset).name and _as_many_rows(arguments, training.get("rows") or {})
        return arguments if same else None
    except (DataError, RunError, TypeError, ValueError):  # Of another version, or another kind of file by now.
        return None


def _run_of(checkpoint: str) -> Arguments | None:
    """What the run was asked to do whose folder, or whose best checkpoint, this is."""
    folder = Path(checkpoint)
    folder = folder.parent if folder.name == "best" else folder
    return Run(folder).arguments() if (folder / "arguments.json").is_file() else None


def _as_many_rows(arguments: Arguments, counted: dict[str, int]) -> bool:
    by_row = TASKS[arguments.train.task].rows in ("classes", "texts") and arguments.train.eval_iters is None
    if not by_row:
        return False
    data = read_data(arguments)
    return (len(data.train), len(data.validation)) == (counted.get("train"), counted.get("validation"))


def trained_on(own: Arguments | None, split: str, held_out: bool, rows: int | None) -> str | None:
    """How many of a split's rows a model was trained on: MOST, SOME or NONE; None where nobody knows.

    Args:
        held_out: whether they are those that the run held out.
        rows: how many the split has; None = only some of it were looked at.
    """
    if held_out:
        return NONE
    if own is None or split != "train":
        return None
    taken = own.data.num_samples  # A preset may take a part only.
    all_taken = taken is None or (rows is not None and taken >= rows)
    return MOST if all_taken and own.data.validation_size < 0.5 else SOME


def lacks_validation(dataset: str, data_dir: str | None = None) -> bool:
    """Whether a data set has no validation split of its own, so that a run holds some of its training rows out."""
    if dataset == "toy" or is_table(dataset):
        return dataset != "toy"
    if folder := data_folder(data_dir):
        return "validation" not in local_splits(Path(folder) / dataset)
    return dataset in DATASETS and not any(name.startswith("validation") for name in DATASETS[dataset].splits)


def held_out_rows(own: Arguments | None, dataset: str, checkpoint: str) -> tuple[Dataset, list[str]]:
    """The rows that the run did not train on, as its task takes them, and the names of their classes where it has such.

    Args:
        own: as `own_data` gives it.

    Raises:
        DataError: when the data can't be had, or are not those of the run.
    """
    if own is None:
        raise DataError(
            f"{dataset} has no validation split of its own, and {checkpoint} was not trained on it, as far as its "
            "training.json tells: nothing was held out. Leave --split out to measure all rows of a file."
        )
    data = read_data(own)
    if data is None:
        return Dataset.from_dict({"text": list(validation_texts(own))}), []
    return data.validation, data.labels
