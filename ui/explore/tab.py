"""The Explore tab: type a text or pick a sample -> its class, where every token went, what changes when one intervenes.

Try it: python app.py
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import gradio as gr

from ui.cards.changes_line import create_answer
from ui.catalog.kinds import CLASSIFIER, Kind
from ui.catalog.models import ModelShelf
from ui.catalog.samples import BUNDLED, Sample, SampleLibrary
from ui.components.events import EACH, LAST
from ui.components.routing_grid import create_routing_grid
from ui.components.sample_table import create_sample_table
from ui.explore.api import Endpoints
from ui.explore.batch_neighbours import create_neighbours
from ui.explore.detail_panel import DetailPanel, connect_tabs, create_detail_panel
from ui.explore.details import look
from ui.explore.generation_settings import create_buttons, create_settings
from ui.explore.handlers import Explorer
from ui.explore.kind_layout import fitting_text
from ui.explore.outputs import Chosen, Closer, Controls, Drawn, Looked, Reopened, Restored, Sampled, Shown, Step
from ui.explore.present import Present
from ui.explore.samples import SamplePicker, announce_source, close_samples
from ui.explore.share_bar import create_share_bar
from ui.explore.streaming import WAITING, Writing
from ui.look.html import heading, render
from ui.views.view import View

# Few at a time: passes of many visitors at once would only wait for each other's turns. Two, so that one long text does
# not hold up all others. What these give is sent as it is: Gradio would hand each of some fifteen outputs to another
# thread and back, which takes longer than the pass.
_IN_TURN: dict[str, Any] = {"concurrency_id": "routing", "concurrency_limit": 2, "postprocess": False}

# A text is asked for: its number goes last, by which its answer is told from others, and has its place in the browser's
# history. Of a text in the box that is there before the answer comes.
_RUNS = "(...given) => [...given.slice(0, -1), window.tabAddress.runs(given[0], given[1])]"
ASKS = "(...given) => [...given.slice(0, -1), window.tabAddress.asks()]"

# What was typed while the answer was on its way stays.
_DRAWN = "(...given) => { window.tabAddress.drawn(); return given; }"

_BARE = {"show_label": False, "container": False}
_SMALL = {"min_width": 0, "scale": 0}


@dataclass(frozen=True)
class ExploreTab:
    """What other tabs need to open a model or a text here: the shelf, picker and box, samples with the picker of their
    source, what the page shows, where the number of a text goes, what follows a choice, what opens a link, the button
    that leads to the film, and the one that leads back to what a text was found by."""

    shelf: ModelShelf
    library: SampleLibrary
    sample: gr.State
    source: gr.Dropdown
    model: gr.Dropdown
    text: gr.Textbox
    view: gr.State
    present: gr.State
    run: gr.Textbox
    choosing: dict[str, Any]
    restoring: dict[str, Any]
    drawing: dict[str, Any]
    film: gr.Button
    back: gr.Button


class _Text(NamedTuple):
    """The card of the text: what is asked, of which model, and how."""

    model: gr.Dropdown
    caption: gr.HTML
    text: gr.Textbox
    run: gr.Button
    generate: gr.Button
    stop: gr.Button
    random: gr.Button
    browse: gr.Button
    back: gr.Button
    settings: gr.Accordion
    decoding: list[Any]


class _Samples(NamedTuple):
    """The panel of samples."""

    panel: gr.Column
    close: gr.Button
    query: gr.Textbox
    source: gr.Dropdown
    table: gr.HTML


def create_explore_tab(demo: gr.Blocks, explorer: Explorer, failed: gr.HTML) -> ExploreTab:
    """Lay the tab out and connect it. It opens with a sample already routed, so that it is never empty.

    Args:
        failed: says of a link why it could not be opened.
    """
    first, kind = explorer.library.pick(BUNDLED, 0), explorer.shelf.kind(explorer.shelf.default)
    first_text = fitting_text(kind, first.text, first)
    start, seen_first = _routed_at_start(explorer, first_text, first)
    view = gr.State()
    # As a function: Gradio copies a dataclass field by field, tensors too, whenever a visitor's state is set.
    view.value = lambda: seen_first
    present, run = gr.State(), gr.Textbox(visible="hidden", elem_id="run")

    with gr.Row(elem_classes="pair", equal_height=True):
        with gr.Column(elem_classes="card", scale=5, min_width=280):
            asked = _create_text_card(explorer, kind, first_text)
        with gr.Column(elem_classes="card", scale=4, min_width=280):
            answer = create_answer(start.answer)
    samples = _create_samples(explorer, kind)
    shown, panel, film = _create_cards(view, answer, start, explorer.details.look_closer(seen_first), kind)
    present.value = lambda: Present(seen_first, panel.opened)
    beside, neighbours = create_neighbours(explorer.shelf, present, kind is CLASSIFIER, seen_first)
    with gr.Accordion("Terms", open=False, elem_classes="card", elem_id="terms"):
        gr.HTML(render("cards/how_to_read.html"), apply_default_css=False)
    begin = gr.Textbox(visible="hidden", elem_id="begin-writing")
    controls = _controls_of(asked, samples, panel, beside, begin)

    drawn = [*Drawn(*panel.closer, *panel.flow, *neighbours)]
    seen = [present, neighbours.of]
    writing = Writing(explorer)
    drawing = {"fn": explorer.on_draw, "inputs": seen, "outputs": drawn, "js": _DRAWN, "postprocess": False, **LAST}
    connect_tabs(panel, explorer.on_open_tab, present, drawing)
    sample = gr.State(first)
    _connect_routing(writing, asked, sample, shown, seen, drawn, run)
    _connect_writing(writing, asked, shown, panel.closer.elsewhere, [begin, run], present, drawing)
    choosing = {
        "fn": writing.on_choose_model,
        "inputs": [asked.model, asked.text, sample, present, run],
        "outputs": [*Chosen(caption=asked.caption, sample=sample, **shown._asdict(), **controls._asdict())],
        "js": ASKS,
        **LAST,
    }
    asked.model.input(**choosing).then(**drawing)
    sampled = Sampled(samples.panel, asked.text, sample, **shown._asdict(), begin=begin)
    _connect_samples(SamplePicker(explorer), asked, samples, [present, run], [*sampled], drawing)
    restored = Restored(
        failed=failed, model=asked.model, caption=asked.caption, **shown._asdict(), **controls._asdict()
    )
    reopened = Reopened(asked.text, **shown._asdict(), stop=asked.stop)
    opening = {"fn": writing.on_open_record, "inputs": [present, run], "js": ASKS}
    create_share_bar(explorer, present, opening, reopened, drawing)
    endpoints = Endpoints(explorer.shelf)
    gr.api(endpoints.predict, api_name="predict")
    gr.api(endpoints.trace, api_name="trace")
    picked = (explorer.library, sample, samples.source)
    restoring = {"fn": explorer.on_restore, "outputs": [*restored]}
    here = (asked.model, asked.text, view, present, run)
    return ExploreTab(explorer.shelf, *picked, *here, choosing, restoring, drawing, film, asked.back)


def _routed_at_start(explorer: Explorer, text: str, sample: Sample) -> tuple[Shown, View | None]:
    """What a text gives, and its view as if its token had been clicked: so the page opens with every card filled."""
    explorer.route(explorer.shelf.default, text, sample)  # The first pass of a shape is slow: not the one shown.
    start = explorer.route(explorer.shelf.default, text, sample)
    return start, look(start.view, *start.view.place).view if start.view else None


# -- layout -----------------------------------------------------------------------------------------------------------


def _controls_of(
    asked: _Text, samples: _Samples, panel: DetailPanel, beside: gr.Accordion, begin: gr.Textbox
) -> Controls:
    return Controls(
        text=asked.text,
        run=asked.run,
        samples=samples.panel,
        source=samples.source,
        generate=asked.generate,
        stop=asked.stop,
        settings=asked.settings,
        neighbours=beside,
        details=panel.all_tabs,
        begin=begin,
    )


def _create_text_card(explorer: Explorer, kind: Kind, first_text: str) -> _Text:
    with gr.Row(elem_classes="card-head"):
        gr.HTML(heading("Text"), apply_default_css=False)
        model = gr.Dropdown(
            explorer.shelf.choices(),
            value=explorer.shelf.default,
            label="Model",
            filterable=False,
            min_width=140,
            elem_id="model",
            **_BARE,
        )
    text = gr.Textbox(
        first_text, label="Text to run", lines=3, max_lines=12, placeholder=kind.asks, elem_id="text", **_BARE
    )
    with gr.Row(elem_classes="buttons"):
        run = gr.Button(kind.act, visible=not kind.writes, variant="primary", elem_id="route", **_SMALL)
        generate, stop = create_buttons(kind)
        lucky = gr.Button("Random sample", elem_id="random", **_SMALL)
        browse = gr.Button("Samples…", elem_id="browse", **_SMALL)
        back = gr.Button("Back to results", visible=False, elem_id="back-to-results", **_SMALL)
    settings, decoding = create_settings(kind)
    caption = gr.HTML(explorer.caption(explorer.shelf.default), apply_default_css=False, elem_id="caption")
    return _Text(model, caption, text, run, generate, stop, lucky, browse, back, settings, decoding)


def _create_samples(explorer: Explorer, kind: Kind) -> _Samples:
    with gr.Column(elem_classes="card", visible=False, elem_id="samples") as panel:
        with gr.Row(elem_classes="card-head"):
            gr.HTML(heading("Samples"), apply_default_css=False)
            close = gr.Button("Close", elem_id="close-samples", **_SMALL)
        with gr.Row(elem_classes="search"):
            query = gr.Textbox(
                "",
                label="Search",
                placeholder="Search texts and labels",
                scale=3,
                min_width=160,
                elem_id="query",
                **_BARE,
            )
            source = gr.Dropdown(
                explorer.library.choices(),
                value=BUNDLED,
                visible=kind is CLASSIFIER,
                label="Source",
                filterable=False,
                scale=1,
                min_width=160,
                elem_id="source",
                **_BARE,
            )
        return _Samples(panel, close, query, source, create_sample_table())


def _create_cards(
    view: gr.State, answer: gr.HTML, start: Shown, closer: Closer, kind: Kind
) -> tuple[Shown, DetailPanel, gr.Button]:
    """The grid and the panel beside it, filled with the first view, and the button that leads to its film."""
    with gr.Row(elem_id="closer"):
        with gr.Column(elem_classes="card", elem_id="grid-card", min_width=280):
            with gr.Row(elem_classes="card-head"):
                gr.HTML(heading("Expert of each token in each layer"), apply_default_css=False)
                film = gr.Button("Play as a film", elem_id="watch-film", **_SMALL)
            summary = gr.HTML(start.summary, apply_default_css=False, elem_id="summary")
            notice = gr.HTML(start.notice, apply_default_css=False, elem_id="notice")
            grid = create_routing_grid(start.grid)
        panel = create_detail_panel(start, closer, kind.writes)
    return Shown(view, answer, notice, summary, grid, panel.experts, panel.token, panel.load), panel, film


# -- events -----------------------------------------------------------------------------------------------------------


def _connect_routing(
    writing: Writing,
    asked: _Text,
    sample: gr.State,
    shown: Shown,
    seen: list[Any],
    drawn: list[Any],
    run: gr.Textbox,
) -> None:
    """What is answered at once: a text, changes to its routing, and another place looked at."""
    explorer, elsewhere = writing.explorer, Drawn(*drawn).elsewhere
    outputs = [*shown, *drawn]
    given = [asked.model, asked.text, sample, *seen, run]
    # Run again, while what follows the first answer is on its way, is no second click on the same.
    asked.run.click(explorer.on_route, given, outputs, js=_RUNS, **_IN_TURN, **EACH)
    looked = [*Looked(shown.view, shown.token, shown.load), *drawn]
    shown.grid.look(writing.on_look, seen, looked, **_IN_TURN, **LAST)
    for changes in (shown.panel.intervene, shown.answer.intervene):
        changes(explorer.on_intervene, seen, outputs, **_IN_TURN, **EACH)
    Drawn(*drawn).votes.measure(explorer.on_intervene, seen, outputs, **_IN_TURN, **LAST)
    elsewhere.ask(explorer.on_ask, seen[:1], [shown.view, elsewhere], **_IN_TURN, **LAST)
    elsewhere.force(explorer.on_force, seen, outputs, **_IN_TURN, **EACH)


def _connect_writing(
    writing: Writing,
    asked: _Text,
    shown: Shown,
    elsewhere: gr.HTML,
    begun: list[gr.Textbox],
    present: gr.State,
    drawing: dict[str, Any],
) -> None:
    """What a model writes appears as it comes: begun by the button, or by the choice of such a model."""
    several = {"concurrency_limit": WAITING, "concurrency_id": "writing", **EACH}
    steps = [*Step(**shown._asdict(), stop=asked.stop)]
    inputs = [asked.model, asked.text, present, *asked.decoding]
    begin, run = begun
    asked.generate.click(writing.on_write, [*inputs, run], steps, js=_RUNS, **several).then(**drawing)
    begin.change(writing.on_begin, [*inputs, begin], steps, **several).then(**drawing)
    for rewrites in (shown.panel.rewrite, shown.answer.rewrite, elsewhere.rewrite):
        rewrites(writing.on_rewrite, [present], steps, **several).then(**drawing)
    asked.stop.click(writing.on_stop, None, None, queue=False, **EACH)


def _connect_samples(
    picker: SamplePicker,
    asked: _Text,
    samples: _Samples,
    asks: list[Any],
    sampled: list[Any],
    drawing: dict[str, Any],
) -> None:
    model, source = asked.model, samples.source
    drawing_one = {"fn": picker.on_draw, "inputs": [model, source, asked.text, *asks], "outputs": sampled}
    asked.random.click(**drawing_one, js=ASKS, **LAST).then(**drawing)
    samples.table.pick(picker.on_pick, [model, source, *asks], sampled, js=ASKS, **EACH).then(**drawing)
    asked.browse.click(picker.sources, [model, source], [source], **LAST)
    asked.browse.click(picker.open_samples, [model, source, samples.query], [samples.panel, samples.table], **LAST)
    samples.close.click(close_samples, None, [samples.panel], **LAST)
    searching = {"fn": picker.search_samples, "inputs": [model, source, samples.query], "outputs": [samples.table]}
    # `change`, not `input`: a text pasted into a box that has just appeared sends no `input`.
    samples.query.change(**searching, **LAST)
    source.input(announce_source, [source], [samples.table], **LAST).then(**searching, **LAST)
