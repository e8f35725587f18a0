"""The flow card: how the tokens of a text move from expert to expert, and how far that is from chance.

It is drawn while it is open, and only then: two pictures more for every click would make the page slow for nothing.
Try it: draw_flow(view, opened=True)
"""

from typing import Any, NamedTuple

import gradio as gr

from switch_model.grid.palette import MAX_COLOURS, expert_colour, shade_of
from train.formatting import percent
from ui.look.html import facts, quiet
from ui.views.view import View

# Layers of a model with several experts for each token that are drawn at once.
MAX_LAYERS = 6
_NOTHING = quiet("A flow needs a text and a model with two sparse layers at least.")


class Flow(NamedTuple):
    """Words, a Sankey diagram, and the transition matrix from the chosen layer to the next."""

    words: Any = ""
    sankey: Any = None
    matrix: Any = None


def draw_flow(view: View | None, opened: bool) -> Flow:
    """The flow of a view; blanks while its card is closed."""
    if not opened:
        # Not gr.skip(), for which Gradio builds each of the three components anew: a fifth of an answer's time.
        return Flow()
    records = view.trace.routing if view else ()
    if len(records) < 2:
        return Flow(_NOTHING)
    from switch_model.analysis.statistics import shared_information, shuffled_flow, shuffled_information
    from switch_model.grid.layer_names import layer_title
    from switch_model.plots.routing import MAX_BANDS, expert_flow, flow_table, transition_matrix

    several = any(record.experts.shape[-1] > 1 for record in records)
    first = min(view.layer, len(records) - 2)
    here, there = records[first], records[first + 1]
    begin = min(max(first - MAX_LAYERS // 2 + 1, 0), max(len(records) - MAX_LAYERS, 0)) if several else 0
    drawn = records[begin : begin + MAX_LAYERS] if several else records
    counts = flow_table(here, there)
    colours = [
        expert_colour(shade_of(expert, here.num_experts)) for expert in range(min(here.num_experts, MAX_COLOURS))
    ]
    if not counts.any():
        off = there if here.choices.any() else here
        said = f"All experts of {layer_title(off.name)} are off: none reads a token."
        return Flow(facts(said), expert_flow(drawn, colours))
    told, (chance, high) = shared_information(counts), (shuffled_flow if several else shuffled_information)(here, there)
    verdict = "more than chance" if told > high else "no more than chance"
    whose = "how a token’s weight is split" if several else "a token’s expert"
    said = (
        f"From {layer_title(here.name)} to {layer_title(there.name)}: {whose} here tells {percent(told)} "
        f"of its expert there; with shuffled tokens it would be {percent(chance)}: {verdict}."
    )
    if several:
        part = f", and {len(drawn)} of {len(records)} layers around the chosen one" if len(drawn) < len(records) else ""
        said += (
            " Bands are weight: each token hands on what it has from each of its experts to each of its next ones, in "
            f"proportion to both weights. Drawn are the {MAX_BANDS} widest between two layers{part}."
        )
    return Flow(facts(said), expert_flow(drawn, colours), transition_matrix(here, there))


def create_flow() -> Flow:
    """Lay it out."""
    with gr.Column(elem_classes="run-plots", elem_id="flow"):
        said = gr.HTML(_NOTHING, apply_default_css=False, elem_id="flow-said")
        with gr.Row():
            with gr.Column(scale=3, min_width=300):
                sankey = gr.Plot(show_label=False, container=False, buttons=[], elem_id="sankey")
            with gr.Column(scale=2, min_width=300):
                matrix = gr.Plot(show_label=False, container=False, buttons=[], elem_id="transitions")
    return Flow(said, sankey, matrix)
