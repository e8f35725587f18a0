"""Text that appears token by token: its settings, Generate and Stop, and written anew under other changes.

One text per visitor at a time: a newer one ends the one before.
Try it: python app.py --checkpoint MODEL, with a model that writes
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import gradio as gr

from switch_model import CheckpointError, Generation, Interventions, TextGenerator
from switch_model.inference.decoding import Decoding
from switch_model.inference.pipeline import replace_surrogates
from ui.cards.written import writing_card
from ui.catalog.models import LoadedModel
from ui.catalog.samples import Sample
from ui.components.expert_panel import changes_from_panel, panel_value, serial_of
from ui.components.outputs import SKIP, is_skipped
from ui.explore.details import look
from ui.explore.generation_settings import decoding_of
from ui.explore.handlers import Explorer, blank_outputs, shown
from ui.explore.kind_layout import stop_button
from ui.explore.outputs import Chosen, Drawn, Looked, Reopened, Shown, Step
from ui.explore.present import Present, number_of
from ui.sharing.link import LINK, read_link
from ui.views.view import NO_CHANGES, WrittenView, kept_changes, past_of

# Texts written at once, for all visitors, and how many may be waited for or written.
AT_ONCE, WAITING = 2, 8
# Seconds between two states of a text on the page. A browser takes tens of milliseconds to show one, whatever is new in
# it: with more of them it would do nothing else, and answer no click.
STEP_SECONDS = 0.1
_WRITES, _AGAIN, _BEFORE = "writing …", "rewriting …", "before, without your changes …"
_BEAMS = "Beam search: the best text appears when it is complete."
_WAITS = "Others let a model write: yours is next."
_IDLE = stop_button(False)


@dataclass(frozen=True)
class Wanted:
    """A text that was asked for.

    Attributes:
        model, text, decoding, changes, past: as in WrittenView.
        base: what the model wrote without the changes; None = not known yet.
        place: (token, layer) to look at, counted through all stacks; None = the first one written.
        view: the view whose routing is changed; None = a new text.
        serial: of the expert panel's event.
    """

    model: str
    text: str
    decoding: Decoding
    changes: Interventions = NO_CHANGES
    past: tuple[Interventions, ...] = ()
    base: Generation | None = None
    place: tuple[int, int] | None = None
    view: WrittenView | None = None
    serial: int = 0

    @property
    def before(self) -> str | None:
        """The text that the new one is compared with; None = there are no changes, or it is to be written yet."""
        return self.base.text if self.base and self.changes != NO_CHANGES else None


@dataclass(eq=False)
class _Running:
    """A visitor's text on its way; `over` = a newer one has taken its place, and it has nothing more to say; `looked` =
    where the visitor looks meanwhile."""

    wanted: Wanted | None = None
    looked: WrittenView | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    over: bool = False


Steps = Iterator[Step]


class Writing:
    """The handlers. A text comes in steps."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self._running: dict[str | None, _Running] = {}
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(AT_ONCE)

    def write(
        self,
        model: str | None,
        text: str,
        view: Any,
        length: float,
        how: str,
        temperature: float,
        top_k: float,
        top_p: float,
        beams: float,
        seed: float,
        request: gr.Request,
        begun: str = "",
    ) -> Steps:
        """The text of the box; or a link's, where `begun` is one."""

        def wanted(before: Wanted | None) -> Wanted:
            if begun.startswith(LINK):
                shared = read_link(begun.removeprefix(LINK))
                place = (shared.token, shared.layer)
                return Wanted(shared.model, shared.text, shared.decoding, shared.changes, place=place)
            decoding = decoding_of(length, how, temperature, top_k, top_p, beams, seed)
            return Wanted(model, text, decoding, kept_changes(view, model))

        yield from self._written(wanted, request)

    def rewrite(self, view: Any, wish: dict[str, Any], request: gr.Request) -> Steps:
        """The text again, under what the expert panel or the card of a token asks for."""
        if view is None or not view.writes or not view.model:
            yield Step()
            return

        def wanted(before: Wanted | None) -> Wanted:
            # What is on its way counts, not what was there before it.
            now = before or Wanted(view.model, view.text, view.decoding, view.changes, view.past, view.base)
            now = replace(now, view=view, place=None if before and before.view is None else view.place)
            now = replace(now, serial=serial_of(wish))
            if wish.get("kind") == "undo":
                return replace(now, changes=now.past[-1], past=now.past[:-1]) if now.past else now
            changes = changes_from_panel(view, now.changes, self.explorer.shelf.load(now.model).config, wish)
            if changes == now.changes:
                return now
            return replace(now, changes=changes, past=past_of(now, changes, wish.get("sliding") is True))

        yield from self._written(wanted, request)

    def look(self, view: Any, token: int, layer: int, request: gr.Request) -> Looked:
        """Another place; a text on its way will open there."""
        looked = look(view, token, layer)
        with self._lock:
            if (running := self._running.get(_session(request))) and looked.view is not None and looked.view.writes:
                running.looked = looked.view
        return looked

    # -- as the page calls them: of two texts the newer one stays ---------------------------------------------------

    def on_write(
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
        number = present.asks(run)
        yield from _in_order(present, number, self.write(model, text, present.view, *settings, request))

    def on_begin(
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
        steps = self.write(model, text, present.view, *settings, request, link)
        yield from _in_order(present, number_of(run), steps)

    def on_rewrite(self, present: Present, event: gr.EventData, request: gr.Request) -> Steps:
        """The text in view, or on its way, written again with other changes."""
        yield from _in_order(present, present.asked, self.rewrite(present.view, event._data, request))

    def on_look(
        self, present: Present, neighbours_of: Any, event: gr.EventData, request: gr.Request
    ) -> tuple[Any, ...]:
        """Another place of the grid was clicked: Looked, then Drawn."""
        run, token, layer = present.run, int(event.token), int(event.layer)
        while True:
            before = present.view
            looked = self.look(before, token, layer, request)
            if present.run != run:
                return (*[SKIP] * (len(Looked._fields) + len(Drawn._fields)),)
            if present.goes_on(before, looked.view):
                return self.explorer.with_details(present, looked, neighbours_of, lambda view: look(view, *view.place))

    def on_choose_model(
        self,
        model: str | None,
        text: str,
        sample: Sample | None,
        present: Present,
        run: str,
        request: gr.Request,
    ) -> Chosen:
        """Another model was chosen; a text on its way ends."""
        number = present.asks(run, controls=True)
        self._end_one_before(request)
        chosen = self.explorer.choose_model(model, text, sample, present.view)
        if number == present.controls and present.is_late(number):
            # A text was run meanwhile: what the page has for the model is right all the same.
            return chosen._replace(**Shown()._asdict(), text=SKIP, sample=SKIP, begin=SKIP)
        return present.kept(number, chosen)

    def on_open_record(self, file: str, present: Present, run: str, request: gr.Request) -> Reopened:
        """A saved record; a text on its way ends."""
        number = present.asks(run)
        self._end_one_before(request)
        opened = self.explorer.open_record(file)
        # Of a file that is none, what was there stays.
        return opened if is_skipped(opened.view) else present.kept(number, opened)

    def on_stop(self, request: gr.Request) -> None:
        """End the visitor's text where it is."""
        with self._lock:
            running = self._running.get(_session(request))
        if running is not None:
            running.stop.set()

    # -- one text ---------------------------------------------------------------------------------------------------

    def _written(self, wanted: Callable[[Wanted | None], Wanted], request: gr.Request) -> Steps:
        """What is wanted (told what is being written, if anything is), as soon as it is this visitor's turn."""
        session, mine = _session(request), _Running()
        with self._lock:
            before = self._running.get(session)
            self._running[session] = mine
        if before is not None:
            before.over = True
            before.stop.set()
        try:
            mine.wanted = wanted(before and before.wanted)
            loaded = self.explorer.shelf.load(mine.wanted.model)
            if not loaded.kind.writes:
                yield Step(**self.explorer.route(mine.wanted.model, mine.wanted.text, None)._asdict())
                return
            yield from self._in_turn(loaded, mine.wanted, mine)
        except (CheckpointError, ValueError) as error:
            if not mine.over:
                yield Step(**blank_outputs(str(error), "The model’s text")._asdict(), stop=_IDLE)
        finally:
            mine.stop.set()
            with self._lock:
                if self._running.get(session) is mine:
                    del self._running[session]

    def _in_turn(self, loaded: LoadedModel, wanted: Wanted, mine: _Running) -> Steps:
        wanted = replace(wanted, text=replace_surrogates(wanted.text or ""))
        generator: TextGenerator = loaded.pipeline
        if generator.has_encoder and not wanted.text.strip():
            raise ValueError(loaded.kind.asks)
        prompt = "" if generator.has_encoder else wanted.text
        # At once: the panel shows what was asked for, and goes on listening.
        changing = replace(wanted.view, changes=wanted.changes, past=wanted.past) if wanted.view else None
        panel = panel_value(changing, loaded.config, wanted.serial) if changing else SKIP
        words = _BEAMS if wanted.decoding.num_beams > 1 else _AGAIN if wanted.view else _WRITES
        turn = self._turns.acquire(blocking=False)
        try:
            card = writing_card(prompt, "", words if turn else _WAITS, wanted.before)
            yield Step(answer=card, notice="", panel=panel, stop=stop_button(True))
            while not turn:
                turn = self._turns.acquire(timeout=0.2)
                if mine.over:
                    return
            yield from self._steps(loaded, wanted, mine, prompt, words)
        finally:
            if turn:
                self._turns.release()

    def _steps(self, loaded: LoadedModel, wanted: Wanted, mine: _Running, prompt: str, words: str) -> Steps:
        generator: TextGenerator = loaded.pipeline
        text, decoding, changes = wanted.text, wanted.decoding, wanted.changes
        output, base = wanted.base, wanted.base
        if changes != NO_CHANGES or base is None:
            stream = generator.stream(text, decoding, None if changes == NO_CHANGES else changes, mine.stop)
            output = yield from _flow(stream, lambda so_far: writing_card(prompt, so_far, words, wanted.before), mine)
        if changes == NO_CHANGES:
            base = output
        elif base is None and not mine.over:
            # As long a text without the changes, to be compared with. Stop ends one text at a time.
            mine.stop.clear()
            as_long = replace(decoding, max_new_tokens=max(output.new_tokens, 1))
            stream = generator.stream(text, as_long, None, mine.stop)
            card = partial(writing_card, prompt, output.text, _BEFORE, writes_before=True)
            base = yield from _flow(stream, card, mine)
        if mine.over:
            return
        view = WrittenView.showing(wanted.model, text, output, decoding=decoding)
        view = replace(view, base=base, changes=changes, past=wanted.past)
        view = view.looking_at(*wanted.place) if wanted.place else view
        if mine.looked is not None:
            view = _looking_on(view, mine.looked)
        yield Step(**shown(view, loaded.config, wanted.serial)._asdict(), stop=_IDLE)

    def _end_one_before(self, request: gr.Request) -> None:
        with self._lock:
            before = self._running.pop(_session(request), None)
        if before is not None:
            before.over = True
            before.stop.set()


def _in_order(present: Present, run: int, steps: Steps) -> Steps:
    """The steps of a text, as long as no newer one was asked for."""
    for step in steps:
        if present.is_late(run):
            steps.close()
            return
        yield step if is_skipped(step.view) else present.kept(run, step)


def _session(request: gr.Request) -> str | None:
    return getattr(request, "session_hash", None)


def _looking_on(view: WrittenView, looked: WrittenView) -> WrittenView:
    """The view at the place that was looked at, where it has one: of another text, one with the same token."""
    if looked.model != view.model or looked.stack >= len(view.traces):
        return view
    there, tokens = looked.trace.tokens, view.traces[looked.stack].tokens
    if looked.token >= len(tokens) or (looked.text != view.text and there[looked.token] != tokens[looked.token]):
        return view
    return replace(view, stack=looked.stack, token=looked.token, layer=looked.layer)


def _flow(stream: Iterator[str], card: Callable[[str], str], mine: _Running) -> Steps:
    """The text so far, now and then; returns the whole, or None once a newer text has taken its place."""
    last = 0.0
    try:
        while not mine.over:
            so_far = next(stream)
            now = time.perf_counter()
            if now - last >= STEP_SECONDS:
                last = now
                yield Step(answer=card(so_far), notice="")
    except StopIteration as end:
        return end.value
    finally:
        stream.close()
