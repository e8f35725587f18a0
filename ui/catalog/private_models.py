"""Models of visitors: a stranger's checkpoint, for its owner alone.

What a visitor opens lies in a folder of their session, is offered to nobody else, and goes when they leave.
Try it: PrivateModels(ModelShelf.find()).receive(["mine.zip"], "", "session")
"""

import shutil
import tempfile
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from switch_model import CheckpointError
from ui.catalog.kinds import CLASSIFIER, Kind
from ui.catalog.models import ModelShelf
from ui.catalog.sandbox import examine
from ui.look.html import facts, notice
from ui.server.downloads import discard_upload, temporary_folder

# Checkpoints of visitors at once, all together, and of one visitor.
MAX_PRIVATE, MAX_OWN = 16, 3


class PrivateModels:
    """Which visitor's session has opened what."""

    def __init__(self, shelf: ModelShelf):
        self.shelf = shelf
        self._own: dict[str, dict[str, Path]] = {}  # Session -> key -> folder.
        self._lock = threading.Lock()
        # Goes with the app, whatever visitors leave behind.
        self._scratch = temporary_folder("checkpoints-")

    def choices(self, session: str | None) -> list[tuple[str, str]]:
        """Models for this visitor's pickers."""
        own = [(f"{self.shelf.titled(key)} (yours)", key) for key in self._own.get(session, {})]
        return [*self.shelf.choices(), *own]

    def classifiers(self, session: str | None) -> list[tuple[str, str]]:
        """The same of classifiers alone."""
        return [(title, key) for title, key in self.choices(session) if self.shelf.kind(key) is CLASSIFIER]

    def offer(
        self,
        session: str | None,
        chosen: str | None,
        besides: Sequence[tuple[str, str]] = (),
        kinds: Collection[Kind] | None = None,
    ) -> Any:
        """A picker as this visitor may use it now: what was chosen stays, or the default model comes in its place.

        `besides`: (title, key) of what is on offer there alone; `kinds`: no models of other kinds, a classifier first.
        """
        own = [(title, key) for title, key in self.choices(session) if kinds is None or self.shelf.kind(key) in kinds]
        choices = [*own, *besides]
        there = chosen in (key for _, key in choices)
        default = self.shelf.default if kinds is None else self.shelf.default_classifier
        return gr.update(choices=choices, value=chosen if there else default)

    def owns(self, session: str | None, key: str | None) -> bool:
        """Whether a model is this visitor's own."""
        return key in self._own.get(session, {})

    def remove(self, session: str | None, key: str | None) -> str:
        """Close one of the visitor's own models: what to say."""
        with self._lock:
            folder = self._own.get(session, {}).pop(key, None)
        if folder is None:
            return notice("Only a model that you opened yourself can be removed.")
        title = self.shelf.title(key)
        self.shelf.remove(key)
        shutil.rmtree(folder, ignore_errors=True)
        return facts(f"{title} is removed.")

    def receive(self, files: list[Any] | None, hub_id: str, session: str) -> tuple[str | None, str]:
        """Open what was uploaded, or a hub repository: (key of the new model, what to say)."""
        paths = [Path(getattr(file, "name", file)) for file in files or []]
        if len(self._own.get(session, {})) >= MAX_OWN:
            return None, notice(f"You have {MAX_OWN} models open: remove one first.")
        with self._lock:
            held = sum(map(len, self._own.values()))
        if held >= MAX_PRIVATE:
            return None, notice("Too many visitors have models open just now. Try again in some minutes.")
        folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
        try:
            found = examine(paths, folder, None if paths else hub_id.strip())
            name = (
                hub_id.strip() if not paths else paths[0].name.removesuffix(".zip") if len(paths) == 1 else "uploaded"
            )
            key = self.shelf.add_private(folder, name[:40])
        except CheckpointError as error:
            shutil.rmtree(folder, ignore_errors=True)
            return None, notice(str(error))
        finally:
            for path in paths:
                discard_upload(path)
        with self._lock:
            self._own.setdefault(session, {})[key] = folder
        return key, facts(f"Opened in {found['seconds']:.1f} s, for you alone.")

    def forget(self, session: str | None) -> None:
        """The visitor left: their models go."""
        with self._lock:
            folders = self._own.pop(session, {})
        for key, folder in folders.items():
            self.shelf.remove(key)
            shutil.rmtree(folder, ignore_errors=True)
