"""What a run trains on: the data set, the task, and the columns that the task needs; with a card of what is in them.

Handlers take values and return values.
Try it: DataChoice(Workspace(Path("runs"))).look_at("toy", "mlm", "", "", "", "")
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr

from switch_model.storage.paths import local_path
from train.arguments.arguments import Arguments
from train.arguments.groups import DEFAULT_TASK
from train.data.errors import DataError, UnclearColumns
from train.data.loading import columns_of
from train.data.source import DataSource, known_datasets
from train.data.table_file import UPLOAD_ENDINGS
from train.preflight.data_report import DataReport, data_report
from train.preflight.task_suggestion import columns_by_content, fitting_task, likely_columns, likely_pair
from train.tasks.registry import TASKS
from ui.catalog.reach import DataReach
from ui.components.outputs import outputs
from ui.look.html import heading, notice
from ui.look.page_words import page_words
from ui.server.workspace import Workspace
from ui.training.argument_form import field_of
from ui.training.data_card import report_html

# What the page begins with: there wherever the page is, and trained on in seconds.
START = "mini_news"
NO_COLUMN = "found by name"
NONE_CHOSEN = (NO_COLUMN, NO_COLUMN, NO_COLUMN, "")
# Help of what is asked for otherwise than on the command line.
OFFERED = "one of these, or a CSV, TSV, JSONL or parquet file of your own"
HUB_TOO = f"{OFFERED}; also a Hugging Face Hub id such as owner/name"
COLUMNS = {
    "text_column": "what the model reads; two columns, comma-separated, for pairs",
    "label_column": "what the model predicts",
    "target_column": "what the model writes",
}


# What is chosen: data set, task, and the columns and the language that the task reads.
Chosen = outputs("Chosen", "dataset", "task", "text_column", "label_column", "target_column", "language")
# The card of what is in the data, what may be chosen of it, and facts for an estimate; None for unusable data.
LookedAt = outputs("LookedAt", "card", "text_column", "label_column", "target_column", "language", "facts")


class DataChoice:
    """The handlers of the card."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.reach = DataReach(workspace.data_dir)

    def names(self) -> list[str]:
        """The data sets on offer."""
        return known_datasets(self.workspace.data_dir)

    def choices(self, dataset: str = START) -> list[tuple[str, str]]:
        """(title, value) of another one that was chosen, and of those on offer, what can't be reached last."""
        names = self.names()
        return [*([] if dataset in names else [(Path(dataset).name, dataset)]), *self.reach.choices(names)]

    def refresh(self, dataset: str | None) -> Any:
        """The picker of data sets as things stand now."""
        return gr.update(choices=self.choices(dataset or START))

    def look_at(
        self, dataset: str, task: str, text_column: str, label_column: str, target_column: str, language: str
    ) -> LookedAt:
        """Read the data."""
        chosen = (text_column, label_column, target_column)
        try:
            report = self.report(dataset, task, *chosen, language)
        except (DataError, ValueError, OSError) as error:
            self.reach.failed(dataset, error)
            said = page_words(error, dataset)
            return LookedAt(notice(said), **self._pickers(dataset, task, self._columns(dataset), chosen), facts=None)
        facts = {
            "rows": report.rows,
            "classes": len(report.labels),
            "words": report.words,
            "target_words": report.target_words,
            "validation": report.validation,
            "vocabulary": report.vocabulary,
        }
        return LookedAt(report_html(report), **self._pickers(dataset, task, report.columns, chosen), facts=facts)

    def choose(self, dataset: str, task: str) -> LookedAt:
        """Another data set, or task: its columns are found anew."""
        guessed = self._columns_by_content(dataset, task)
        looked = self.look_at(dataset, task, *(guessed or NONE_CHOSEN[:3]), "")
        if looked.facts is None and not guessed and (guessed := self._likely_columns(dataset, task)):
            looked = self.look_at(dataset, task, *guessed, "")
        if guessed:
            looked = looked._replace(card=notice(guess_in_words(*guessed), "status") + looked.card)
        return looked

    def task_of(self, dataset: str) -> str:
        """The task that a data set suits."""
        try:
            return fitting_task(self._named(dataset))
        except ValueError:
            return DEFAULT_TASK

    def report(
        self, dataset: str, task: str, text_column: str, label_column: str, target_column: str, language: str
    ) -> DataReport:
        """Raises DataError, ValueError or OSError as `data_report` does, and where a stranger may not read."""
        return data_report(self.source(dataset, task, text_column, label_column, target_column, language), task=task)

    def source(
        self, dataset: str, task: str, text_column: str, label_column: str, target_column: str, language: str
    ) -> DataSource:
        """The choices as data to read; columns that the task does not read are left out. Raises ValueError."""
        known = TASKS[task]
        return replace(
            self._named(dataset),
            text_column=_column(text_column),
            label_column=_column(label_column) if known.labelled else None,
            target_column=_column(target_column) if known.paired else None,
            language=(language or "").strip() or None,
        )

    def values(self, dataset: str, task: str, *chosen: str) -> dict[str, Any]:
        """The choices as arguments of a run. Raises ValueError."""
        values = asdict(self.source(dataset, task, *chosen)) | {"task": task}
        del values["split"]
        return values if dataset in self.names() and not DataSource(dataset).is_at_hand else values | {"data_dir": None}

    def fill(self, arguments: Arguments) -> Chosen:
        """The inputs of the card for given arguments."""
        data, task = arguments.data, arguments.train.task
        chosen = [value or NO_COLUMN for value in (data.text_column, data.label_column, data.target_column)]
        columns = [value for value in chosen if value != NO_COLUMN]
        pickers = self._pickers(data.dataset, task, columns, chosen)
        pickers["language"] = pickers["language"] | {"value": data.language or ""}
        dataset = gr.update(choices=self.choices(data.dataset), value=data.dataset)
        return Chosen(dataset=dataset, task=task_update(task), **pickers)

    def allowed(self, dataset: str) -> str:
        """The data set, with ~ as the home it is; on a public page, those on offer and uploads only. Raises ValueError
        otherwise."""
        if not dataset:
            raise ValueError("Choose a data set, or upload a file.")
        if not self.workspace.public:
            return local_path(dataset)
        if dataset not in self.names() and Path(dataset).resolve().parent != self.workspace.uploads.resolve():
            raise ValueError(f"{dataset} is not offered here: choose a data set of the list, or upload a file.")
        return dataset

    def _named(self, dataset: str) -> DataSource:
        return DataSource(self.allowed(dataset), self.workspace.data_dir)

    def _pickers(self, dataset: str, task: str, columns: list[str], chosen: Sequence[str]) -> dict[str, Any]:
        """Those of texts, classes and what to write with all columns, and the language: shown where the task asks."""
        known, choices = TASKS[task], [NO_COLUMN, *columns]
        values = [value if value in choices else NO_COLUMN for value in chosen]
        shown = (True, known.labelled, known.paired)
        names = ("text_column", "label_column", "target_column")
        pickers = {
            name: gr.update(choices=choices, value=value, visible=visible)
            for name, value, visible in zip(names, values, shown, strict=True)
        }
        return pickers | {"language": gr.update(visible=self._takes_language(dataset, task))}

    def _takes_language(self, dataset: str, task: str) -> bool:
        return TASKS[task].takes_language and DataSource(dataset, self.workspace.data_dir).on_hub

    def _columns_by_content(self, dataset: str, task: str) -> tuple[str, str, str] | None:
        """The columns of texts, classes and target texts where their names don't say which they are, but what stands in
        them does."""
        try:
            found = columns_by_content(self._named(dataset)) if TASKS[task].labelled else None
        except ValueError:
            return None
        return found and (*found, NO_COLUMN)

    def _likely_columns(self, dataset: str, task: str) -> tuple[str, str, str] | None:
        """The same where the names of columns leave a doubt, as far as content tells."""
        try:
            source = self._named(dataset)
            self.report(dataset, task, *NONE_CHOSEN)
        except UnclearColumns:
            if TASKS[task].paired:
                pair = likely_pair(source)
                return pair and (pair[0], NO_COLUMN, pair[1])
            text, label = likely_columns(source) or (None, None)
            return text and (text, (TASKS[task].labelled and label) or NO_COLUMN, NO_COLUMN)
        except (DataError, ValueError, OSError):
            pass
        return None

    def _columns(self, dataset: str) -> list[str]:
        """What may be chosen when no column could be found by its name."""
        try:
            return columns_of(self._named(dataset))
        except (DataError, ValueError, OSError):
            return []


def guess_in_words(text: str, label: str, target: str) -> str:
    """What was chosen by the content of columns, whose names leave a doubt."""
    roles = {"texts": text, "classes": label, "target texts": target}
    chosen = " and ".join(f"“{column}” for {role}" for role, column in roles.items() if column != NO_COLUMN)
    return (
        f"The names of the columns do not say which to read. Chosen by what they hold: {chosen}. If that is wrong, "
        "choose others above."
    )


def task_update(task: str) -> Any:
    """The picker of tasks with what the chosen one learns."""
    return gr.update(value=task, info=field_of("task", TASKS[task].learns)["info"])


def _column(value: str | None) -> str | None:
    return None if not value or value == NO_COLUMN else value


# -- layout -----------------------------------------------------------------------------------------------------------


def create_data_choice(choice: DataChoice, start_with: Arguments) -> tuple[Chosen, LookedAt, gr.UploadButton]:
    """Lay it out, filled for the data set that a page begins with. Returns what is chosen, what is known of it, and the
    upload."""
    task = start_with.train.task
    # Once for all who open the page.
    start = choice.look_at(START, task, *NONE_CHOSEN)
    columns = [NO_COLUMN, *choice.report(START, task, *NONE_CHOSEN).columns]
    gr.HTML(heading("Data"), apply_default_css=False)
    dataset = gr.Dropdown(
        choice.choices(),
        value=START,
        allow_custom_value=not choice.workspace.public,
        elem_id="train-data",
        **field_of("dataset", HUB_TOO if not choice.workspace.public else OFFERED),
    )
    with gr.Row(elem_classes="buttons"):
        upload = gr.UploadButton(
            "Upload a file",
            file_types=UPLOAD_ENDINGS,
            type="filepath",
            size="md",
            min_width=0,
            scale=0,
            elem_id="upload",
        )
    learned = gr.Radio(
        [(known.title, name) for name, known in TASKS.items()],
        value=task,
        elem_id="task",
        **field_of("task", TASKS[task].learns),
    )
    with gr.Row(elem_classes="arguments"):
        text_column, label_column, target_column = (
            gr.Dropdown(
                columns,
                value=NO_COLUMN,
                visible=name != "target_column",
                allow_custom_value=True,
                min_width=150,
                elem_id=name.replace("_", "-"),
                **field_of(name, help),
            )
            for name, help in COLUMNS.items()
        )
        language = gr.Textbox(
            "", placeholder="hi", max_lines=1, visible=False, min_width=150, elem_id="language", **field_of("language")
        )
    card = gr.HTML(start.card, apply_default_css=False, elem_id="data-report")
    chosen = Chosen(dataset, learned, text_column, label_column, target_column, language)
    pickers = {name: getattr(chosen, name) for name in LookedAt._fields if name in Chosen._fields}
    return chosen, LookedAt(card=card, facts=gr.State(start.facts), **pickers), upload
