"""The table of samples: rows to pick from, found by the server, so that a browser never holds a whole data set.

Try it: rows_html(SampleLibrary().search("bundled", "oil"))
"""

import gradio as gr

from ui.catalog.samples import Matches
from ui.look.html import facts, message, render

# A row shows the beginning; picking it takes the whole text.
SHOWN_CHARACTERS = 240

_PICK = """
const pick = (event) => {
  const row = event.target.closest("[data-row]");
  if (row) trigger("pick", { row: Number(row.dataset.row) });
};
element.addEventListener("click", pick);
"""


def create_sample_table(value: str = "") -> gr.HTML:
    """The component. Its event `pick` tells the row's index in the source: evt.row."""
    return gr.HTML(value, js_on_load=_PICK, apply_default_css=False, elem_id="sample-table")


def rows_html(matches: Matches) -> str:
    """The rows as buttons with their labels, below a line that says how many match."""
    if not matches.matching:
        return message("No sample matches. Try fewer or other words.")
    said = f"{matches.matching:,} of {matches.total:,} match"
    if matches.matching == matches.total:
        said = f"{matches.total:,} samples"
    if len(matches.rows) < matches.matching:
        said += f" · the first {len(matches.rows)} are shown"
    rows = [{"index": index, "label": sample.label, "text": _beginning(sample.text)} for index, sample in matches.rows]
    return render("components/sample_table.html", words=said, rows=rows)


def failure_html(sentence: str) -> str:
    """What stands in the table's place when a source can't be read."""
    return message(sentence, role="alert")


def waiting_html(sentence: str) -> str:
    """What stands in the table's place while a source is read."""
    return facts(sentence)


def _beginning(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + "…"
