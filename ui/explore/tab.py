"""The Explore tab: type a text or pick a sample -> its class, where every token went, what changes when one intervenes.

Try it: python app.py
"""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.cards.counterfactuals import create_what_if
from ui.cards.flow import create_flow
from ui.cards.prediction import HOW_TO_READ
from ui.cards.votes import create_votes
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import ModelShelf
from ui.catalog.samples import BUNDLED
from ui.components.expert_panel import create_expert_panel
from ui.components.routing_grid import create_routing_grid
from ui.components.sample_table import create_sample_table, waiting_html
from ui.explore.batch_neighbours import create_neighbours
from ui.explore.handlers import Explorer, look
from ui.explore.kind_layout import fitting_text
from ui.explore.share_bar import create_keeping
from ui.explore.streaming import WAITING, Writing, create_buttons, create_settings


@dataclass(frozen=True)
class ExploreTab:
    """What other tabs need to open a model or a text here: the shelf, picker and box, and what follows a choice."""

    shelf: ModelShelf
    model: gr.Dropdown
    text: gr.Textbox
    view: gr.State
    choosing: dict[str, Any]
    picture: dict[str, Any]


def create_explore_tab(demo: gr.Blocks, explorer: Explorer) -> ExploreTab:
    """Lay the tab out and connect it. It opens with a sample already routed, so that it is never empty."""
    first, kind = explorer.library.pick(BUNDLED, 0), explorer.shelf.kind(explorer.shelf.default)
    first_text = fitting_text(kind, first.text, first)
    explorer.route(explorer.shelf.default, first_text, first)  # The first pass of a shape is slow: not the one shown.
    start = explorer.route(explorer.shelf.default, first_text, first)
    # As if its token had been clicked: so the page opens with every card filled.
    seen_first = look(start[0], *start[0].place)[0] if start[0] else None
    closer = explorer.look_closer(seen_first)
    view, sample = gr.State(), gr.State(first)
    # As a function: Gradio copies a dataclass field by field, tensors too, whenever a visitor's state is set.
    view.value = lambda: seen_first

    with gr.Row(elem_classes="pair", equal_height=True):
        with gr.Column(elem_classes="card", scale=5, min_width=280):
            with gr.Row(elem_classes="card-head"):
                gr.HTML("<h2>Text</h2>", apply_default_css=False)
                model = gr.Dropdown(
                    explorer.shelf.choices(),
                    value=explorer.shelf.default,
                    label="Model",
                    show_label=False,
                    container=False,
                    filterable=False,
                    min_width=140,
                    elem_id="model",
                )
            text = gr.Textbox(
                first_text,
                label="Text to route",
                show_label=False,
                container=False,
                lines=4,
                max_lines=12,
                placeholder=kind.asks,
                elem_id="text",
            )
            with gr.Row(elem_classes="buttons"):
                small = {"min_width": 0, "scale": 0}
                run = gr.Button(kind.act, visible=not kind.writes, variant="primary", elem_id="route", **small)
                generate, stop = create_buttons(kind)
                lucky = gr.Button("Random sample", elem_id="random", **small)
                browse = gr.Button("Samples…", elem_id="browse", **small)
            box, settings = create_settings(kind)
            caption = gr.HTML(explorer.caption(explorer.shelf.default), apply_default_css=False, elem_id="caption")
        with gr.Column(elem_classes="card", scale=4, min_width=280):
            prediction = gr.HTML(start[1], apply_default_css=False, elem_id="prediction")

    with gr.Column(elem_classes="card", visible=False, elem_id="samples") as panel:
        with gr.Row(elem_classes="card-head"):
            gr.HTML("<h2>Samples</h2>", apply_default_css=False)
            close = gr.Button("Close", min_width=0, scale=0, elem_id="close-samples")
        with gr.Row(elem_classes="search"):
            query = gr.Textbox(
                "",
                label="Search",
                show_label=False,
                container=False,
                placeholder="Search texts and labels",
                scale=3,
                min_width=160,
                elem_id="query",
            )
            source = gr.Dropdown(
                explorer.library.choices(),
                value=BUNDLED,
                visible=kind is CLASSIFIER,
                label="Source",
                show_label=False,
                container=False,
                filterable=False,
                scale=1,
                min_width=160,
                elem_id="source",
            )
        table = create_sample_table()

    with gr.Column(elem_classes="card"):
        gr.HTML("<h2>Where each token went</h2>", apply_default_css=False)
        notice = gr.HTML(start[2], apply_default_css=False, elem_id="notice")
        grid = create_routing_grid(start[3])

    with gr.Column(elem_classes="card", elem_id="votes-card"):
        votes = create_votes(closer[2])

    with gr.Row(elem_classes="pair", equal_height=True):
        with gr.Column(elem_classes="card", min_width=280, scale=5):
            switches = create_expert_panel(start[4])
        with gr.Column(elem_classes="card", min_width=280, scale=4):
            what = create_what_if(closer[-1])

    with gr.Row(elem_classes="three", equal_height=True):
        with gr.Column(elem_classes="card", min_width=260):
            token = gr.HTML(start[5], apply_default_css=False, elem_id="token")
        with gr.Column(elem_classes="card", min_width=260):
            load = gr.HTML(start[6], apply_default_css=False, elem_id="load")
        with gr.Column(elem_classes="card", min_width=260):
            gr.HTML(HOW_TO_READ, apply_default_css=False)

    with gr.Column(elem_classes="card", elem_id="probabilities"):
        title = gr.HTML("<h2>Router probabilities</h2>", apply_default_css=False)
        plot = gr.Plot(show_label=False, container=False, buttons=[])
        gr.HTML(
            '<p class="facts">A column per token, a row per expert; a dot marks the expert that was chosen, '
            "the frame your token.</p>",
            apply_default_css=False,
        )

    flow_open, flow = create_flow(view)
    beside, neighbours_of, neighbours = create_neighbours(explorer.shelf, view, kind is CLASSIFIER)

    # Helpers of this page are private: only the two named endpoints below are for programs.
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    result = [view, prediction, notice, grid, switches, token, load]
    outputs = [title, plot, votes, what, *flow, *neighbours]
    seen = [view, flow_open, neighbours_of]
    picture = {"fn": explorer.draw, "inputs": seen, "outputs": outputs, **quiet}

    # What a model writes appears as it comes: begun by the button, or by the choice of such a model.
    writing, begin = Writing(explorer), gr.Textbox(visible="hidden", elem_id="begin-writing")
    face = [run, panel, source, generate, stop, box, beside, begin]
    several = {"concurrency_limit": WAITING, "concurrency_id": "writing", "trigger_mode": "multiple", **quiet}
    asked = [model, text, view, *settings]
    for begins, handler, inputs in (
        (generate.click, writing.write, asked),
        (begin.change, writing.write, [*asked, begin]),
        (switches.rewrite, writing.change, [view]),
        (what.rewrite, writing.change, [view]),
    ):
        begins(handler, inputs, [*result, stop], **several).then(**picture)
    stop.click(writing.stop, None, None, queue=False, **quiet)

    # Few at a time: passes of many visitors at once would only wait for each other's turns. Two, so that one long text
    # does not hold up all others.
    turns = {"concurrency_id": "routing", "concurrency_limit": 2, **quiet}
    # What these give is sent as it is. Gradio would hand each of some fifteen outputs to another thread and back, which
    # takes longer than the pass.
    turns["postprocess"] = False
    run.click(explorer.on_route, [model, text, sample, *seen], [*result, *outputs], **turns)
    choosing = {
        "fn": writing.choose_model,
        "inputs": [model, text, sample, view],
        "outputs": [caption, *result, text, *face],
        **quiet,
    }
    model.input(**choosing).then(**picture)
    drawn = [text, sample, *result, begin]
    lucky.click(explorer.draw_sample, [model, source, text, view], drawn, **quiet).then(**picture)
    table.pick(explorer.on_pick, [model, source, view], [panel, *drawn], **quiet).then(**picture)
    grid.look(writing.on_look, seen, [view, token, load, *outputs], trigger_mode="always_last", **turns)
    switches.intervene(explorer.on_intervene, seen, [*result, *outputs], trigger_mode="multiple", **turns)
    what.ask(explorer.on_ask, [view], [view, what], **turns)
    what.force(explorer.on_force, seen, [*result, *outputs], trigger_mode="multiple", **turns)
    link = gr.Textbox(visible="hidden", elem_id="link")
    restored = [text, model, caption, *result, *face]
    demo.load(explorer.restore, [link], restored, js="() => [location.hash]", **quiet).then(**picture)
    opening = {"fn": writing.open_record, "outputs": [text, *result, stop]}
    create_keeping(explorer, [view, flow_open], link, opening, picture)

    browse.click(explorer.open_samples, [model, source, query], [panel, table], **quiet)
    close.click(close_samples, None, [panel], **quiet)
    searching = {"fn": explorer.search_samples, "inputs": [model, source, query], "outputs": [table], **quiet}
    # `change`, not `input`: a text pasted into a box that has just appeared sends no `input`.
    query.change(trigger_mode="always_last", **searching)
    source.input(announce_source, [source], [table], **quiet).then(**searching)

    gr.api(explorer.predict, api_name="predict")
    gr.api(explorer.trace, api_name="trace")
    return ExploreTab(explorer.shelf, model, text, view, choosing, picture)


def close_samples() -> Any:
    """Hide the panel of samples."""
    return gr.update(visible=False)


def announce_source(source: str) -> str:
    """What stands in the table while a data set is read: the first time, or without a network, that takes a while."""
    return waiting_html(f"Reading {source} …")
