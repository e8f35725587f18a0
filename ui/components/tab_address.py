"""What is looked at, in the address: a reload, Back and a pasted address (#tab=analyse&model=sst2&text=…) lead to it.

The browser's part is look/tab_address.html, which runs before anything is drawn, and changes tabs itself: a slow server
takes nobody from the tab that they chose meanwhile.
Try it: with noted(gr.Tab("Analyse", id="analyse")): …; connect_tabs(demo, pages, restoring, drawing)
"""

import json
from collections.abc import Mapping
from typing import Any

import gradio as gr

from ui.components.events import EACH

_FOLLOW = """
window.tabAddress.follow(() => trigger("move", {}), (asked) => trigger("reopen", asked));
"""


def noted(tab: gr.Tab) -> gr.Tab:
    """A tab whose id the address tells while it is shown. Before its other events: Gradio has each wait for the one
    before, and a slow server would delay the address."""
    tab.select(None, None, None, js=f"() => window.tabAddress.shown('{tab.id}')", **EACH)
    return tab


def connect_tabs(
    demo: gr.Blocks,
    pages: gr.Tabs,
    restoring: Mapping[str, Any],
    present: gr.State,
    drawing: Mapping[str, Any],
) -> None:
    """Keep the address and the page alike.

    Args:
        restoring, drawing: the events that open a link in Explore, but for its input, and what follows.
        present: what Explore shows.
    """
    moved = gr.HTML("", html_template="<i></i>", js_on_load=_FOLLOW, visible="hidden", elem_id="tab-moved")
    restore = restoring["fn"]

    def reopen(present: Any, event: gr.EventData) -> Any:
        return restore(str(event.link), present, str(event.run), event.keep is True)

    names = json.dumps([str(tab.id) for tab in pages.children])
    demo.load(None, None, [pages], js=f"() => window.tabAddress.first({names})", **EACH)
    # Forward while the answer to Back is still on its way.
    moved.move(None, None, [pages], js="() => window.tabAddress.next()", **EACH)
    moved.reopen(**{**restoring, "fn": reopen}, inputs=[present], **EACH).then(**drawing)
    demo.load(None, None, None, js="() => window.tabAddress.begin()", **EACH)
