"""Sample texts: the bundled ones, and the rows of any data set that can be reached. Read-only, shared by all visitors.

Try it: SampleLibrary().search("bundled", "oil")
"""

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ui.catalog.reach import DataReach
from ui.look.page_words import page_words

BUNDLED = "bundled"
_FOLDER = Path(__file__).resolve().parent

# Classification data sets of train.data worth reading; importing that module here would make every start slower.
DATASET_NAMES = ("mini_news", "mini_reviews", "ag_news", "sst2", "imdb")

# Bundled texts for models that write or fill blanks.
UNLABELLED = ("captions", "beginnings", "blanks")

# Classes that data sets name differently: IMDB's reviews, and all others.
OTHER_NAMES = {"positive": "pos", "negative": "neg", "pos": "positive", "neg": "negative"}
# Rows shown at once. Searching narrows down what a person would never scroll through.
MAX_ROWS = 200
# Sources added to those that come with the page; the first to come goes first.
MAX_ADDED = 50


@dataclass(frozen=True)
class Sample:
    """A text, its true label ("" = it has none), and the source that it is from."""

    text: str
    label: str
    source: str = BUNDLED

    def named_as_in(self, labels: Sequence[str]) -> "Sample":
        """The same sample, its class by the name that `labels` have for it; unchanged where they have none."""
        other = OTHER_NAMES.get(self.label)
        return replace(self, label=other) if self.label not in labels and other in labels else self


@dataclass(frozen=True)
class Matches:
    """What a search found.

    Attributes:
        rows: (index in the source, sample), at most MAX_ROWS.
        matching: how many rows match in all.
        total: how many rows the source has.
    """

    rows: list[tuple[int, Sample]]
    matching: int
    total: int


class SampleLibrary:
    """Samples by source. A data set is read when it is first asked for.

    Args:
        data_dir: where data sets lie on disk; None = the environment variable SWITCH_DATA_DIR, then the hub.
    """

    def __init__(self, data_dir: str | None = None):
        self._data_dir = data_dir
        self.reach = DataReach(data_dir)
        self._sources = read_bundled()
        self._added: dict[str, str] = {}
        self._lock = threading.Lock()

    def choices(self, chosen: str = BUNDLED) -> list[tuple[str, str]]:
        """(title, key) of every source of texts with labels, for a picker; with the chosen one, of a run too."""
        known = [
            ("Bundled samples", BUNDLED),
            *((f"Data set {title}", name) for title, name in self.reach.choices(DATASET_NAMES)),
        ]
        runs = [] if chosen in (BUNDLED, *DATASET_NAMES) else [(f"Validation rows of {chosen}", chosen)]
        return [*known, *runs]

    def suits(self, source: str, model: str | None) -> bool:
        """Whether a source is there, and none of another model's own."""
        return source in (BUNDLED, *DATASET_NAMES) or (source in self._added and self._added[source] == model)

    def add(self, source: str, samples: list[Sample], model: str) -> None:
        """Another source, such as the validation rows of a run: of one model."""
        with self._lock:
            self._added.pop(source, None)
            self._added[source] = model
            self._sources[source] = samples
            while len(self._added) > MAX_ADDED:
                del self._sources[next(iter(self._added))], self._added[next(iter(self._added))]

    def first_of(self, labels: Sequence[str]) -> Sample | None:
        """A bundled text of one of these classes; None where there is none."""
        return next(iter(_suiting(self._sources[BUNDLED], labels)), None)

    def rows(self, source: str) -> list[Sample]:
        """Every sample of a source. Raises DataError, with what to do, when it can't be had."""
        if source in self._sources:
            return self._sources[source]
        # Under a lock, so that two visitors don't read the same data set at once.
        with self._lock:
            if source not in self._sources:
                self._sources[source] = self._read_dataset(source)
            return self._sources[source]

    def search(self, source: str, query: str | None, labels: Sequence[str] = ()) -> Matches:
        """Rows whose text or label holds every word of `query`, upper and lower case alike; first those that have one
        of `labels`, then those that have it by another name."""
        rows, words = self.rows(source), (query or "").lower().split()
        found = [index for index, row in enumerate(rows) if all(_holds(row, word) for word in words)]
        found.sort(key=lambda index: _distance(rows[index], labels))
        return Matches([(index, rows[index]) for index in found[:MAX_ROWS]], len(found), len(rows))

    def pick(self, source: str, index: int) -> Sample:
        """One row. Raises IndexError when there is none."""
        rows = self.rows(source)
        if not 0 <= index < len(rows):
            raise IndexError(f"{source} has no row {index}.")
        return rows[index]

    def draw(self, source: str, other_than: str = "", labels: Sequence[str] = ()) -> Sample:
        """A random row whose text is not `other_than`: of `source` if that has been read, else of the bundled ones.

        Where some rows have one of `labels`, it is one of them, so that a model of reviews gets reviews.
        """
        # A person who presses a button called Random should not wait for a download.
        rows = self._sources.get(source) or self._sources[BUNDLED]
        rows = _suiting(rows, labels) or rows
        sample = random.choice(rows)
        if sample.text == other_than and len(rows) > 1:
            sample = rows[(rows.index(sample) + 1) % len(rows)]
        return sample

    def _read_dataset(self, name: str) -> list[Sample]:
        from train.data.errors import DataError
        from train.data.loading import load_split
        from train.data.source import DataSource

        if name not in DATASET_NAMES:
            raise DataError(f"There is no data set {name!r}. Choose one of {', '.join(DATASET_NAMES)}.")
        try:
            rows, labels = load_split(DataSource(name, self._data_dir))
        except DataError as error:
            self.reach.failed(name, error)
            raise DataError(page_words(error, name)) from error
        texts, indices = list(rows["text"]), list(rows["label"])
        return [Sample(text, labels[index], name) for text, index in zip(texts, indices, strict=True)]


def read_bundled() -> dict[str, list[Sample]]:
    """The samples that come with the project, by source."""
    labelled, unlabelled = (
        json.loads((_FOLDER / name).read_text(encoding="utf-8")) for name in ("samples.json", "example_texts.json")
    )
    others = {source: [Sample(text, "", source) for text in unlabelled[source]] for source in UNLABELLED}
    return {BUNDLED: [Sample(**row) for row in labelled], **others}


def _distance(row: Sample, labels: Sequence[str]) -> int:
    """0 = the row has one of these classes, 1 = by another name, 2 = not at all."""
    return 0 if row.label in labels else 1 if row.named_as_in(labels).label in labels else 2


def _suiting(rows: Sequence[Sample], labels: Sequence[str]) -> list[Sample]:
    """The rows of these classes; where no row has one by its name, those that have it by another."""
    # Texts with IMDB's names are long reviews, as its model knows them; the others' are single sentences.
    nearest = min((_distance(row, labels) for row in rows), default=2)
    return [row.named_as_in(labels) for row in rows if _distance(row, labels) == nearest < 2]


def _holds(row: Sample, word: str) -> bool:
    return word in row.text.lower() or word in row.label.lower()
