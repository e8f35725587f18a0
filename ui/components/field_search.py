"""A search over the fields of a form: those that hold all words in label, flag or help stay, in the browser alone.

Try it: create_field_search("advanced", "Search by name, flag or help")
"""

from pathlib import Path

import gradio as gr

from ui.look.html import render

_SCRIPT = Path(__file__).with_suffix(".js")


def create_field_search(within: str, label: str) -> gr.HTML:
    """The component; fields have the class "argument", their groups "argument-group".

    Args:
        within: id of what holds the fields; each has an id of its own.
    """
    return gr.HTML(
        render("components/field_search.html", within=within, label=label),
        js_on_load=_SCRIPT.read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=f"{within}-search",
    )
