"""What one visitor analysed, and how far work on it is.

Try it: Analysis(corpus, "ag_news", "AG News on my.csv", "").atlas
"""

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.specialization import AgainstChance
from train.formatting import clock, counted
from ui.look.html import facts, progress_bar

if TYPE_CHECKING:  # Imported when it is needed.
    from switch_model.analysis.atlas import Atlas
    from switch_model.analysis.effects import ExpertEffect, Place


@dataclass(frozen=True, eq=False)
class Analysis:
    """What one visitor analysed.

    Attributes:
        corpus, model: the routed data set, and the model's key.
        title, note: of both, and what could not be used of the data.
        effects: of experts, as far as they were measured.
    """

    corpus: Corpus
    model: str
    title: str
    note: str
    effects: "dict[Place, ExpertEffect]" = field(default_factory=dict)

    @cached_property
    def told(self) -> Mapping[str, AgainstChance]:
        """What each layer's experts tell of the class."""
        from train.analysis.report import told_of_class

        return told_of_class(self.corpus)

    @cached_property
    def _unmeasured(self) -> "Atlas":
        from switch_model.analysis.atlas import expert_atlas

        return expert_atlas(self.corpus)

    @property
    def atlas(self) -> "Atlas":
        """Every expert beside chance, with the effects that were measured."""
        return self._unmeasured.with_effects(self.effects)


def steps_shown(steps: Generator[tuple[int, int], None, Any], one: str, several: str | None = None) -> Iterator[Markup]:
    """Work that reports (done, total) as bars with words, until its end; returns what it returns. `one`, `several`:
    what is counted."""
    begun = time.monotonic()
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        seconds = time.monotonic() - begun
        left = f", about {clock(seconds * (total - done) / done)} left" if done and seconds > 1 else ""
        yield progress_of(done, total, f"{done:,} of {counted(total, one, several)}{left}")


def progress_of(done: int, total: int, said: str) -> Markup:
    """A bar with a sentence: `done` of `total`."""
    return progress_bar("texts done", done / max(total, 1)) + facts(said)
