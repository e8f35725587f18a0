"""All runs: a table, several compared, and what one does with one that has ended.

Try it: RunHistory(Workspace(Path("runs"))).table()
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from switch_model import CheckpointError
from train.arguments.arguments import Arguments
from train.runs.history import summaries
from train.runs.manage import archive, delete, rename
from train.runs.run import Run, RunError
from train.tasks.metrics import MEASURES
from train.tasks.registry import TASKS
from ui.components.events import EACH, LAST, ONCE, SHOW
from ui.components.outputs import outputs
from ui.look.html import facts, heading, note, part, quiet
from ui.look.page_words import page_words
from ui.server.downloads import fresh_path, hand_over
from ui.server.workspace import Workspace, clean_name, visitor_of
from ui.training.live_run import NOTHING_YET
from ui.training.run_summary import PIECES, STARTING, arguments_diff_html, duration

COLUMNS = ["run", "state", "data", "task", "preset", "best on validation", "steps", "time", "started"]
# Curves that a person still tells apart.
MAX_COMPARED = 8
_HIDDEN = gr.update(visible=False)
_BUTTONS = ("watch", "explore", "go_on", "download", "rename", "delete")
_BARE = {"show_label": False, "container": False}
_BUTTON = {"min_width": 0, "scale": 0}
NOTHING = quiet("Choose a run: click its row.")


# The chosen run: its name, what stands above the buttons, six buttons, the row that renames and the row that deletes.
Chosen = outputs(
    "Chosen", "name", "words", "watch", "explore", "go_on", "download", "rename", "delete", "renaming", "deleting"
)


class RunHistory:
    """The handlers of the tab."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace

    def table(self) -> list[list[str]]:
        """A row per run, the newest first."""
        return [self._row(row) for row in summaries(self.workspace.root)]

    def _row(self, row: dict[str, Any]) -> list[str]:
        # One that was stopped while it waited began when it was asked for.
        began = row["started"] or (None if row["state"] == "queued" else row["queued"])
        started = time.strftime("%d %b %H:%M", time.localtime(began)) if began else ""
        steps = f"{row['step']:,}" + (f" of {row['max_steps']:,}" if row["max_steps"] else "")
        name = Path(row["folder"]).relative_to(self.workspace.root).as_posix()
        clock = duration(row["seconds"]) if row["seconds"] else ""
        return [
            name,
            self._shown(row),
            row["dataset"],
            TASKS[row["task"]].title if row["task"] else "",
            row["preset"] or "",
            row["best_words"],
            steps,
            clock,
            started,
        ]

    def _shown(self, row: dict[str, Any]) -> str:
        """The state, in the words of the live view."""
        waits = row["state"] != "queued" or self.workspace.waits(Run(Path(row["folder"])))
        return row["state"] if waits else STARTING

    def refresh(self, compared: Sequence[str]) -> tuple[Any, Any, str]:
        """(table, picker of runs to compare, what stands there without any run)."""
        names, table = self.workspace.names(), self.table()
        picker = gr.update(choices=names, value=[name for name in compared or () if name in names])
        return table, picker, "" if table else NOTHING_YET

    def choose(self, event: gr.SelectData) -> Chosen:
        """A click on a row."""
        return self.chosen(event.row_value[0])

    def chosen(self, name: str) -> Chosen:
        """What can be done with a run."""
        try:
            run = self.workspace.run(name)
            state = run.state()
        except RunError as error:
            return _choice(None, facts(page_words(error)))
        idle = not state.active
        try:
            run.arguments()
        except RunError as error:  # All that can be done with it is to remove it.
            return _choice(name, facts(page_words(error)), delete=idle)
        said = part(PIECES, "run_head", name, page_words(state.message or state.name), None)
        best = run.best.is_dir()
        return _choice(name, said, watch=True, explore=best, go_on=best, download=best, rename=idle, delete=idle)

    def watch(self, name: str | None) -> tuple[Any, Any]:
        """To the live view of a run: (the inner tabs, its picker)."""
        return gr.Tabs(selected="live"), gr.update(choices=self.workspace.names(), value=name)

    def compare(self, names: Sequence[str], value: str, over: str) -> tuple[Any, str]:
        """(curves of several runs, the arguments in which they differ)."""
        from ui.training.learning_curves import compare_curves

        arguments = {name: one.portable() for name, one in self._arguments((names or ())[:MAX_COMPARED]).items()}
        if not arguments:
            return None, quiet("Choose two or more runs.")
        figure = compare_curves({name: self.workspace.run(name).metrics() for name in arguments}, value, over)
        return figure, arguments_diff_html(arguments)

    def _arguments(self, names: Sequence[str]) -> dict[str, Arguments]:
        """Of the runs that are there and can be read."""
        found = {}
        for name in names:
            try:
                found[name] = self.workspace.run(name).arguments()
            except RunError:
                continue
        return found

    def measures(self, names: Sequence[str], value: str) -> Any:
        """The picker of metrics with those that the runs' tasks have."""
        tasks = [one.train.task for one in self._arguments(names or ()).values()]
        found = list(dict.fromkeys(["loss", *(metric for task in tasks for metric in TASKS[task].curves)]))
        # What is chosen stays, also where someone chooses while this is under way.
        return gr.update(choices=_metrics(found), **({} if value in found else {"value": "loss"}))

    def rename(self, name: str | None, wanted: str, request: gr.Request = None) -> tuple[Any, str, Any]:
        """(the run's name by now, what was done or is wrong, the table)."""
        try:
            run = rename(self._mine(name, request), clean_name(wanted))
        except RunError as error:
            return name, facts(page_words(error)), gr.skip()
        return run.folder.relative_to(self.workspace.root).as_posix(), facts(f"Renamed to {run.name}."), self.table()

    def ask_to_rename(self, name: str | None) -> tuple[Any, Any, Any]:
        """(the row that renames, its box with the present name, the row that deletes)."""
        return gr.update(visible=True), (name or "").rsplit("/", 1)[-1], _HIDDEN

    def ask_to_delete(self, name: str | None) -> tuple[Any, str, Any]:
        """(the row that deletes, its question, the row that renames)."""
        return gr.update(visible=True), part(PIECES, "really_delete", name or ""), _HIDDEN

    def delete(self, name: str | None, request: gr.Request = None) -> Chosen:
        """What was done or is wrong: nothing is chosen any more."""
        try:
            delete(self._mine(name, request))
        except RunError as error:
            return Chosen(name, facts(page_words(error)), renaming=_HIDDEN, deleting=_HIDDEN)
        return _choice(None, facts(f"Deleted {name}."))

    def download(self, name: str | None) -> str:
        """A zip of the files that are safe to share."""
        try:
            run = self.workspace.run(name)
            return str(archive(run, fresh_path(f"{run.name}.zip")))
        except RunError as error:
            raise gr.Error(page_words(error), print_exception=False) from error

    def publish(self, name: str | None, repository: str, private: bool, request: gr.Request = None) -> str:
        """Put the best checkpoint with its card on the Hub."""
        from train.release.publish import PublishError, publish

        try:
            url = publish(self._mine(name, request).folder, repository.strip(), private=private)
        except (RunError, CheckpointError, PublishError) as error:
            return facts(str(error))
        return part(PIECES, "published", url)

    def _mine(self, name: str | None, request: gr.Request | None):
        if not self.workspace.may_change(name or "", visitor_of(request)):
            raise RunError("On a public page only who started a run may change it.")
        return self.workspace.run(name)


def _metrics(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(MEASURES[name].word, name) for name in names]


def _choice(name: str | None, words: str, **able: bool) -> Chosen:
    """A chosen run; the buttons that are not named are off."""
    on = {button: gr.update(interactive=able.get(button, False)) for button in _BUTTONS}
    return Chosen(name, words, **on, renaming=_HIDDEN, deleting=_HIDDEN)


# -- layout -----------------------------------------------------------------------------------------------------------


def create_run_history(
    demo: gr.Blocks, handlers: RunHistory, tab: gr.Tab, tabs: gr.Tabs, watched: gr.Dropdown
) -> tuple[gr.State, gr.Button, gr.Button]:
    """Lay it out and connect it. Returns the chosen run, and the buttons that open it in Explore and go on from it."""
    with gr.Column(elem_classes="card"):
        with gr.Row(elem_classes="card-head"):
            gr.HTML(heading("All runs"), apply_default_css=False)
            refresh = gr.Button("Refresh", elem_id="refresh-runs", **_BUTTON)
        none = gr.HTML("", apply_default_css=False)
        table = gr.Dataframe(
            headers=COLUMNS,
            interactive=False,
            show_label=False,
            max_height=320,
            buttons=[],
            visible=False,
            elem_id="runs-table",
        )
        words = gr.HTML(NOTHING, apply_default_css=False, elem_id="chosen-run")
        chosen, renaming, deleting = _create_actions(words)
        _create_publish(handlers, chosen)
    with gr.Column(elem_classes="card run-plots"):
        compared = _create_comparison(handlers)

    listed = {"fn": handlers.refresh, "inputs": [compared], "outputs": [table, compared, none], **LAST}
    tab.select(**SHOW, outputs=[table], **EACH)
    tab.select(**listed)
    refresh.click(**listed)
    table.select(handlers.choose, None, [*chosen], **EACH)
    chosen.watch.click(handlers.watch, [chosen.name], [tabs, watched], **ONCE)
    hand_over(chosen.download, handlers.download, [chosen.name], "packed-run")
    asked = [chosen.renaming, renaming.name, chosen.deleting]
    chosen.rename.click(handlers.ask_to_rename, [chosen.name], asked, **ONCE)
    renamed = [chosen.name, chosen.words, table]
    renaming.go.click(handlers.rename, [chosen.name, renaming.name], renamed, **ONCE).then(
        _hide, None, [chosen.renaming], **ONCE
    )
    asked = [chosen.deleting, deleting.question, chosen.renaming]
    chosen.delete.click(handlers.ask_to_delete, [chosen.name], asked, **ONCE)
    deleting.keep.click(_hide, None, [chosen.deleting], **ONCE)
    deleting.go.click(handlers.delete, [chosen.name], [*chosen], **ONCE).then(**listed)
    return chosen.name, chosen.explore, chosen.go_on


class _Renaming(NamedTuple):
    name: gr.Textbox
    go: gr.Button


class _Deleting(NamedTuple):
    question: gr.HTML
    go: gr.Button
    keep: gr.Button


def _create_actions(words: gr.HTML) -> tuple[Chosen, _Renaming, _Deleting]:
    """What can be done with a run: six buttons, and rows that ask before two of them."""
    small = _BUTTON | {"interactive": False}
    with gr.Row(elem_classes="buttons"):
        buttons = {
            "watch": gr.Button("Watch", elem_id="watch", **small),
            "explore": gr.Button("Open in Explore", **small),
            "go_on": gr.Button("Continue with other arguments", elem_id="go-on", **small),
            "download": gr.Button("Download", elem_id="download-run", **small),
            "rename": gr.Button("Rename …", elem_id="rename-run", **small),
            "delete": gr.Button("Delete …", elem_id="delete-run", **small),
        }
    with gr.Row(elem_classes="buttons", visible=False, elem_id="renaming") as renaming:
        name = gr.Textbox(placeholder="New name", max_lines=1, scale=2, **_BARE)
        rename_it = _Renaming(name, gr.Button("Rename", variant="primary", **_BUTTON))
    with gr.Row(elem_classes="buttons", visible=False, elem_id="deleting") as deleting:
        delete_it = _Deleting(
            gr.HTML("", apply_default_css=False, elem_id="delete-question"),
            gr.Button("Delete it", variant="stop", elem_id="really-delete", **_BUTTON),
            gr.Button("Keep it", **_BUTTON),
        )
    return Chosen(gr.State(None), words, **buttons, renaming=renaming, deleting=deleting), rename_it, delete_it


def _create_publish(handlers: RunHistory, chosen: Chosen) -> None:
    with gr.Accordion(
        "Publish to the Hugging Face Hub", open=False, visible=not handlers.workspace.public, elem_id="publish"
    ):
        with gr.Row(elem_classes="buttons"):
            repository = gr.Textbox(placeholder="owner/name", max_lines=1, scale=2, **_BARE)
            private = gr.Checkbox(True, label="private", container=False, min_width=90, scale=0)
            publish = gr.Button("Publish", **_BUTTON)
        gr.HTML(
            note(
                "The best checkpoint with its model card goes to the Hub, under the login of this "
                "machine (“hf auth login”, or HF_TOKEN)."
            ),
            apply_default_css=False,
        )
    publish.click(handlers.publish, [chosen.name, repository, private], [chosen.words], **ONCE)


def _create_comparison(handlers: RunHistory) -> gr.Dropdown:
    """Curves of several runs. Returns the picker of runs."""
    gr.HTML(heading("Compare"), apply_default_css=False)
    with gr.Row(elem_classes="columns"):
        compared = gr.Dropdown([], multiselect=True, label="Runs", scale=3, min_width=240, elem_id="compared")
        value = gr.Dropdown(
            _metrics(["loss", "accuracy"]), value="loss", label="Metric", filterable=False, min_width=110
        )
        over = gr.Dropdown(
            [("steps", "step"), ("seconds", "seconds"), ("tokens", "tokens")],
            value="step",
            label="Against",
            filterable=False,
            min_width=110,
        )
    plot = gr.Plot(buttons=[], elem_id="comparison", **_BARE)
    differences = gr.HTML(quiet("Choose two or more runs."), apply_default_css=False)
    comparing = {"fn": handlers.compare, "inputs": [compared, value, over], "outputs": [plot, differences], **LAST}
    compared.change(handlers.measures, [compared, value], [value], **LAST)
    gr.on([item.change for item in (compared, value, over)], **comparing)
    return compared


def _hide() -> Any:
    return _HIDDEN
