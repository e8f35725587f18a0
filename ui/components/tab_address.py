"""The tab in the address: a reload, Back and a pasted address (#tab=analyse) lead to it. The browser's part is
look/tab_address.html, which runs before anything is drawn.

Try it: connect_tabs(demo, pages, {"explore": tab, "analyse": other})
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr

_QUIET = {"show_progress": "hidden", "api_visibility": "private"}
_FOLLOW = "window.tabAddress.follow((tab) => trigger('move', { tab }));"


def connect_tabs(demo: gr.Blocks, pages: gr.Tabs, tabs: Mapping[str, gr.Tab]) -> None:
    """Keep the address and the tabs alike. `tabs`: by the names that they have in the address."""
    moved = gr.HTML("", html_template="<i></i>", js_on_load=_FOLLOW, visible="hidden", elem_id="tab-moved")

    def open_tab(name: str | None) -> Any:
        return gr.Tabs(selected=name) if name in tabs else gr.skip()

    def follow(event: gr.EventData) -> Any:
        return open_tab(str(event.tab))

    asked = gr.Textbox(visible="hidden", elem_id="tab-asked")
    demo.load(open_tab, [asked], [pages], js="() => [window.tabAddress.wanted]", **_QUIET)
    moved.move(follow, None, [pages], **_QUIET)
    for name, tab in tabs.items():
        tab.select(None, None, None, js=f"() => window.tabAddress.shown('{name}')", **_QUIET)
