"""What follows a view: the tabs of the detail panel, and the cards of the place that is looked at.

Try it: Details(ModelShelf.find()).look_closer(view, "layer").title
"""

import json
from typing import Any

import gradio as gr

from switch_model import CheckpointError
from switch_model.attribution.direct import DirectAttribution
from switch_model.counterfactuals import WhatIf
from switch_model.grid.layer_names import layer_title
from ui.cards.flow import draw_flow
from ui.cards.of_view import attribution_card, closer_cards, elsewhere_card, votes_instead
from ui.cards.pairs import pairs_card
from ui.catalog.models import ModelShelf
from ui.explore.batch_neighbours import forget
from ui.explore.detail_tabs import ATTRIBUTION, FLOW, LAYER, TOKEN
from ui.explore.outputs import Closer, Drawn, Looked
from ui.look.html import empty_card, heading
from ui.views.view import View

# Experts times tokens: "What if?" passes the whole text once for each expert.
MAX_UNASKED = 16_384


class Details:
    """What is worked out for the open tab."""

    def __init__(self, shelf: ModelShelf):
        self.shelf = shelf

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

    def ask(self, view: View | None) -> tuple[View | None, str]:
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
