"""The Analyse tab: a whole data set through a model -> load, classes, experts, drops, errors, and texts to look at.

A routed data set stays with the visitor who asked for it (gr.State). Handlers are plain functions of it.
Try it: python app.py, then the tab “Analyse”
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from switch_model import CheckpointError
from switch_model.corpus import Corpus, route_in_steps
from switch_model.counterfactuals import mean_importance
from switch_model.routing import layer_title
from switch_model.specialization import THIN_TEXTS, Context, find
from ui.explore import ExploreTab
from ui.files import fresh_path, hand_over
from ui.models import ModelShelf
from ui.models_tab import Reception
from ui.samples import DATASET_NAMES
from ui.workshop import Workshop

# Rows that a public page analyses for one visitor.
PUBLIC_ROWS = 2000
# Texts in a list that a person still reads.
SHOWN_TEXTS, SHOWN_CHARACTERS = 50, 240
IMPORTANCE_TEXTS = 32
_ANY = "any expert"
_EMPTY = '<p class="facts">Choose a data set, or upload a table with a column of texts, and analyse it.</p>'


@dataclass(frozen=True)
class Analysis:
    """What one visitor analysed: a routed data set, the model's key, and what could not be used of the data."""

    corpus: Corpus
    model: str
    title: str
    note: str


class Analyst:
    """The handlers of the tab that need the models or the disk."""

    def __init__(self, shelf: ModelShelf, workshop: Workshop):
        self.shelf, self.workshop = shelf, workshop

    def run(self, model: str | None, dataset: str, upload: Any, split: str, limit: float) -> Iterator[tuple[Any, Any]]:
        """Route the data: (analysis, how far it is) again and again; the last one holds the analysis."""
        from train.analyze import rows_to_analyze
        from train.tables import DataError

        source = str(getattr(upload, "name", upload) or "") or dataset
        yield gr.skip(), _bar(0, 1, f"Reading {escape(Path(source).name)} …")
        try:
            predictor = self.shelf.load(model).predictor
            most = PUBLIC_ROWS if self.workshop.caps else None
            rows = min(filter(None, (int(limit or 0), most)), default=None)
            chosen = split.strip() if split and split.strip() and source == dataset else None
            found = rows_to_analyze(
                predictor.model.config.labels, source, chosen, data_dir=self.workshop.data_dir, num_samples=rows
            )
            steps = route_in_steps(predictor, found.texts, found.true)
            while True:
                try:
                    done, total = next(steps)
                except StopIteration as end:
                    corpus = end.value
                    break
                yield gr.skip(), _bar(done, total, f"{done:,} of {total:,} texts")
        except (CheckpointError, DataError, ValueError) as error:
            said = str(error).replace(source, Path(source).name)
            yield gr.skip(), f'<p class="notice" role="alert">{escape(said)}</p>'
            return
        capped = f" A public page takes {most:,} rows at most." if most and len(corpus.texts) >= most else ""
        if len(corpus.texts) < THIN_TEXTS:
            capped += f" {len(corpus.texts)} texts are few: read nothing into what follows."
        title = f"{self.shelf.load(model).title} on {Path(source).name}"
        yield Analysis(corpus, model, title, found.note + capped), ""

    def card(self, analysis: Analysis | None, layer: str | None, expert: int | None, measured: bool) -> str:
        """An expert's card; `measured` = with its importance, which takes a moment."""
        if analysis is None or layer is None or expert is None:
            return ""
        from train.corpus_report import expert_card

        corpus, importance = analysis.corpus, None
        if measured:
            try:
                predictor = self.shelf.load(analysis.model).predictor
                texts = corpus.texts[:: max(len(corpus.texts) // IMPORTANCE_TEXTS, 1)][:IMPORTANCE_TEXTS]
                importance = mean_importance(predictor, texts, layer, expert)
            except (CheckpointError, ValueError) as error:
                return f'<p class="notice" role="alert">{escape(str(error))}</p>'
        return expert_card(corpus, layer, expert, importance)


def summary(analysis: Analysis | None) -> tuple[Any, ...]:
    """(facts, table of layers, loads, drops, layer picker, confusion matrix, what is shown at all)."""
    if analysis is None:
        return (gr.skip(),) * 6 + (gr.update(visible=False),)
    from switch_model.corpus_plots import drops_by_position, layer_loads
    from train.corpus_report import facts_in_words, layer_table

    corpus = analysis.corpus
    facts = f"<h2>{escape(analysis.title)}</h2><p class=facts>{facts_in_words(corpus)} {escape(analysis.note)}</p>"
    layers = [(layer_title(name), name) for name in corpus.layers]
    return (
        facts,
        f'<div class="run-diff">{layer_table(corpus)}</div>',
        layer_loads(corpus),
        drops_by_position(corpus),
        gr.update(choices=layers, value=layers[0][1]),
        confusion_html(corpus),
        gr.update(visible=True),
    )


def layer_view(analysis: Analysis | None, layer: str | None) -> tuple[Any, ...]:
    """(sentence, lift of classes, sentence on right and wrong, their loads, expert picker, expert to search for)."""
    if analysis is None or layer not in analysis.corpus.layers:
        return (gr.skip(),) * 6
    from switch_model.corpus_plots import class_lift, right_and_wrong_loads
    from train.corpus_report import information_in_words, right_wrong_in_words

    corpus = analysis.corpus
    said, loads = right_wrong_in_words(corpus, layer)
    experts = [(f"expert {expert}", expert) for expert in range(corpus.num_experts)]
    busiest = max(range(corpus.num_experts), key=corpus.measures[corpus.layer_index(layer)]["load"].__getitem__)
    return (
        f'<p class="facts">{information_in_words(corpus, layer)}</p>',
        class_lift(corpus, layer),
        f'<p class="facts">{escape(said)}</p>',
        None if loads is None else right_and_wrong_loads(loads),
        gr.update(choices=experts, value=busiest),
        gr.update(choices=[(_ANY, -1), *experts], value=-1),
    )


def search(analysis: Analysis | None, layer: str | None, expert: int, word: str) -> str:
    """Texts in which a word went to an expert."""
    if analysis is None or layer is None:
        return ""
    corpus = analysis.corpus
    if expert in (None, -1) and not (word or "").strip():
        return '<p class="message" role="status">Name a word or an expert.</p>'
    places = find(corpus, layer, None if expert in (None, -1) else expert, word or "")
    first: dict[int, Context] = {}
    for place in places:
        first.setdefault(place.text, place)
    if not first:
        return '<p class="message" role="status">No text matches. Tokens are the model’s: try another word.</p>'
    said = f"{len(places):,} places in {len(first):,} texts" + _cut(len(first))
    rows = "".join(
        _row(index, escape(corpus.classes[corpus.predicted[index]]), _marked(place))
        for index, place in list(first.items())[:SHOWN_TEXTS]
    )
    return f'<p class="facts" role="status">{said}</p><div class="samples">{rows}</div>'


def cell_texts(analysis: Analysis | None, true: int, predicted: int) -> str:
    """The texts of one cell of the confusion matrix, the surest first."""
    if analysis is None:
        return ""
    corpus = analysis.corpus
    size = len(corpus.classes)
    if not (0 <= true < size and 0 <= predicted < size):  # A browser may send anything.
        return ""
    inside = ((corpus.true == true) & (corpus.predicted == predicted)).nonzero()[0]
    inside = sorted(inside.tolist(), key=lambda index: -corpus.probability[index])
    names = escape(corpus.classes[true]), escape(corpus.classes[predicted])
    said = f"{len(inside):,} texts of {names[0]} predicted as {names[1]}" + _cut(len(inside))
    rows = "".join(
        _row(index, f"{corpus.probability[index]:.0%}", escape(corpus.texts[index][:SHOWN_CHARACTERS]))
        for index in inside[:SHOWN_TEXTS]
    )
    return f'<p class="facts" role="status">{said}</p><div class="samples">{rows}</div>'


def confusion_html(corpus: Corpus) -> str:
    """The confusion matrix as buttons."""
    from train.corpus_report import MAX_MATRIX, confusion

    matrix = confusion(corpus)
    if matrix is None:
        return '<p class="facts">The true classes are unknown: there are no errors to show.</p>'
    if len(matrix) > MAX_MATRIX:
        return f'<p class="facts">{len(matrix)} classes are more than a matrix can show.</p>'
    most = max(int(matrix.max()), 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in corpus.classes)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(
            f'<td><button type="button" data-true="{i}" data-predicted="{j}" {"disabled" if not count else ""} '
            f'style="background:rgba(64,120,176,{0.7 * count / most:.2f})">{count:,}</button></td>'
            for j, count in enumerate(row)
        )
        + "</tr>"
        for i, (name, row) in enumerate(zip(corpus.classes, matrix.tolist(), strict=True))
    )
    return (
        '<p class="facts">A row per true class, a column per predicted one. Click a number to see its texts.</p>'
        f'<div class="run-diff"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def tables(analysis: Analysis | None) -> list[str]:
    """tokens.parquet, texts.parquet and texts.csv."""
    if analysis is None:
        raise gr.Error("Analyse a data set first.", print_exception=False)
    import pyarrow as pa
    import pyarrow.csv

    from train.analyze import write_tables

    folder = fresh_path("tokens.parquet").parent
    paths = write_tables(analysis.corpus, folder)
    pa.csv.write_csv(pa.table(analysis.corpus.texts_table()), folder / "texts.csv")
    return [*map(str, paths), str(folder / "texts.csv")]


def _bar(done: int, total: int, said: str) -> str:
    share = 100 * done / max(total, 1)
    return (
        '<div class="run-bar at-work" role="progressbar" aria-label="texts done" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{share:.0f}"><u style="width:{share:.1f}%"></u></div><p class="facts" role="status">{said}</p>'
    )


def _row(index: int, head: str, words: str) -> str:
    return (
        f'<button type="button" class="sample" data-row="{index}"><b>{head}</b><span dir="auto">{words}</span></button>'
    )


def _marked(place: Context) -> str:
    return f"{escape(place.before)}<mark>{escape(place.token)}</mark>{escape(place.after)}"


def _cut(count: int) -> str:
    return f" · the first {SHOWN_TEXTS} are shown" if count > SHOWN_TEXTS else ""


# -- layout -----------------------------------------------------------------------------------------------------------

_PICK = """
element.addEventListener("click", (event) => {
  const row = event.target.closest("[data-row]"), cell = event.target.closest("[data-true]");
  if (row) trigger("pick", { row: Number(row.dataset.row) });
  if (cell) trigger("pick", { true: Number(cell.dataset.true), predicted: Number(cell.dataset.predicted) });
});
"""


def hits_csv(analysis: Analysis | None, layer: str | None, expert: int, word: str) -> str:
    """All places of a search as a file: text, what stands before and after the token, classes. Raises gr.Error."""
    if analysis is None or layer is None:
        raise gr.Error("Analyse a data set first.", print_exception=False)
    corpus, path = analysis.corpus, fresh_path("routes.csv")
    classes = [*corpus.classes, ""]  # The last one stands for -1, unknown.
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "before", "token", "after", "true", "predicted"])
        for place in find(corpus, layer, None if expert in (None, -1) else expert, word or ""):
            true, predicted = classes[corpus.true[place.text]], classes[corpus.predicted[place.text]]
            writer.writerow([place.text, place.before, place.token, place.after, true, predicted])
    return str(path)


def create_analyse_tab(
    analyst: Analyst, reception: Reception, tab: gr.Tab, pages: gr.Tabs, explore: ExploreTab
) -> None:
    """Lay the tab out and connect it.

    Args:
        reception: knows the models that a visitor may use.
        pages: the page's tabs, to move to Explore.
        explore: what a text is opened in.
    """
    analysis = gr.State(None)
    plain = {"apply_default_css": False}
    bare = {"show_label": False, "container": False}
    small = {"filterable": False, "min_width": 140} | bare
    with gr.Column(elem_classes="card"):
        gr.HTML("<h2>Where a whole data set goes</h2>", **plain)
        with gr.Row(elem_classes="columns"):
            model = gr.Dropdown(
                analyst.shelf.choices(),
                value=analyst.shelf.default,
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
                file_types=[".csv", ".tsv", ".jsonl", ".json", ".parquet"],
                min_width=0,
                scale=0,
                elem_id="analyse-upload",
            )
            cancel = gr.Button("Cancel", min_width=0, scale=0, visible=False, elem_id="analyse-cancel")
        progress = gr.HTML(_EMPTY, elem_id="analyse-progress", **plain)
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
                gr.HTML("<h2>Search the routes</h2>", **plain)
                with gr.Row(elem_classes="search"):
                    word = gr.Textbox(
                        label="Word",
                        show_label=False,
                        container=False,
                        placeholder="a word",
                        elem_id="route-word",
                        scale=2,
                    )
                    wanted = gr.Dropdown([(_ANY, -1)], value=-1, label="Expert", elem_id="route-expert", **small)
                with gr.Row(elem_classes="buttons"):
                    seek = gr.Button("Find", min_width=0, scale=0, elem_id="route-find")
                    export = gr.Button("All as CSV", min_width=0, scale=0, elem_id="route-export")
                hits = gr.HTML("", js_on_load=_PICK, elem_id="route-hits", **plain)
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>Right and wrong</h2>", **plain)
            matrix = gr.HTML("", js_on_load=_PICK, elem_id="confusion", **plain)
            texts = gr.HTML("", js_on_load=_PICK, elem_id="cell-texts", **plain)
        with gr.Row(elem_classes="buttons"):
            save = gr.Button("Tables as parquet and CSV", min_width=0, scale=0, elem_id="save-tables")
        files = gr.File(visible=False, label="Tables", file_count="multiple", elem_id="analysis-files")

    def open_text(analysis: Analysis | None, event: gr.EventData) -> tuple[Any, Any, Any]:
        index = int(event.row)
        if analysis is None or not 0 <= index < len(analysis.corpus.texts):
            raise gr.Error("That text is gone: analyse the data set again.", print_exception=False)
        return gr.Tabs(selected="explore"), analysis.model, analysis.corpus.texts[index]

    def refresh(request: gr.Request) -> Any:
        return gr.update(choices=reception.choices(request.session_hash))

    def open_cell(analysis: Analysis | None, event: gr.EventData) -> str:
        return cell_texts(analysis, int(event.true), int(event.predicted))

    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    of_layer = [told, classes, right, right_loads, expert, wanted]
    inputs = [model, dataset, upload, split, limit]
    for source in (go.click, upload.upload):
        begun = source(_clean, None, [cancel, hits, texts, analysis, shown, files], **quiet)
        running = begun.then(analyst.run, inputs, [analysis, progress], concurrency_limit=2, **quiet)
        # The upload was for this time: the next click takes the data set that the page names.
        done = running.then(lambda: (gr.update(visible=False), None), None, [cancel, upload], **quiet)
        drawn = done.then(summary, [analysis], [facts, layers, loads, drops, layer, matrix, shown], **quiet)
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
    hand_over(export, hits_csv, [analysis, layer, wanted, word], "routes")
    tab.select(refresh, None, [model], **quiet)
    gr.on([seek.click, word.submit], search, [analysis, layer, wanted, word], [hits], **quiet)
    matrix.pick(open_cell, [analysis], [texts], **quiet)
    for picked in (hits.pick, texts.pick):
        opening = picked(open_text, [analysis], [pages, explore.model, explore.text], **quiet)
        opening.success(**explore.choosing, js="(...values) => (window.scrollTo(0, 0), values)").then(**explore.picture)
    save.click(tables, [analysis], [files], **quiet).then(lambda: gr.update(visible=True), None, [files], **quiet)


def _clean() -> tuple[Any, ...]:
    """(cancel button, hits, texts, analysis, what is shown of it, files): nothing of an earlier data set stays."""
    hidden = gr.update(visible=False)
    return gr.update(visible=True), "", "", None, hidden, gr.update(visible=False, value=None)


def _card_of(analyst: Analyst, measured: bool):
    def card(analysis: Analysis | None, layer: str | None, expert: int | None) -> str:
        return analyst.card(analysis, layer, expert, measured)

    return card


def _plot(name: str) -> gr.Plot:
    return gr.Plot(show_label=False, container=False, buttons=[], elem_id=name)
