"""Text that appears token by token: how it shall be written, Generate and Stop. One text per visitor at a time.

Try it: python app.py --checkpoint MODEL, with a model that writes
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from switch_model import CheckpointError, TextGenerator
from switch_model.bands import whole_text
from switch_model.decoding import Decoding
from ui.explorer import EMPTY_TEXT, Explorer, nothing
from ui.kinds import Kind
from ui.models import LoadedModel
from ui.output_cards import shown_output, writing_card
from ui.output_view import MAX_BEAMS, MAX_LENGTH, MAX_SECONDS, OutputView, kept_changes
from ui.view import NO_CHANGES

# Texts written at once, for all visitors.
AT_ONCE = 2
# Seconds between two states of a text on the page: more of them cost more than they show.
STEP_SECONDS = 0.04
GREEDY, SAMPLE, BEAMS = "the likeliest token", "draw tokens", "follow several texts (beams)"


class Writing:
    """The handlers: a text in steps, and its end."""

    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self._running: dict[str | None, threading.Event] = {}
        self._lock = threading.Lock()

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
    ) -> Iterator[tuple[Any, ...]]:
        """What `Explorer.route` returns and the Stop button, again and again: the text so far, at last its routes."""
        session = getattr(request, "session_hash", None)
        stop = self._begin(session)
        try:
            loaded = self.explorer.shelf.load(model)
            if not loaded.kind.writes:
                yield *self.explorer.route(model, text, None, view), gr.skip()
                return
            decoding = decoding_of(length, how, temperature, top_k, top_p, beams, seed)
            yield from self._steps(loaded, model, text, view, decoding, stop)
        except (CheckpointError, ValueError) as error:
            yield *nothing(str(error)), gr.update(interactive=False)
        finally:
            self._end(session, stop)

    def _steps(
        self, loaded: LoadedModel, model: str, text: str, view: Any, decoding: Decoding, stop: threading.Event
    ) -> Iterator[tuple[Any, ...]]:
        text = whole_text(text or "")
        generator: TextGenerator = loaded.pipeline
        if generator.has_encoder and not text.strip():
            raise ValueError(EMPTY_TEXT)
        start = time.perf_counter()
        changes = kept_changes(view, model)
        changes = None if changes == NO_CHANGES else changes
        prompt, last = "" if generator.has_encoder else text, 0.0
        words = "Following several texts: the best one appears at once." if decoding.num_beams > 1 else "writing …"
        yield *_only_card(writing_card(prompt, "", words)), gr.update(interactive=True)
        stream = generator.stream(text, decoding, changes, stop)
        try:
            while True:
                so_far = next(stream)
                now = time.perf_counter()
                if now - last >= STEP_SECONDS:
                    last = now
                    yield *_only_card(writing_card(prompt, so_far, words)), gr.skip()
        except StopIteration as end:
            output = end.value
        finally:
            stream.close()
        milliseconds = 1000 * (time.perf_counter() - start)
        shown = OutputView.showing(model, text, decoding, output)
        if changes is not None:
            # As long a text without the changes, to be compared with.
            as_long = replace(decoding, max_new_tokens=max(output.new_tokens, 1))
            shown = replace(shown, base=generator.write(text, as_long), changes=changes)
        yield *shown_output(shown, loaded.config, milliseconds), gr.update(interactive=False)

    def stop(self, request: gr.Request) -> None:
        """End the visitor's text where it is."""
        with self._lock:
            event = self._running.get(getattr(request, "session_hash", None))
        if event is not None:
            event.set()

    def _begin(self, session: str | None) -> threading.Event:
        """A new text ends the one before."""
        with self._lock:
            if (before := self._running.get(session)) is not None:
                before.set()
            self._running[session] = threading.Event()
            return self._running[session]

    def _end(self, session: str | None, stop: threading.Event) -> None:
        stop.set()
        with self._lock:
            if self._running.get(session) is stop:
                del self._running[session]


def decoding_of(
    length: float, how: str, temperature: float, top_k: float, top_p: float, beams: float, seed: float
) -> Decoding:
    """The settings of the page as one value, within what the page allows. Raises ValueError when one makes no sense."""

    def number(value: float | None, least: int, most: int) -> int:
        return min(max(int(value or 0), least), most)

    settings: dict[str, Any] = {"max_new_tokens": number(length, 1, MAX_LENGTH), "max_seconds": MAX_SECONDS}
    if how == BEAMS:
        settings["num_beams"] = number(beams, 2, MAX_BEAMS)
    elif how == SAMPLE:
        settings |= {
            "do_sample": True,
            "temperature": float(temperature or 0),
            "top_k": number(top_k, 0, 10**6),
            "top_p": float(top_p or 0),
            "seed": number(seed, 0, 2**53),
        }
    return Decoding(**settings)


def _only_card(card: str) -> tuple[Any, ...]:
    """What `Explorer.route` returns when nothing but the first card is new."""
    return gr.skip(), card, "", *(gr.skip(),) * 4


# -- layout -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WritingParts:
    """The components that only a model that writes has."""

    generate: gr.Button
    stop: gr.Button
    box: gr.Accordion
    settings: list[Any]

    @property
    def shown(self) -> list[Any]:
        """Those that come and go with the kind of model."""
        return [self.generate, self.stop, self.box]


def create_buttons(kind: Kind) -> tuple[gr.Button, gr.Button]:
    """Generate and Stop."""
    small = {"visible": kind.writes, "min_width": 0, "scale": 0}
    generate = gr.Button("Generate", variant="primary", elem_id="generate", **small)
    return generate, gr.Button("Stop", interactive=False, elem_id="stop-writing", **small)


def create_settings(kind: Kind) -> tuple[gr.Accordion, list[Any]]:
    """How a text is written, folded away."""
    with gr.Accordion("How it is written", open=False, visible=kind.writes, elem_id="writing-settings") as box:
        length = gr.Slider(1, MAX_LENGTH, 60, step=1, label="Tokens at most", buttons=[], elem_id="writing-length")
        how = gr.Radio([GREEDY, SAMPLE, BEAMS], value=GREEDY, label="Each time take", elem_id="writing-how")
        with gr.Row(visible=False, elem_id="writing-drawing") as drawing:
            temperature = gr.Number(1.0, label="Temperature", minimum=0.05, maximum=5, step=0.1, min_width=90)
            top_k = gr.Number(40, label="Top k (0 = all)", precision=0, minimum=0, min_width=90)
            top_p = gr.Number(0.95, label="Top p (1 = all)", minimum=0.01, maximum=1, step=0.05, min_width=90)
            seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=90)
        beams = gr.Slider(
            2, MAX_BEAMS, 4, step=1, label="Texts followed", visible=False, buttons=[], elem_id="writing-beams"
        )
    how.input(_fitting, [how], [drawing, beams], show_progress="hidden", api_visibility="private")
    return box, [length, how, temperature, top_k, top_p, beams, seed]


def _fitting(how: str) -> tuple[Any, Any]:
    return gr.update(visible=how == SAMPLE), gr.update(visible=how == BEAMS)
