"""Load data sets: from the hub, a local folder, a user's file, or the generated toy data. Texts are not changed.

Every split is a datasets.Dataset with the columns text (str) and label (int).
Try it: load_split(DataSource("toy", split="test"))[0][0]
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import numpy as np
from datasets import Dataset, IterableDataset, load_dataset

from switch_model.storage.hub import is_missing, is_unreachable
from train.data.columns import (
    align_labels,
    choose_columns,
    classes_of,
    indices_in,
    label_features,
    names_in,
    texts_of,
)
from train.data.errors import NO_ANSWER, OFFLINE, DataError, Unreachable
from train.data.source import DATASETS, DataSource, Selection
from train.data.splits import cut, cut_by_sentence, cut_indices
from train.data.stored.digests import among, prints
from train.data.stored.streaming import MOST_HELD_OUT, Stream, first_rows_of
from train.data.stored.table import Kind, Parts, StoredPart, StoredTable, file_parts, stored_table
from train.data.stored.vectors import read_vectors
from train.data.table_file import FILE_ENDINGS
from train.data.tables import ROWS_AT_ONCE, files_in_parts, first_rows, is_large, most_at_once, read_files
from train.data.toy import TOY_SAMPLES, TOY_VOCABULARY, make_toy, make_toy_split
from train.formatting import counted, listed, one_line

# Rows that tell the columns of a table too large for memory.
FEW = 1_000
# Maximum length of a quoted library message.
MOST_SAID = 300
# Unsupported data sets, and why.
REFUSED = {
    "stsb": "stsb is a regression task (similarity from 0 to 5), which is not supported. For pairs with classes use "
    "mrpc, qqp, mnli, qnli or rte."
}


class Split(NamedTuple):
    """One split: its rows with the class names, and how many rows it has beside them, without a text or a class."""

    rows: Dataset
    names: list[str]
    empty: int = 0
    unlabelled: int = 0
    # Where the rows are on disk, for a table too large for memory.
    part: StoredPart | None = None

    @classmethod
    def stored(cls, part: StoredPart) -> "Split":
        """Of rows on disk."""
        table = part.table
        return cls(part.rows, table.names, table.empty, table.unlabelled, part)

    @property
    def left_out(self) -> str:
        """These rows in words; "" for none."""
        said = [f"{counted(self.empty, 'empty row')} left out."] if self.empty else []
        if self.unlabelled:
            said.append(f"{counted(self.unlabelled, 'row')} without a class left out.")
        return " ".join(said)


@dataclass(frozen=True)
class TrainingData:
    """Training rows and validation rows, and the class names; of tables too large for memory also where the rows are on
    disk."""

    train: Dataset
    validation: Dataset
    labels: list[str]
    parts: tuple[StoredPart, StoredPart] | None = None
    # Of rows that are read as they come: then `train` are the first of them.
    stream: Stream | None = None

    @classmethod
    def stored(cls, train: StoredPart, validation: StoredPart) -> "TrainingData":
        """Of rows on disk."""
        return cls(train.rows, validation.rows, train.table.names, (train, validation))


def load_split(source: DataSource, labelled: bool = True) -> tuple[Dataset, list[str]]:
    """One split with its class names; the two texts of a pair are joined by PAIR_SEPARATOR.

    Args:
        labelled: False = texts only: rows have no label, and there are no class names.

    Raises:
        DataError: when it can't be read, with what to do.
    """
    return read_split(source, labelled)[:2]


def read_split(source: DataSource, labelled: bool = True) -> Split:
    """`load_split`, with the number of rows that it leaves out."""
    if source.features_column:
        rows, names = read_rows(source)
        found, names, empty, unlabelled = read_vectors(rows, source, names)
        return Split(found, names, empty, unlabelled)
    if table := large_table(source, "classes" if labelled else "texts"):
        return Split.stored(table.usable)
    rows, names = read_rows(source)
    columns = choose_columns(source, names_in(rows), labelled)
    texts = texts_of(rows, columns)
    empty = sum(not text.strip() for text in texts)
    if not labelled:
        if empty == len(texts):
            raise DataError(f"{source.dataset} has no row with a text.")
        return Split(Dataset.from_dict({"text": [text for text in texts if text.strip()]}), [], empty)
    indices, names = classes_of(rows, texts, columns, names)
    kept = [row for row, index in enumerate(indices) if index is not None]
    chosen = {"text": [texts[row] for row in kept], "label": [indices[row] for row in kept]}
    kept_rows = Dataset.from_dict(chosen, features=label_features(names))
    return Split(kept_rows, names, empty, len(texts) - len(kept) - empty)


def read_rows(source: DataSource, most: int | None = None) -> tuple[Dataset, list[str] | None]:
    """One split with all its columns as stored, and the class names by index, if known.

    Args:
        most: of a table too large for memory, read so many rows alone; None = all rows of any table.

    Raises:
        DataError: when it can't be read, with what to do.
    """
    if source.is_toy:
        return make_toy_split(source.split)
    if files := files_of(source):
        return first_rows(files, most) if most and is_large(files) else read_files(files), known_names(source)
    return _read_hub(source), known_names(source)


def files_of(source: DataSource) -> list[Path]:
    """The files of a split, in order; none for the toy, and on the hub. Raises DataError when they are missing."""
    if source.dataset in REFUSED:
        raise DataError(REFUSED[source.dataset])
    if not source.is_file:
        source.refuse_other_files()
    return source.local_files()


def known_names(source: DataSource) -> list[str] | None:
    """The class names by index of a known data set, or those in its folder."""
    if source.is_file:
        return None
    names = list(source.known.labels) or None if source.known else None
    if not names and (folder := source.folder):
        stored_names = folder / "labels.json"
        if stored_names.is_file():
            return json.loads(stored_names.read_text(encoding="utf-8"))["names"]
    return names


def large_table(source: DataSource, kind: Kind) -> StoredTable | None:
    """The rows of a split, on disk, if there are too many bytes of them for memory. Raises DataError as `read_rows`."""
    if source.is_toy or source.features_column:
        return None
    if files := files_of(source):
        return stored_table(source, kind, known_names(source), file_parts(files)) if is_large(files) else None
    rows = _read_hub(source)
    if rows.data.nbytes <= most_at_once() or not rows.cache_files:
        return None
    # Their names have the digest of the data set's version.
    states = [(file["filename"], Path(file["filename"]).stat().st_size) for file in rows.cache_files]

    def parts() -> Iterator[Dataset]:
        return (
            rows.select(range(start, min(start + ROWS_AT_ONCE, len(rows))))
            for start in range(0, len(rows), ROWS_AT_ONCE)
        )

    return stored_table(source, kind, known_names(source), Parts(str(states), parts))


def columns_of(source: DataSource) -> list[str]:
    """The columns of a data set's training rows. Raises DataError as `load_split` does."""
    return names_in(read_rows(source.at("train"), FEW)[0])


def load_training_data(chosen: Selection, labelled: bool = True) -> TrainingData:
    """The training rows and validation rows; never rows of the test split.

    Args:
        labelled: False = texts only.

    Raises:
        DataError: when the data can't be read or used for training.
    """
    source = chosen.source
    if source.is_toy:
        vocabulary = chosen.vocab_size or TOY_VOCABULARY
        shape = dict(num_classes=chosen.num_classes, vocab_size=vocabulary, seq_len=chosen.seq_len)
        count = chosen.num_samples or TOY_SAMPLES
        train, labels = make_toy(count, seed=3 * chosen.seed, **shape)
        validation, _ = make_toy(max(count // 5, 50), seed=3 * chosen.seed + 1, **shape)
        if not labelled:
            return TrainingData(train.remove_columns("label"), validation.remove_columns("label"), [])
        return TrainingData(train, validation, labels)
    if chosen.streaming:
        return _streamed(chosen, labelled)
    if table := large_table(source.at("train"), "classes" if labelled else "texts"):
        return _training_parts(table, chosen, labelled)
    rows, labels = load_split(source.at("train"), labelled)
    present = sorted(set(rows["label"][:])) if labelled else []
    if labelled and len(present) < 2:
        raise DataError(f"{source.dataset} has only one class ({labels[present[0]]}): a classifier needs at least two.")
    rows = sampled(rows, chosen)
    if source.has_own_validation:
        own, own_labels = load_split(source.at("validation"), labelled)
        return TrainingData(rows, align_labels(own, own_labels, labels), labels)
    if source.known and source.known.fragments:
        return TrainingData(*cut_by_sentence(rows, chosen.validation_size), labels)
    return TrainingData(*cut(rows, chosen.validation_size, len(present)), labels)


def _training_parts(table: StoredTable, chosen: Selection, labelled: bool) -> TrainingData:
    """`load_training_data` of a table on disk."""
    source, rows, names = chosen.source, table.usable, table.names
    present = np.unique(rows.labels) if labelled else []
    if labelled and len(present) < 2:
        raise DataError(f"{source.dataset} has only one class ({names[present[0]]}): a classifier needs at least two.")
    return cut_parts(rows, chosen, "classes" if labelled else "texts", len(present))


def _streamed(chosen: Selection, labelled: bool) -> TrainingData:
    """Rows that are read as they come; some of the first ones, by their digests, are held out."""
    source = chosen.source.at("train")
    columns = choose_columns(source, names_in(next(_parts_of(source))), labelled)
    first = first_rows_of(_parts_of(source), columns, known_names(source))
    if labelled and len(set(first.labels)) < 2:
        raise DataError(
            f"The first {len(first.texts):,} rows of {source.dataset} have only one class ({listed(first.names)}): "
            "shuffle the file, or train without --streaming."
        )
    columns_of_rows = {"text": first.texts} | ({"label": first.labels} if labelled else {})
    rows = Dataset.from_dict(columns_of_rows, features=label_features(first.names) if labelled else None)
    digests = prints(first.texts)
    if source.has_own_validation:
        own, names = load_split(source.at("validation"), labelled)
        validation, held_out = align_labels(own, names, first.names), np.zeros(0, np.uint64)
    else:
        every = max(round(1 / chosen.validation_size), 2)
        held_out = np.unique(digests[digests % np.uint64(every) == 0])[:MOST_HELD_OUT]
        validation = rows.select(np.flatnonzero(among(digests, held_out)))
    train = rows.select(np.flatnonzero(~among(digests, held_out)))
    if not len(train) or not len(validation):
        raise DataError(
            f"{source.dataset} has {counted(len(rows), 'row', 'rows')}, of which --validation_size holds out "
            f"{len(validation):,}: too few for --streaming. Leave it out."
        )
    known = frozenset(held_out.tolist())
    settings = (first.classes, known, chosen.shuffle_buffer, chosen.num_samples, chosen.seed)
    return TrainingData(train, validation, first.names, stream=Stream(lambda: _parts_of(source), columns, *settings))


def _parts_of(source: DataSource) -> Iterator[Dataset]:
    """The rows of a split with all columns, part by part. Raises DataError when they can't be read."""
    if source.is_toy:
        return iter([make_toy_split(source.split)[0]])
    if files := files_of(source):
        return files_in_parts(files)
    rows = stream_hub(source)
    return (Dataset.from_dict(part, features=rows.features) for part in rows.iter(ROWS_AT_ONCE))


def stream_hub(source: DataSource) -> IterableDataset:
    """A split on the Hub, row by row. Raises DataError when it can't be reached."""
    known, split = source.known, source.split
    hub_id = known.hub_id if known else source.dataset
    part = (known and known.hub_config) or source.language
    try:
        rows = load_dataset(hub_id, part, split=split or "train", streaming=True)
        next(iter(rows))  # Some are reached only now.
        return rows
    except Exception as error:  # The hub, the network and the parser raise many types.
        raise Unreachable(
            f"{hub_id} ({split}) could not be read from the Hugging Face Hub: is there a network? To read a data "
            f"set from disk, name a folder that holds <dataset>/{split}.parquet with --data_dir.",
            NO_ANSWER,
        ) from error


def cut_parts(rows: StoredPart, chosen: Selection, kind: Kind, classes: int = 0) -> TrainingData:
    """As many rows on disk as are to be trained on, and the validation rows: held out, or the data set's own."""
    source, sampled_rows = chosen.source, chosen.num_samples is not None and chosen.num_samples < len(rows)
    own_validation = source.has_own_validation

    def parts() -> list[np.ndarray]:
        some = rows
        if sampled_rows:
            some = rows.of(np.random.default_rng(chosen.seed).permutation(len(rows))[: chosen.num_samples])
        if own_validation:
            return [some.indices]
        labels = some.labels if classes else None
        return [some.of(own).indices for own in cut_indices(len(some), labels, chosen.validation_size, classes)]

    told = [chosen.num_samples, chosen.seed] if sampled_rows else []
    if not own_validation:
        return TrainingData.stored(*rows.table.kept([chosen.validation_size, classes, *told], parts))
    own = source.at("validation")
    found = stored_table(own, kind, rows.table.names or None, file_parts(files_of(own)))
    indices_in(found.names, rows.table.names)
    return TrainingData.stored(rows.table.kept(told, parts)[0] if sampled_rows else rows, found.usable)


def sampled(rows: Dataset, chosen: Selection) -> Dataset:
    """As many rows, at random, as are to be trained on."""
    if chosen.num_samples is None or chosen.num_samples >= len(rows):
        return rows
    return rows.shuffle(seed=chosen.seed).select(range(chosen.num_samples))


def _read_hub(source: DataSource) -> Dataset:
    if known := source.known:
        hub_id, hub_config = known.hub_id, known.hub_config or source.language
        split = source.split_among(known.splits)
    elif source.dataset.count("/") == 1:
        hub_id, hub_config, split = source.dataset, source.language, source.split or "test"
    else:
        raise DataError(
            f"{source.dataset} is not a data set. Give one of {', '.join(DATASETS)}, a folder of --data_dir, a hub id "
            f"such as owner/name, or a file ending in {', '.join(FILE_ENDINGS)}."
        )
    try:
        if not (Path(hub_id).is_dir() or huggingface_hub.constants.HF_HUB_OFFLINE):
            # First, because it fails at once, while `datasets` retries for half a minute.
            huggingface_hub.HfApi().dataset_info(hub_id, timeout=10)
        return load_dataset(hub_id, hub_config, split=split)
    except Exception as error:  # The hub, the network and the parser raise many types.
        from_disk = (
            "To read from disk, name a table as --dataset, such as my.csv, or with --data_dir a folder that holds "
            f"<dataset>/{split}.parquet."
        )
        if huggingface_hub.constants.HF_HUB_OFFLINE and is_unreachable(error):
            why = "HF_HUB_OFFLINE is set, and it was not downloaded before."
        elif is_unreachable(error):
            why = (
                "the Hugging Face Hub could not be reached. Is this machine online? To use an earlier download, set "
                "HF_HUB_OFFLINE=1."
            )
        elif is_missing(error):
            why = "the Hugging Face Hub has no such data set, or it is private: is HF_TOKEN set?"
        else:
            why = f"{one_line(str(error))[:MOST_SAID].rstrip('.')}."
        said = f"{hub_id} ({split}) could not be loaded: {why} {from_disk}"
        if is_unreachable(error):
            raise Unreachable(said, OFFLINE if huggingface_hub.constants.HF_HUB_OFFLINE else NO_ANSWER) from error
        raise DataError(said) from error
