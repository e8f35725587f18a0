"""What the Analyse tab opens with: the bundled news through the first classifier, routed once for all visitors.

Try it: [*Opening(analyst).look(Asked())][-1]
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


class Asked:
    """One visitor's: whether an analysis was shown or asked for. No dataclass, which Gradio would take apart."""

    begun = False


class Opening:
    """The handler. Nothing is routed before somebody opens the tab."""

    def __init__(self, analyst: Analyst):
        self.analyst = analyst
        self._lock = threading.Lock()
        self._of: str | None = None
        self._routed: Analysis | None = None

    def look(self, asked: Asked) -> Iterator[tuple[Any, Any, Any]]:
        """(the analysis, how far it is, what tells that there is one to show); what a visitor asked for stays."""
        nothing = (gr.skip(),) * 3
        if asked.begun:
            yield nothing
            return
        yield gr.skip(), progress_of(0, 1, "Routing an example …"), gr.skip()
        analysis = self._example()
        if asked.begun:
            yield nothing
            return
        asked.begun = True
        yield (gr.skip(), EMPTY, gr.skip()) if analysis is None else (analysis, _SAID, "shown")

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
