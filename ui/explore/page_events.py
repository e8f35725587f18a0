"""The handlers as the page calls them: those of Explorer, Writing and SamplePicker, with their answers in order.

What people do most is one event, with all that follows from it: an event costs the server more than drawing does.
Try it: PageEvents(explorer, writing).draw(Present(view, "token"), None)
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr

from ui.catalog.samples import Sample
from ui.components.expert_panel import serial_of
from ui.components.outputs import SKIP, is_skipped
from ui.explore.detail_tabs import EXPERTS
from ui.explore.handlers import Explorer, look
from ui.explore.outputs import Chosen, Drawn, Looked, Reopened, Restored, Sampled, Shown, Step
from ui.explore.present import Present
from ui.explore.samples import SamplePicker
from ui.explore.streaming import Steps, Writing
from ui.views.view import View

_LATE = [SKIP] * (len(Shown._fields) + len(Drawn._fields))


class PageEvents:
    """What the tab connects."""

    def __init__(self, explorer: Explorer, writing: Writing):
        self.explorer = explorer
        self.writing = writing
        self.picker = SamplePicker(explorer)

    # -- another text: the answer to the newest one stays -----------------------------------------------------------

    def on_route(
        self, model: str | None, text: str, sample: Sample | None, present: Present, neighbours_of: Any, run: str
    ) -> tuple[Any, ...]:
        """Shown, then Drawn; likewise below."""
        number = _asked(present, run)
        first = self._kept(present, number, self.explorer.route(model, text, sample, present.view))
        if is_skipped(first.view):
            return (*_LATE,)
        return self._drawn(present, first, neighbours_of, self.explorer.shown)

    def choose_model(
        self,
        model: str | None,
        text: str,
        sample: Sample | None,
        present: Present,
        run: str,
        request: gr.Request,
    ) -> Chosen:
        """Another model was chosen."""
        number = _asked(present, run, controls=True)
        chosen = self.writing.choose_model(model, text, sample, present.view, request)
        if number == present.controls and present.is_late(number):
            # A text was run meanwhile: what the page has for the model is right all the same.
            return chosen._replace(**Shown()._asdict(), text=SKIP, sample=SKIP, begin=SKIP)
        return self._kept(present, number, chosen)

    def draw_sample(self, model: str | None, source: str, text: str, present: Present, run: str) -> Sampled:
        """A random sample."""
        number = _asked(present, run)
        return self._kept(present, number, self.picker.draw_sample(model, source, text, present.view))

    def on_pick(self, model: str | None, source: str, present: Present, run: str, event: gr.EventData) -> Sampled:
        """A row of the table of samples was clicked."""
        number = _asked(present, run)
        return self._kept(present, number, self.picker.pick_sample(model, source, present.view, int(event.row)))

    def restore(self, link: str | None, present: Present, run: str, has_text: bool = False) -> Restored:
        """What a link brings back.

        Args:
            has_text: whether the box holds its text already, or what was typed since.
        """
        number = _asked(present, run, controls=True)
        restored = self._kept(present, number, self.explorer.restore(link))
        if has_text and not is_skipped(restored.text):
            restored = restored._replace(text={key: value for key, value in restored.text.items() if key != "value"})
        return restored

    def open_record(self, file: str, present: Present, run: str, request: gr.Request) -> Reopened:
        """A saved record."""
        number = _asked(present, run)
        opened = self.writing.open_record(file, request)
        # Of a file that is none, what was there stays.
        return opened if is_skipped(opened.view) else self._kept(present, number, opened)

    def write(
        self,
        model: str | None,
        text: str,
        present: Present,
        length: float,
        how: str,
        temperature: float,
        top_k: float,
        top_p: float,
        beams: float,
        seed: float,
        run: str,
        request: gr.Request,
    ) -> Steps:
        """The text of the box, written on."""
        settings = (length, how, temperature, top_k, top_p, beams, seed)
        number = _asked(present, run)
        yield from self._in_steps(present, number, self.writing.write(model, text, present.view, *settings, request))

    def begin(
        self,
        model: str | None,
        text: str,
        present: Present,
        length: float,
        how: str,
        temperature: float,
        top_k: float,
        top_p: float,
        beams: float,
        seed: float,
        begun: str,
        request: gr.Request,
    ) -> Steps:
        """The text that a choice, a sample or a link has begun: its number, and the link where it is one."""
        settings = (length, how, temperature, top_k, top_p, beams, seed)
        run, _, link = begun.partition(" ")
        steps = self.writing.write(model, text, present.view, *settings, request, link)
        yield from self._in_steps(present, _number(run), steps)

    def rewrite(self, present: Present, event: gr.EventData, request: gr.Request) -> Steps:
        """The text in view, or on its way, written again with other changes."""
        yield from self._in_steps(present, present.asked, self.writing.rewrite(present.view, event._data, request))

    def _in_steps(self, present: Present, run: int, steps: Steps) -> Iterator[Step]:
        for step in steps:
            if present.is_late(run):
                steps.close()
                return
            yield step if is_skipped(step.view) else self._kept(present, run, step)

    # -- the text in view -------------------------------------------------------------------------------------------

    def on_intervene(self, present: Present, neighbours_of: Any, event: gr.EventData) -> tuple[Any, ...]:
        """The expert panel was used, Reset below the prediction, or Measure."""
        return self._changed(present, neighbours_of, event._data)

    def on_force(self, present: Present, neighbours_of: Any, event: gr.EventData) -> tuple[Any, ...]:
        """An expert was clicked in the card of the token."""
        return self._changed(present, neighbours_of, {"kind": "force", "expert": event.expert})

    def on_look(
        self, present: Present, neighbours_of: Any, event: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        """Another place of the grid was clicked."""
        run, token, layer = present.run, int(event.token), int(event.layer)
        while True:
            before = present.view
            looked = self.writing.look(before, token, layer, request)
            if present.run != run:
                return (*_LATE[: len(Looked._fields) + len(Drawn._fields)],)
            if present.goes_on(before, looked.view):
                return self._drawn(present, looked, neighbours_of, lambda view: look(view, *view.place))

    def on_ask(self, present: Present) -> tuple[Any, Any]:
        """What other experts would make of the token: (view, what-if card)."""
        before = present.view
        view, card = self.explorer.on_ask(before)
        if present.view is not before:
            return SKIP, SKIP
        present.goes_on(before, view)
        present.answered = view, card
        return view, card

    def open_tab(self, present: Present, name: str) -> None:
        """A tab of the detail panel was opened."""
        present.opened = name

    def draw(self, present: Present, neighbours_of: Any) -> Drawn:
        """What follows from the view, as it is when that is drawn: a slow drawing does not end with an older view."""
        while True:
            view, opened = present.view, present.opened
            drawn = self.explorer.draw(view, opened, neighbours_of)
            asked, card = present.answered
            if view is not None and asked is view:
                drawn = drawn._replace(elsewhere=card)
            if present.view is view and present.opened == opened:
                return drawn

    def _changed(self, present: Present, neighbours_of: Any, wish: dict[str, Any]) -> tuple[Any, ...]:
        run = present.run
        while True:
            before = present.view
            first = self.explorer.intervene(before, wish)
            if present.run != run:
                return (*_LATE,)
            if present.goes_on(before, first.view):
                again = partial(self.explorer.shown, serial=serial_of(wish))
                return self._drawn(present, first, neighbours_of, again)

    # -- in order -----------------------------------------------------------------------------------------------------

    def _drawn(
        self, present: Present, first: Any, neighbours_of: Any, again: Callable[[View], Shown | Looked]
    ) -> tuple[Any, ...]:
        """An answer and what follows it. Where a newer one came meanwhile, both are of that."""
        run = present.run
        while True:
            view = present.view
            drawn = self.draw(present, neighbours_of)
            if present.run != run:
                return (*[SKIP] * (len(first) + len(drawn)),)
            if present.view is view:
                return (*(first if view is first.view or view is None else again(view)), *drawn)

    def _kept(self, present: Present, run: int, answer: Any) -> Any:
        """The answer with its number, for the page's address; nothing of it where a newer text was asked for."""
        if present.is_late(run):
            return type(answer)()
        named = answer._asdict()
        if not is_skipped(answer.view):
            view = answer.view and replace(answer.view, run=run)
            if not present.shows(view, run):
                return type(answer)()
            named |= {"view": view, "grid": (answer.grid or {}) | {"run": run}}
        if isinstance(named.get("begin"), str):
            named["begin"] = f"{run} {named['begin']}"
        if not is_skipped(named.get("details", SKIP)):
            present.opened = EXPERTS
        return type(answer)(**named)


def _number(run: str | None) -> int:
    """A browser may send anything."""
    return int(run) if run and run.isdecimal() and len(run) < 16 else 0


def _asked(present: Present, run: str | None, controls: bool = False) -> int:
    number = _number(run)
    present.asks(number, controls)
    return number
