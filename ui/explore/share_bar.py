"""The row below Explore: a link to what is on screen, files of it, and a saved record opened again.

Try it: python app.py, then “Copy link”
"""

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from ui.components.events import LAST
from ui.explore.detail_tabs import ATTRIBUTION, FLOW, TOKEN
from ui.explore.handlers import EMPTY_TEXT, Explorer
from ui.explore.outputs import Reopened
from ui.explore.present import Present
from ui.look.html import facts, heading, quiet
from ui.server.downloads import fresh_path, hand_over
from ui.sharing.link import link_of
from ui.sharing.records import record_of
from ui.sharing.routing_csv import routing_csv
from ui.views.view import View

_FILES = {
    "html": "Report (HTML)",
    "json": "Record (JSON)",
    "csv": "Table (CSV)",
    "svg": "Grid (SVG)",
    "png": "Grid (PNG)",
}
_PRIVACY = (
    "This page stores nothing of what you type: a text lies in memory while it is shown. What you save or upload lies "
    "on the server’s disk for an hour at most. A link keeps the text behind its #, which browsers send to no server."
)
# Where a browser does not let pages copy, the address bar shows the link.
_COPY = """(link) => {
  if (!link) return [link];
  const address = location.href.split("#")[0] + "#s=" + link;
  const show = () => history.replaceState(history.state, "", address);
  if (navigator.clipboard) navigator.clipboard.writeText(address).catch(show);
  else show();
  return [link];
}"""


def create_share_bar(
    explorer: Explorer,
    present: gr.State,
    opens: dict[str, Any],
    reopened: Reopened,
    drawing: dict[str, Any],
) -> None:
    """Lay it out and connect it.

    Args:
        present: what the page shows.
        opens: the event that opens a record, but for the file, its first input.
        reopened: what it fills, but for the words when it fails, which this row has a place for.
        drawing: the event that draws what follows.
    """
    with gr.Column(elem_classes="card", elem_id="keeping"):
        gr.HTML(heading("Export"), apply_default_css=False)
        with gr.Row(elem_classes="buttons"):
            copy = gr.Button("Copy link", min_width=0, scale=0, elem_id="copy-link")
            for kind, name in _FILES.items():
                button = gr.Button(name, min_width=0, scale=0, elem_id=f"keep-{kind}")
                hand_over(button, _keeper(explorer, kind), [present], f"keep-{kind}")
            reopen = gr.UploadButton(
                "Open a record…", file_types=[".json"], min_width=0, scale=0, elem_id="open-record"
            )
        said = gr.HTML("", apply_default_css=False, elem_id="link-said")
        gr.HTML(quiet(_PRIVACY), apply_default_css=False)
    link = gr.Textbox(visible="hidden", elem_id="link")
    copying = copy.click(lambda present: make_link(present.view), [present], [link, said], **LAST)
    copying.success(None, [link], [link], js=_COPY, **LAST)
    opening = {**opens, "inputs": [reopen, *opens["inputs"]], "outputs": [*reopened._replace(failed=said)]}
    reopen.upload(**opening, **LAST).then(**drawing)


def make_link(view: View | None) -> tuple[str, str]:
    """(what stands behind #s=, what to say); "" where there is nothing that a link could open."""
    if view is None:
        return "", facts(EMPTY_TEXT)
    if not view.model:
        return "", facts("A saved record has no link: pass its file on.")
    if "#" in view.model:
        return "", facts("Only you can use this model: a link would open it for nobody else. Pass a file on.")
    return link_of(view), facts(
        "Copied: the link brings back what is shown now. (If not, it stands in the address bar.)"
    )


def keep(explorer: Explorer, view: View | None, kind: str, opened: str = TOKEN) -> str:
    """The path of a file with the view. Raises gr.Error when there is nothing to keep."""
    if view is None:
        raise gr.Error(EMPTY_TEXT, print_exception=False)
    from ui.sharing.picture import draw_grid
    from ui.sharing.report import report_html

    details = explorer.details
    found = details.attribution(view) if opened == ATTRIBUTION else None
    title = explorer.shelf.title(view.model) if view.model else view.saved_from or "a model"
    make: dict[str, Callable[[], str | bytes]] = {
        "json": lambda: json.dumps(record_of(view, title, details.what_if(view) if view.asked else None, found)),
        "html": lambda: report_html(view, title, details.what_if(view), opened == FLOW, found),
        "csv": lambda: routing_csv(view),
        "svg": lambda: draw_grid(view, "svg", title),
        "png": lambda: draw_grid(view, "png", title),
    }
    content, path = make[kind](), fresh_path(f"routing.{kind}")
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def _keeper(explorer: Explorer, kind: str) -> Callable[[Present], str]:
    def keeper(present: Present) -> str:
        return keep(explorer, present.view, kind, present.opened)

    return keeper
