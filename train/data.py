"""Data sets: the hub, a local folder, a user's file, or a toy made on the spot. Texts keep their raw form.

Every split comes out as a datasets.Dataset with the columns text (str) and label (int).
Try it: load_split("ag_news", "test", "folder/of/data")
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, load_dataset

FILE_READERS = {
    ".csv": ("csv", {}),
    ".tsv": ("csv", {"sep": "\t"}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".parquet": ("parquet", {}),
}
TEXT_COLUMNS = ("text", "sentence", "content", "review", "question", "message", "title", "description")
LABEL_COLUMNS = ("label", "labels", "class", "category", "intent", "target", "sentiment", "topic")
TOY_VOCABULARY, TOY_SAMPLES = 500, 1000


class DataError(Exception):
    """Says which data could not be had, why, and what to do."""


@dataclass(frozen=True)
class DatasetSource:
    """A data set known by name.

    Attributes:
        splits: what there is; the last one is the one to report on.
        labels: class names by index.
        hub_id, hub_config: where `datasets` finds it.
        text_column: its column of texts on the hub.
    """

    splits: tuple[str, ...]
    labels: tuple[str, ...] = ()
    hub_id: str | None = None
    hub_config: str | None = None
    text_column: str = "text"

    @property
    def report_split(self) -> str:
        return self.splits[-1]


DATASETS: dict[str, DatasetSource] = {
    "toy": DatasetSource(("train", "validation", "test")),
    "ag_news": DatasetSource(("train", "test"), ("World", "Sports", "Business", "Sci/Tech"), "fancyzhx/ag_news"),
    # GLUE hides the labels of its test split: validation is what one reports.
    "sst2": DatasetSource(("train", "validation"), ("negative", "positive"), "nyu-mll/glue", "sst2", "sentence"),
    "imdb": DatasetSource(("train", "test"), ("neg", "pos"), "stanfordnlp/imdb"),
}


@dataclass(frozen=True)
class TrainingData:
    """Two splits for training: one to learn from, one to choose the best checkpoint on."""

    train: Dataset
    validation: Dataset
    labels: list[str]


def load_split(
    dataset: str,
    split: str,
    data_dir: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
) -> tuple[Dataset, list[str]]:
    """One split with its class names.

    Args:
        dataset: a name in DATASETS, or the path of a CSV, TSV, JSONL or parquet file (which has one split, "train").
        data_dir: a folder <dataset>/<split>.parquet; None = the environment variable SWITCH_DATA_DIR, then the hub.

    Raises:
        DataError: when it can't be had, with what to do.
    """
    if dataset not in DATASETS:
        return _read_file(Path(dataset), text_column, label_column)
    source = DATASETS[dataset]
    if split not in source.splits:
        raise DataError(f"{dataset} has no split {split!r}: it has {', '.join(source.splits)}.")
    if dataset == "toy":
        return make_toy(seed={"train": 0, "validation": 1, "test": 2}[split])
    rows = _read_local(dataset, split, data_dir) or _read_hub(dataset, split, source)
    return _with_labels(rows, list(source.labels), dataset), list(source.labels)


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
        return TrainingData(train, validation, labels)
    rows, labels = load_split(dataset, "train", data_dir, text_column, label_column)
    present = sorted(set(rows["label"]))
    if len(present) < 2:
        raise DataError(f"{dataset} has one class only ({labels[present[0]]}): there is nothing to tell apart.")
    if num_samples is not None and num_samples < len(rows):
        rows = rows.shuffle(seed=seed).select(range(num_samples))
    # The cut does not depend on the run's seed, so that runs with different seeds share one validation split.
    counts = np.bincount(rows["label"], minlength=len(labels))
    held_out = max(round(len(rows) * validation_size), 1)
    stratify = "label" if counts[counts > 0].min() >= 2 and held_out >= len(present) else None
    parts = rows.train_test_split(test_size=held_out, seed=0, stratify_by_column=stratify)
    return TrainingData(parts["train"], parts["test"], labels)


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


def _read_local(dataset: str, split: str, data_dir: str | None) -> Dataset | None:
    folder = data_dir or os.environ.get("SWITCH_DATA_DIR")
    if not folder:
        return None
    path = Path(folder) / dataset / f"{split}.parquet"
    if not path.is_file():
        raise DataError(f"There is no {path}. --data_dir names a folder that holds {dataset}/{split}.parquet.")
    return _read_table(path)


def _read_hub(dataset: str, split: str, source: DatasetSource) -> Dataset:
    try:
        rows = load_dataset(source.hub_id, source.hub_config, split=split)
    except Exception as error:  # The hub, the network and the parser each raise their own kinds.
        raise DataError(
            f"{dataset} could not be loaded from the Hugging Face Hub ({source.hub_id}): is there a network? "
            f"To read it from disk, name a folder that holds {dataset}/{split}.parquet with --data_dir."
        ) from error
    if source.text_column != "text" and source.text_column in rows.column_names:
        rows = rows.rename_column(source.text_column, "text")
    return rows


def _read_table(path: Path) -> Dataset:
    reader, options = FILE_READERS[path.suffix.lower()]
    try:
        return load_dataset(reader, data_files=str(path), split="train", **options)
    except Exception as error:  # Each format's parser raises its own kinds.
        reason = str(error.__cause__ or error).strip().splitlines()
        raise DataError(
            f"{path} can't be read as {reader}: {reason[0] if reason else 'the file is damaged'}"
        ) from error


def _read_file(path: Path, text_column: str | None, label_column: str | None) -> tuple[Dataset, list[str]]:
    if path.suffix.lower() not in FILE_READERS:
        raise DataError(
            f"{path} is no data set: known are {', '.join(DATASETS)}, or a file ending in {', '.join(FILE_READERS)}."
        )
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    rows = _read_table(path)
    text = _find_column(rows, text_column, TEXT_COLUMNS, "text", path)
    label = _find_column(rows, label_column, LABEL_COLUMNS, "label", path)
    texts = ["" if value is None else str(value) for value in rows[text]]
    values = rows[label]
    kept = [index for index, value in enumerate(values) if value is not None and texts[index].strip()]
    if not kept:
        raise DataError(f"{path} has no row with both a text ({text}) and a class ({label}).")
    # Numbers sort as numbers ("10" after "9"), everything else as text.
    distinct = {values[index] for index in kept}
    numeric = all(isinstance(value, (int, float)) for value in distinct)
    names = [_label_name(value) for value in sorted(distinct, key=None if numeric else str)]
    index_of = {name: index for index, name in enumerate(names)}
    return (
        Dataset.from_dict(
            {
                "text": [texts[index] for index in kept],
                "label": [index_of[_label_name(values[index])] for index in kept],
            },
            features=_features(names),
        ),
        names,
    )


def _label_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _find_column(rows: Dataset, wanted: str | None, usual: tuple[str, ...], what: str, path: Path) -> str:
    names = rows.column_names
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{path} has no column {wanted!r}: it has {', '.join(names)}.")
        return wanted
    lowered = {name.lower(): name for name in names}
    for name in usual:
        if name in lowered:
            return lowered[name]
    raise DataError(f"Which column of {path} is the {what}? Name one of {', '.join(names)} with --{what}_column.")


def _with_labels(rows: Dataset, labels: list[str], dataset: str) -> Dataset:
    if not {"text", "label"} <= set(rows.column_names):
        raise DataError(f"{dataset} needs the columns text and label; it has {', '.join(rows.column_names)}.")
    rows = rows.select_columns(["text", "label"]).cast(_features(labels))
    return rows


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
