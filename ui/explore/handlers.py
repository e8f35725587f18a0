"""The handlers of the Explore tab: they take values and return named outputs.

`Explorer` only holds what all visitors share (models, samples); what is one visitor's own comes as a View.
Try it: Explorer(ModelShelf.find(), SampleLibrary()).route("ag_news", "Oil prices rose.", None).answer
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model import CheckpointError, SwitchConfig
from switch_model.attribution.direct import DirectAttribution
from switch_model.counterfactuals import WhatIf
from switch_model.grid.layer_names import layer_title
from switch_model.inference.pipeline import replace_surrogates
from ui.cards.changes_line import changes_line
from ui.cards.flow import draw_flow
from ui.cards.of_view import (
    answer_card,
    attribution_card,
    closer_cards,
    elsewhere_card,
    saved_in_words,
    summary,
    view_notice,
    votes_instead,
)
from ui.cards.pairs import pairs_card
from ui.cards.written import writing_card
from ui.catalog.kinds import CLASSIFIER, Kind
from ui.catalog.models import LoadedModel, ModelShelf
from ui.catalog.samples import BUNDLED, Sample, SampleLibrary
from ui.components.expert_panel import changes_from_panel, panel_value, serial_of
from ui.explore.batch_neighbours import forget
from ui.explore.detail_tabs import ATTRIBUTION, FLOW, LAYER, TOKEN
from ui.explore.kind_layout import controls_for, fitting_sample, fitting_text
from ui.explore.outputs import Chosen, Closer, Drawn, Looked, Reopened, Restored, Shown
from ui.look.html import empty_card, heading, message_card, notice
from ui.server.downloads import discard_upload
from ui.sharing.link import LINK, address_of, plain_link, read_link
from ui.sharing.records import read_record
from ui.views.view import PLAIN, View, kept_changes, view_of

# Experts times tokens: "What if?" passes the whole text once for each expert.
MAX_UNASKED = 16_384
EMPTY_TEXT = "Type a text, or pick a sample: there is nothing to run yet."


class Explorer:
    """The handlers of the tab."""

    def __init__(self, shelf: ModelShelf, library: SampleLibrary):
        self.shelf = shelf
        self.library = library

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

    # -- the closer look ------------------------------------------------------------------------------------------

    def look_closer(self, view: View | None, opened: str = TOKEN, asked: bool = False) -> Closer:
        """What the open tab of the detail panel shows; what the others show is not computed.

        Args:
            asked: whether a person asked what other experts would make of the token; in a long text with many experts
                nothing less works that out.
        """
        saved = view is not None and not view.model
        # What costs most on the page, and who types a text may not want it: answered for a token that was chosen.
        wanted = opened == TOKEN and view is not None and view.asked and (asked or _is_cheap(view))
        answer = self.what_if(view) if wanted else None
        of_layer = view if opened == LAYER else None
        drawn = *draw_probabilities(of_layer), *draw_pairs(of_layer)
        found = self.attribution(view) if opened == ATTRIBUTION else None
        return Closer(*drawn, attribution_card(view, found), elsewhere_card(view, answer, still=saved))

    def on_ask(self, view: View | None) -> tuple[View | None, str]:
        """What a click on the token that is looked at already would give: (view, what-if card)."""
        view = view and view.looking_at(*view.place)
        return view, self.look_closer(view, asked=True).elsewhere

    def what_if(self, view: View) -> WhatIf | None:
        """What other experts would make of the token; None where that can't be asked."""
        try:
            return view.what_if(self.shelf.load(view.model) if view.model else None)
        except (CheckpointError, ValueError):  # The model is gone, and `route` will say so.
            return None

    def attribution(self, view: View | None) -> DirectAttribution | str | None:
        """What each part of the model wrote there, or why that can't be told; None where there are votes instead."""
        if view is None or votes_instead(view):
            return None
        try:
            return view.attribution(self.shelf.load(view.model) if view.model else None)
        except CheckpointError as error:
            return str(error)

    def draw(self, view: View | None, opened: str, neighbours_of: Any) -> Drawn:
        """What follows a view."""
        words, *plots = draw_flow(view, opened == FLOW)
        sent = [plot and _sent(plot.to_json()) for plot in plots]
        return Drawn(*self.look_closer(view, opened), words, *sent, *forget(view, neighbours_of))

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
        idle = gr.update(interactive=False)
        try:
            view = read_record(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            return Reopened(stop=idle, failed=notice(str(error)))
        finally:
            discard_upload(file)
        return Reopened(text=view.text, **shown(view, None)._asdict(), stop=idle, failed="")


# -- the closer look: needs no models, only what the visitor is looking at ---------------------------------------------


def _true_label(sample: Sample | None, text: str, labels: Sequence[str]) -> str | None:
    """The sample's label as the model names it, as long as the text is that sample's."""
    if sample is None or sample.text.strip() != text.strip():
        return None
    return sample.named_as_in(labels).label or None


def look(view: View | None, token: int, layer: int) -> Looked:
    """Another token or layer of the same answer."""
    if view is None:
        return Looked(None, "", "")
    view = view.looking_at(token, layer)
    return Looked(view, *closer_cards(view))


def draw_probabilities(view: View | None) -> tuple[str, Any]:
    """The heat map of the chosen layer: (title, figure)."""
    if view is None or view.record is None:
        return empty_card("Router probabilities"), None
    from switch_model.plots.routing import router_heat_map

    what = "Weights of the experts" if view.record.experts.shape[-1] > 1 else "Router probabilities"
    title = heading(f"{what}, {layer_title(view.record.name, view.two_stacks)}")
    return title, _sent(json.dumps(router_heat_map(view.record, view.trace.tokens, view.token)))


def draw_pairs(view: View | None) -> tuple[str, Any]:
    """Which experts of the chosen layer are chosen together: (words, figure); nothing with one expert per token."""
    if view is None or view.record is None or view.record.experts.shape[-1] == 1:
        return "", None
    from switch_model.plots.pairs import pair_heat_map

    return pairs_card(view), _sent(json.dumps(pair_heat_map(view.record)))


def _is_cheap(view: View) -> bool:
    """Whether a pass of the text for each expert takes no longer than a click may."""
    saved = not view.model  # What was worked out then is there.
    return saved or view.record is None or view.record.num_experts * len(view.trace.tokens) <= MAX_UNASKED


def _sent(figure: str) -> Any:
    """A figure's JSON as gr.Plot sends it."""
    return gr.Plot.data_model(type="plotly", plot=figure)


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
