"""The handlers of the Analyse tab: a whole data set through a model, and what is shown of it.

A routed data set stays with the visitor who asked for it; all but `Analyst` are plain functions of it.
Try it: [*Analyst(shelf, workspace).run("ag_news", "toy", None, "", 100)][-1]
"""

import csv
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model import CheckpointError
from switch_model.analysis.corpus import ENCODER_ALONE, Corpus, route_in_steps
from switch_model.analysis.specialization import THIN_TEXTS, Context, find, most_telling, token_of
from switch_model.grid.layer_names import layer_title
from train.definitions import header
from train.formatting import counted, percent
from ui.analyse.analysis import Analysis, progress_of, steps_shown
from ui.analyse.table_columns import columns_of_table, read_from_columns
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import ModelShelf
from ui.catalog.reach import DataReach
from ui.catalog.samples import DATASET_NAMES
from ui.components.outputs import outputs
from ui.look.html import heading, message, notice, piece, quiet, render
from ui.look.page_words import page_words
from ui.server.downloads import fresh_path
from ui.server.workspace import Workspace

# Rows that a public page analyses for one visitor.
PUBLIC_ROWS = 2000
# Rows that such a page measures reliance on.
PUBLIC_RELIANCE = 64
# Tokens of all passes that measure what experts do there.
PUBLIC_TOKENS = 300_000
# Texts on a page of a list, and of each its beginning.
PAGE_TEXTS, SHOWN_CHARACTERS = 50, 240
# Routed data sets that a public page holds at once, of all visitors.
MAX_HELD = 24
ANY_EXPERT = "any expert"
NO_CLASSES = "no classes"
NO_SOURCES = "These texts have no classes and no named sources that an expert could tell of."
# A visitor's own table, in the picker of data sets.
UPLOADED = "uploaded"
FULL = "Too many visitors have a data set open just now. Try again in some minutes."
EMPTY = quiet("Choose a data set, or upload a table with a column of texts, and analyse it.")


class Analyst:
    """The handlers of the tab that need the models or the disk."""

    def __init__(self, shelf: ModelShelf, workspace: Workspace):
        self.shelf, self.workspace = shelf, workspace
        self.reach = DataReach(workspace.data_dir)
        # Only counted here: each lives as long as its visitor's state holds it.
        self._held: weakref.WeakSet[Analysis] = weakref.WeakSet()

    def offer(self, upload: Any = None) -> list[tuple[str, str]]:
        """(title, name) of the data sets on offer, a visitor's own table first, what can't be reached last."""
        own = [(Path(_path(upload)).name, UPLOADED)] if upload else []
        return [*own, *self.reach.choices((*DATASET_NAMES[:2], "toy", *DATASET_NAMES[2:], "tiny_stories", "en_hi"))]

    def leave(self, dataset: str, upload: Any) -> tuple[Any, Any, Any]:
        """(the upload, pickers of columns): another data set than a visitor's own table leaves them behind."""
        if dataset == UPLOADED:
            return gr.skip(), gr.skip(), gr.skip()
        return None, gr.update(visible=False), gr.update(visible=False)

    def take(self, upload: Any) -> tuple[Any, Any, Any]:
        """(picker of data sets, pickers of columns) for a table of a visitor's own, with the columns chosen that it is
        read with: where names leave a doubt, the one with the longest texts."""
        names, texts, label, _ = columns_of_table(_path(upload))
        return (
            gr.update(choices=self.offer(upload), value=UPLOADED),
            gr.update(choices=list(dict.fromkeys([*names, *([texts] if texts else [])])), value=texts, visible=True),
            gr.update(choices=[(NO_CLASSES, ""), *((name, name) for name in names)], value=label or "", visible=True),
        )

    def run(
        self,
        model: str | None,
        dataset: str,
        upload: Any,
        split: str,
        limit: float,
        text_column: str | None = None,
        label_column: str | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Route the data: (analysis, how far it is) again and again; the last one holds the analysis.

        Args:
            upload: a table of the visitor's own, which goes before the data set.
            text_column, label_column: of such a table.
        """
        from train.analysis.analyze import rows_to_analyze, with_tokenless
        from train.data.errors import DataError
        from train.data.source import DataSource
        from train.data.table_file import check_unpacked_size

        if self.workspace.limits and len(self._held) >= MAX_HELD:
            yield gr.skip(), notice(FULL)
            return
        source = _path(upload) or dataset
        yield gr.skip(), progress_of(0, 1, f"Reading {Path(source).name} …")
        try:
            if self.workspace.limits and source != dataset:
                check_unpacked_size(Path(source), self.workspace.limits.unpacked)
            loaded = self.shelf.load(model)
            pipeline, labels = loaded.pipeline, loaded.labels if loaded.kind is CLASSIFIER else []
            most = PUBLIC_ROWS if self.workspace.limits else None
            rows = min(filter(None, (int(limit or 0), most)), default=None)
            chosen = split.strip() if split and split.strip() and source == dataset else None
            read = DataSource(source, self.workspace.data_dir, split=chosen)
            if source != dataset:
                read = replace(read, text_column=text_column or None, label_column=label_column or None)
            found = rows_to_analyze(labels, read, num_samples=rows)
            steps = route_in_steps(pipeline, found.texts, found.true, found.classes)
            while True:
                try:
                    done, total = next(steps)
                except StopIteration as end:
                    corpus = end.value
                    break
                yield gr.skip(), progress_of(done, total, f"{done:,} of {total:,} texts")
        except (CheckpointError, DataError, ValueError) as error:
            self.reach.failed(source, error)
            yield gr.skip(), notice(page_words(error, source))
            return
        capped = f" A public page reads at most {most:,} rows." if most and len(corpus.texts) >= most else ""
        if len(corpus.texts) < THIN_TEXTS:
            capped += f" Fewer than {THIN_TEXTS} texts are too few for conclusions."
        if pipeline.model.config.is_encoder_decoder:
            capped += f" {ENCODER_ALONE}"
        title = f"{loaded.title} on {Path(source).name}"
        read_from = "" if source == dataset else read_from_columns(source, text_column, label_column)
        analysis = Analysis(corpus, model, title, read_from + with_tokenless(found, corpus).note + capped)
        self._held.add(analysis)
        yield analysis, ""

    def reliance(self, analysis: Analysis | None) -> Iterator[str]:
        """How far it is, again and again, and then what became of the model without its experts."""
        if analysis is None:
            return
        from switch_model.analysis.reliance import ROWS, reliance_in_steps
        from train.evaluation.measured_rows import rows_of
        from train.evaluation.reliance import PASSES, drawn, html

        try:
            pipeline = self.shelf.load(analysis.model).pipeline
            rows = drawn(rows_of(analysis.corpus, pipeline), PUBLIC_RELIANCE if self.workspace.limits else ROWS)
            found = yield from steps_shown(reliance_in_steps(pipeline.model, rows), *PASSES)
            yield html(found)
        except (CheckpointError, ValueError) as error:
            yield notice(page_words(error))

    def card(self, analysis: Analysis | None, layer: str | None, expert: int | None, measured: bool) -> str:
        """An expert's card; `measured` = with its effect, which takes a moment."""
        if analysis is None or layer is None or expert is None:
            return ""
        from switch_model.analysis.effects import TEXTS, expert_effects
        from train.analysis.report import expert_card
        from train.evaluation.measured_rows import rows_of
        from train.evaluation.reliance import drawn

        if measured and (layer, expert) not in analysis.effects:
            try:
                pipeline = self.shelf.load(analysis.model).pipeline
                rows = drawn(rows_of(analysis.corpus, pipeline), TEXTS)
                analysis.effects.update(expert_effects(pipeline.model, rows, [(layer, expert)]))
            except (CheckpointError, ValueError) as error:
                return notice(page_words(error))
        return expert_card(analysis.corpus, layer, expert, analysis.atlas.entry(layer, expert))


# What is shown of a routed data set: facts, a row per layer, loads, drops and whether there can be any, pickers of a
# layer, of a layer and an expert to search for, the confusion matrix, and whether anything is shown at all.
Summary = outputs(
    "Summary",
    "facts",
    "layers",
    "loads",
    "drops",
    "may_drop",
    "layer",
    "sought_layer",
    "sought_expert",
    "matrix",
    "shown",
)
# What is shown of one layer: words, classes, words on right and wrong, their loads, the picker of an expert.
LayerView = outputs("LayerView", "words", "classes", "right_words", "right_loads", "expert")


def summary(analysis: Analysis | None) -> Summary:
    """What is shown of the whole data set."""
    if analysis is None:
        return Summary(shown=gr.update(visible=False))
    from switch_model.plots.corpus import drops_by_position, layer_loads
    from train.analysis.report import facts_in_words, layer_table

    corpus = analysis.corpus
    layers = [(layer_title(name), name) for name in corpus.layers]
    first = most_telling(analysis.told) if analysis.told else corpus.layers[0]
    return Summary(
        facts=heading(analysis.title) + quiet(f"{facts_in_words(corpus)} {analysis.note}"),
        layers=piece("wide", layer_table(corpus, analysis.told)),
        loads=layer_loads(corpus),
        drops=drops_by_position(corpus) if corpus.may_drop else None,
        may_drop=gr.update(visible=corpus.may_drop),
        # Two updates: Gradio takes each one apart.
        layer=gr.update(choices=layers, value=first),
        sought_layer=gr.update(choices=layers, value=first),
        sought_expert=gr.update(choices=[(ANY_EXPERT, -1), *_experts(corpus)], value=-1),
        matrix=confusion_html(corpus),
        shown=gr.update(visible=True),
    )


def layer_view(analysis: Analysis | None, layer: str | None) -> LayerView:
    """What is shown of one layer."""
    if analysis is None or layer not in analysis.corpus.layers:
        return LayerView()
    from switch_model.plots.corpus import class_lift, right_and_wrong_loads
    from train.analysis.report import information_in_words, right_wrong_in_words

    corpus = analysis.corpus
    said, loads = right_wrong_in_words(corpus, layer)
    busiest = max(range(corpus.num_experts), key=corpus.measures[corpus.layer_index(layer)]["load"].__getitem__)
    return LayerView(
        words=quiet(information_in_words(corpus, layer, analysis.told) or NO_SOURCES),
        classes=class_lift(corpus, layer) if corpus.classes else None,
        right_words=quiet(said),
        right_loads=None if loads is None else right_and_wrong_loads(loads),
        expert=gr.update(choices=_experts(corpus), value=busiest),
    )


def _path(upload: Any) -> str:
    return str(getattr(upload, "name", upload) or "")


def _experts(corpus: Corpus) -> list[tuple[str, int]]:
    return [(f"expert {expert}", expert) for expert in range(corpus.num_experts)]


def search(analysis: Analysis | None, layer: str | None, expert: int, word: str, page: int = 0) -> str:
    """Texts in which a word or phrase went to an expert, a page of them."""
    if analysis is None or layer is None:
        return ""
    corpus = analysis.corpus
    if expert in (None, -1) and not (word or "").strip():
        return message("Type a word, or choose an expert.")
    expert = None if expert in (None, -1) else expert
    places = find(corpus, layer, expert, word or "")
    first: dict[int, Context] = {}
    for place in places:
        first.setdefault(place.text, place)
    if not first:
        return message("No text matches: try another word, or any expert.")
    said = f"{counted(len(places), 'place')} in {counted(len(first), 'text')}, {layer_title(layer)}"
    found, page = list(first.items()), _page_within(page, len(first))
    number, classes = corpus.layer_index(layer), [*corpus.classes, ""]  # The last one stands for -1, unknown.
    rows = [
        {
            "index": index,
            "head": classes[corpus.labels[index] if corpus.predicted[index] < 0 else corpus.predicted[index]],
            "place": place,
            "token": token_of(corpus, layer, expert, place),
            "layer": number,
        }
        for index, place in found[page * PAGE_TEXTS : (page + 1) * PAGE_TEXTS]
    ]
    return _listed(said, rows, page, len(found))


def cell_texts(analysis: Analysis | None, true: int, predicted: int, page: int = 0) -> str:
    """The texts of one cell of the confusion matrix, the surest first, a page of them."""
    if analysis is None:
        return ""
    corpus = analysis.corpus
    size = len(corpus.classes)
    if not (0 <= true < size and 0 <= predicted < size):  # A browser may send anything.
        return ""
    inside = ((corpus.true == true) & (corpus.predicted == predicted)).nonzero()[0]
    inside = sorted(inside.tolist(), key=lambda index: -corpus.probability[index])
    said = f"{len(inside):,} texts of {corpus.classes[true]} predicted as {corpus.classes[predicted]}"
    page = _page_within(page, len(inside))
    rows = [
        {
            "index": index,
            "head": percent(float(corpus.probability[index])),
            "place": None,
            "text": corpus.texts[index][:SHOWN_CHARACTERS],
        }
        for index in inside[page * PAGE_TEXTS : (page + 1) * PAGE_TEXTS]
    ]
    return _listed(said, rows, page, len(inside), (true, predicted))


def confusion_html(corpus: Corpus) -> str:
    """The confusion matrix as buttons."""
    from train.analysis.report import MAX_MATRIX, confusion

    matrix = confusion(corpus)
    if not corpus.classified:
        return quiet("This model gives texts no class: there are no errors to show.")
    if matrix is None:
        return quiet("The true classes are unknown: there are no errors to show.")
    if len(matrix) > MAX_MATRIX:
        return quiet(f"{len(matrix)} classes are more than a matrix can show.")
    most = max(int(matrix.max()), 1)
    return render(
        "analyse/confusion.html", corner=header("true class"), classes=corpus.classes, matrix=matrix.tolist(), most=most
    )


def tables(analysis: Analysis | None) -> list[str]:
    """tokens.parquet, texts.parquet and texts.csv."""
    if analysis is None:
        raise gr.Error("Analyse a data set first.", print_exception=False)
    import pyarrow as pa
    import pyarrow.csv

    from train.analysis.analyze import write_tables

    folder = fresh_path("tokens.parquet").parent
    paths = write_tables(analysis.corpus, folder)
    pa.csv.write_csv(pa.table(analysis.corpus.texts_table()), folder / "texts.csv")
    return [*map(str, paths), str(folder / "texts.csv")]


def _page_within(page: int, count: int) -> int:
    """A page that is there, counted from 0: a browser may ask for any."""
    return min(max(page, 0), max(count - 1, 0) // PAGE_TEXTS)


def _listed(
    said: str, rows: list[dict[str, Any]], page: int, count: int, cell: tuple[int, int] | None = None
) -> Markup:
    """A page of texts below a sentence, and buttons to the pages beside it; `cell` of the confusion matrix they are."""
    first, last = page * PAGE_TEXTS + 1, min((page + 1) * PAGE_TEXTS, count)
    place = f"{first:,}–{last:,} of {count:,}" if count > PAGE_TEXTS else ""
    return render("analyse/texts.html", said=said, rows=rows, place=place, page=page, cell=cell, more=last < count)


def hits_csv(analysis: Analysis | None, layer: str | None, expert: int, word: str) -> str:
    """All places of a search as a file: text, what stands before and after the place, classes. Raises gr.Error."""
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
