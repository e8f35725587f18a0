"""The Analyse tab: a whole data set through a model -> load, classes, experts, drops, errors, and texts to look at.

Try it: python app.py, then the tab “Analyse”
"""

from typing import Any, NamedTuple

import gradio as gr

from train.data.table_file import UPLOAD_ENDINGS
from ui.analyse.analysis import Analysis
from ui.analyse.atlas import connect_atlas, create_atlas
from ui.analyse.handlers import (
    ANY_EXPERT,
    EMPTY,
    Analyst,
    LayerView,
    Summary,
    cell_texts,
    hits_csv,
    layer_view,
    search,
    summary,
    tables,
)
from ui.analyse.opening import FIRST_DATA, Asked, Opening
from ui.catalog.private_models import PrivateModels
from ui.components.events import EACH, LAST, ONCE
from ui.components.outputs import outputs
from ui.explore.present import Present
from ui.explore.tab import ASKS, ExploreTab
from ui.look.html import heading, quiet
from ui.server.downloads import hand_over
from ui.sharing.link import plain_link

_PICK = """
element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-row], [data-page], [data-true]");
  if (!hit) return;
  const numbers = Object.fromEntries(Object.entries(hit.dataset).map(([name, value]) => [name, Number(value)]));
  if ("row" in numbers) {
    document.querySelectorAll("#analyse-page .sample.opened").forEach((one) => one.classList.remove("opened"));
    hit.classList.add("opened");
  }
  trigger("page" in numbers ? "turn" : "pick", numbers);
});
"""

# To the text that was opened last.
_SCROLL_BACK = """() => {
  const opened = document.querySelector("#analyse-page .sample.opened");
  opened?.scrollIntoView({ block: "center" });
  opened?.focus({ preventScroll: true });
}"""
_RELIANCE = (
    "The model again on some of these rows: without its experts, and with tokens sent to each other’s experts. "
    "What stays the same was not decided by the experts. Where nothing passes by them (expert_residual 0), no model "
    "can do without its experts: there the shuffled choices tell more."
)
_SEARCH = "A word or phrase that is split into tokens is found where any of them went to the expert."


_PLAIN = {"apply_default_css": False}
_BARE = {"show_label": False, "container": False}
_BUTTON = {"min_width": 0, "scale": 0}
_PICKER = {"filterable": False, "min_width": 140}

# What of an earlier data set must not stay.
_Cleaned = outputs("_Cleaned", "cancel", "hits", "texts", "reliance", "atlas", "analysis", "shown", "files")


class _Choice(NamedTuple):
    """What is analysed, and how far it is."""

    model: gr.Dropdown
    dataset: gr.Dropdown
    split: gr.Textbox
    limit: gr.Number
    go: gr.Button
    upload: gr.UploadButton
    cancel: gr.Button
    progress: gr.HTML
    text_column: gr.Dropdown
    label_column: gr.Dropdown


class _Search(NamedTuple):
    """The search for texts by where their words went."""

    layer: gr.Dropdown
    word: gr.Textbox
    expert: gr.Dropdown
    find: gr.Button
    export: gr.Button
    hits: gr.HTML


class _Expert(NamedTuple):
    """The card of one expert."""

    picker: gr.Dropdown
    card: gr.HTML
    measure: gr.Button


def create_analyse_tab(
    demo: gr.Blocks, analyst: Analyst, private: PrivateModels, tab: gr.Tab, pages: gr.Tabs, explore: ExploreTab
) -> None:
    """Lay the tab out and connect it.

    Args:
        private: knows the models that a visitor may use.
        pages: the page's tabs, to move to Explore.
        explore: what a text is opened in.
    """
    analysis, asked_for = gr.State(None), gr.State()
    asked_for.value = lambda: Asked()  # Not the class: Gradio would make an endpoint of it.
    example = gr.Textbox(visible="hidden", elem_id="analyse-example")
    with gr.Column(elem_classes="card"):
        choice = _create_choice(analyst)
    with gr.Column(visible=False, elem_id="analysis") as shown:
        facts, layers, loads, drops, may_drop = _create_overview()
        atlas = create_atlas()
        rely, reliance = _create_reliance()
        layer, words, classes, right_words, right_loads = _create_layer()
        with gr.Row(elem_classes="pair"):
            with gr.Column(elem_classes="card", min_width=300):
                expert = _create_expert()
            with gr.Column(elem_classes="card", min_width=300):
                search_for = _create_search()
        with gr.Column(elem_classes="card"):
            gr.HTML(heading("Confusion matrix"), **_PLAIN)
            matrix = gr.HTML("", js_on_load=_PICK, elem_id="confusion", **_PLAIN)
            texts = gr.HTML("", js_on_load=_PICK, elem_id="cell-texts", **_PLAIN)
        save, files = _create_keep()

    summed = Summary(facts, layers, loads, drops, may_drop, layer, search_for.layer, search_for.expert, matrix, shown)
    of_layer = LayerView(words, classes, right_words, right_loads, expert.picker)
    draw_atlas, measuring = connect_atlas(analyst, atlas, analysis, layer, of_layer, expert.card)
    relying = rely.click(analyst.reliance, [analysis], [reliance], concurrency_limit=1, **ONCE)
    cleaned = _Cleaned(choice.cancel, search_for.hits, texts, reliance, atlas.table, analysis, shown, files)
    of_expert = {
        "fn": _card_of(analyst, False),
        "inputs": [analysis, layer, expert.picker],
        "outputs": [expert.card],
        **LAST,
    }
    looking = {"fn": layer_view, "inputs": [analysis, layer], "outputs": [*of_layer], **LAST}
    opened = [analysis, choice.progress, example]
    tab.select(Opening(analyst).look, [asked_for], opened, concurrency_limit=1, **LAST)
    whole = {"fn": summary, "inputs": [analysis], "outputs": [*summed], **LAST}
    asked = _connect_choice(analyst, choice, analysis, cleaned, [relying, measuring], asked_for)
    for shows in (example.change, *(done.then for done in asked)):
        shows(**whole).then(**looking).then(**of_expert).then(**draw_atlas)
    layer.input(**looking).then(**of_expert)
    expert.picker.input(**of_expert)
    expert.measure.click(**of_expert | {"fn": _card_of(analyst, True)})
    _connect_search(search_for, analysis)
    _connect_cells(matrix, texts, analysis)
    _connect_visitor(demo, private, tab, choice, analyst, analysis)
    _connect_explore(private, pages, explore, analysis, (search_for.hits, texts))
    save.click(tables, [analysis], [files], **LAST).then(lambda: gr.update(visible=True), None, [files], **LAST)


# -- layout -----------------------------------------------------------------------------------------------------------


def _create_choice(analyst: Analyst) -> _Choice:
    gr.HTML(heading("Analyse a data set"), **_PLAIN)
    with gr.Row(elem_classes="columns"):
        model = gr.Dropdown(
            analyst.shelf.choices(),
            value=analyst.shelf.default_classifier,
            label="Model",
            elem_id="analyse-model",
            **_PICKER,
        )
        dataset = gr.Dropdown(analyst.offer(), value=FIRST_DATA, label="Data set", elem_id="analyse-data", **_PICKER)
        split = gr.Textbox(label="Split", placeholder="default: test", max_lines=1, min_width=140)
        limit = gr.Number(0, label="Rows (0 = all)", min_width=110, precision=0, minimum=0)
        own = {"visible": False, "filterable": False, "min_width": 140}
        text_column = gr.Dropdown([], label="Column of texts", elem_id="analyse-texts", **own)
        label_column = gr.Dropdown([], label="Column of classes", elem_id="analyse-classes", **own)
    with gr.Row(elem_classes="buttons"):
        go = gr.Button("Analyse", variant="primary", elem_id="analyse", **_BUTTON)
        upload = gr.UploadButton("Your own table…", file_types=UPLOAD_ENDINGS, elem_id="analyse-upload", **_BUTTON)
        cancel = gr.Button("Cancel", visible=False, elem_id="analyse-cancel", **_BUTTON)
    progress = gr.HTML(EMPTY, elem_id="analyse-progress", **_PLAIN)
    return _Choice(model, dataset, split, limit, go, upload, cancel, progress, text_column, label_column)


def _create_overview() -> tuple[gr.HTML, gr.HTML, gr.Plot, gr.Plot, gr.Column]:
    """Facts, layers, loads, drops, and the column of drops."""
    with gr.Column(elem_classes="card run-plots"):
        facts = gr.HTML("", **_PLAIN)
        layers = gr.HTML("", elem_id="layer-table", **_PLAIN)
        with gr.Row():
            with gr.Column(min_width=300):
                gr.HTML(heading("Load of every expert, as a multiple of an even share", 3), **_PLAIN)
                loads = _plot("all-loads")
            with gr.Column(min_width=300) as may_drop:
                gr.HTML(heading("Dropped tokens by position in the text", 3), **_PLAIN)
                drops = _plot("drops")
    return facts, layers, loads, drops, may_drop


def _create_reliance() -> tuple[gr.Button, gr.HTML]:
    with gr.Column(elem_classes="card"):
        gr.HTML(heading("Do the experts matter?"), **_PLAIN)
        gr.HTML(quiet(_RELIANCE), **_PLAIN)
        with gr.Row(elem_classes="buttons"):
            rely = gr.Button("Measure it", elem_id="measure-reliance", **_BUTTON)
        return rely, gr.HTML("", elem_id="reliance", **_PLAIN)


def _create_layer() -> tuple[gr.Dropdown, gr.HTML, gr.Plot, gr.HTML, gr.Plot]:
    """The picker, and what is shown of its layer."""
    with gr.Column(elem_classes="card run-plots"):
        with gr.Row(elem_classes="card-head"):
            gr.HTML(heading("One layer"), **_PLAIN)
            layer = gr.Dropdown([], label="Layer", elem_id="analyse-layer", **_PICKER, **_BARE)
        words = gr.HTML("", elem_id="told", **_PLAIN)
        classes = _plot("class-lift")
        right = gr.HTML("", **_PLAIN)
        return layer, words, classes, right, _plot("right-wrong")


def _create_expert() -> _Expert:
    with gr.Row(elem_classes="card-head"):
        gr.HTML(heading("One expert"), **_PLAIN)
        picker = gr.Dropdown([], label="Expert", elem_id="analyse-expert", **_PICKER, **_BARE)
    card = gr.HTML("", elem_id="expert-card", **_PLAIN)
    with gr.Row(elem_classes="buttons"):
        return _Expert(picker, card, gr.Button("Measure its effect", elem_id="measure-expert", **_BUTTON))


def _create_search() -> _Search:
    with gr.Row(elem_classes="card-head"):
        gr.HTML(heading("Search the routes"), **_PLAIN)
        layer = gr.Dropdown([], label="Layer", elem_id="route-layer", **_PICKER, **_BARE)
    gr.HTML(quiet(_SEARCH), **_PLAIN)
    with gr.Row(elem_classes="search"):
        word = gr.Textbox(
            label="Word or phrase", placeholder="a word or phrase", elem_id="route-word", scale=2, **_BARE
        )
        expert = gr.Dropdown([(ANY_EXPERT, -1)], value=-1, label="Expert", elem_id="route-expert", **_PICKER, **_BARE)
    with gr.Row(elem_classes="buttons"):
        find = gr.Button("Find", elem_id="route-find", **_BUTTON)
        export = gr.Button("All as CSV", elem_id="route-export", **_BUTTON)
    return _Search(layer, word, expert, find, export, gr.HTML("", js_on_load=_PICK, elem_id="route-hits", **_PLAIN))


def _create_keep() -> tuple[gr.Button, gr.File]:
    with gr.Column(elem_classes="card"):
        gr.HTML(heading("Export"), **_PLAIN)
        with gr.Row(elem_classes="buttons"):
            save = gr.Button("Tables as parquet and CSV", elem_id="save-tables", **_BUTTON)
        files = gr.File(
            visible=False, label="Tables", show_label=False, file_count="multiple", interactive=False,
            elem_id="analysis-files",
        )  # fmt: skip
    return save, files


def _plot(name: str) -> gr.Plot:
    return gr.Plot(buttons=[], elem_id=name, **_BARE)


# -- events -----------------------------------------------------------------------------------------------------------


def _connect_choice(
    analyst: Analyst, choice: _Choice, analysis: gr.State, cleaned: Any, measuring: list[Any], asked_for: gr.State
) -> list[Any]:
    """Analyse and upload. Returns the events after which there is something to show."""
    columns = [choice.text_column, choice.label_column]
    inputs = [choice.model, choice.dataset, choice.upload, choice.split, choice.limit, *columns]
    hide, found = gr.update(visible=False), []
    for source, brings_table in ((choice.go.click, False), (choice.upload.upload, True)):
        begun = source(_clean, [asked_for], [*cleaned], cancels=measuring, **LAST)
        if brings_table:
            begun = begun.then(analyst.take, [choice.upload], [choice.dataset, *columns], **LAST)
        running = begun.then(analyst.run, inputs, [analysis, choice.progress], concurrency_limit=2, **LAST)
        found.append(running.then(lambda: hide, None, [choice.cancel], **LAST))
        choice.cancel.click(
            lambda: (hide, quiet("Cancelled.")),
            None,
            [choice.cancel, choice.progress],
            cancels=[running],
            **LAST,
        )
    choice.dataset.input(analyst.leave, [choice.dataset, choice.upload], [choice.upload, *columns], **LAST)
    return found


def _connect_search(card: _Search, analysis: gr.State) -> None:
    sought = gr.State(None)  # What the hits on screen were searched with.
    wanted = [analysis, card.layer, card.expert, card.word]

    def find_texts(analysis: Analysis | None, layer: str | None, expert: int, word: str) -> tuple[str, Any]:
        return search(analysis, layer, expert, word), (layer, expert, word)

    def turn_hits(analysis: Analysis | None, sought: tuple | None, event: gr.EventData) -> str:
        return search(analysis, *sought, int(event.page)) if sought else ""

    hand_over(card.export, hits_csv, wanted, "routes")
    gr.on([card.find.click, card.word.submit], find_texts, wanted, [card.hits, sought], **LAST)
    card.hits.turn(turn_hits, [analysis, sought], [card.hits], **EACH)


def _connect_cells(matrix: gr.HTML, texts: gr.HTML, analysis: gr.State) -> None:
    def open_cell(analysis: Analysis | None, event: gr.EventData) -> str:
        return cell_texts(analysis, int(event.true), int(event.predicted))

    def turn_cell(analysis: Analysis | None, event: gr.EventData) -> str:
        return cell_texts(analysis, int(event.true), int(event.predicted), int(event.page))

    matrix.pick(open_cell, [analysis], [texts], **EACH)
    texts.turn(turn_cell, [analysis], [texts], **EACH)


def _connect_visitor(
    demo: gr.Blocks, private: PrivateModels, tab: gr.Tab, choice: _Choice, analyst: Analyst, analysis: gr.State
) -> None:
    """The visitor's own models are offered, and what they leave behind goes."""

    def refresh(chosen: str | None, upload: Any, request: gr.Request) -> tuple[Any, Any]:
        offered = private.offer(request.session_hash, chosen)
        return offered, gr.update(choices=analyst.offer(upload))

    def leave(request: gr.Request) -> None:
        # Gradio keeps the state of who left for an hour; a routed data set is too large for that.
        if request.session_hash in demo.state_holder:
            demo.state_holder[request.session_hash][analysis._id] = None

    tab.select(refresh, [choice.model, choice.upload], [choice.model, choice.dataset], **LAST)
    demo.unload(leave)


def _connect_explore(
    private: PrivateModels, pages: gr.Tabs, explore: ExploreTab, analysis: gr.State, lists: tuple[gr.HTML, ...]
) -> None:
    """A text of a list opens in Explore, at the token that was searched for, and a button there leads back to it."""

    def open_text(
        analysis: Analysis | None, present: Present, run: str, event: gr.EventData, request: gr.Request
    ) -> Any:
        index = int(event.row)
        if analysis is None or not 0 <= index < len(analysis.corpus.texts):
            raise gr.Error("That text is gone: analyse the data set again.", print_exception=False)
        if analysis.model not in dict(map(reversed, private.choices(request.session_hash))):
            raise gr.Error("You removed that model: analyse the data set with another one.", print_exception=False)
        place = {name: int(event._data[name]) for name in ("token", "layer") if name in event._data}
        corpus = analysis.corpus
        label = corpus.classes[corpus.true[index]] if corpus.true[index] >= 0 and corpus.classified else None
        link = plain_link(analysis.model, corpus.texts[index], label, **place)
        restored = explore.restoring["fn"](link, present, run)
        return gr.Tabs(selected="explore"), gr.update(visible=True), *restored

    for listed in lists:
        outputs = [pages, explore.back, *explore.restoring["outputs"]]
        opening = listed.pick(open_text, [analysis, explore.present, explore.run], outputs, js=ASKS, **EACH)
        opening.success(None, None, None, js="() => window.scrollTo(0, 0)", **LAST).then(**explore.drawing)
    # What was found is still there: nothing is worked out again.
    leaving = explore.back.click(_leave, None, [pages, explore.back], **LAST)
    leaving.then(None, None, None, js=_SCROLL_BACK, **LAST)


def _leave() -> tuple[Any, Any]:
    return gr.Tabs(selected="analyse"), gr.update(visible=False)


def _clean(asked: Asked) -> Any:
    asked.begun = True
    hidden = gr.update(visible=False)
    return _Cleaned(gr.update(visible=True), "", "", "", "", None, hidden, gr.update(visible=False, value=None))


def _card_of(analyst: Analyst, measured: bool):
    def card(analysis: Analysis | None, layer: str | None, expert: int | None) -> str:
        return analyst.card(analysis, layer, expert, measured)

    return card
