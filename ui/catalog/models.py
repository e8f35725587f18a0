"""The shelf: which models the page offers. Each is opened once, when first asked for, and then shared by all visitors.

Try it: ModelShelf.find().load("ag_news").predictor("Oil prices rose.").label
"""

import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switch_model import CheckpointError, Predictor, SwitchConfig
from switch_model.analysis.typical_texts import TypicalTexts
from switch_model.checkpoint import read_training
from switch_model.commands import command
from switch_model.inference.factory import Pipeline, architecture, open_pipeline, try_out
from switch_model.storage.hub import split_revision, with_revision
from ui.catalog.kinds import CLASSIFIER, Kind, kind_of, kind_of_model
from ui.look.html import markdown_without_html

MODELS_FOLDER = Path(__file__).resolve().parent.parent.parent / "assets" / "models"

NO_MODEL = (
    f"There is no model yet. Train one with “{command()}”, then start the app with “--checkpoint FOLDER”, "
    "or put the folder into assets/models and restart."
)

# Characters of a card that the page shows.
MAX_CARD = 100_000

# Folder names that have a proper name in print.
_TITLES = {
    "ag_news": "AG News",
    "sst2": "SST-2",
    "imdb": "IMDB",
    "tiny_stories": "TinyStories",
    "tiny_stories_blanks": "TinyStories, masked",
    "tiny_stories_olmoe": "TinyStories, OLMoE",
    "en_hi": "English → Hindi",
}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be asked.

    Attributes:
        title: its name for people.
        caption: its size in one line.
        pipeline: what asks it, by its kind.
        typical: bounds of a classifier's training texts; None = unknown.
    """

    title: str
    caption: str
    pipeline: Pipeline
    typical: TypicalTexts | None = None

    @property
    def kind(self) -> Kind:
        """What it does with a text."""
        return kind_of_model(self.pipeline.model)

    @property
    def config(self) -> SwitchConfig:
        """The model's configuration."""
        return self.pipeline.model.config

    @property
    def predictor(self) -> Predictor:
        """A classifier's pipeline. Raises CheckpointError for any other kind."""
        if not isinstance(self.pipeline, Predictor):
            raise CheckpointError(f"{self.title} {self.kind.does} and knows no classes: choose a classifier for this.")
        return self.pipeline

    def unlike(self, text: str) -> tuple[str, ...]:
        """What makes a text unlike the training texts, in words; () where nothing does, or where that is unknown."""
        return self.typical.reasons(self.pipeline.read(text).ids, self.pipeline.tokenizer) if self.typical else ()

    @property
    def labels(self) -> list[str]:
        """A classifier's classes, in its order. Raises CheckpointError for any other kind."""
        return self.predictor.model.config.labels


class ModelShelf:
    """Models by key. Loading is lazy and safe between threads.

    Args:
        sources: key -> folder, zip or hub id; the first one is the default.
        device: where models go; None = CUDA when there is one, else CPU.
    """

    def __init__(self, sources: dict[str, str | Path], device: str | None = None, dtype: str | None = None):
        self._sources = dict(sources)
        self.dtype = dtype
        self.device = device
        self._loaded: dict[str, LoadedModel] = {}
        self._private: dict[str, str] = {}
        self._lock = threading.Lock()

    @classmethod
    def find(
        cls,
        checkpoint: str | None = None,
        device: str | None = None,
        folder: Path = MODELS_FOLDER,
        revision: str | None = None,
        dtype: str | None = None,
    ) -> "ModelShelf":
        """`checkpoint` first, when given, then every folder below `folder` that holds a config.json.

        Raises CheckpointError for a revision of what is no repository on the hub.
        """
        sources: dict[str, str | Path] = {}
        if revision and not checkpoint:
            raise CheckpointError(f"the revision {revision} goes with a checkpoint: name its hub id with --checkpoint")
        if checkpoint:
            checkpoint = with_revision(checkpoint, revision)
            path = Path(split_revision(checkpoint)[0])
            # A run's best checkpoint goes by the run's name.
            name = path.parent.name if path.name == "best" else path.name.removesuffix(".zip")
            sources[name or checkpoint] = checkpoint
        for path in sorted(folder.glob("*/config.json")):
            if path.parent.name in sources:
                if Path(sources[path.parent.name]).resolve() == path.parent:
                    continue
                sources[f"bundled {path.parent.name}"] = path.parent
            else:
                sources[path.parent.name] = path.parent
        return cls(sources, device, dtype)

    @property
    def default(self) -> str | None:
        """The key of the model that the page opens with; None without any."""
        return next((key for key in self._sources if key not in self._private), None)

    @property
    def default_classifier(self) -> str | None:
        """The key of the first classifier; None without any."""
        return next((key for _, key in self.classifiers()), None)

    def choices(self) -> list[tuple[str, str]]:
        """(title and kind, key) of every model that all may use, for a picker."""
        return [(self.titled(key), key) for key in self._sources if key not in self._private]

    def classifiers(self) -> list[tuple[str, str]]:
        """The same of classifiers alone."""
        return [(title, key) for title, key in self.choices() if self.kind(key) is CLASSIFIER]

    def kind(self, key: str | None) -> Kind:
        """What a model does, without opening it; a classifier where that is unknown yet."""
        if key in self._loaded:
            return self._loaded[key].kind
        return kind_of(*architecture(self._sources[key])) if key in self._sources else CLASSIFIER

    def titled(self, key: str) -> str:
        """Its name and, unless it classifies, what it does."""
        word = self.kind(key).word
        return f"{self.title(key)} · {word}" if word else self.title(key)

    def add(self, folder: Path, key: str) -> str:
        """Put a run's best checkpoint on the shelf, anew when it was there: it may have got better. Returns its key.

        Raises CheckpointError when it can't be opened.
        """
        if not folder.is_dir():
            raise CheckpointError(f"{key} has no checkpoint yet.")
        with self._lock:
            self._loaded.pop(key, None)
            self._sources[key] = folder
        self.load(key)
        return key

    def add_private(self, folder: Path, name: str) -> str:
        """Put one visitor's own model on the shelf: nobody else is offered it, or can guess its key, which is returned.

        Raises CheckpointError when it can't be opened.
        """
        key = f"{name} #{secrets.token_urlsafe(12)}"
        with self._lock:
            self._sources[key] = folder
            self._private[key] = name
        try:
            self.load(key)
        except CheckpointError:
            self.remove(key)
            raise
        return key

    def remove(self, key: str) -> None:
        """Forget a private model."""
        with self._lock:
            if self._private.pop(key, None) is not None:
                self._loaded.pop(key, None)
                self._sources.pop(key, None)

    def title(self, key: str) -> str:
        """Its name for people."""
        return self._private.get(key) or _TITLES.get(key, key)

    def folder(self, key: str) -> Path:
        """Where a model lies; for a hub id, a path that is not there."""
        return Path(self._sources.get(key, ""))

    def evaluation(self, key: str | None) -> dict[str, Any]:
        """What was measured when a model was packaged; empty where nothing was, or nothing that can be read."""
        try:
            found = read_training(self.folder(key)).get("evaluation")
        except CheckpointError:
            return {}
        return found if isinstance(found, dict) else {}

    def card(self, key: str) -> str:
        """The model card's text, as much of it as the page shows; "" where there is none at hand."""
        path = self.folder(key) / "README.md"
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_CARD)
        # The lines between dashes at the top are for machines.
        text = text.split("\n---", 1)[-1].lstrip("-\n") if text.startswith("---") else text
        return markdown_without_html(text) if key in self._private else text

    def load(self, key: str | None) -> LoadedModel:
        """The model behind `key`. Raises CheckpointError when it can't be opened or is not on the shelf."""
        if key is None:
            raise CheckpointError(NO_MODEL)
        if key not in self._sources:
            there = ", ".join(self.title(other) for other in self._sources if other not in self._private)
            raise CheckpointError(f"There is no model {key!r}. There are: {there or 'none'}.")
        if key in self._loaded:
            return self._loaded[key]
        # Under a lock, so that two first visitors don't open the same files at once.
        with self._lock:
            if key not in self._loaded:
                pipeline = self._open(key)
                # The first pass sets torch up and is slow: no visitor's text should be timed with it.
                try_out(pipeline)
                title = self.title(key)
                typical = TypicalTexts.at(self.folder(key)) if isinstance(pipeline, Predictor) else None
                self._loaded[key] = LoadedModel(title, f"{title} · {size_of(pipeline)}", pipeline, typical)
            return self._loaded[key]

    def _open(self, key: str) -> Pipeline:
        """Only what whoever starts the app put here may be a model of transformers."""
        source, trusted = self._sources[key], key not in self._private
        own = trusted and self.dtype is not None and source == self._sources.get(self.default or "")
        return open_pipeline(source, self.device, dtype=self.dtype if own else None, trusted=trusted)


def size_of(pipeline: Pipeline) -> str:
    """A model's size in words: "4 sparse layers · 8 experts · 0.6 M active of 4.5 M parameters"."""
    config: SwitchConfig = pipeline.model.config
    sparse = len(config.sparse_layers)
    total, active = pipeline.model.parameter_counts()
    choices = getattr(config, "active_experts", getattr(config, "num_choices", 1))
    chosen = f", {choices} for each token" if choices > 1 else ""
    if not sparse:
        return f"{config.num_layers} dense layers · {_millions(active)} active of {_millions(total)} parameters"
    return (
        f"{sparse} sparse layer{'s' if sparse != 1 else ''} · {config.num_experts} experts{chosen} · "
        f"{_millions(active)} active of {_millions(total)} parameters"
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 50_000 else f"{count / 1e3:.1f} k"
