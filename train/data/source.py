"""DataSource: a data set, its location and the columns to read, from a run's arguments, a command's flags or the page.

Try it: DataSource("ag_news", data_dir="folder/of/data").report_split
"""

import os
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from switch_model.storage.paths import local_path
from train.data.errors import NOT_IN_FOLDER, DataError, Unreachable
from train.data.table_file import instead_of_a_table, is_table, named_ending, without_endings
from train.formatting import listed

# Environment variable with the default of --data_dir.
DATA_DIR = "SWITCH_DATA_DIR"
# The rows of bundled data sets, a folder each.
_BUNDLED = Path(__file__).resolve().parent / "bundled"
LOCAL_SPLITS = ("train", "validation_mismatched", "validation_matched", "validation", "test")
# A split's name, and behind it what numbers its files: train-00000-of-00002, test_1, val.part3.
_SPLIT = re.compile(
    rf"({'|'.join(LOCAL_SPLITS)}|valid|val|dev)(?:[-_.]?(?:\d+|of|part|shard|[0-9a-f]{{16}}))*", re.IGNORECASE
)
# Files about the rows, in folders from the Hub and others.
_ABOUT = ("labels", "dataset_info", "dataset_infos", "dataset_dict", "state")


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
            parquet file (which has one split, "train") or of a folder of such files, as `split_files` reads it.
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
    def is_own(self) -> bool:
        """Whether it is a file or a folder of the user's own, by its path."""
        return self.is_file or (not self.known and self.folder == Path(self.dataset))

    @property
    def folder(self) -> Path | None:
        """The folder of its files; None if it has none."""
        if self.is_bundled:
            return _BUNDLED / self.dataset
        if self.is_toy or self.is_file:
            return None
        root, own = data_folder(self.data_dir), Path(self.dataset)
        named = None if root is None else Path(root) / self.dataset
        is_own = not self.known and not (named and named.is_dir()) and own.is_dir()
        is_path = own.is_absolute() or self.dataset.startswith(".") or self.dataset.endswith("/")
        return own if is_own and (is_path or split_files(own)) else named

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

    def local_files(self) -> list[Path]:
        """The split's files, in order; none of the toy and on the hub. Raises DataError when they are missing."""
        if self.is_file:
            self.split_among(("train",))
            return [Path(self.dataset)]
        if (folder := self.folder) is None:
            return []
        if self.is_bundled:
            return [folder / f"{self.split_among(self.known.splits)}.csv"]
        split = self.at(self.split or self.report_split).split_among(local_splits(folder))
        return split_files(folder)[split]

    def files(self) -> list[Path]:
        """All local files that it is read from."""
        if self.is_file:
            return [Path(self.dataset)]
        if (folder := self.folder) is None:
            return []
        return (
            sorted(folder.glob("*.*"))
            if self.is_bundled
            else [one for own in split_files(folder).values() for one in own]
        )

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
    folder = Path(found) if (found := data_folder(data_dir)) else None
    layouts = ("*/train.parquet", "*/train-*-of-*.parquet", "*/data/train-*-of-*.parquet")
    own = {path.relative_to(folder).parts[0] for one in layouts for path in folder.glob(one)} if folder else set()
    return [*DATASETS, *sorted(own - set(DATASETS))]


def local_splits(folder: Path) -> tuple[str, ...]:
    """The splits in a folder <data_dir>/<dataset>, or one of the user's own. Raises DataError when there are none."""
    if found := tuple(split_files(folder)):
        return found
    if several := [sub.name for sub in _folders(folder) if split_files(sub)]:
        raise DataError(f"{folder} holds several data sets ({listed(several)}): name the folder of one.")
    raise Unreachable(
        f"There is no {folder / 'train.parquet'}, nor another table. --data_dir must be a folder that contains "
        f"{folder.name}/train.parquet, and optionally validation.parquet and test.parquet; or name a folder of tables, "
        "such as train-00000-of-00002.parquet, by its path.",
        NOT_IN_FOLDER,
    )


def split_files(folder: Path) -> dict[str, list[Path]]:
    """split -> its files, in the order of LOCAL_SPLITS; {} for a folder without any, or with several data sets.

    A file's name, or that of its folder, says the split; a table of no split is left out, but where all are of none,
    they are the training rows. One folder inside, as the Hub's data/, is looked into.

    Raises DataError where a split has files of several kinds, unless some are parquet.
    """
    tables, folders = _tables(folder), _folders(folder)
    found: dict[str, list[Path]] = {}
    for path in tables:
        if split := _split_of(without_endings(path.name)):
            found.setdefault(split, []).append(path)
    for sub in [] if found else folders:
        if (split := _split_of(sub.name)) and (own := _tables(sub)):
            found.setdefault(split, []).extend(own)
    if not found and tables:
        found = {"train": tables}
    if not found:
        inside = [own for sub in folders if (own := split_files(sub))]
        return inside[0] if len(inside) == 1 else {}
    return {name: _of_one_kind(found[name], name, folder) for name in LOCAL_SPLITS if name in found}


def _split_of(name: str) -> str | None:
    if (found := _SPLIT.fullmatch(name)) is None:
        return None
    named = found[1].lower()
    return named if named in LOCAL_SPLITS else "validation"


def _tables(folder: Path) -> list[Path]:
    shown = _inside(folder)
    return [path for path in shown if is_table(path.name) and path.stem not in _ABOUT and path.is_file()]


def _folders(folder: Path) -> list[Path]:
    return [path for path in _inside(folder) if path.is_dir()]


def _inside(folder: Path) -> list[Path]:
    """What is in a folder but for hidden files and those that programs leave, such as _SUCCESS."""
    return [path for path in sorted(folder.iterdir()) if path.name[0] not in "._"] if folder.is_dir() else []


def _of_one_kind(files: list[Path], split: str, folder: Path) -> list[Path]:
    """The split's files: one that has its name alone, else those of parquet, else all."""
    if whole := [path for path in files if path.name == f"{split}.parquet"]:
        return whole
    endings = sorted({named_ending(path) for path in files})
    if ".parquet" in endings:
        return [path for path in files if named_ending(path) == ".parquet"]
    if len(endings) > 1:
        raise DataError(f"The {split} rows in {folder} are in files of several kinds ({listed(endings)}): leave one.")
    return files
