"""DataSource: a data set, its location and the columns to read, from a run's arguments, a command's flags or the page.

Try it: DataSource("ag_news", data_dir="folder/of/data").report_split
"""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from switch_model.storage.paths import local_path
from train.data.errors import NOT_IN_FOLDER, DataError, Unreachable
from train.data.table_file import instead_of_a_table, is_table

# Environment variable with the default of --data_dir.
DATA_DIR = "SWITCH_DATA_DIR"
# The rows of bundled data sets, a folder each.
_BUNDLED = Path(__file__).resolve().parent / "bundled"
LOCAL_SPLITS = ("train", "validation_mismatched", "validation_matched", "validation", "test")


@dataclass(frozen=True)
class KnownDataset:
    """A data set known by name.

    Attributes:
        splits: its splits; metrics are reported on the last one.
        labels: class names by index.
        hub_id, hub_config: its name on the hub.
        text_columns: its column of texts on the hub, or the two of a pair.
        fragments: whether train contains parts of its own sentences as rows.
        bundled: whether its rows come with this package, as CSV.
    """

    splits: tuple[str, ...]
    labels: tuple[str, ...] = ()
    hub_id: str | None = None
    hub_config: str | None = None
    text_columns: tuple[str, ...] = ("text",)
    fragments: bool = False
    bundled: bool = False


def _glue(
    name: str,
    labels: tuple[str, ...],
    *text_columns: str,
    validation: tuple[str, ...] = ("validation",),
    fragments: bool = False,
) -> KnownDataset:
    return KnownDataset(("train", *validation), labels, "nyu-mll/glue", name, text_columns, fragments)


_NEWS = ("World", "Sports", "Business", "Sci/Tech")
_OPINIONS = ("negative", "positive")
DATASETS: dict[str, KnownDataset] = {
    "toy": KnownDataset(("train", "validation", "test")),
    "mini_news": KnownDataset(("train", "test"), _NEWS, bundled=True),
    "mini_reviews": KnownDataset(("train", "test"), _OPINIONS, bundled=True),
    "ag_news": KnownDataset(("train", "test"), _NEWS, "fancyzhx/ag_news"),
    "imdb": KnownDataset(("train", "test"), ("neg", "pos"), "stanfordnlp/imdb"),
    # GLUE hides the labels of its test splits, so metrics are reported on validation.
    "sst2": _glue("sst2", _OPINIONS, "sentence", fragments=True),
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
    "tiny_stories": KnownDataset(("train", "validation"), hub_id="roneneldan/TinyStories"),
    # English and an Indian language, selected by --language.
    "samanantar": KnownDataset(("train",), hub_id="ai4bharat/samanantar", text_columns=("src", "tgt")),
}


@dataclass(frozen=True)
class DataSource:
    """A data set, its location, and the split and columns to read.

    Attributes:
        dataset: a name in DATASETS, a folder of data_dir, a hub id "owner/name", or the path of a CSV, TSV, JSONL or
            parquet file (which has one split, "train").
        data_dir: a folder with <dataset>/<split>.parquet; None = SWITCH_DATA_DIR, then the hub.
        text_column: the column of texts, or two, comma-separated; None = found by name, as for the other two.
        label_column, target_column: the columns of classes and of target texts.
        language: subset of a data set on the hub.
        split: None = the one on which metrics are reported.
        features_column: the column of vectors that a classifier is trained on instead of texts; None = texts.
    """

    dataset: str
    data_dir: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    target_column: str | None = None
    language: str | None = None
    split: str | None = None
    features_column: str | None = None

    @classmethod
    def of(cls, flags: Any) -> "DataSource":
        """From an object with some of these fields as attributes: DataArguments, or the flags of a command."""
        return cls(**{item.name: getattr(flags, item.name, None) for item in fields(cls)})

    def at(self, split: str | None) -> "DataSource":
        """The same data, another split."""
        return replace(self, split=split)

    @property
    def known(self) -> KnownDataset | None:
        """What is known of a data set by its name; None for any other."""
        return DATASETS.get(self.dataset)

    @property
    def is_toy(self) -> bool:
        """Whether its texts are generated."""
        return self.dataset == "toy"

    @property
    def is_bundled(self) -> bool:
        """Whether its rows come with this package."""
        return self.known is not None and self.known.bundled

    @property
    def is_at_hand(self) -> bool:
        """Whether it is there wherever this package is."""
        return self.is_toy or self.is_bundled

    @property
    def is_file(self) -> bool:
        """Whether it is a file of the user's own."""
        return is_table(self.dataset)

    @property
    def folder(self) -> Path | None:
        """The folder of its files; None if it has none."""
        if self.is_bundled:
            return _BUNDLED / self.dataset
        root = data_folder(self.data_dir)
        return None if root is None or self.is_toy or self.is_file else Path(root) / self.dataset

    @property
    def on_hub(self) -> bool:
        """Whether it is read from the hub."""
        return not (self.is_toy or self.is_file or self.folder)

    @property
    def report_split(self) -> str:
        """The split on which metrics are reported: test, or else the last one. Raises DataError."""
        if self.known:
            return self.known.splits[-1]
        if self.is_file:
            return "train"
        return local_splits(self.folder)[-1] if self.folder else "test"

    @property
    def has_own_validation(self) -> bool:
        """Whether checkpoints are selected on its validation split: of a folder that has a test split too."""
        if self.known or not (folder := self.folder):
            return False
        return {"validation", "test"} <= set(local_splits(folder))

    @property
    def lacks_validation(self) -> bool:
        """Whether it has no validation split, so that a run holds out some of its training rows."""
        if self.is_toy or self.is_file:
            return self.is_file
        if (folder := self.folder) and not self.is_bundled:
            return "validation" not in local_splits(folder)
        return self.known is not None and not any(name.startswith("validation") for name in self.known.splits)

    def split_among(self, splits: tuple[str, ...]) -> str:
        """The requested split, or the last one. Raises DataError if it does not exist."""
        if self.split is not None and self.split not in splits:
            raise DataError(f"{self.dataset} has no split {self.split!r}: it has {', '.join(splits)}.")
        return self.split or splits[-1]

    def local_file(self) -> Path | None:
        """The split's file: parquet, or CSV if bundled; None without a folder. Raises DataError when it is missing."""
        if (folder := self.folder) is None:
            return None
        if self.is_bundled:
            return folder / f"{self.split_among(self.known.splits)}.csv"
        return folder / f"{self.at(self.split or self.report_split).split_among(local_splits(folder))}.parquet"

    def files(self) -> list[Path]:
        """All local files that it is read from."""
        if self.is_file:
            return [Path(self.dataset)]
        return sorted(self.folder.glob("*.*")) if self.folder else []

    def refuse_other_files(self) -> None:
        """Raise DataError for the name of a file that is not a supported table."""
        known = self.known or (self.folder and self.folder.is_dir())
        if not known and (said := instead_of_a_table(self.dataset)):
            raise DataError(said)


@dataclass(frozen=True)
class Selection:
    """The rows of a run: where they are, how many are taken, and which are held out.

    Attributes:
        validation_size: share held out where the data have no validation split.
        num_samples: most rows to train on; None = all.
        seed: of the choice of rows, and of the toy's texts.
        num_classes, vocab_size, seq_len: shape of the toy's texts.
        streaming: whether rows are read as they come.
        shuffle_buffer: then, rows among which the next one is drawn.
    """

    source: DataSource
    validation_size: float = 0.05
    num_samples: int | None = None
    seed: int = 0
    num_classes: int = 3
    vocab_size: int | None = None
    seq_len: int = 16
    streaming: bool = False
    shuffle_buffer: int = 10_000


def data_folder(data_dir: str | None = None) -> str | None:
    """The folder of named data sets, from the argument or the environment; None without either."""
    folder = data_dir or os.environ.get(DATA_DIR)
    return local_path(folder) if folder else None


def known_datasets(data_dir: str | None = None) -> list[str]:
    """The names of DATASETS, and of the other folders of data_dir (or SWITCH_DATA_DIR) with training rows."""
    folder = data_folder(data_dir)
    own = sorted(path.parent.name for path in Path(folder).glob("*/train.parquet")) if folder else []
    return [*DATASETS, *(name for name in own if name not in DATASETS)]


def local_splits(folder: Path) -> tuple[str, ...]:
    """The splits in a folder <data_dir>/<dataset>. Raises DataError when there are none."""
    found = tuple(name for name in LOCAL_SPLITS if (folder / f"{name}.parquet").is_file())
    if not found:
        raise Unreachable(
            f"There is no {folder / 'train.parquet'}. --data_dir must be a folder that contains "
            f"{folder.name}/train.parquet, and optionally validation.parquet and test.parquet.",
            NOT_IN_FOLDER,
        )
    return found
