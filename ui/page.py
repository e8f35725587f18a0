"""The page: header and tabs, and how it is launched.

Try it: build_demo(ModelShelf.find(), Workspace(Path("runs"))).launch(**launch_options())
"""

import os
from typing import Any

import gradio as gr
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from markupsafe import Markup
from starlette.middleware import Middleware

from switch_model.grid.drawing import STYLE_SHEET as GRID_STYLE_SHEET
from switch_model.grid.palette import CELL_INK, palette_css
from train.definitions import atlas_script, definitions_script
from ui.analyse.handlers import Analyst
from ui.analyse.tab import create_analyse_tab
from ui.catalog.models import ModelShelf
from ui.catalog.private_models import PrivateModels
from ui.catalog.reach import HUB
from ui.catalog.samples import SampleLibrary
from ui.compare.tab import create_compare_tab
from ui.components.failures import say_failures
from ui.components.routing_grid import grid_script
from ui.components.tab_address import connect_tabs, noted
from ui.explore.handlers import Explorer
from ui.explore.tab import create_explore_tab
from ui.how_it_works.tab import create_how_it_works
from ui.look.html import render
from ui.look.theme import STYLE_SHEET, create_theme
from ui.models.tab import create_models_tab
from ui.server.compression import CompressedPage
from ui.server.workspace import Workspace
from ui.training.tab import create_train_tab

# Nobody reads Gradio's statistics of its events, which it would draw up anew, with pandas, after every one.
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "1"

# How long an event may lie before it is seen.
QUEUE_SECONDS = 0.01
# Events of all visitors that may wait. A class that opens the page at once sends three each; the last of so many waits
# some ten seconds.
QUEUE_SIZE = 200
# Scripts for the page's head.
_HEAD = ("tab_address", "shortcuts", "scrolling", "presses")
BUSY = "Many people are using this page right now. What you typed is kept: try again in a few seconds."


def build_demo(shelf: ModelShelf, workspace: Workspace) -> gr.Blocks:
    """The whole page as Gradio blocks.

    Args:
        shelf: the models on offer; an empty one gives a page that says what to do.
        workspace: where runs and data sets lie, and what visitors may ask for.
    """
    HUB.ask()
    with gr.Blocks(title="Switch Explorer", analytics_enabled=False, delete_cache=(3600, 3600)) as demo:
        private = PrivateModels(shelf)
        gr.HTML(render("look/page_head.html"), apply_default_css=False)
        failed = gr.HTML("", apply_default_css=False, elem_id="link-failed")
        with gr.Tabs(elem_id="pages") as pages:
            with noted(gr.Tab("Explore", id="explore")):
                explore = create_explore_tab(demo, Explorer(shelf, SampleLibrary(workspace.data_dir)), failed)
            with noted(gr.Tab("Analyse", id="analyse", elem_id="analyse-page")) as analyse:
                create_analyse_tab(demo, Analyst(shelf, workspace), private, analyse, pages, explore)
            with noted(gr.Tab("Compare", id="compare", elem_id="compare-page")) as compare:
                create_compare_tab(private, workspace, explore.view, compare, pages)
            with noted(gr.Tab("Models", id="models", elem_id="models-page")) as models:
                create_models_tab(demo, private, models, pages, explore)
            with noted(gr.Tab("Train", id="train", elem_id="train-page")) as train:
                create_train_tab(demo, workspace, train, pages, explore)
            with noted(gr.Tab("How it works", id="how")) as how:
                create_how_it_works(how, pages, explore)
        connect_tabs(demo, pages, explore.restoring, explore.present, explore.drawing)
    say_failures(demo)
    # Several at once for each kind of event: a data set that takes long to arrive keeps nobody from routing.
    demo.queue(default_concurrency_limit=4, max_size=QUEUE_SIZE)
    # Gradio looks for new events a thousand times a second, which takes 7 % of a core from a run that trains beside it.
    # Private names: should they go, the page is busier, and nothing else.
    if (queue := getattr(demo, "_queue", None)) is not None:
        queue.sleep_when_free = QUEUE_SECONDS
        queue.progress_update_sleep_when_free = 10 * QUEUE_SECONDS
    return demo


async def say_busy(request: Request, error: HTTPException) -> JSONResponse:
    """What a visitor is told when the queue is full. With Gradio's own status the page would put words of its own."""
    if str(error.detail).startswith("Queue is full"):
        return JSONResponse({"detail": BUSY}, 429)
    return JSONResponse({"detail": error.detail}, error.status_code)


def launch_options(public: bool = False) -> dict[str, Any]:
    """What launch() needs for this page, wherever it runs: looks, and nothing that calls home or stores visits.

    Args:
        public: strangers may upload: smaller files.
    """
    return {
        "theme": create_theme(),
        "css": f":root{{--cell-ink:{CELL_INK}}}\n{palette_css()}",
        "css_paths": [GRID_STYLE_SHEET, STYLE_SHEET],
        "head": definitions_script()
        + atlas_script()
        + grid_script()
        + Markup().join(render(f"look/{name}.html") for name in _HEAD),
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "max_file_size": "20mb" if public else "2gb",
        # Visitors whose state is kept, half a megabyte each. The longest idle one goes first.
        "state_session_capacity": 300,
        "app_kwargs": {"exception_handlers": {503: say_busy}, "middleware": [Middleware(CompressedPage)]},
        "quiet": True,
        # Gradio would ask itself for the page, and break off where a busy machine takes three seconds to draw it.
        "_frontend": False,
    }
