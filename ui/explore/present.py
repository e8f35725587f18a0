"""What one visitor's page shows now, so that of two answers the newer one stays, whichever comes last.

A page's events run side by side, and a slow one may end after a newer one. Each text that is asked for has a number,
which the browser counts: an answer with an older number is late. What belongs to the text in view (another place, a
change, a drawing) has the number of that text.
Try it: Present(None, "token").shows(view, 7)
"""

import threading
from dataclasses import replace
from typing import Any

from ui.components.outputs import SKIP, is_skipped
from ui.explore.detail_tabs import EXPERTS
from ui.views.view import View


class Present:
    """The value of a gr.State: one visitor's, and the same object for as long as the page is open.

    Attributes:
        asked: number of the text asked for last.
        controls: number of the last one that brings a model too, with all that the page has for it.
        run: number of the text in view.
        view: what is in view; None = there is only something to say.
        opened: the open tab of the detail panel.
        answered: (view, card) of what other experts would make of a token, where that had to be asked for.
    """

    def __init__(self, view: View | None, opened: str):
        self.asked = self.controls = self.run = 0
        self.view, self.opened = view, opened
        self.answered: tuple[View | None, Any] = (None, "")
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> "Present":
        # Gradio copies what a state begins with.
        return self

    def asks(self, run: str | None, controls: bool = False) -> int:
        """Another text is asked for: its number."""
        number = number_of(run)
        with self._lock:
            self.asked = max(self.asked, number)
            if controls:
                self.controls = max(self.controls, number)
        return number

    def is_late(self, run: int) -> bool:
        """Whether a newer text was asked for."""
        return run < self.asked

    def shows(self, view: View | None, run: int) -> bool:
        """Another text is in view; False where it comes too late for that."""
        with self._lock:
            if self.is_late(run):
                return False
            self.view, self.run = view, run
            return True

    def goes_on(self, before: View | None, view: View | None) -> bool:
        """What was made of `before` is in view; False where something else has taken its place meanwhile.

        Another place of the same answer takes no change back: the view keeps that place.
        """
        with self._lock:
            now = self.view
            if now is not before:
                if view is None or now is None or before is None or now.answer is not before.answer:
                    return False
                view = view.looking_at(*now.place)
            self.view = view
            return True

    def kept(self, run: int, answer: Any) -> Any:
        """An answer (a named tuple of outputs) with its number, for the page's address; nothing of it where a newer
        text was asked for."""
        if self.is_late(run):
            return type(answer)()
        named = answer._asdict()
        if not is_skipped(answer.view):
            view = answer.view and replace(answer.view, run=run)
            if not self.shows(view, run):
                return type(answer)()
            named |= {"view": view, "grid": (answer.grid or {}) | {"run": run}}
        if isinstance(named.get("begin"), str):
            named["begin"] = f"{run} {named['begin']}"
        if not is_skipped(named.get("details", SKIP)):
            self.opened = EXPERTS
        return type(answer)(**named)


def number_of(run: str | None) -> int:
    """The number of a text; 0 for anything else, for a browser may send anything."""
    return int(run) if run and run.isdecimal() and len(run) < 16 else 0
