"""The routing grid: a column per token, below it one cell per sparse layer, coloured and numbered by expert.

The component's value is plain data. Its script builds every element itself and writes text with textContent: gr.HTML
evaluates ${…} in what a template has rendered, so that a visitor's text must never pass through one.
A value with the whole `text` belongs to Explore's box: the script says so when that has been edited since.
Try it: create_routing_grid(grid_value(prediction.trace, default_selection(prediction.trace)))
"""

from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model.grid.drawing import TEMPLATE, script
from switch_model.grid.matrix import matrix_value, needs_matrix
from switch_model.grid.plain import grid_value, stacked_value
from switch_model.grid.votes import votes_strip
from ui.look.html import render
from ui.views.view import View


def grid_script() -> Markup:
    """The script of all grids, for the head of the page: in each grid it would be sent five times."""
    return render("components/grid_script.html", code=Markup(script()))


def create_routing_grid(value: dict[str, Any] | None = None, elem_id: str = "routing-grid") -> gr.HTML:
    """The component. Its event `look` tells which token and layer a person chose: evt.token, evt.layer."""
    return gr.HTML(
        value,
        html_template=TEMPLATE,
        # Gradio reads here which events there are.
        js_on_load='drawRoutingGrid(element, props, trigger, watch); // trigger("look", …)',
        apply_default_css=False,
        elem_id=elem_id,
    )


def view_grid(view: View) -> dict[str, Any]:
    """The grid of a view: one stack, with what only a class has (what its tokens matter, votes), or one stack below the
    other."""
    return matrix_value(view.traces, view.place) if needs_matrix(view.records) else plain_grid(view)


def plain_grid(view: View) -> dict[str, Any]:
    """One cell for each token and layer, also where a token has several experts: then its first choice."""
    if view.two_stacks or view.trace.stack == "decoder":
        return stacked_value(view.traces, view.place, view.base.traces if view.changed else None)
    value = grid_value(view.trace, view.place, view.base.traces[0])
    if view.importance is not None:
        matters = (view.importance.tokens * 1000).round().int().tolist()
        value |= {"matters": matters, "label": view.importance.label}
    return value | ({"text": view.text, "votes": votes_strip(view.answer)} if view.classifies else {})
