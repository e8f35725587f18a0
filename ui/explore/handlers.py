"""The handlers of the Explore tab: they take values and return named outputs.

`Explorer` only holds what all visitors share (models, samples); what is one visitor's own comes as a View.
Try it: Explorer(ModelShelf.find(), SampleLibrary()).route("ag_news", "Oil prices rose.", None).answer
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model import CheckpointError, SwitchConfig
from switch_model.inference.pipeline import replace_surrogates
from ui.cards.changes_line import changes_line
from ui.cards.of_view import answer_card, closer_cards, saved_in_words, summary, view_notice
from ui.cards.written import writing_card
from ui.catalog.kinds import CLASSIFIER, Kind
from ui.catalog.models import LoadedModel, ModelShelf
from ui.catalog.samples import BUNDLED, Sample, SampleLibrary
from ui.components.expert_panel import changes_from_panel, panel_value, serial_of
from ui.components.outputs import SKIP, is_skipped
from ui.explore.details import Details
from ui.explore.kind_layout import controls_for, fitting_sample, fitting_text, stop_button
from ui.explore.outputs import Chosen, Drawn, Looked, Reopened, Restored, Shown
from ui.explore.present import Present
from ui.look.html import empty_card, message_card, notice
from ui.server.downloads import discard_upload
from ui.sharing.link import LINK, address_of, plain_link, read_link
from ui.sharing.records import read_record
from ui.views.view import PLAIN, View, kept_changes, view_of

EMPTY_TEXT = "Type a text, or pick a sample: there is nothing to run yet."
_LATE = [SKIP] * (len(Shown._fields) + len(Drawn._fields))


class Explorer:
    """The handlers of the tab."""

    def __init__(self, shelf: ModelShelf, library: SampleLibrary):
        self.shelf = shelf
        self.library = library
        self.details = Details(shelf)

    # -- the text -------------------------------------------------------------------------------------------------

    def route(self, model: str | None, text: str, sample: Sample | None, view: View | None = None) -> Shown:
        """What the model makes of `text`.

        Args:
            sample: the sample picked last; its label counts as long as the text is still that sample's.
            view: what was shown before; its layer stays chosen.
        """
        text = replace_surrogates(text or "")
        kind = self.shelf.kind(model)
        if not text.strip():
            return blank_outputs(EMPTY_TEXT if kind is CLASSIFIER else kind.asks, kind.answers)
        try:
            loaded = self.shelf.load(model)
            view = view_of(
                loaded,
                model,
                text,
                kept_changes(view, model),
                view.decoding if view else PLAIN,
                layer=view.layer if view else 0,
                true_label=_true_label(sample, text, loaded.labels if kind is CLASSIFIER else ()),
            )
            return shown(view, loaded.config)
        except (CheckpointError, ValueError) as error:
            return blank_outputs(str(error), kind.answers)

    def choose_model(self, model: str | None, text: str, sample: Sample | None, view: View | None) -> Chosen:
        """Another model for the same text, or for one that it understands where the text is a sample of another kind.

        One that writes shows its text as it comes: the controls begin it.
        """
        kind = self.shelf.kind(model)
        brought = fitting_sample(self.shelf, self.library, model, text, sample)
        sample = brought or sample
        fitting = brought.text if brought else fitting_text(kind, text, sample)
        first = pending_outputs() if kind.writes else self.route(model, fitting, sample, view)
        controls = controls_for(kind, None if fitting == text else fitting)
        return Chosen(caption=self.caption(model), sample=sample, **first._asdict(), **controls._asdict())

    def caption(self, model: str | None) -> Markup | str:
        """The model's size in one line; nothing when it can't be opened, which the answer's card then explains."""
        try:
            return Markup.escape(self.shelf.load(model).caption)
        except CheckpointError:
            return ""

    # -- changing the routing -------------------------------------------------------------------------------------

    def intervene(self, view: View | None, wish: dict[str, Any]) -> Shown:
        """What the expert panel or the what-if card asks for. What can't be done is left out."""
        if view is None:
            return blank_outputs(EMPTY_TEXT)
        if not view.model:
            return shown(view, None)
        try:
            loaded = self.shelf.load(view.model)
            return shown(_fulfilled(view, loaded, wish), loaded.config, serial_of(wish))
        except (CheckpointError, ValueError) as error:
            return blank_outputs(str(error), self.shelf.kind(view.model).answers)

    def shown(self, view: View, serial: int = 0) -> Shown:
        """A view on screen, with what its model allows."""
        return shown(view, self.shelf.load(view.model).config if view.model else None, serial)

    # -- keeping and passing on -----------------------------------------------------------------------------------

    def restore(self, link: str | None) -> Restored:
        """What a link brings back. What a model writes comes in steps: the link itself is what begins them."""
        if not link or not link.startswith(LINK):
            return Restored()
        try:
            shared = read_link(link.removeprefix(LINK))
            model = shared.model or self.shelf.default
            loaded = self.shelf.load(model)
            if shared.text is None:
                link = self._link_of_own_text(model, loaded.kind)
                shared = read_link(link.removeprefix(LINK))
            controls = controls_for(loaded.kind, shared.text)
            if loaded.kind.writes:
                first, controls = pending_outputs(), controls._replace(begin=link)
            else:
                view = view_of(loaded, model, shared.text, shared.changes, true_label=shared.true_label)
                first = shown(view.looking_at(shared.token, shared.layer), loaded.config)
        except (CheckpointError, ValueError) as error:
            # What was there stays.
            return Restored(failed=notice(f"This address can’t be opened, and something else is shown. {error}"))
        return Restored(
            failed="", model=model, caption=Markup.escape(loaded.caption), **first._asdict(), **controls._asdict()
        )

    def _link_of_own_text(self, model: str, kind: Kind) -> str:
        """A text that suits a model, as its link."""
        sample = fitting_sample(self.shelf, self.library, model, "", None)
        if kind is CLASSIFIER:
            sample = sample or self.library.pick(BUNDLED, 0)
        return plain_link(model, sample.text, sample.label) if sample else plain_link(model, kind.example)

    def open_record(self, file: str) -> Reopened:
        """A saved record. Of a file that is none, what was there stays, and the reason stands below the button."""
        idle = stop_button(False)
        try:
            view = read_record(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            return Reopened(stop=idle, failed=notice(str(error)))
        finally:
            discard_upload(file)
        return Reopened(text=view.text, **shown(view, None)._asdict(), stop=idle, failed="")

    # -- as the page calls them: what people do most is one event, with all that follows from it -----------------------

    def on_route(
        self, model: str | None, text: str, sample: Sample | None, present: Present, neighbours_of: Any, run: str
    ) -> tuple[Any, ...]:
        """Shown, then Drawn; likewise below. Of two texts the answer to the newer one stays."""
        number = present.asks(run)
        first = present.kept(number, self.route(model, text, sample, present.view))
        if is_skipped(first.view):
            return (*_LATE,)
        return self.with_details(present, first, neighbours_of, self.shown)

    def on_restore(self, link: str | None, present: Present, run: str, has_text: bool = False) -> Restored:
        """What a link brings back.

        Args:
            has_text: whether the box holds its text already, or what was typed since.
        """
        number = present.asks(run, controls=True)
        restored = present.kept(number, self.restore(link))
        if has_text and not is_skipped(restored.text):
            restored = restored._replace(text={key: value for key, value in restored.text.items() if key != "value"})
        return restored

    def on_intervene(self, present: Present, neighbours_of: Any, event: gr.EventData) -> tuple[Any, ...]:
        """The expert panel was used, Reset below the prediction, or Measure."""
        return self._changed(present, neighbours_of, event._data)

    def on_force(self, present: Present, neighbours_of: Any, event: gr.EventData) -> tuple[Any, ...]:
        """An expert was clicked in the card of the token."""
        return self._changed(present, neighbours_of, {"kind": "force", "expert": event.expert})

    def on_ask(self, present: Present) -> tuple[Any, Any]:
        """What other experts would make of the token: (view, what-if card)."""
        before = present.view
        view, card = self.details.ask(before)
        if present.view is not before:
            return SKIP, SKIP
        present.goes_on(before, view)
        present.answered = view, card
        return view, card

    def on_open_tab(self, present: Present, name: str) -> None:
        """A tab of the detail panel was opened."""
        present.opened = name

    def on_draw(self, present: Present, neighbours_of: Any) -> Drawn:
        """What follows from the view, as it is when that is drawn: a slow drawing does not end with an older view."""
        while True:
            view, opened = present.view, present.opened
            drawn = self.details.draw(view, opened, neighbours_of)
            asked, card = present.answered
            if view is not None and asked is view:
                drawn = drawn._replace(elsewhere=card)
            if present.view is view and present.opened == opened:
                return drawn

    def _changed(self, present: Present, neighbours_of: Any, wish: dict[str, Any]) -> tuple[Any, ...]:
        run = present.run
        while True:
            before = present.view
            first = self.intervene(before, wish)
            if present.run != run:
                return (*_LATE,)
            if present.goes_on(before, first.view):
                return self.with_details(present, first, neighbours_of, partial(self.shown, serial=serial_of(wish)))

    def with_details(
        self, present: Present, first: Any, neighbours_of: Any, again: Callable[[View], Shown | Looked]
    ) -> tuple[Any, ...]:
        """An answer and what follows it. Where a newer one came meanwhile, both are of that."""
        run = present.run
        while True:
            view = present.view
            drawn = self.on_draw(present, neighbours_of)
            if present.run != run:
                return (*[SKIP] * (len(first) + len(drawn)),)
            if present.view is view:
                return (*(first if view is first.view or view is None else again(view)), *drawn)


def _true_label(sample: Sample | None, text: str, labels: Sequence[str]) -> str | None:
    """The sample's label as the model names it, as long as the text is that sample's."""
    if sample is None or sample.text.strip() != text.strip():
        return None
    return sample.named_as_in(labels).label or None


def _fulfilled(view: View, loaded: LoadedModel, wish: dict[str, Any]) -> View:
    """The view with what was asked for. A browser may ask for anything: what makes no sense is left out."""
    kind = wish.get("kind")
    if not loaded.config.sparse_layers:
        return view
    if kind == "undo":
        return view.undone(loaded)
    if kind == "measure":
        return view.measured(loaded)
    changes = changes_from_panel(view, view.changes, loaded.config, wish)
    return view.with_changes(loaded, changes, wish.get("sliding") is True)


def shown(view: View, config: SwitchConfig | None, serial: int = 0) -> Shown:
    """A view on screen.

    Args:
        config: None = the view was saved, and its model is not at hand.
        serial: of the expert panel's event that is answered.
    """
    return Shown(
        view,
        answer_card(view) + changes_line(view),
        view_notice(view),
        summary(view),
        view.grid() | {"address": address_of(view), "asked": [view.model, view.text], "run": view.run},
        panel_value(view, config, serial) if config else {"said": saved_in_words(view)},
        *closer_cards(view),
    )


def blank_outputs(message: str, title: str = "Prediction") -> Shown:
    """When there is only something to say."""
    empty = empty_card("One token"), empty_card("Load per expert")
    return Shown(None, message_card(title, message), "", "", None, None, *empty)


def pending_outputs() -> Shown:
    """Until a model has begun to write."""
    said = {"said": "Appears when the text is written."}
    return blank_outputs("")._replace(answer=writing_card("", "", ""), grid=said, panel=said | {"writes": True})
