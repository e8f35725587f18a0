"""The page: header and tabs, and how it is launched.

Try it: build_demo(ModelShelf.find()).launch(**launch_options())
"""

from pathlib import Path
from typing import Any

import gradio as gr

from ui.explore import Explorer, create_explore_tab
from ui.models import ModelShelf
from ui.palette import CELL_INK, palette_css
from ui.samples import SampleLibrary
from ui.theme import create_theme

STYLE_SHEET = Path(__file__).resolve().parent.parent / "assets" / "style.css"

_HEADER = """<header class="page-head"><h1>Switch Explorer</h1>
<p>See which expert reads each word, and what the model makes of it.</p></header>"""

# Gradio's own shortcut for a text of several lines is Shift+Enter; people expect Ctrl or Cmd.
_SHORTCUT = """<script>
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest?.("#text")) {
    event.preventDefault();
    document.getElementById("route").click();
  }
});
</script>"""


def build_demo(shelf: ModelShelf, data_dir: str | None = None) -> gr.Blocks:
    """The whole page as Gradio blocks.

    Args:
        shelf: the models on offer; an empty one gives a page that says what to do.
        data_dir: where data sets for samples lie; None = SWITCH_DATA_DIR, then the hub.
    """
    with gr.Blocks(title="Switch Explorer", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        gr.HTML(_HEADER, apply_default_css=False)
        with gr.Tabs(), gr.Tab("Explore"):
            create_explore_tab(demo, Explorer(shelf, SampleLibrary(data_dir)))
    # Several at once for each kind of event: a data set that takes long to arrive keeps nobody from routing.
    return demo.queue(default_concurrency_limit=4, max_size=64)


def launch_options() -> dict[str, Any]:
    """What launch() needs for this page, wherever it runs: looks, and nothing that calls home or stores visits."""
    return {
        "theme": create_theme(),
        "css": f":root{{--cell-ink:{CELL_INK}}}\n{palette_css()}",
        "css_paths": [STYLE_SHEET],
        "head": _SHORTCUT,
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "state_session_capacity": 1000,
        "quiet": True,
    }
