"""The expert atlas in the Analyse tab: a table of all experts, what each does when it is off, and files of both.

Try it: [*measured(analyst, analysis)][-1]
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr

from switch_model import CheckpointError
from ui.analyse.analysis import Analysis, steps_shown
from ui.analyse.handlers import PUBLIC_TOKENS, Analyst, LayerView, layer_view
from ui.components.events import EACH, LAST, ONCE
from ui.look.html import heading, notice, quiet
from ui.look.page_words import page_words
from ui.server.downloads import fresh_path, hand_over

_ABOUT = (
    "Each expert’s tokens and classes beside chance, and whether two halves of the texts agree. “Measure effects” "
    "switches every expert off on some of the texts, and random experts of the same load beside it: it says how long "
    "that takes."
)
_PICK = """
element.addEventListener("click", (event) => {
  const hit = event.target.closest("[data-place]");
  if (hit) trigger("pick", { place: Number(hit.dataset.place) });
});
"""
_TO_CARD = """() => document.querySelector("#expert-card")?.scrollIntoView({ block: "center" })"""
_PLAIN = {"apply_default_css": False}
_BUTTON = {"min_width": 0, "scale": 0}


class AtlasCard(NamedTuple):
    """The card: the table, and its buttons."""

    table: gr.HTML
    measure: gr.Button
    as_csv: gr.Button
    as_json: gr.Button


def create_atlas() -> AtlasCard:
    """Lay it out."""
    with gr.Column(elem_classes="card"):
        gr.HTML(heading("Expert atlas") + quiet(_ABOUT), **_PLAIN)
        with gr.Row(elem_classes="buttons"):
            measure = gr.Button("Measure effects", elem_id="atlas-measure", **_BUTTON)
            as_csv = gr.Button("Atlas as CSV", elem_id="atlas-csv", **_BUTTON)
            as_json = gr.Button("Atlas as JSON", elem_id="atlas-json", **_BUTTON)
        return AtlasCard(gr.HTML("", js_on_load=_PICK, elem_id="atlas", **_PLAIN), measure, as_csv, as_json)


def connect_atlas(
    analyst: Analyst, card: AtlasCard, analysis: gr.State, layer: gr.Dropdown, of_layer: LayerView, expert_card: gr.HTML
) -> tuple[dict[str, Any], Any]:
    """The event that shows the atlas, as arguments, and the one that measures effects, to be cancelled.

    Args:
        layer, of_layer, expert_card: where an expert that is picked is shown.
    """

    def open_entry(analysis: Analysis | None, event: gr.EventData) -> tuple[Any, ...]:
        return opened(analyst, analysis, int(event.place))

    def measure(analysis: Analysis | None) -> Iterator[str]:
        yield from measured(analyst, analysis)

    picked = card.table.pick(open_entry, [analysis], [layer, *of_layer, expert_card], **EACH)
    picked.then(None, None, None, js=_TO_CARD, **LAST)
    hand_over(card.as_csv, lambda analysis: exported(analysis, "csv"), [analysis], "atlas-csv")
    hand_over(card.as_json, lambda analysis: exported(analysis, "json"), [analysis], "atlas-json")
    measuring = card.measure.click(measure, [analysis], [card.table], concurrency_limit=1, **ONCE)
    return {"fn": shown, "inputs": [analysis], "outputs": [card.table], **LAST}, measuring


def shown(analysis: Analysis | None) -> str:
    """The table."""
    if analysis is None:
        return ""
    from train.analysis.atlas import atlas_html

    return atlas_html(analysis.atlas, analysis.corpus, picks=True)


def measured(analyst: Analyst, analysis: Analysis | None) -> Iterator[str]:
    """How far it is, again and again, and then the table with the effect of every expert."""
    if analysis is None:
        return
    from switch_model.analysis.effects import MOST_TOKENS, TEXTS, effects_in_steps
    from train.evaluation.measured_rows import rows_of
    from train.evaluation.reliance import drawn

    public = bool(analyst.workspace.limits)
    try:
        pipeline = analyst.shelf.load(analysis.model).pipeline
        rows = drawn(rows_of(analysis.corpus, pipeline), TEXTS)
        steps = effects_in_steps(pipeline.model, rows, most=PUBLIC_TOKENS if public else MOST_TOKENS)
        found = yield from steps_shown(steps, "expert")
    except (CheckpointError, ValueError) as error:
        yield notice(page_words(error))
        return
    analysis.effects.update(found)
    yield shown(analysis)


def opened(analyst: Analyst, analysis: Analysis | None, place: int) -> tuple[Any, ...]:
    """(picker of the layer, what is shown of that layer, the expert's card) for an entry of the atlas."""
    if analysis is None or not 0 <= place < len(analysis.atlas.entries):  # A browser may send anything.
        return gr.skip(), *[gr.skip()] * len(LayerView._fields), gr.skip()
    entry = analysis.atlas.entries[place]
    view = layer_view(analysis, entry.layer)
    view = view._replace(expert=view.expert | {"value": entry.expert})
    return gr.update(value=entry.layer), *view, analyst.card(analysis, entry.layer, entry.expert, False)


def exported(analysis: Analysis | None, kind: str) -> str:
    """The path of atlas.csv or atlas.json. Raises gr.Error without an analysis."""
    if analysis is None:
        raise gr.Error("Analyse a data set first.", print_exception=False)
    from train.analysis.atlas import write_atlas

    folder = fresh_path("atlas.csv").parent
    as_csv, as_json = write_atlas(analysis.atlas, analysis.corpus, folder)
    return str(as_csv if kind == "csv" else as_json)
