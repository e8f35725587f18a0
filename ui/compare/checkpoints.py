"""Two models, or two checkpoints of a run, on many texts: how far they send tokens to the same experts, beside chance.

Try it: [*Agreement(shelf, workspace).compare("ag_news", "ag_news", "mini_news", 20)][-1].table
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from switch_model import CheckpointError
from switch_model.analysis.corpus import Corpus, route_in_steps
from switch_model.traces.agreement import agreement
from train.formatting import counted
from ui.analyse.analysis import steps_shown
from ui.catalog.checkpoints import CheckpointShelf, same_run
from ui.catalog.models import ModelShelf
from ui.catalog.private_models import PrivateModels
from ui.catalog.reach import DataReach
from ui.components.events import LAST
from ui.components.outputs import SKIP
from ui.look.html import note, notice, piece, quiet
from ui.look.page_words import page_words
from ui.server.workspace import Workspace

_PLAIN = {"apply_default_css": False}
_ABOUT = (
    "How often two models of one shape choose the same experts for the same tokens, layer by layer and by the position "
    "in the text: two checkpoints of a run, or a model and what was made of it. By chance: the tokens of one shuffled."
)
FOREIGN = (
    "Experts of two models have a common numbering only where one was made from the other. Between two that were "
    "trained apart an agreement above or below chance is an accident of the numbers."
)
# Rows to begin with, and at most on a public page.
ROWS, PUBLIC_ROWS = 100, 200


def removed_of_both(
    shelf: ModelShelf | CheckpointShelf, first: str, second: str
) -> tuple[Mapping[str, Sequence[int]], Mapping[str, Sequence[int]]]:
    """What prune removed from each of two models; nothing where they are the same one. Raises CheckpointError."""
    from train.analysis.numbering import removed_of

    return ({}, {}) if first == second else (removed_of(shelf.folder(first)), removed_of(shelf.folder(second)))


class Agreed(NamedTuple):
    """What is shown: words or how far it is, a row for each layer, plots by layer and by position."""

    said: Any = SKIP
    table: Any = ""
    layers: Any = gr.update(visible=False)
    positions: Any = gr.update(visible=False)


class Agreement:
    """The handlers of the card."""

    def __init__(self, shelf: CheckpointShelf, workspace: Workspace):
        self.shelf, self.workspace = shelf, workspace
        self.reach = DataReach(workspace.data_dir)

    def compare(self, first: str, second: str, dataset: str, limit: float) -> Iterator[Agreed]:
        """How far it is, again and again, and then how far the two agree."""
        from switch_model.plots.traces import agreement_by_layer, agreement_by_position
        from train.analysis.agreement import agreement_table
        from train.analysis.analyze import rows_to_analyze, with_tokenless
        from train.analysis.numbering import with_common_numbers
        from train.analysis.trace import trace_of
        from train.data.errors import DataError
        from train.data.source import DataSource

        rows = max(int(limit or ROWS), 1)
        rows = min(rows, PUBLIC_ROWS) if self.workspace.limits else rows
        try:
            read = rows_to_analyze([], DataSource(dataset, self.workspace.data_dir), num_samples=rows)
            routed: list[Corpus] = []
            for key in (first, second):
                pipeline = self.shelf.load(key).pipeline
                for shown in (steps := _Steps(route_in_steps(pipeline, read.texts))):
                    yield Agreed(shown)
                routed.append(steps.result)
            one, other = routed
            removed = removed_of_both(self.shelf, first, second)
            here, there, numbers = with_common_numbers(trace_of(one), removed[0], trace_of(other), removed[1])
            found = agreement(here, there)
        except (CheckpointError, DataError, ValueError) as error:
            self.reach.failed(dataset, error)
            yield Agreed(notice(page_words(error, dataset)))
            return
        about = f"{counted(len(one.texts), 'text')}, {counted(len(one.token), 'token')} of {Path(dataset).name}."
        said = quiet(f"{about} {with_tokenless(read, one).note}".strip())
        if first != second and not same_run(first, second):
            said += note(numbers.in_words or FOREIGN)
        top_k = 1 if one.experts is None else one.experts.shape[-1]
        yield Agreed(
            said,
            piece("wide", agreement_table(found, top_k)),
            gr.update(value=agreement_by_layer(found, top_k), visible=True),
            gr.update(value=agreement_by_position(found), visible=True),
        )


class _Steps:
    """The bars of work in steps, and its result once they are over."""

    def __init__(self, steps: Any):
        self.steps, self.result = steps, None

    def __iter__(self) -> Iterator[Any]:
        self.result = yield from steps_shown(self.steps, "text")


def create_agreement(handlers: Agreement, private: PrivateModels, tab: gr.Tab) -> None:
    """Lay it out, folded, and connect it."""
    with gr.Accordion("Two models on many texts", open=False, elem_classes="card", elem_id="agreement"):
        gr.HTML(quiet(_ABOUT), **_PLAIN)
        picker = {"filterable": False, "min_width": 200}
        with gr.Row(elem_classes="columns"):
            default, offered = private.shelf.default_classifier, private.shelf.choices()
            models = [
                gr.Dropdown(offered, value=default, label=f"{name} model", elem_id=f"agreement-{number}", **picker)
                for number, name in enumerate(("First", "Second"))
            ]
            names = handlers.reach.choices(("mini_news", "mini_reviews", "tiny_stories", "ag_news", "en_hi"))
            dataset = gr.Dropdown(names, value="mini_news", label="Data set", elem_id="agreement-data", **picker)
            limit = gr.Number(ROWS, label="Rows", precision=0, minimum=1, min_width=90)
        with gr.Row(elem_classes="buttons"):
            go = gr.Button("Compare routes", variant="primary", min_width=0, scale=0, elem_id="agreement-go")
        said = gr.HTML("", elem_id="agreement-said", **_PLAIN)
        table = gr.HTML("", elem_id="agreement-table", **_PLAIN)
        bare = {"show_label": False, "container": False, "buttons": [], "visible": False}
        layers = gr.Plot(elem_id="agreement-layers", **bare)
        positions = gr.Plot(elem_id="agreement-positions", **bare)

    def refresh(first: str, second: str, request: gr.Request) -> tuple[Any, Any]:
        kept = handlers.shelf.choices(all_kinds=True)
        one, other = (private.offer(request.session_hash, chosen, kept) for chosen in (first, second))
        return one, other

    tab.select(refresh, models, models, **LAST)
    go.click(
        handlers.compare, [*models, dataset, limit], [*Agreed(said, table, layers, positions)],
        concurrency_limit=1, **LAST,
    )  # fmt: skip
