"""Sample texts in Explore: a random one, or one picked from the table.

Try it: SamplePicker(explorer).draw_sample("ag_news", "bundled", "", None).text
"""

from typing import Any

import gradio as gr

from switch_model import CheckpointError
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.samples import BUNDLED, DATASET_NAMES, Sample
from ui.components.sample_table import failure_html, rows_html, waiting_html
from ui.explore.handlers import Explorer
from ui.explore.kind_layout import begins
from ui.explore.outputs import Sampled, Shown
from ui.explore.present import Present
from ui.look.page_words import page_words
from ui.views.view import View


class SamplePicker:
    """The handlers of the buttons and the panel of samples."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self.library = explorer.library

    def on_draw(self, model: str | None, source: str, text: str, present: Present, run: str) -> Sampled:
        """A random sample was asked for."""
        number = present.asks(run)
        return present.kept(number, self.draw_sample(model, source, text, present.view))

    def on_pick(self, model: str | None, source: str, present: Present, run: str, event: gr.EventData) -> Sampled:
        """A row of the table was clicked."""
        number = present.asks(run)
        return present.kept(number, self.pick_sample(model, source, present.view, int(event.row)))

    def draw_sample(self, model: str | None, source: str, text: str, view: View | None) -> Sampled:
        """A random sample."""
        sample = self.library.draw(self._source(model, source), other_than=text, labels=self._labels(model))
        return self._sampled(model, sample, view)

    def pick_sample(self, model: str | None, source: str, view: View | None, row: int) -> Sampled:
        """The picked row, and the panel closed."""
        sample = self.library.pick(self._source(model, source), row)
        return self._sampled(model, sample, view)._replace(samples=close_samples())

    def sources(self, model: str | None, chosen: str) -> Any:
        """The picker of sources: what can be reached is known better than when the page was built."""
        value = chosen if self.library.suits(chosen, model) else BUNDLED
        return gr.update(choices=self.library.choices(chosen), value=value)

    def open_samples(self, model: str | None, source: str, query: str) -> tuple[Any, str]:
        """Show the panel: (its visibility, the table)."""
        return gr.update(visible=True), self.search_samples(model, source, query)

    def search_samples(self, model: str | None, source: str, query: str) -> str:
        """The table of samples that match, those of the model's classes first."""
        source, labels = self._source(model, source), self._labels(model)
        if source not in DATASET_NAMES:
            return rows_html(self.library.search(source, query, labels))
        from train.data.errors import DataError

        try:
            return rows_html(self.library.search(source, query, labels))
        except DataError as error:
            return failure_html(page_words(error))

    def _labels(self, model: str | None) -> list[str]:
        """The model's classes; none where it can't be opened, which `route` will say."""
        try:
            return self.explorer.shelf.load(model).labels
        except CheckpointError:
            return []

    def _source(self, model: str | None, chosen: str) -> str:
        """The source of samples: only where they have labels, there are several to choose from."""
        kind = self.explorer.shelf.kind(model)
        if kind is not CLASSIFIER:
            return kind.samples
        return chosen if self.library.suits(chosen, model) else BUNDLED

    def _sampled(self, model: str | None, sample: Sample, view: View | None) -> Sampled:
        kind = self.explorer.shelf.kind(model)
        # What a model writes comes in steps of its own.
        first = Shown() if kind.writes else self.explorer.route(model, sample.text, sample, view)
        return Sampled(text=sample.text, sample=sample, **first._asdict(), begin=begins(kind))


def close_samples() -> Any:
    """Hide the panel of samples."""
    return gr.update(visible=False)


def announce_source(source: str) -> str:
    """What stands in the table while a data set is read: the first time, or without a network, that takes a while."""
    return waiting_html(f"Reading {source} …")
