"""Neighbours in the batch: the same text alone and among others, where an expert's capacity counts over all of them.

Try it: among(predictor, "Oil prices rose.", ["The team won."], own_first=False)
"""

from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr
from markupsafe import Markup

from switch_model import CheckpointError, Interventions, Prediction, Predictor
from switch_model.grid.plain import grid_value
from switch_model.routing import may_drop
from train.formatting import counted, percent
from ui.catalog.models import ModelShelf
from ui.components.events import LAST
from ui.components.routing_grid import create_routing_grid
from ui.explore.present import Present
from ui.look.html import facts, quiet
from ui.views.view import View

# A page for trying things out: what trains in batches of thousands is shown with a handful.
MAX_TEXTS = 16
_HINT = (
    "With capacity counted per batch, as in the paper, experts fill up over all texts of a batch: a token may lose its "
    "place to a text that it has nothing to do with. It may also gain one, with a capacity factor above 1 above "
    "all: slots grow with the batch, and the others may not need them. Add texts, one per line, and see."
)
_DROPLESS = (
    "Here no capacity limit applies: nothing is dropped, and a text takes the same routes alone and among others."
)
_SET_ONE = " To see texts compete for slots, first set a capacity under “Experts”."
_NOTHING = {"said": "Nothing routed together yet."}
_FIRST, _LAST = "before the others", "after the others"


def among(
    predictor: Predictor, text: str, others: list[str], own_first: bool, changes: Interventions | None = None
) -> tuple[Prediction, Prediction]:
    """The text alone and in one batch with the others, capacity counted over the batch in both.

    Args:
        own_first: whether it comes first, where first come is first served.

    Raises:
        ValueError: when a text has no tokens.
    """
    changes = replace(changes or Interventions(), capacity_group="batch")
    alone = predictor(text, changes)
    texts = [text, *others] if own_first else [*others, text]
    # What is forced is forced on this text's tokens alone; one batch, so that all share the capacity.
    rows = [changes if one is text else replace(changes, force={}) for one in texts]
    return alone, predictor.batch(texts, rows)[0 if own_first else -1]


class Neighbours(NamedTuple):
    """Words, the grid of the text in the batch with what differs from it alone, what that holds for, and what to
    expect of the view."""

    words: Any
    grid: Any
    of: Any
    hint: Any


def compare(shelf: ModelShelf, view: View | None, others: str, where: str) -> tuple[str, dict | None]:
    """(words, grid)."""
    lines = [line for line in (others or "").splitlines() if line.strip()]
    if view is None or not view.model or not view.records:
        return facts("Run a text with a sparse model first."), None
    if not lines:
        return facts("Add a text or two: one per line."), None
    if len(lines) > MAX_TEXTS:
        return facts(f"{len(lines)} texts are more than fit here: at most {MAX_TEXTS}."), None
    try:
        predictor = shelf.load(view.model).predictor
        alone, together = among(predictor, view.text, lines, where == _FIRST, view.changes)
    except (CheckpointError, ValueError) as error:
        return facts(str(error)), None
    drops = [sum(int(record.dropped.sum()) for record in one.routing) for one in (alone, together)]
    chances = [f"{alone.label} {percent(one.scores[alone.label])}" for one in (alone, together)]
    moved = sum(
        int(((one.dropped != two.dropped) | (one.expert != two.expert)).sum())
        for one, two in zip(alone.routing, together.routing, strict=True)
    )
    texts = f"{len(lines)} other text{'s' if len(lines) > 1 else ''}"
    dropped = [f"{counted(one, 'drop')}, " if may_drop(alone.routing) else "" for one in drops]
    said = f"“{view.text[:40].strip()}…” alone: {dropped[0]}{chances[0]}. With {texts}: "
    said += f"{dropped[1]}{chances[1]}" + ("." if together.label == alone.label else f"; now it says {together.label}.")
    said += f" {moved} of {len(alone.tokens) * len(alone.routing)} routes differ."
    grid = grid_value(together.trace, view.place, alone.trace) | {"still": True, "otherwise": "alone"}
    return facts(said), grid


def hint(view: View | None) -> Markup:
    """What other texts in the batch can do to that of the view."""
    if view is None or not view.records or may_drop(view.records):
        return quiet(_HINT)
    # With several experts for each token there is no capacity to set.
    return quiet(_DROPLESS if view.records[0].experts.shape[-1] > 1 else _DROPLESS + _SET_ONE)


def asked_about(view: View | None) -> Any:
    """What an answer holds for: it stays while one looks at other tokens and layers."""
    return view and (view.model, view.text, view.changes)


def forget(view: View | None, asked: Any) -> Neighbours:
    """Empty once the view has moved on from what was asked about; else nothing new."""
    # Where nothing was asked, blanks again: for gr.skip() Gradio builds each component anew.
    if asked is not None and asked == asked_about(view):
        return Neighbours(gr.skip(), gr.skip(), gr.skip(), gr.skip())
    return Neighbours("", _NOTHING, None, hint(view))


def create_neighbours(
    shelf: ModelShelf, present: gr.State, shown: bool, first: View | None
) -> tuple[gr.Accordion, Neighbours]:
    """Lay it out and connect it. Returns the box, and what `forget` fills as the view moves.

    Args:
        first: what the page opens with.
    """
    asked = gr.State(None)
    box = gr.Accordion("Neighbours in the batch", open=False, visible=shown, elem_classes="card", elem_id="neighbours")
    with box:
        expected = gr.HTML(hint(first), apply_default_css=False, elem_id="neighbours-hint")
        with gr.Row(elem_classes="search"):
            others = gr.Textbox(
                label="Other texts, one per line",
                show_label=False,
                container=False,
                lines=3,
                max_lines=8,
                placeholder="Other texts, one per line",
                scale=3,
                min_width=240,
                elem_id="others",
            )
            where = gr.Radio([_LAST, _FIRST], value=_LAST, label="Your text comes", min_width=200, elem_id="where")
        with gr.Row(elem_classes="buttons"):
            run = gr.Button("Run together", elem_id="together", min_width=0, scale=0)
        said = gr.HTML("", apply_default_css=False, elem_id="neighbours-said")
        grid = create_routing_grid(_NOTHING, elem_id="neighbours-grid")

    parts = Neighbours(said, grid, asked, expected)

    def route(present: Present, others: str, where: str) -> Neighbours:
        asked = asked_about(present.view)
        found = Neighbours(*compare(shelf, present.view, others, where), asked, gr.skip())
        return found if asked == asked_about(present.view) else Neighbours("", _NOTHING, None, gr.skip())

    run.click(route, [present, others, where], [*parts], **LAST)
    return box, parts
