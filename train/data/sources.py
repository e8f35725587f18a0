"""Data sets: the hub, a local folder, a user's file, or a toy made on the spot. Texts keep their raw form.

Every split comes out as a datasets.Dataset with the columns text (str) and label (int).
Try it: load_split("ag_news", "test", "folder/of/data")
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import numpy as np
from datasets import Dataset, load_dataset
from datasets.utils.stratify import stratified_shuffle_split_generate_indices

from switch_model.storage.hub import is_missing, is_unreachable
from switch_model.storage.paths import local_path
from train.data.class_names import spelled
from train.data.columns import Columns, choose_columns, classes_of, label_features, names_in, texts_of
from train.data.splits import cut_by_sentence
from train.data.table_file import FILE_ENDINGS, instead_of_a_table, is_table
from train.data.tables import read_table
from train.data.toy import TOY_SAMPLES, TOY_SEEDS, TOY_VOCABULARY, make_toy, make_toy_split
from train.words import DataError, counted, listed, one_line

# Characters of what a library says of a data set.
MOST_SAID = 300
LOCAL_SPLITS = ("train", "validation_mismatched", "validation_matched", "validation", "test")


@dataclass(frozen=True)
class DatasetSource:
    """A data set known by name.

    Attributes:
        splits: what there is; the last one is the one to report on.
        labels: class names by index.
        hub_id, hub_config: where `datasets` finds it.
        text_columns: its column of texts on the hub, or the two of a pair.
        fragments: whether train holds parts of its own sentences as rows.
    """

    splits: tuple[str, ...]
    labels: tuple[str, ...] = ()
    hub_id: str | None = None
    hub_config: str | None = None
    text_columns: tuple[str, ...] = ("text",)
    fragments: bool = False


def _glue(
    name: str,
    labels: tuple[str, ...],
    *text_columns: str,
    validation: tuple[str, ...] = ("validation",),
    fragments: bool = False,
) -> DatasetSource:
    return DatasetSource(("train", *validation), labels, "nyu-mll/glue", name, text_columns, fragments)


DATASETS: dict[str, DatasetSource] = {
    "toy": DatasetSource(tuple(TOY_SEEDS)),
    "ag_news": DatasetSource(("train", "test"), ("World", "Sports", "Business", "Sci/Tech"), "fancyzhx/ag_news"),
    "imdb": DatasetSource(("train", "test"), ("neg", "pos"), "stanfordnlp/imdb"),
    # GLUE hides the labels of its test splits: validation is what one reports.
    "sst2": _glue("sst2", ("negative", "positive"), "sentence", fragments=True),
    "cola": _glue("cola", ("unacceptable", "acceptable"), "sentence"),
    "mrpc": _glue("mrpc", ("not_equivalent", "equivalent"), "sentence1", "sentence2"),
    "qqp": _glue("qqp", ("not_duplicate", "duplicate"), "question1", "question2"),
    "mnli": _glue(
        "mnli",
        ("entailment", "neutral", "contradiction"),
        "premise",
        "hypothesis",
        validation=("validation_mismatched", "validation_matched"),
    ),
    "qnli": _glue("qnli", ("entailment", "not_entailment"), "question", "sentence"),
    "rte": _glue("rte", ("entailment", "not_entailment"), "sentence1", "sentence2"),
    "tiny_stories": DatasetSource(("train", "validation"), hub_id="roneneldan/TinyStories"),
    # English and a language of India each; --language says which.
    "samanantar": DatasetSource(("train",), hub_id="ai4bharat/samanantar", text_columns=("src", "tgt")),
}
# What has no classes, and why it is refused.
REFUSED = {
    "stsb": "stsb asks for a similarity from 0 to 5, which is regression; the models here choose among classes. "
    "For pairs with classes take mrpc, qqp, mnli, qnli or rte."
}


@dataclass(frozen=True)
class TrainingData:
    """Two splits for training: one to learn from, one to choose the best checkpoint on."""

    train: Dataset
    validation: Dataset
    labels: list[str]


def load_split(
    dataset: str,
    split: str | None = None,
    data_dir: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labelled: bool = True,
) -> tuple[Dataset, list[str]]:
    """One split with its class names.

    Args:
        dataset: a name in DATASETS, a folder of data_dir, a hub id "owner/name", or the path of a CSV, TSV, JSONL or
            parquet file (which has one split, "train").
        split: None = the one to report on.
        data_dir: a folder <dataset>/<split>.parquet; None = the environment variable SWITCH_DATA_DIR, then the hub.
        text_column: the column of texts, or two of them with a comma between: a pair is joined by PAIR_SEPARATOR.
        labelled: False = texts are enough: rows have no label, and there are no class names.

    Raises:
        DataError: when it can't be had, with what to do.
    """
    rows, names = read_rows(dataset, split, data_dir)
    columns = columns_to_read(dataset, names_in(rows), text_column, label_column, labelled)
    texts = texts_of(rows, columns)
    if not labelled:
        kept = [text for text in texts if text.strip()]
        if not kept:
            raise DataError(f"{dataset} has no row with a text.")
        return Dataset.from_dict({"text": kept}), []
    indices, names = classes_of(rows, texts, columns, names)
    kept = [row for row, index in enumerate(indices) if index is not None]
    chosen = {"text": [texts[row] for row in kept], "label": [indices[row] for row in kept]}
    return Dataset.from_dict(chosen, features=label_features(names)), names


def read_rows(
    dataset: str, split: str | None = None, data_dir: str | None = None, language: str | None = None
) -> tuple[Dataset, list[str] | None]:
    """One split with all its columns as they are stored, and the class names by index where they are known.

    Takes what `load_split` takes; `language` names a part of a data set on the hub.
    Raises DataError when it can't be had, with what to do.
    """
    if dataset in REFUSED:
        raise DataError(REFUSED[dataset])
    if dataset == "toy":
        return make_toy_split(split)
    source = DATASETS.get(dataset)
    names = list(source.labels) or None if source else None
    if is_table(dataset):
        _known_split(dataset, split, ("train",))
        return read_table(Path(dataset)), None
    refuse_other_files(dataset, data_dir)
    if folder := data_folder(data_dir):
        rows, stored_names = _read_local(Path(folder) / dataset, dataset, split or report_split(dataset, folder))
        return rows, names or stored_names
    if source:
        part = source.hub_config or language
        return _read_hub(source.hub_id, part, _known_split(dataset, split, source.splits)), names
    if dataset.count("/") == 1:
        return _read_hub(dataset, language, split or "test"), None
    raise DataError(
        f"{dataset} is no data set: known are {', '.join(DATASETS)}, a folder of --data_dir, a hub id such as "
        f"owner/name, or a file ending in {', '.join(FILE_ENDINGS)}."
    )


def refuse_other_files(dataset: str, data_dir: str | None = None) -> None:
    """Raise DataError for the name of a file that is no table, or of no kind that is read here."""
    folder = data_folder(data_dir)
    known = dataset in DATASETS or (folder and (Path(folder) / dataset).is_dir())
    if not known and (said := instead_of_a_table(dataset)):
        raise DataError(said)


def data_folder(data_dir: str | None = None) -> str | None:
    """Where named data sets lie: as asked, or as the environment says; None = nowhere on this disk."""
    folder = data_dir or os.environ.get("SWITCH_DATA_DIR")
    return folder and local_path(folder)


def known_datasets(data_dir: str | None = None) -> list[str]:
    """The names of DATASETS, and those of the other folders of data_dir (or SWITCH_DATA_DIR) with rows to train on."""
    folder = data_folder(data_dir)
    own = sorted(path.parent.name for path in Path(folder).glob("*/train.parquet")) if folder else []
    return [*DATASETS, *(name for name in own if name not in DATASETS)]


def from_hub(dataset: str, data_dir: str | None = None) -> bool:
    """Whether a data set is read from the hub, where it may have several parts."""
    return not (data_folder(data_dir) or dataset == "toy" or is_table(dataset))


def columns_of(dataset: str, data_dir: str | None = None) -> list[str]:
    """The columns that a data set's training rows have. Raises DataError as `load_split` does."""
    return names_in(read_rows(dataset, "train", data_dir)[0])


def columns_to_read(
    dataset: str, names: list[str], text_column: str | None, label_column: str | None, labelled: bool = True
) -> Columns:
    """`choose_columns` with what is known of the data set."""
    usual = DATASETS[dataset].text_columns if dataset in DATASETS else ()
    return choose_columns(dataset, names, text_column, label_column, labelled, usual)


def report_split(dataset: str, data_dir: str | None = None) -> str:
    """The split that figures are reported on: test, or what comes nearest."""
    if dataset in DATASETS:
        return DATASETS[dataset].splits[-1]
    if is_table(dataset):
        return "train"
    folder = data_folder(data_dir)
    return local_splits(Path(folder) / dataset)[-1] if folder else "test"


def has_own_validation(dataset: str, data_dir: str | None = None) -> bool:
    """Whether checkpoints are chosen on a split of the data set's own: a folder's, that has another to report on."""
    folder = data_folder(data_dir)
    if not folder or dataset in DATASETS or is_table(dataset):
        return False
    return {"validation", "test"} <= set(local_splits(Path(folder) / dataset))


def load_training_data(
    dataset: str,
    *,
    data_dir: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    validation_size: float = 0.05,
    num_samples: int | None = None,
    num_classes: int = 3,
    vocab_size: int | None = None,
    seq_len: int = 16,
    seed: int = 0,
    labelled: bool = True,
) -> TrainingData:
    """The training rows and a validation split, which never holds rows of the split one reports on.

    Raises:
        DataError: when the data can't be had or can't be trained on.
    """
    if dataset == "toy":
        shape = dict(num_classes=num_classes, vocab_size=vocab_size or TOY_VOCABULARY, seq_len=seq_len)
        count = num_samples or TOY_SAMPLES
        train, labels = make_toy(count, seed=3 * seed, **shape)
        validation, _ = make_toy(max(count // 5, 50), seed=3 * seed + 1, **shape)
        if not labelled:
            return TrainingData(train.remove_columns("label"), validation.remove_columns("label"), [])
        return TrainingData(train, validation, labels)
    columns = dict(data_dir=data_dir, text_column=text_column, label_column=label_column, labelled=labelled)
    rows, labels = load_split(dataset, "train", **columns)
    present = sorted(set(rows["label"][:])) if labelled else []
    if labelled and len(present) < 2:
        raise DataError(f"{dataset} has one class only ({labels[present[0]]}): there is nothing to tell apart.")
    if num_samples is not None and num_samples < len(rows):
        rows = rows.shuffle(seed=seed).select(range(num_samples))
    if has_own_validation(dataset, data_dir):
        own, own_labels = load_split(dataset, "validation", **columns)
        return TrainingData(rows, align_labels(own, own_labels, labels), labels)
    if dataset in DATASETS and DATASETS[dataset].fragments:
        return TrainingData(*cut_by_sentence(rows, validation_size), labels)
    return TrainingData(*cut(rows, validation_size, len(present)), labels)


def cut(rows: Dataset, share: float, classes: int = 0) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows held out, of every class alike where each has two rows at least; 0 classes = any rows.

    The cut does not depend on the run's seed, so that runs with different seeds share one validation split.
    """
    held_out, random = max(round(len(rows) * share), 1), np.random.default_rng(0)
    left = len(rows) - held_out
    if left < max(classes, 1):
        raise DataError(
            f"validation_size {share:g} leaves {left:,} of {counted(len(rows), 'row', 'rows')} to train on"
            + (f", for {classes} classes" if classes else "")
            + ": take a smaller share, or more rows."
        )
    labels = np.array(rows["label"][:]) if classes else np.zeros(0, dtype=int)
    if classes and held_out >= classes and np.unique(labels, return_counts=True)[1].min() >= 2:
        # What train_test_split does, without its row by row reading of the labels.
        parts = next(stratified_shuffle_split_generate_indices(labels, left, held_out, rng=random))
        return rows.select(parts[0]), rows.select(parts[1])
    order = random.permutation(len(rows))
    return rows.select(order[held_out:]), rows.select(order[:held_out])


def _known_split(dataset: str, split: str | None, splits: tuple[str, ...]) -> str:
    if split is not None and split not in splits:
        raise DataError(f"{dataset} has no split {split!r}: it has {', '.join(splits)}.")
    return split or splits[-1]


def local_file(dataset: str, split: str | None, data_dir: str | None) -> Path | None:
    """The parquet file of a split in a folder of data sets; None where there is no such folder, or it is no name.

    Raises DataError when the folder lacks it.
    """
    folder = data_folder(data_dir)
    if not folder or dataset == "toy" or is_table(dataset):
        return None
    own = Path(folder) / dataset
    return own / f"{_known_split(dataset, split or report_split(dataset, folder), local_splits(own))}.parquet"


def local_splits(folder: Path) -> tuple[str, ...]:
    """The splits in a folder <data_dir>/<dataset>. Raises DataError when there are none."""
    found = tuple(name for name in LOCAL_SPLITS if (folder / f"{name}.parquet").is_file())
    if not found:
        raise DataError(
            f"There is no {folder / 'train.parquet'}. --data_dir names a folder that holds "
            f"{folder.name}/train.parquet, and validation.parquet and test.parquet where there are such."
        )
    return found


def _read_local(folder: Path, dataset: str, split: str) -> tuple[Dataset, list[str] | None]:
    split = _known_split(dataset, split, local_splits(folder))
    names = folder / "labels.json"
    return (
        read_table(folder / f"{split}.parquet"),
        json.loads(names.read_text(encoding="utf-8"))["names"] if names.is_file() else None,
    )


def _read_hub(hub_id: str, hub_config: str | None, split: str) -> Dataset:
    try:
        if not (Path(hub_id).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE):
            # Asked first because it answers at once, where `datasets` retries for half a minute.
            huggingface_hub.HfApi().dataset_info(hub_id, timeout=10)
        return load_dataset(hub_id, hub_config, split=split)
    except Exception as error:  # The hub, the network and the parser each raise their own kinds.
        from_disk = (
            "To read from disk, name a table as --dataset, such as my.csv, or with --data_dir a folder that holds "
            f"<dataset>/{split}.parquet."
        )
        if huggingface_hub.constants.HF_HUB_OFFLINE and is_unreachable(error):
            why = "HF_HUB_OFFLINE is set, and it is not among what was downloaded before."
        elif is_unreachable(error):
            why = (
                "the Hugging Face Hub could not be reached. Is this machine online? To use what was downloaded "
                "before, set HF_HUB_OFFLINE=1."
            )
        elif is_missing(error):
            why = "the Hugging Face Hub has no such data set, or shows it to others only: is HF_TOKEN set?"
        else:
            why = f"{one_line(str(error))[:MOST_SAID].rstrip('.')}."
        raise DataError(f"{hub_id} ({split}) could not be loaded: {why} {from_disk}") from error


def align_labels(rows: Dataset, names: list[str], model_labels: list[str]) -> Dataset:
    """`rows` with labels that count as the model's do, matched by name.

    Raises:
        DataError: when a class of the rows is none of the model's.
    """
    if names == model_labels:
        return rows
    # A model may know by several lines or blanks what is read as one line.
    known = {one_line(label): index for index, label in enumerate(model_labels)}
    known |= {label: index for index, label in enumerate(model_labels)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(
            f"The data has classes that the model does not know: {listed(list(map(spelled, unknown)))}. "
            f"The model's are {listed(model_labels[:20])}."
        )
    index_of = [known[name] for name in names]
    moved = [index_of[label] for label in rows["label"][:]]
    return Dataset.from_dict({"text": rows["text"][:], "label": moved}, features=label_features(model_labels))
