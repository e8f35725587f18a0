"""What the Analyse tab opens with: the bundled news through the first classifier, routed once for all visitors.

Try it: [*Opening(analyst).look(False)][-1]
"""

import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ui.analyse.analysis import Analysis, progress_of
from ui.analyse.handlers import EMPTY, Analyst
from ui.look.html import quiet

# Data that come with the page, small enough to route unasked.
FIRST_DATA = "mini_news"
_SAID = quiet("An example is shown below. Choose a data set, or upload a table with a column of texts, and analyse it.")


class Opening:
    """The handler. Nothing is routed before somebody opens the tab."""

    def __init__(self, analyst: Analyst):
        self.analyst = analyst
        self._lock = threading.Lock()
        self._of: str | None = None
        self._routed: Analysis | None = None

    def look(self, begun: bool) -> Iterator[tuple[Any, Any, Any, Any]]:
        """(the analysis, whether one was begun, how far it is, what tells that there is one to show).

        Args:
            begun: the visitor has an analysis, or asked for one: it stays.
        """
        if begun:
            yield (gr.skip(),) * 4
            return
        yield gr.skip(), True, progress_of(0, 1, "Routing an example …"), gr.skip()
        analysis = self._example()
        yield (gr.skip(), True, EMPTY, gr.skip()) if analysis is None else (analysis, True, _SAID, "shown")

    def _example(self) -> Analysis | None:
        """The one that all share; None for a model that has other classes, or can't be opened."""
        model = self.analyst.shelf.default_classifier
        with self._lock:
            if model != self._of:
                *_, (found, _) = self.analyst.run(model, FIRST_DATA, None, "", 0)
                if not isinstance(found, Analysis):  # Too many visitors, say: another one may have more luck.
                    return None
                self._of, self._routed = model, found if (found.corpus.true >= 0).all() else None
            return self._routed
