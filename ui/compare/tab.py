"""The Compare tab: two texts under one model, or one text under two, their tokens aligned where they share any; drift.

Try it: compare(shelf, "ag_news", "Oil prices rose.", "ag_news", "Gold prices rose.")
"""

from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr
from markupsafe import Markup

from switch_model import CheckpointError, Prediction
from switch_model.analysis.statistics import routed_alike
from switch_model.grid.layer_names import layer_title
from switch_model.grid.plain import grid_value
from train.definitions import header
from train.formatting import percent
from ui.cards.prediction import prediction_card
from ui.catalog.checkpoints import CheckpointShelf, same_run
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import ModelShelf
from ui.catalog.private_models import PrivateModels
from ui.compare.checkpoints import FOREIGN, Agreement, create_agreement, removed_of_both
from ui.compare.drift import Drift, create_drift
from ui.compare.traces import create_traces
from ui.components.events import LAST
from ui.components.routing_grid import create_routing_grid
from ui.look.html import facts, heading, in_points, message_card, note, quiet, render
from ui.look.page_words import page_words
from ui.server.workspace import Workspace

if TYPE_CHECKING:  # Imported when it is needed.
    from switch_model.analysis.pruning import Removed
    from train.analysis.numbering import Numbering, Numbers

_HINT = (
    "Two texts under one model, or one text under two models: a run of yours early and late, say. "
    "Tokens that both share are aligned; in the second grid those that take another route are framed."
)
# A pair to begin with: the same words about something else.
_PAIR = (
    "The bank closed higher after it struck a deal to buy its oldest rival.",
    "The striker closed in on the record after he struck his oldest rival twice.",
)
_OTHER_SHAPES = (
    "Experts of these two models have no common numbering, as they differ in their layers of experts or in how many "
    "there are: routes are not compared."
)


class Compared(NamedTuple):
    """Two predictions side by side: a card of each, words and a table, a grid of each."""

    first: Any
    second: Any = ""
    words: Any = ""
    first_grid: Any = None
    second_grid: Any = None


def compare(shelf: ModelShelf | CheckpointShelf, first: str, text: str, second: str, other: str) -> Compared:
    """Two texts, or one under two models. An empty second text = the first one."""
    other = other if (other or "").strip() else text
    try:
        one, two = shelf.load(first), shelf.load(second)
        here, there = one.predictor(text or ""), two.predictor(other or "")
        here, there, found = _by_common_numbers(here, there, *removed_of_both(shelf, first, second))
    except (CheckpointError, ValueError) as error:
        return Compared(message_card("Compare", page_words(error)))
    pairs = aligned(here.tokens, there.tokens)
    grids = [grid_value(prediction.trace, (0, 0)) | {"still": True} for prediction in (here, there)]
    said = _in_words(here, there, pairs)
    if found is None:
        said += note(_OTHER_SHAPES)
    elif first != second and not same_run(first, second):
        said += note(found.in_words or FOREIGN)
    if found is not None:
        for index, layer in enumerate(grids[1]["layers"]):
            layer["before"] = _routes_before(here, there, pairs, index)
        grids[1]["otherwise"] = "in the first"
        said += agreement_table(here, there, pairs)
    return Compared(
        quiet(one.title) + prediction_card(here, None, unlike=one.unlike(text)),
        quiet(two.title) + prediction_card(there, None, unlike=two.unlike(other)),
        said,
        *grids,
    )


def _by_common_numbers(
    here: Prediction, there: Prediction, first: "Removed", second: "Removed"
) -> "tuple[Prediction, Prediction, Numbering | None]":
    """Two predictions by numbers that their models' experts have in common, unchanged without any (None)."""
    from switch_model.traces.trace import TraceError
    from train.analysis.numbering import numbering, renumbered_record

    layers = [record.name for record in here.routing]
    if layers != [record.name for record in there.routing]:
        return here, there, None
    own = [(layers, one.routing[0].num_experts if layers else 0) for one in (here, there)]
    try:
        found = numbering((*own[0], first), (*own[1], second))
    except TraceError:
        return here, there, None

    def by(numbers: "Numbers", prediction: Prediction) -> Prediction:
        records = tuple(renumbered_record(record, numbers, found.experts) for record in prediction.routing)
        return replace(prediction, trace=replace(prediction.trace, routing=records))

    return by(found.first, here), by(found.second, there), found


def aligned(here: list[str], there: list[str]) -> list[tuple[int, int]]:
    """(place here, place there) of the tokens that two texts share, in order, upper and lower case alike."""
    matcher = SequenceMatcher(
        None, [token.strip().lower() for token in here], [token.strip().lower() for token in there], autojunk=False
    )
    return [
        (block.a + index, block.b + index) for block in matcher.get_matching_blocks() for index in range(block.size)
    ]


def agreement_table(here: Prediction, there: Prediction, pairs: list[tuple[int, int]]) -> Markup | str:
    """Per layer: the share of aligned tokens routed alike, and what it would be were experts drawn by their loads."""
    if not pairs:
        return ""
    rows = []
    for one, two in zip(here.routing, there.routing, strict=True):
        places, others = zip(*pairs, strict=True)
        alike, chance = routed_alike(one.expert[0, list(places)], two.expert[0, list(others)], one.num_experts)
        rows.append((layer_title(one.name), percent(alike), percent(chance)))
    return render("compare/agreement.html", head=[*map(header, ("layer", "routed alike", "by chance"))], rows=rows)


def _in_words(here: Prediction, there: Prediction, pairs: list[tuple[int, int]]) -> Markup:
    said = f"The texts have {len(here.tokens)} and {len(there.tokens)} tokens, of which {len(pairs)} are the same. "
    if set(here.scores) != set(there.scores):
        said += f"The first says {here.label}, the second, which has other classes, {there.label}."
    elif here.label == there.label:
        chances = [one.scores[here.label] for one in (here, there)]
        change = in_points(100 * (chances[1] - chances[0]))
        said += f"Both say {here.label}: the first with {percent(chances[0])}, the second with {percent(chances[1])} "
        said += f"({change} points)."
    else:
        said += f"The first says {here.label}, the second {there.label}."
    return facts(said)


def _routes_before(
    here: Prediction, there: Prediction, pairs: list[tuple[int, int]], layer: int
) -> list[list[int] | None]:
    """For each token there: [expert, dropped] here, where it is shared and took another route."""
    one, two = here.routing[layer], there.routing[layer]
    routes: list[list[int] | None] = [None] * len(there.tokens)
    for a, b in pairs:
        before = [int(one.expert[0, a]), int(one.dropped[0, a])]
        if before != [int(two.expert[0, b]), int(two.dropped[0, b])]:
            routes[b] = before
    return routes


# -- layout -----------------------------------------------------------------------------------------------------------


def create_compare_tab(
    private: PrivateModels, workspace: Workspace, view: gr.State, tab: gr.Tab, pages: gr.Tabs
) -> None:
    """Lay the tab out and connect it.

    Args:
        private: knows the models that a visitor may use.
        workspace: where runs lie, whose checkpoints are models too.
        view, pages: what Explore shows, whose text it starts with, and the page's tabs.
    """
    shelf, boxes, models = CheckpointShelf(private.shelf, workspace), [], []
    with gr.Column(elem_classes="card"):
        gr.HTML(heading("Compare") + quiet(_HINT), apply_default_css=False)
        with gr.Row():
            for number, name in enumerate(("First", "Second")):
                with gr.Column(min_width=280):
                    models.append(
                        gr.Dropdown(
                            private.classifiers(None),
                            value=private.shelf.default_classifier,
                            label=f"{name} model",
                            filterable=False,
                            elem_id=f"compare-model-{number}",
                        )
                    )
                    boxes.append(
                        gr.Textbox(
                            _PAIR[number],
                            label=f"{name} text",
                            lines=3,
                            max_lines=8,
                            placeholder="the first one again" if number else "a text",
                            elem_id=f"compare-text-{number}",
                        )
                    )
        with gr.Row(elem_classes="buttons"):
            run = gr.Button("Compare", variant="primary", min_width=0, scale=0, elem_id="compare")
    shown = _create_compared()

    def route(first: str, text: str, second: str, other: str) -> Compared:
        return compare(shelf, first, text, second, other)

    def begin(view: Any, text: str, first: str, second: str, request: gr.Request) -> tuple[Any, Any, Any]:
        kept = shelf.choices()
        pickers = (private.offer(request.session_hash, chosen, kept, (CLASSIFIER,)) for chosen in (first, second))
        return (gr.skip() if text or view is None else view.text), *pickers

    def open_pair(compared: bool, *pair: str) -> tuple[Any, ...]:
        """The pair that stands in the form, compared unasked the first time that the tab is chosen."""
        nothing = Compared(*[gr.skip()] * len(Compared._fields))
        return True, *(nothing if compared else route(*pair))

    compared = gr.State(False)
    inputs = [models[0], boxes[0], models[1], boxes[1]]
    begun = tab.select(begin, [view, boxes[0], *models], [boxes[0], *models], **LAST)
    begun.then(open_pair, [compared, *inputs], [compared, *shown], **LAST)
    run.click(route, inputs, [*shown], **LAST)
    create_drift(Drift(workspace, private.shelf.device), boxes[0], tab, pages)
    create_agreement(Agreement(shelf, workspace), private, tab)
    create_traces()


def _create_compared() -> Compared:
    """A card of each prediction, what is said of both, a grid of each."""
    cards, grids = [], []
    with gr.Row(elem_classes="pair"):
        for number in range(2):
            with gr.Column(elem_classes="card prediction", min_width=280):
                cards.append(gr.HTML("", apply_default_css=False, elem_id=f"compare-card-{number}"))
    with gr.Column(elem_classes="card"):
        said = gr.HTML("", apply_default_css=False, elem_id="compare-said")
    for number, name in enumerate(("First", "Second")):
        with gr.Column(elem_classes="card"):
            gr.HTML(heading(name), apply_default_css=False)
            grids.append(create_routing_grid({"said": "Nothing compared yet."}, elem_id=f"compare-grid-{number}"))
    return Compared(*cards, said, *grids)
