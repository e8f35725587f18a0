"""The Analyse tab: a whole data set through a model -> load, classes, experts, drops, errors, and texts to look at.

Try it: python app.py, then the tab “Analyse”
"""

from typing import Any

import gradio as gr

from train.data.table_file import UPLOAD_ENDINGS
from ui.analyse.handlers import (
    ANY_EXPERT,
    EMPTY,
    Analysis,
    Analyst,
    cell_texts,
    hits_csv,
    layer_view,
    search,
    summary,
    tables,
)
from ui.catalog.samples import DATASET_NAMES
from ui.explore.tab import ExploreTab
from ui.models.tab import PrivateModels
from ui.server.downloads import hand_over

_PICK = """
element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-row], [data-page], [data-true]");
  if (!hit) return;
  const numbers = Object.fromEntries(Object.entries(hit.dataset).map(([name, value]) => [name, Number(value)]));
  trigger("page" in numbers ? "turn" : "pick", numbers);
});
"""

_RELIANCE = (
    "The model anew on some of these rows: without its experts, and with the tokens sent to each other’s experts. "
    "What then stays as it was, its experts did not decide."
)
_SEARCH = "A word or phrase that is split into tokens is found where any of them went to the expert."


def create_analyse_tab(
    demo: gr.Blocks, analyst: Analyst, private: PrivateModels, tab: gr.Tab, pages: gr.Tabs, explore: ExploreTab
) -> None:
    """Lay the tab out and connect it.

    Args:
        private: knows the models that a visitor may use.
        pages: the page's tabs, to move to Explore.
        explore: what a text is opened in.
    """
    analysis = gr.State(None)
    sought = gr.State(None)  # What the hits on screen were searched with.
    plain = {"apply_default_css": False}
    bare = {"show_label": False, "container": False}
    small = {"filterable": False, "min_width": 140} | bare
    with gr.Column(elem_classes="card"):
        gr.HTML("<h2>Where a whole data set goes</h2>", **plain)
        with gr.Row(elem_classes="columns"):
            model = gr.Dropdown(
                analyst.shelf.classifiers(),
                value=analyst.shelf.default_classifier,
                label="Model",
                filterable=False,
                min_width=140,
                elem_id="analyse-model",
            )
            dataset = gr.Dropdown(
                ["toy", *DATASET_NAMES],
                value="ag_news",
                label="Data set",
                filterable=False,
                min_width=140,
                elem_id="analyse-data",
            )
            split = gr.Textbox(label="Split", placeholder="the one to report on", max_lines=1, min_width=140)
            limit = gr.Number(0, label="Rows (0 = all)", min_width=110, precision=0, minimum=0)
        with gr.Row(elem_classes="buttons"):
            go = gr.Button("Analyse", variant="primary", min_width=0, scale=0, elem_id="analyse")
            upload = gr.UploadButton(
                "Your own table…",
                file_types=UPLOAD_ENDINGS,
                min_width=0,
                scale=0,
                elem_id="analyse-upload",
            )
            cancel = gr.Button("Cancel", min_width=0, scale=0, visible=False, elem_id="analyse-cancel")
        progress = gr.HTML(EMPTY, elem_id="analyse-progress", **plain)
    with gr.Column(visible=False, elem_id="analysis") as shown:
        with gr.Column(elem_classes="card run-plots"):
            facts = gr.HTML("", **plain)
            layers = gr.HTML("", elem_id="layer-table", **plain)
            with gr.Row():
                with gr.Column(min_width=300):
                    gr.HTML("<h3>Load of every expert, as a multiple of an even share</h3>", **plain)
                    loads = _plot("all-loads")
                with gr.Column(min_width=300):
                    gr.HTML("<h3>Dropped tokens by position in the text</h3>", **plain)
                    drops = _plot("drops")
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>Do the experts matter?</h2>", **plain)
            gr.HTML(f'<p class="facts">{_RELIANCE}</p>', **plain)
            with gr.Row(elem_classes="buttons"):
                rely = gr.Button("Measure it", min_width=0, scale=0, elem_id="measure-reliance")
            reliance = gr.HTML("", elem_id="reliance", **plain)
        with gr.Column(elem_classes="card run-plots"):
            with gr.Row(elem_classes="card-head"):
                gr.HTML("<h2>One layer</h2>", **plain)
                layer = gr.Dropdown([], label="Layer", elem_id="analyse-layer", **small)
            told = gr.HTML("", elem_id="told", **plain)
            classes = _plot("class-lift")
            right = gr.HTML("", **plain)
            right_loads = _plot("right-wrong")
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card", min_width=300):
                with gr.Row(elem_classes="card-head"):
                    gr.HTML("<h2>One expert</h2>", **plain)
                    expert = gr.Dropdown([], label="Expert", elem_id="analyse-expert", **small)
                card = gr.HTML("", elem_id="expert-card", **plain)
                with gr.Row(elem_classes="buttons"):
                    measure = gr.Button("Measure its importance", min_width=0, scale=0, elem_id="measure-expert")
            with gr.Column(elem_classes="card", min_width=300):
                with gr.Row(elem_classes="card-head"):
                    gr.HTML("<h2>Search the routes</h2>", **plain)
                    sought_layer = gr.Dropdown([], label="Layer", elem_id="route-layer", **small)
                gr.HTML(f'<p class="facts">{_SEARCH}</p>', **plain)
                with gr.Row(elem_classes="search"):
                    word = gr.Textbox(
                        label="Word or phrase",
                        show_label=False,
                        container=False,
                        placeholder="a word or phrase",
                        elem_id="route-word",
                        scale=2,
                    )
                    wanted = gr.Dropdown([(ANY_EXPERT, -1)], value=-1, label="Expert", elem_id="route-expert", **small)
                with gr.Row(elem_classes="buttons"):
                    seek = gr.Button("Find", min_width=0, scale=0, elem_id="route-find")
                    export = gr.Button("All as CSV", min_width=0, scale=0, elem_id="route-export")
                hits = gr.HTML("", js_on_load=_PICK, elem_id="route-hits", **plain)
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>Right and wrong</h2>", **plain)
            matrix = gr.HTML("", js_on_load=_PICK, elem_id="confusion", **plain)
            texts = gr.HTML("", js_on_load=_PICK, elem_id="cell-texts", **plain)
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>Keep</h2>", **plain)
            with gr.Row(elem_classes="buttons"):
                save = gr.Button("Tables as parquet and CSV", min_width=0, scale=0, elem_id="save-tables")
            files = gr.File(
                visible=False, label="Tables", show_label=False, file_count="multiple", interactive=False,
                elem_id="analysis-files",
            )  # fmt: skip

    def open_text(analysis: Analysis | None, event: gr.EventData, request: gr.Request) -> tuple[Any, Any, Any]:
        index = int(event.row)
        if analysis is None or not 0 <= index < len(analysis.corpus.texts):
            raise gr.Error("That text is gone: analyse the data set again.", print_exception=False)
        if analysis.model not in dict(map(reversed, private.choices(request.session_hash))):
            raise gr.Error("You removed that model: analyse the data set with another one.", print_exception=False)
        return gr.Tabs(selected="explore"), analysis.model, analysis.corpus.texts[index]

    def refresh(chosen: str | None, request: gr.Request) -> Any:
        return private.offer(request.session_hash, chosen, classifiers=True)

    def leave(request: gr.Request) -> None:
        # Gradio keeps the state of who left for an hour; a routed data set is too large for that.
        if request.session_hash in demo.state_holder:
            demo.state_holder[request.session_hash][analysis._id] = None

    def open_cell(analysis: Analysis | None, event: gr.EventData) -> str:
        return cell_texts(analysis, int(event.true), int(event.predicted))

    def turn_cell(analysis: Analysis | None, event: gr.EventData) -> str:
        return cell_texts(analysis, int(event.true), int(event.predicted), int(event.page))

    def find_texts(analysis: Analysis | None, layer: str | None, expert: int, word: str) -> tuple[str, Any]:
        return search(analysis, layer, expert, word), (layer, expert, word)

    def turn_hits(analysis: Analysis | None, sought: tuple | None, event: gr.EventData) -> str:
        return search(analysis, *sought, int(event.page)) if sought else ""

    demo.unload(leave)
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    of_layer = [told, classes, right, right_loads, expert]
    inputs = [model, dataset, upload, split, limit]
    relying = rely.click(analyst.reliance, [analysis], [reliance], concurrency_limit=1, **quiet)
    for source in (go.click, upload.upload):
        cleaned = [cancel, hits, texts, reliance, analysis, shown, files]
        begun = source(_clean, None, cleaned, cancels=[relying], **quiet)
        running = begun.then(analyst.run, inputs, [analysis, progress], concurrency_limit=2, **quiet)
        # The upload was for this time: the next click takes the data set that the page names.
        done = running.then(lambda: (gr.update(visible=False), None), None, [cancel, upload], **quiet)
        pickers = [layer, sought_layer, wanted]
        drawn = done.then(summary, [analysis], [facts, layers, loads, drops, *pickers, matrix, shown], **quiet)
        drawn.then(layer_view, [analysis, layer], of_layer, **quiet).then(
            _card_of(analyst, False), [analysis, layer, expert], [card], **quiet
        )
        cancel.click(
            lambda: (gr.update(visible=False), '<p class="facts">Cancelled.</p>'),
            None,
            [cancel, progress],
            cancels=[running],
            **quiet,
        )
    dataset.input(lambda: None, None, [upload], **quiet)
    layer.input(layer_view, [analysis, layer], of_layer, **quiet).then(
        _card_of(analyst, False), [analysis, layer, expert], [card], **quiet
    )
    expert.input(_card_of(analyst, False), [analysis, layer, expert], [card], **quiet)
    measure.click(_card_of(analyst, True), [analysis, layer, expert], [card], **quiet)
    hand_over(export, hits_csv, [analysis, sought_layer, wanted, word], "routes")
    tab.select(refresh, [model], [model], **quiet)
    gr.on([seek.click, word.submit], find_texts, [analysis, sought_layer, wanted, word], [hits, sought], **quiet)
    hits.turn(turn_hits, [analysis, sought], [hits], **quiet)
    matrix.pick(open_cell, [analysis], [texts], **quiet)
    texts.turn(turn_cell, [analysis], [texts], **quiet)
    for picked in (hits.pick, texts.pick):
        opening = picked(open_text, [analysis], [pages, explore.model, explore.text], **quiet)
        opening.success(**explore.choosing, js="(...values) => (window.scrollTo(0, 0), values)").then(**explore.picture)
    save.click(tables, [analysis], [files], **quiet).then(lambda: gr.update(visible=True), None, [files], **quiet)


def _clean() -> tuple[Any, ...]:
    """(cancel button, hits, texts, reliance, analysis, what is shown, files): nothing of an earlier data set stays."""
    hidden = gr.update(visible=False)
    return gr.update(visible=True), "", "", "", None, hidden, gr.update(visible=False, value=None)


def _card_of(analyst: Analyst, measured: bool):
    def card(analysis: Analysis | None, layer: str | None, expert: int | None) -> str:
        return analyst.card(analysis, layer, expert, measured)

    return card


def _plot(name: str) -> gr.Plot:
    return gr.Plot(show_label=False, container=False, buttons=[], elem_id=name)
