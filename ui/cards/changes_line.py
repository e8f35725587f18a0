"""The card of the answer, and the line below it that tells of changes to the routing, with a button that resets them.

Its events `intervene` and `rewrite` (where a model writes) ask for what the expert panel's do: evt.kind "reset".
Try it: create_answer(prediction_card(prediction, None))
"""

import gradio as gr
from markupsafe import Markup

from ui.look.html import part
from ui.views.changes import words_of_changes
from ui.views.view import View

_CLICKS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-reset]");
  if (!button) return;
  if (button.dataset.reset === "rewrite") trigger("rewrite", { kind: "reset" });
  else trigger("intervene", { kind: "reset" });
});
"""


def create_answer(value: str) -> gr.HTML:
    """The component."""
    return gr.HTML(value, js_on_load=_CLICKS, apply_default_css=False, elem_id="prediction")


def changes_line(view: View) -> Markup | str:
    """How many changes of the routing apply to the text, whichever tab of the details is open; of a saved view, whose
    changes are named already, nothing."""
    if not view.changed or not view.model:
        return ""
    return part("cards/changes_line.html", "changes_line", words_of_changes(view), view.writes)
