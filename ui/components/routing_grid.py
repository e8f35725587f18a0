"""The routing grid: a column per token, below it one cell per sparse layer, coloured and numbered by expert.

The component's value is plain data. Its script builds every element itself and writes text with textContent: gr.HTML
evaluates ${…} in what a template has rendered, so that a visitor's text must never pass through one.
A value with the whole `text` belongs to Explore's box: the script says so when that has been edited since.
Try it: create_routing_grid(view.grid())
"""

from typing import Any

import gradio as gr
from markupsafe import Markup

from switch_model.grid.drawing import TEMPLATE, script
from ui.look.html import render

# Gradio reads here which events there are. What comes while one is answered is answered with that one's data (see
# events.LAST): all share one object, so that it is the place chosen last.
_DRAW = """
const place = {};
const look = (_, chosen) => trigger("look", Object.assign(place, chosen));
drawRoutingGrid(element, props, look, watch);
"""


def grid_script() -> Markup:
    """The script of all grids, for the head of the page: in each grid it would be sent five times."""
    return render("components/grid_script.html", code=Markup(script()))


def create_routing_grid(value: dict[str, Any] | None = None, elem_id: str = "routing-grid") -> gr.HTML:
    """The component. Its event `look` tells which token and layer a person chose: evt.token, evt.layer."""
    return gr.HTML(
        value,
        html_template=TEMPLATE,
        js_on_load=_DRAW,
        apply_default_css=False,
        elem_id=elem_id,
    )
