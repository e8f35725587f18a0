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
from datasets import ClassLabel, Dataset, Features, Value, load_dataset

from train.sentences import cut_by_sentence

FILE_READERS = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
}
LOCAL_SPLITS = ("train", "validation_mismatched", "validation_matched", "validation", "test")
TEXT_COLUMNS = ("text", "sentence", "content", "review", "question", "message", "title", "description")
LABEL_COLUMNS = ("label", "labels", "class", "category", "intent", "target", "sentiment", "topic")
TOY_VOCABULARY, TOY_SAMPLES = 500, 1000
# Between the two texts of a pair: the separator token of tokenizers trained here. Others get their own instead.
SEPARATOR_TOKEN = "[SEP]"
PAIR_SEPARATOR = f" {SEPARATOR_TOKEN} "


class DataError(Exception):
    """Says which data could not be had, why, and what to do."""


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
    "toy": DatasetSource(("train", "validation", "test")),
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
    if dataset in REFUSED:
        raise DataError(REFUSED[dataset])
    if dataset == "toy":
        rows, names = make_toy_split(split)
        return (rows, names) if labelled else (rows.remove_columns("label"), [])
    source = DATASETS.get(dataset)
    usual = source.text_columns if source else ()
    names = list(source.labels) if source else None
    if Path(dataset).suffix.lower() in FILE_READERS:
        path = Path(dataset)
        if not path.is_file():
            raise DataError(f"There is no file {path}.")
        _known_split(dataset, split, ("train",))
        rows = _read_table(path)
    elif folder := data_dir or os.environ.get("SWITCH_DATA_DIR"):
        rows, stored_names = _read_local(Path(folder) / dataset, dataset, split or report_split(dataset, folder))
        names = names or stored_names
    elif source:
        rows = _read_hub(source.hub_id, source.hub_config, _known_split(dataset, split, source.splits))
    elif dataset.count("/") == 1:
        rows = _read_hub(dataset, None, split or "test")
    else:
        raise DataError(
            f"{dataset} is no data set: known are {', '.join(DATASETS)}, a folder of --data_dir, a hub id such as "
            f"owner/name, or a file ending in {', '.join(FILE_READERS)}."
        )
    texts = _texts(rows, text_column, usual, dataset)
    if not labelled:
        kept = [text for text in texts if text.strip()]
        if not kept:
            raise DataError(f"{dataset} has no row with a text.")
        return Dataset.from_dict({"text": kept}), []
    return _with_labels(rows, texts, label_column, names, dataset)


def report_split(dataset: str, data_dir: str | None = None) -> str:
    """The split that figures are reported on: test, or what comes nearest."""
    if dataset in DATASETS:
        return DATASETS[dataset].splits[-1]
    if Path(dataset).suffix.lower() in FILE_READERS:
        return "train"
    folder = data_dir or os.environ.get("SWITCH_DATA_DIR")
    return _local_splits(Path(folder) / dataset)[-1] if folder else "test"


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
    present = sorted(set(rows["label"])) if labelled else []
    if labelled and len(present) < 2:
        raise DataError(f"{dataset} has one class only ({labels[present[0]]}): there is nothing to tell apart.")
    if num_samples is not None and num_samples < len(rows):
        rows = rows.shuffle(seed=seed).select(range(num_samples))
    folder = data_dir or os.environ.get("SWITCH_DATA_DIR")
    is_folder = folder and dataset not in DATASETS and Path(dataset).suffix.lower() not in FILE_READERS
    if is_folder and {"validation", "test"} <= set(_local_splits(Path(folder) / dataset)):
        own, own_labels = load_split(dataset, "validation", **columns)
        return TrainingData(rows, align_labels(own, own_labels, labels), labels)
    if dataset in DATASETS and DATASETS[dataset].fragments:
        return TrainingData(*cut_by_sentence(rows, validation_size), labels)
    # The cut does not depend on the run's seed, so that runs with different seeds share one validation split.
    held_out = max(round(len(rows) * validation_size), 1)
    stratify = None
    if labelled:
        counts = np.bincount(rows["label"], minlength=len(labels))
        stratify = "label" if counts[counts > 0].min() >= 2 and held_out >= len(present) else None
    parts = rows.train_test_split(test_size=held_out, seed=0, stratify_by_column=stratify)
    return TrainingData(parts["train"], parts["test"], labels)


def make_toy_split(split: str | None = None, **shape: int) -> tuple[Dataset, list[str]]:
    """A split of the toy data of a given shape (`make_toy`'s num_classes, vocab_size, seq_len); None = test.

    No run trains on the test split: runs draw from seeds 3 n and 3 n + 1.
    """
    seeds = {"train": 0, "validation": 1, "test": 2}
    return make_toy(seed=seeds[_known_split("toy", split, DATASETS["toy"].splits)], **shape)


def make_toy(
    num_samples: int = TOY_SAMPLES,
    num_classes: int = 3,
    vocab_size: int = TOY_VOCABULARY,
    seq_len: int = 16,
    seed: int = 0,
) -> tuple[Dataset, list[str]]:
    """Synthetic texts of invented words. A third of a text's words come from its class's own fifth of the vocabulary.

    A text's class can be read from its words alone, so that any working model learns it in seconds.
    """
    random = np.random.default_rng(seed)
    words = _invented_words(vocab_size)
    own = max(vocab_size // (5 * num_classes), 1)
    texts, labels = [], random.integers(num_classes, size=num_samples)
    for label in labels:
        length = int(random.integers(max(seq_len // 2, 1), seq_len + 1))
        chosen = random.integers(len(words), size=length)
        from_class = random.random(length) < 1 / 3
        from_class[random.integers(length)] = True
        chosen[from_class] = label * own + random.integers(own, size=int(from_class.sum()))
        texts.append(" ".join(words[index] for index in chosen))
    names = [f"class {index}" for index in range(num_classes)]
    rows = Dataset.from_dict({"text": texts, "label": labels.tolist()}, features=_features(names))
    return rows, names


def _invented_words(count: int) -> list[str]:
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = []
    for index in range(count):
        word, rest = "", index
        for _ in range(2 if count <= len(syllables) ** 2 else 3):
            word, rest = word + syllables[rest % len(syllables)], rest // len(syllables)
        words.append(word)
    return words


def _features(labels: list[str]) -> Features:
    return Features({"text": Value("string"), "label": ClassLabel(names=labels)})


def _known_split(dataset: str, split: str | None, splits: tuple[str, ...]) -> str:
    if split is not None and split not in splits:
        raise DataError(f"{dataset} has no split {split!r}: it has {', '.join(splits)}.")
    return split or splits[-1]


def _local_splits(folder: Path) -> tuple[str, ...]:
    found = tuple(name for name in LOCAL_SPLITS if (folder / f"{name}.parquet").is_file())
    if not found:
        raise DataError(
            f"There is no {folder / 'train.parquet'}. --data_dir names a folder that holds "
            f"{folder.name}/train.parquet, and validation.parquet and test.parquet where there are such."
        )
    return found


def _read_local(folder: Path, dataset: str, split: str) -> tuple[Dataset, list[str] | None]:
    split = _known_split(dataset, split, _local_splits(folder))
    names = folder / "labels.json"
    return (
        _read_table(folder / f"{split}.parquet"),
        json.loads(names.read_text(encoding="utf-8"))["names"] if names.is_file() else None,
    )


def _read_hub(hub_id: str, hub_config: str | None, split: str) -> Dataset:
    try:
        if not (Path(hub_id).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE):
            # Asked first because it answers at once, where `datasets` retries for half a minute.
            huggingface_hub.HfApi().dataset_info(hub_id, timeout=10)
        return load_dataset(hub_id, hub_config, split=split)
    except Exception as error:  # The hub, the network and the parser each raise their own kinds.
        raise DataError(
            f"{hub_id} ({split}) could not be loaded from the Hugging Face Hub: is there a network? To read a data set "
            f"from disk, name a folder that holds <dataset>/{split}.parquet with --data_dir; to use what was "
            "downloaded before, set HF_HUB_OFFLINE=1."
        ) from error


def _read_table(path: Path) -> Dataset:
    reader, options = FILE_READERS[path.suffix.lower()]
    try:
        return load_dataset(reader, data_files=str(path), split="train", **options)
    except Exception as error:  # Each format's parser raises its own kinds.
        reason = str(error.__cause__ or error).strip().splitlines()
        raise DataError(
            f"{path} can't be read as {reader}: {reason[0] if reason else 'the file is damaged'}"
        ) from error


def _texts(rows: Dataset, wanted: str | None, usual: tuple[str, ...], where: str) -> list[str]:
    """The column of texts; of a pair's two columns, both in one text."""
    if wanted is None and usual and all(name in rows.column_names for name in usual):
        columns = list(usual)
    elif wanted is not None and wanted not in rows.column_names and "," in wanted:
        columns = [_find_column(rows, name.strip(), (), "text", where) for name in wanted.split(",")]
    else:
        columns = [_find_column(rows, wanted, TEXT_COLUMNS, "text", where)]
    parts = [["" if value is None else str(value) for value in rows[column]] for column in columns]
    return [PAIR_SEPARATOR.join(texts) for texts in zip(*parts, strict=True)]


def _with_labels(
    rows: Dataset, texts: list[str], label_column: str | None, names: list[str] | None, where: str
) -> tuple[Dataset, list[str]]:
    """Texts with their classes, and the class names: those given, the table's own, or its values."""
    label = _find_column(rows, label_column, LABEL_COLUMNS, "label", where)
    names = names or getattr(rows.features[label], "names", None)
    values = list(rows[label])
    # Hidden labels are stored as -1.
    kept = [i for i, value in enumerate(values) if value is not None and value != -1 and texts[i].strip()]
    if not kept:
        hidden = " Its labels are hidden: take the validation split." if all(value == -1 for value in values) else ""
        raise DataError(f"{where} has no row with both a text and a class ({label}).{hidden}")
    values = [values[index] for index in kept]
    if names is None or not all(isinstance(value, int) for value in values):
        # Numbers sort as numbers ("10" after "9"), everything else as text.
        if not all(isinstance(value, (str, int, float)) for value in values):
            raise DataError(f"The column {label} of {where} holds no classes: each must be a word or a number.")
        distinct = set(values)
        if any(isinstance(value, float) and not value.is_integer() for value in distinct):
            raise DataError(
                f"The column {label} of {where} holds fractions, such as {next(iter(distinct))}: predicting them would "
                "be regression; the models here choose among classes. Name their column with --label_column."
            )
        if len(distinct) > max(20, len(values) // 2):
            raise DataError(
                f"The column {label} of {where} has {len(distinct):,} classes in {len(values):,} rows: is it the "
                "column of classes? Name that with --label_column."
            )
        numeric = all(isinstance(value, (int, float)) for value in distinct)
        own = [_label_name(value) for value in sorted(distinct, key=None if numeric else str)]
        names = names if names and set(own) <= set(names) else own
        index_of = {name: index for index, name in enumerate(names)}
        values = [index_of[_label_name(value)] for value in values]
    elif not all(0 <= value < len(names) for value in values):
        raise DataError(f"{where} has labels beyond its {len(names)} class names ({', '.join(names[:5])}).")
    columns = {"text": [texts[index] for index in kept], "label": values}
    return Dataset.from_dict(columns, features=_features(names)), names


def _label_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _find_column(rows: Dataset, wanted: str | None, usual: tuple[str, ...], what: str, where: str) -> str:
    names = rows.column_names
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{where} has no column {wanted!r}: it has {', '.join(names)}.")
        return wanted
    lowered = {name.lower(): name for name in names}
    for name in usual:
        if name in lowered:
            return lowered[name]
    raise DataError(f"Which column of {where} is the {what}? Name one of {', '.join(names)} with --{what}_column.")


def align_labels(rows: Dataset, names: list[str], model_labels: list[str]) -> Dataset:
    """`rows` with labels that count as the model's do, matched by name.

    Raises:
        DataError: when a class of the rows is none of the model's.
    """
    if names == model_labels:
        return rows
    unknown = [name for name in names if name not in model_labels]
    if unknown:
        raise DataError(
            f"The data has classes that the model does not know: {', '.join(unknown[:5])}. "
            f"The model's are {', '.join(model_labels[:20])}."
        )
    index_of = [model_labels.index(name) for name in names]
    moved = [index_of[label] for label in rows["label"]]
    return Dataset.from_dict({"text": rows["text"], "label": moved}, features=_features(model_labels))
