"""The detail panel of Explore: the token, layer, experts and attribution of the place in view, each in a tab.

Only what the open tab shows is worked out: a click in the grid would else draw a dozen pictures that nobody sees.
Try it: python app.py
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from ui.cards.counterfactuals import create_what_if
from ui.cards.flow import Flow, create_flow
from ui.cards.votes import create_votes
from ui.components.events import EACH
from ui.components.expert_panel import create_expert_panel
from ui.explore.detail_tabs import ATTRIBUTION, EXPERTS, FLOW, LAYER, TOKEN
from ui.explore.outputs import Closer, Shown
from ui.look.html import heading, quiet

_PROBABILITIES = "A column per token, a row per expert; a dot marks the expert that was chosen, the frame your token."


class DetailPanel(NamedTuple):
    """The parts of the panel, which tab it opens with, all tabs, and each by its name."""

    token: gr.HTML
    load: gr.HTML
    experts: gr.HTML
    closer: Closer
    flow: Flow
    opened: str
    all_tabs: gr.Tabs
    tabs: dict[str, gr.Tab]


def create_detail_panel(start: Shown, closer: Closer, writes: bool) -> DetailPanel:
    """Lay it out, filled with the first view. Of a model that writes, its experts come first: each click on one
    rewrites the text."""
    opened = EXPERTS if writes else TOKEN
    all_tabs = gr.Tabs(elem_id="detail-tabs", selected=opened, render=False)
    with gr.Column(elem_classes="card", elem_id="detail"), all_tabs.render():
        with gr.Tab("Token", id=TOKEN) as token_tab, gr.Row(elem_classes="detail-pair"):
            token = gr.HTML(start.token, apply_default_css=False, elem_id="token")
            elsewhere = create_what_if(closer.elsewhere)
        with gr.Tab("Layer", id=LAYER) as layer_tab:
            load = gr.HTML(start.load, apply_default_css=False, elem_id="load")
            with gr.Column(elem_id="probabilities"):
                title = gr.HTML(heading("Router probabilities"), apply_default_css=False)
                plot = gr.Plot(buttons=[], show_label=False, container=False)
                gr.HTML(quiet(_PROBABILITIES), apply_default_css=False)
            with gr.Column(elem_id="pairs"):
                pairs_words = gr.HTML("", apply_default_css=False)
                pairs = gr.Plot(buttons=[], show_label=False, container=False)
        with gr.Tab("Experts", id=EXPERTS) as experts_tab:
            experts = create_expert_panel(start.panel)
        with gr.Tab("Attribution", id=ATTRIBUTION, elem_id="votes-card") as attribution_tab:
            votes = create_votes(closer.votes)
        with gr.Tab("Flow", id=FLOW) as flow_tab:
            flow = create_flow()
    tabs = {
        TOKEN: token_tab,
        LAYER: layer_tab,
        EXPERTS: experts_tab,
        ATTRIBUTION: attribution_tab,
        FLOW: flow_tab,
    }
    closer = Closer(title, plot, pairs_words, pairs, votes, elsewhere)
    return DetailPanel(token, load, experts, closer, flow, opened, all_tabs, tabs)


def connect_tabs(
    panel: DetailPanel, open_tab: Callable[[Any, str], None], present: gr.State, drawing: dict[str, Any]
) -> None:
    """A tab that is opened draws what it shows."""
    for name, tab in panel.tabs.items():
        tab.select(lambda present, name=name: open_tab(present, name), [present], None, **EACH).then(**drawing)
