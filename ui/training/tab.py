"""The Train tab: start a run, watch it, look through all of them.

Try it: python app.py, then the tab “Train”
"""

from typing import Any

import gradio as gr

from switch_model import CheckpointError
from train.runs.run import RunError
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.run_samples import validation_samples
from ui.components.events import ONCE
from ui.components.outputs import outputs
from ui.explore.tab import ExploreTab
from ui.look.page_words import page_words
from ui.server.workspace import Workspace, visitor_of
from ui.training.live_layout import create_live_run
from ui.training.live_run import LiveRun
from ui.training.new_run import NewRun
from ui.training.new_run_layout import create_new_run
from ui.training.run_history import RunHistory, create_run_history

# Explore's tab, model, text, sample and source of samples.
Opened = outputs("Opened", "pages", "model", "text", "sample", "source")


def open_run(workspace: Workspace, explore: ExploreTab, name: str | None, visitor: str) -> Any:
    """A run's best model in Explore, with a text that it held out, and its validation rows to draw samples from.

    Raises gr.Error where there is no such run, or no checkpoint of it.
    """
    try:
        run = workspace.run(name)
        key = explore.shelf.add(run.best, f"run {name}")
        kind, data = explore.shelf.kind(key), run.arguments().data.source
    except (RunError, CheckpointError) as error:
        raise gr.Error(page_words(error), print_exception=False) from error
    moved = Opened(gr.Tabs(selected="explore"), gr.update(choices=explore.shelf.choices(), value=key))
    # What a stranger uploaded is shown to nobody else.
    may_see = workspace.may_change(name, visitor) or not data.is_own
    source = f"run {name}"
    if not may_see or not (samples := validation_samples(run, source, kind)):
        return moved
    if kind is not CLASSIFIER:
        return moved._replace(text=samples[0].text, sample=None)
    explore.library.add(source, samples, key)
    picker = gr.update(choices=explore.library.choices(source), value=source)
    return moved._replace(text=samples[0].text, sample=samples[0], source=picker)


def create_train_tab(
    demo: gr.Blocks, workspace: Workspace, opened: gr.Tab, pages: gr.Tabs, explore: ExploreTab
) -> None:
    """Lay the tab out and connect it.

    Args:
        opened: the tab itself.
        pages: the page's tabs, to move to Explore.
        explore: what a run is opened in.
    """
    new, live, history = NewRun(workspace), LiveRun(workspace), RunHistory(workspace)
    watched = gr.Dropdown(
        workspace.names(),
        value=workspace.to_attach_to(),
        label="Run",
        show_label=False,
        container=False,
        filterable=False,
        min_width=220,
        render=False,
        elem_id="watched",
    )
    with gr.Tabs(elem_id="train-tabs") as tabs:
        with gr.Tab("New run", id="new"):
            inputs, following = create_new_run(new, opened, tabs, watched)
        with gr.Tab("Live", id="live", elem_id="live-page") as live_tab:
            open_watched = create_live_run(demo, live, live_tab, watched)
        with gr.Tab("All runs", id="all", elem_id="all-runs-page") as all_runs:
            chosen, open_chosen, go_on = create_run_history(demo, history, all_runs, tabs, watched)

    opened_with = Opened(pages, explore.model, explore.text, explore.sample, explore.source)

    def open_in_explore(name: str | None, request: gr.Request) -> Any:
        return open_run(workspace, explore, name, visitor_of(request))

    for button, run in ((open_watched, watched), (open_chosen, chosen)):
        opening = button.click(open_in_explore, [run], [*opened_with], **ONCE)
        opening.success(**explore.choosing).then(**explore.drawing)
    filled = go_on.click(new.go_on_from, [chosen], [*inputs, tabs], **ONCE)
    for event in following:
        filled = filled.success(**event)
