"""Data sets: the hub, a local folder, a user's file, or a toy made on the spot. Texts keep their raw form.

Every split comes out as a datasets.Dataset with the columns text (str) and label (int).
Try it: load_split("ag_news", "test", "folder/of/data")
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from datasets.utils.stratify import stratified_shuffle_split_generate_indices

from train.sentences import cut_by_sentence
from train.tables import FILE_ENDINGS, DataError, is_table, listed, read_table

LOCAL_SPLITS = ("train", "validation_mismatched", "validation_matched", "validation", "test")
# How columns are found by name: the first of these that a file has, upper and lower case alike.
TEXT_COLUMNS = (
    "text", "sentence", "content", "review", "question", "message", "title", "description", "utterance", "query",
    "comment", "body", "document", "headline", "tweet", "input",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "class", "category", "intent", "target", "sentiment", "topic", "tag", "label_text",
    "label_name", "class_name", "coarse_label", "emotion", "output",
)  # fmt: skip
# Columns that only number the rows.
ROW_NUMBERS = ("id", "idx", "index", "column 1", "unnamed: 0", "__index_level_0__")
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")
TOY_VOCABULARY, TOY_SAMPLES = 500, 1000
# Between the two texts of a pair: the separator token of tokenizers trained here. Others get their own instead.
SEPARATOR_TOKEN = "[SEP]"
PAIR_SEPARATOR = f" {SEPARATOR_TOKEN} "


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
    rows, names = read_rows(dataset, split, data_dir)
    columns = choose_columns(dataset, rows.column_names, text_column, label_column, labelled)
    texts = texts_of(rows, columns)
    if not labelled:
        kept = [text for text in texts if text.strip()]
        if not kept:
            raise DataError(f"{dataset} has no row with a text.")
        return Dataset.from_dict({"text": kept}), []
    indices, names = classes_of(rows, texts, columns, names)
    kept = [row for row, index in enumerate(indices) if index is not None]
    chosen = {"text": [texts[row] for row in kept], "label": [indices[row] for row in kept]}
    return Dataset.from_dict(chosen, features=_features(names)), names


def read_rows(dataset: str, split: str | None = None, data_dir: str | None = None) -> tuple[Dataset, list[str] | None]:
    """One split with all its columns as they are stored, and the class names by index where they are known.

    Takes what `load_split` takes. Raises DataError when it can't be had, with what to do.
    """
    if dataset in REFUSED:
        raise DataError(REFUSED[dataset])
    if dataset == "toy":
        return make_toy_split(split)
    source = DATASETS.get(dataset)
    names = list(source.labels) if source else None
    if is_table(dataset):
        _known_split(dataset, split, ("train",))
        return read_table(Path(dataset)), None
    if folder := data_dir or os.environ.get("SWITCH_DATA_DIR"):
        rows, stored_names = _read_local(Path(folder) / dataset, dataset, split or report_split(dataset, folder))
        return rows, names or stored_names
    if source:
        return _read_hub(source.hub_id, source.hub_config, _known_split(dataset, split, source.splits)), names
    if dataset.count("/") == 1:
        return _read_hub(dataset, None, split or "test"), None
    raise DataError(
        f"{dataset} is no data set: known are {', '.join(DATASETS)}, a folder of --data_dir, a hub id such as "
        f"owner/name, or a file ending in {', '.join(FILE_ENDINGS)}."
    )


def columns_of(dataset: str, data_dir: str | None = None) -> list[str]:
    """The columns that a data set's training rows have. Raises DataError as `load_split` does."""
    return read_rows(dataset, "train", data_dir)[0].column_names


@dataclass(frozen=True)
class Columns:
    """Which columns of a data set are read: one of texts or two of a pair, and one of classes where it is asked for."""

    dataset: str
    texts: tuple[str, ...]
    label: str | None


def choose_columns(
    dataset: str, names: list[str], text_column: str | None, label_column: str | None, labelled: bool = True
) -> Columns:
    """The columns asked for, else those found by name. Raises DataError when that leaves a doubt."""
    texts = _split_columns(text_column, names)
    for wanted in (*texts, *([label_column] if label_column else [])):
        if wanted not in names:
            raise DataError(f"{dataset} has no column {wanted!r}: it has {listed(names)}.")
    usual = DATASETS[dataset].text_columns if dataset in DATASETS else ()
    if not texts and usual and set(usual) <= set(names):
        texts = usual
    texts = texts or _first_of(TEXT_COLUMNS, names, other_than=(label_column,))[:1]
    if not labelled:
        label = None
    else:
        label = label_column or next(iter(_first_of(LABEL_COLUMNS, names, other_than=texts)), None)
        # Of two columns, the one that is not the other.
        left = [name for name in names if name not in (*texts, label) and name.lower() not in ROW_NUMBERS]
        if len(left) == 1 and bool(texts) != bool(label):
            texts, label = texts or (left[0],), label or left[0]
    missing = "text" if not texts else "label" if labelled and not label else None
    if missing:
        hint = (
            " Does its first line name the columns? If not, write one above: text,label." if is_table(dataset) else ""
        )
        raise DataError(
            f"Which column of {dataset} is the {missing}? Name one of {listed(names)} with --{missing}_column.{hint}"
        )
    return Columns(dataset, texts, label)


def _split_columns(wanted: str | None, names: list[str]) -> tuple[str, ...]:
    """What was asked for: one column, whose name may hold a comma, or two with a comma between."""
    if wanted is None:
        return ()
    return (wanted,) if wanted in names else tuple(part.strip() for part in wanted.split(","))


def _first_of(usual: tuple[str, ...], names: list[str], other_than: Sequence[str | None]) -> tuple[str, ...]:
    """The columns with usual names, the most usual first."""
    lowered = {name.lower(): name for name in names if name not in other_than}
    return tuple(lowered[name] for name in usual if name in lowered)


def texts_of(rows: Dataset, columns: Columns) -> list[str]:
    """A text for every row, "" where there is none; of a pair's two columns, both in one text."""
    parts = [["" if value is None else str(value) for value in rows[column][:]] for column in columns.texts]
    return parts[0] if len(parts) == 1 else [PAIR_SEPARATOR.join(texts) for texts in zip(*parts, strict=True)]


def classes_of(
    rows: Dataset, texts: list[str], columns: Columns, names: list[str] | None
) -> tuple[list[int | None], list[str]]:
    """The class of every row as an index, and the class names: those given, the table's own, or its values.

    A row without a text or a class has None. Raises DataError when the column holds no classes.
    """
    where, label = columns.dataset, columns.label
    names = names or getattr(rows.features[label], "names", None)
    cells = rows[label][:]
    values = _class_values(cells, texts, columns, hidden=-1 if names else None)
    distinct = set(values) - {None}
    if not distinct:
        hidden = " Its labels are hidden: take the validation split." if names and set(cells) == {-1} else ""
        raise DataError(f"{where} has no row with both a text and a class ({label}).{hidden}")
    if names and all(isinstance(value, int) for value in distinct):
        if not all(0 <= value < len(names) for value in distinct):
            raise DataError(f"{where} has labels beyond its {len(names)} class names ({listed(names)}).")
        return values, names
    count = len(values) - values.count(None)
    _check_classes(distinct, count, columns)
    # Numbers sort as numbers ("10" after "9"), everything else as text.
    numeric = all(isinstance(value, (int, float)) for value in distinct)
    name_of = {value: _label_name(value) for value in sorted(distinct, key=None if numeric else str)}
    own = list(dict.fromkeys(name_of.values()))
    names = names if names and set(own) <= set(names) else own
    index_of = {value: names.index(name) for value, name in name_of.items()}
    return [index_of.get(value) for value in values], names


def _class_values(cells: Iterable[Any], texts: list[str], columns: Columns, hidden: int | None) -> list[Any]:
    """What stands in the column of classes: numbers as numbers, None where the class, or the text, is missing.

    Args:
        hidden: where classes are numbered, hidden ones are stored as this.
    """
    values = []
    for cell, text in zip(cells, texts, strict=True):
        value = (cell.strip() or None) if isinstance(cell, str) else cell
        if not (value is None or isinstance(value, (str, int, float))):
            raise DataError(
                f"The column {columns.label} of {columns.dataset} holds no classes: each must be a word or a number."
            )
        missing = not text.strip() or value != value or (hidden is not None and value == hidden)
        values.append(None if missing else value)
    distinct = {value for value in values if isinstance(value, str)}
    if not all(NUMBER.fullmatch(value) for value in distinct):
        return values
    numbers = {value: float(value) if "." in value else int(value) for value in distinct}
    return [numbers[value] if isinstance(value, str) else value for value in values]


def _check_classes(distinct: set[Any], count: int, columns: Columns) -> None:
    where, label = columns.dataset, columns.label
    fraction = next((value for value in distinct if isinstance(value, float) and not value.is_integer()), None)
    if fraction is not None:
        raise DataError(
            f"The column {label} of {where} holds fractions, such as {fraction}: predicting them would be regression; "
            "the models here choose among classes. Name their column with --label_column."
        )
    if len(distinct) > max(20, count // 2):
        raise DataError(
            f"The column {label} of {where} has {len(distinct):,} classes in {count:,} rows: is it the column of "
            "classes? Name that with --label_column."
        )


def _label_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def report_split(dataset: str, data_dir: str | None = None) -> str:
    """The split that figures are reported on: test, or what comes nearest."""
    if dataset in DATASETS:
        return DATASETS[dataset].splits[-1]
    if is_table(dataset):
        return "train"
    folder = data_dir or os.environ.get("SWITCH_DATA_DIR")
    return _local_splits(Path(folder) / dataset)[-1] if folder else "test"


def has_own_validation(dataset: str, data_dir: str | None = None) -> bool:
    """Whether checkpoints are chosen on a split of the data set's own: a folder's, that has another to report on."""
    folder = data_dir or os.environ.get("SWITCH_DATA_DIR")
    if not folder or dataset in DATASETS or is_table(dataset):
        return False
    return {"validation", "test"} <= set(_local_splits(Path(folder) / dataset))


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
    return TrainingData(*_cut(rows, validation_size, len(present)), labels)


def _cut(rows: Dataset, share: float, classes: int) -> tuple[Dataset, Dataset]:
    """Rows to train on and rows held out, of every class alike where each has two rows at least; 0 classes = any rows.

    The cut does not depend on the run's seed, so that runs with different seeds share one validation split.
    """
    held_out, random = max(round(len(rows) * share), 1), np.random.default_rng(0)
    labels = np.array(rows["label"][:]) if classes else np.zeros(0, dtype=int)
    if classes and held_out >= classes and np.unique(labels, return_counts=True)[1].min() >= 2:
        # What train_test_split does, without its row by row reading of the labels.
        parts = next(stratified_shuffle_split_generate_indices(labels, len(rows) - held_out, held_out, rng=random))
        return rows.select(parts[0]), rows.select(parts[1])
    order = random.permutation(len(rows))
    return rows.select(order[held_out:]), rows.select(order[:held_out])


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
        raise DataError(
            f"{hub_id} ({split}) could not be loaded from the Hugging Face Hub: is there a network? To read a data set "
            f"from disk, name a folder that holds <dataset>/{split}.parquet with --data_dir; to use what was "
            "downloaded before, set HF_HUB_OFFLINE=1."
        ) from error


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
    moved = [index_of[label] for label in rows["label"][:]]
    return Dataset.from_dict({"text": rows["text"][:], "label": moved}, features=_features(model_labels))
