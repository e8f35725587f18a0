"""The handlers of the Explore tab: they take values and return values for the page's components.

`Explorer` only holds what all visitors share (models, samples); what is one visitor's own comes as a View.
Try it: Explorer(ModelShelf.find(), SampleLibrary()).predict("Oil prices rose.")
"""

import json
from dataclasses import replace
from html import escape
from pathlib import Path
from time import perf_counter
from typing import Any

import gradio as gr

from switch_model import CheckpointError, Prediction, SwitchConfig
from switch_model.analysis.layer_names import layer_title
from switch_model.counterfactuals import WhatIf, importance, leave_one_out, what_if
from ui.cards.counterfactuals import what_if_card
from ui.cards.flow import draw_flow
from ui.cards.importance import matters_in_words, matters_table
from ui.cards.prediction import empty_card, load_card, message_card, prediction_card, reading_notice, token_card
from ui.cards.votes import votes_card, votes_strip
from ui.cards.written import answered, closer_cards, force_card, shown_output, writing_card
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import LoadedModel, ModelShelf
from ui.catalog.samples import DATASET_NAMES, Sample, SampleLibrary
from ui.components.expert_panel import panel_value, serial_of, wished, words_of_view
from ui.components.routing_grid import grid_value
from ui.components.sample_table import failure_html, rows_html
from ui.explore.batch_neighbours import forget
from ui.explore.kind_layout import begins, face, fitting_text
from ui.server.downloads import discard_upload, fresh_path
from ui.sharing.link import LINK, read_link
from ui.sharing.records import read_record, record_of, routing_csv, trace_of
from ui.views.output_view import OutputView
from ui.views.view import NO_CHANGES, Matters, View

EMPTY_TEXT = "Type a text, or pick a sample: there is nothing to route yet."


# What `Explorer.route` returns, in the order of the components that show it.
Routed = tuple[View | None, str, str, dict[str, Any] | None, dict[str, Any] | None, str, str]


class Explorer:
    """The handlers of the tab."""

    def __init__(self, shelf: ModelShelf, library: SampleLibrary):
        self.shelf = shelf
        self.library = library

    # -- the text -------------------------------------------------------------------------------------------------

    def route(self, model: str | None, text: str, sample: Sample | None, view: View | None = None) -> Routed:
        """Classify `text`: (view, prediction card, notice, grid, expert panel, token card, load card).

        Args:
            sample: the sample picked last; its label counts as long as the text is still that sample's.
            view: what was shown before; its layer stays chosen.
        """
        # Half of a character pair can be pasted but has no UTF-8 form: it could not be sent back to the browser.
        text = (text or "").encode("utf-8", "replace").decode("utf-8")
        kind = self.shelf.kind(model)
        if not text.strip():
            return nothing(EMPTY_TEXT if kind is CLASSIFIER else kind.asks, kind.answers)
        try:
            loaded = self.shelf.load(model)
            if loaded.kind is not CLASSIFIER:
                return answered(loaded, model, text, view)
            true_label = sample.label or None if sample and sample.text.strip() == text.strip() else None
            start = perf_counter()
            # What is switched off stays off for the next text; what was forced was this text's.
            kept = replace(view.changes, force={}) if view and view.model == model else NO_CHANGES
            view = View.of(loaded, model, text, view.layer if view else 0, true_label).with_changes(loaded, kept)
            return _shown(view, loaded.predictor.model.config, 1000 * (perf_counter() - start))
        except (CheckpointError, ValueError) as error:
            return nothing(str(error), kind.answers)

    def choose_model(self, model: str | None, text: str, sample: Sample | None, view: View | None) -> tuple[Any, ...]:
        """Another model for the same text: (caption, what `route` returns, what `face` returns).

        A model that writes shows its text as it comes: that is begun by what `face` says.
        """
        kind = self.shelf.kind(model)
        fitting = fitting_text(kind, text, sample)
        shown = coming() if kind.writes else self.route(model, fitting, sample, view)
        return self.caption(model), *shown, *face(kind, gr.skip() if fitting == text else fitting)

    def caption(self, model: str | None) -> str:
        """The model's size in one line; nothing when it can't be opened, which the prediction card then explains."""
        try:
            return self.shelf.load(model).caption
        except CheckpointError:
            return ""

    # -- changing the routing -------------------------------------------------------------------------------------

    def intervene(self, view: View | None, wish: dict[str, Any]) -> Routed:
        """What the expert panel or the what-if card asks for: what `route` returns. What can't be done is left out."""
        if view is None:
            return nothing(EMPTY_TEXT)
        if not view.model:
            return _shown(view, None, None)
        try:
            loaded = self.shelf.load(view.model)
            start = perf_counter()
            changed = _fulfilled(view, loaded, wish)
            milliseconds = 1000 * (perf_counter() - start)
            asked = all(changed.prediction is not known for known in (view.prediction, view.base))
            milliseconds = milliseconds if asked else None
            return _shown(changed, loaded.config, milliseconds, serial_of(wish))
        except (CheckpointError, ValueError) as error:
            return nothing(str(error), self.shelf.kind(view.model).answers)

    # -- what people do most, in one event each: an event costs the server more than drawing does -------------------

    def on_route(
        self,
        model: str | None,
        text: str,
        sample: Sample | None,
        view: View | None,
        flow_opened: bool,
        neighbours_of: Any,
    ) -> tuple[Any, ...]:
        """What `route` returns, then what `draw` does; likewise below."""
        return self._drawn(self.route(model, text, sample, view), flow_opened, neighbours_of)

    def on_intervene(
        self, view: View | None, flow_opened: bool, neighbours_of: Any, event: gr.EventData
    ) -> tuple[Any, ...]:
        return self._drawn(self.intervene(view, event._data), flow_opened, neighbours_of)

    def on_force(
        self, view: View | None, flow_opened: bool, neighbours_of: Any, event: gr.EventData
    ) -> tuple[Any, ...]:
        wish = {"kind": "force", "expert": event.expert}
        return self._drawn(self.intervene(view, wish), flow_opened, neighbours_of)

    def on_look(self, view: View | None, flow_opened: bool, neighbours_of: Any, event: gr.EventData) -> tuple[Any, ...]:
        return self._drawn(look(view, int(event.token), int(event.layer)), flow_opened, neighbours_of)

    def _drawn(self, shown: tuple[Any, ...], flow_opened: bool, neighbours_of: Any) -> tuple[Any, ...]:
        return *shown, *self.draw(shown[0], flow_opened, neighbours_of)

    def look_closer(self, view: View | None) -> tuple[str, Any, str, str]:
        """(title, heat map of the router's probabilities, card of votes, what-if card)."""
        pictures = *draw_probabilities(view), votes_card(view)
        if isinstance(view, OutputView):
            return *pictures, force_card(view)
        saved = view is not None and not view.model
        return *pictures, what_if_card(view, self._answer_on_screen(view), still=saved)

    def on_ask(self, view: View | None) -> tuple[Any, str]:
        """What a click on the token that is looked at already would give: (view, what-if card)."""
        view = view and view.looking_at(*view.place)
        return view, self.look_closer(view)[-1]

    def _answer_on_screen(self, view: View | None) -> WhatIf | None:
        # The dearest thing on the page, and who types a text may not want it: answered for a token that was chosen.
        return self._answer_what_if(view) if view is not None and view.asked else None

    def _answer_what_if(self, view: View | None) -> WhatIf | None:
        if view is None or not view.prediction.routing:
            return None
        if not view.model:
            return view.answers.get(view.place)
        try:
            predictor = self.shelf.load(view.model).predictor
            layer = view.prediction.routing[view.layer].name
            return what_if(predictor, view.text, view.token, layer, view.changes, view.prediction)
        except (CheckpointError, ValueError):  # The model is gone, and `route` will say so.
            return None

    def draw(self, view: View | None, flow_opened: bool, neighbours_of: Any) -> tuple[Any, ...]:
        """What may follow the class: what `look_closer`, `draw_flow` and `neighbours.forget` return."""
        said, *pictures = draw_flow(view, flow_opened)
        sent = [picture and _sent(picture.to_json()) for picture in pictures]
        return *self.look_closer(view), said, *sent, *forget(view, neighbours_of)

    # -- keeping and passing on -----------------------------------------------------------------------------------

    def restore(self, link: str | None) -> tuple[Any, ...]:
        """What a link shows: (text, model, caption, what `route` returns, what `face` returns but the text).

        What a model writes comes in steps, as elsewhere: the link itself is what begins them.
        """
        if not link or not link.startswith(LINK):
            return (gr.skip(),) * 18
        try:
            shared = read_link(link.removeprefix(LINK))
            loaded = self.shelf.load(shared.model)
            buttons = face(loaded.kind, shared.text)[1:-1]
            if loaded.kind.writes:
                return shared.text, shared.model, loaded.caption, *coming(), *buttons, link
            if loaded.kind is CLASSIFIER:
                view = View.of(loaded, shared.model, shared.text, true_label=shared.true_label)
                view = view.with_changes(loaded, shared.changes)
            else:
                view = OutputView.of(loaded, shared.model, shared.text, shared.decoding, shared.changes)
            view = view.looking_at(shared.token, shared.layer)
        except (CheckpointError, ValueError) as error:
            # What was there stays, with a word about the link.
            said = f'<p class="notice" role="alert">{escape(str(error))}</p>'
            return (*(gr.skip(),) * 5, said, *(gr.skip(),) * 12)
        return shared.text, shared.model, loaded.caption, *_shown(view, loaded.config, None), *buttons, gr.skip()

    def open_record(self, file: str) -> tuple[Any, ...]:
        """A saved record: (text, what `route` returns)."""
        try:
            view, title = read_record(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            return gr.skip(), *nothing(str(error))
        finally:
            discard_upload(file)
        return view.text, *_shown(replace(view, saved_from=title), None, None)

    def keep(self, view: View | None, kind: str, flow_opened: bool = False) -> str:
        """The path of a file with the view. Raises gr.Error when there is nothing to keep."""
        if view is None:
            raise gr.Error(EMPTY_TEXT, print_exception=False)
        from ui.sharing.export import output_file
        from ui.sharing.picture import draw_grid
        from ui.sharing.report import report_html

        title = self.shelf.title(view.model) if view.model else view.saved_from or "a model"
        make = {
            "json": lambda: json.dumps(record_of(view, title, self._answer_on_screen(view))).encode(),
            "html": lambda: report_html(view, title, self._answer_what_if(view), flow_opened).encode(),
            "csv": lambda: routing_csv(view).encode(),
            "svg": lambda: draw_grid(view, "svg", title),
            "png": lambda: draw_grid(view, "png", title),
        }[kind]
        path = fresh_path(f"routing.{kind}")
        path.write_bytes(output_file(view, kind, title) if isinstance(view, OutputView) else make())
        return str(path)

    # -- the samples ----------------------------------------------------------------------------------------------

    def draw_sample(self, model: str | None, source: str, text: str, view: View | None) -> tuple[Any, ...]:
        """A random sample: (text, sample, what `route` returns, what begins a text)."""
        try:
            labels = self.shelf.load(model).labels
        except CheckpointError:  # `route` will say so.
            labels = []
        sample = self.library.draw(self._source(model, source), other_than=text, labels=labels)
        return sample.text, sample, *self._routed_or_begun(model, sample, view)

    def _source(self, model: str | None, chosen: str) -> str:
        """The source of samples: only where they have labels, there are several to choose from."""
        kind = self.shelf.kind(model)
        return chosen if kind is CLASSIFIER else kind.samples

    def _routed_or_begun(self, model: str | None, sample: Sample, view: View | None) -> tuple[Any, ...]:
        kind = self.shelf.kind(model)
        # What a model writes comes in steps of its own.
        shown = (gr.skip(),) * 7 if kind.writes else self.route(model, sample.text, sample, view)
        return *shown, begins(kind)

    def open_samples(self, model: str | None, source: str, query: str) -> tuple[Any, str]:
        """Show the panel: (its visibility, the table)."""
        return gr.update(visible=True), self.search_samples(model, source, query)

    def search_samples(self, model: str | None, source: str, query: str) -> str:
        """The table of samples that match."""
        source = self._source(model, source)
        if source not in DATASET_NAMES:
            return rows_html(self.library.search(source, query))
        from train.words import DataError

        try:
            return rows_html(self.library.search(source, query))
        except DataError as error:
            return failure_html(str(error))

    def pick_sample(self, model: str | None, source: str, view: View | None, row: int) -> tuple[Any, ...]:
        """The picked row: (panel closed, text, sample, what `route` returns, what begins a text)."""
        sample = self.library.pick(self._source(model, source), row)
        return gr.update(visible=False), sample.text, sample, *self._routed_or_begun(model, sample, view)

    def on_pick(self, model: str | None, source: str, view: View | None, event: gr.EventData) -> tuple[Any, ...]:
        return self.pick_sample(model, source, view, int(event.row))

    # -- named endpoints for gradio_client ------------------------------------------------------------------------

    def predict(self, text: str) -> dict[str, Any]:
        """Class of a text: {"label": the likeliest class, "scores": {class: probability}}."""
        prediction = self._answer(text)
        return {"label": prediction.label, "scores": prediction.scores}

    def trace(self, text: str) -> list[dict[str, Any]]:
        """Where each token went: one routing record per sparse layer, as Routing.to_dict() writes it; with votes."""
        return trace_of(self._answer(text))

    def _answer(self, text: str) -> Prediction:
        if not isinstance(text, str) or not text.strip():
            raise gr.Error("The text is empty: there is nothing to classify.", print_exception=False)
        try:
            return self.shelf.load(self.shelf.default_classifier or self.shelf.default).predictor(text)
        except (CheckpointError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from error


# -- the closer look: needs no models, only what the visitor is looking at ---------------------------------------------


def look(view: View | None, token: int, layer: int) -> tuple[View | None, str, str]:
    """Another token or layer of the same prediction: (view, token card, load card)."""
    if view is None:
        return None, "", ""
    view = view.looking_at(token, layer)
    return view, *(closer_cards(view) if isinstance(view, OutputView) else _closer(view))


def draw_probabilities(view: View | None) -> tuple[str, Any]:
    """The heat map of the chosen layer: (title, figure)."""
    if view is None or not view.prediction.routing:
        return empty_card("Router probabilities"), None
    from switch_model.plots.routing import router_heat_map

    record = view.prediction.routing[view.layer]
    title = f"<h2>Router probabilities, {layer_title(record.name, len(view.bands) > 1)}</h2>"
    figure = router_heat_map(record, view.prediction.tokens, view.token)
    return title, _sent(json.dumps(figure))


def _sent(figure: str) -> Any:
    """A figure's JSON as gr.Plot sends it."""
    return gr.Plot.data_model(type="plotly", plot=figure)


def _shown(view: View, config: SwitchConfig | None, milliseconds: float | None, serial: int = 0) -> Routed:
    """`config` None = the view was saved, and its model is not at hand."""
    if isinstance(view, OutputView):
        return shown_output(view, config, milliseconds, serial)
    return (
        view,
        prediction_card(view.prediction, view.true_label, milliseconds, view.base if view.changed else None),
        reading_notice(view.prediction) + matters_in_words(view) if config else _saved_notice(view),
        grid_value(view.prediction, (view.token, view.layer), view.base, view.matters and view.matters.tokens)
        | {"text": view.text, "votes": votes_strip(view.prediction)},
        panel_value(view, config, serial) if config else {"said": _saved(view)},
        *_closer(view),
    )


def _saved_notice(view: View) -> str:
    # The panel, whose bars show what each expert matters, is a model's: here they are numbers.
    table = matters_table(view) if view.matters else ""
    return f'<p class="notice" role="status">{escape(_saved(view))}</p>{matters_in_words(view)}{table}'


def _saved(view: View) -> str:
    said = f"This view of {view.saved_from} was saved: it shows what the model did then. "
    if changes := words_of_view(view):
        said += f"Changed: {' · '.join(changes)}. "
    return said + "Route a text to go on with a model."


def _closer(view: View) -> tuple[str, str]:
    if not view.prediction.routing:
        message = "This model has no sparse layer: every token takes the same path."
        return message_card("One token", message), message_card("Load per expert", message)
    return token_card(view.prediction, view.token, view.layer), load_card(view.prediction, view.layer)


def _fulfilled(view: View, loaded: LoadedModel, wish: dict[str, Any]) -> View:
    """The view with what was asked for. A browser may ask for anything: what makes no sense is left out."""
    kind = wish.get("kind")
    if not loaded.config.sparse_layers:
        return view
    if kind == "undo":
        return view.undone(loaded)
    if kind == "measure" and isinstance(view, OutputView):
        return view  # There is no class to matter for.
    if kind == "measure":
        label, _, experts = importance(loaded.predictor, view.text, view.changes)
        tokens = leave_one_out(loaded.predictor, view.text, view.changes)[1]
        return replace(view, matters=Matters(label, experts, tokens))
    return view.with_changes(loaded, wished(view, view.changes, loaded.config, wish), wish.get("sliding") is True)


def coming() -> Routed:
    """What `route` returns until a model has begun to write."""
    said = {"said": "Appears when the text is written."}
    return None, writing_card("", "", ""), "", said, said, *nothing("")[5:]


def nothing(message: str, title: str = "Prediction") -> Routed:
    """What `route` returns when there is only something to say."""
    return (
        None,
        message_card(title, message),
        "",
        None,
        None,
        empty_card("One token"),
        empty_card("Load per expert"),
    )
