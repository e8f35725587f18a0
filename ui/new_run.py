"""New run: choose data, a size and arguments, see what it will take and the command it stands for, and start it.

Handlers take values and return values. Try it: NewRun(Workshop(Path("runs"))).preview("toy", "", "", "none", "", "", …)
"""

import json
import shlex
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import yaml

from switch_model import CheckpointError
from train.arguments import Arguments, DataArguments
from train.estimate import Estimate, estimate
from train.presets import default_preset
from train.process import start, train_command
from train.runs import Run, RunError
from ui.argument_form import as_typed, create_form, given, values_of
from ui.data_card import report_html
from ui.files import fresh_path, hand_over
from ui.run_words import duration
from ui.workshop import Workshop, visitor_of

# Those of train.data, which takes seconds to import.
NAMED = ("toy", "ag_news", "sst2", "imdb", "cola", "mrpc", "qqp", "mnli", "qnli", "rte")
FILE_TYPES = [".csv", ".tsv", ".jsonl", ".json", ".parquet"]
PRESETS = [
    ("tiny · under a minute", "tiny"),
    ("small · under ten", "small"),
    ("base · as the bundled models", "base"),
    ("none · the bare defaults", "none"),
]
NO_COLUMN = "found by name"


class NewRun:
    """The handlers of the tab."""

    def __init__(self, workshop: Workshop):
        self.workshop = workshop

    # -- data ---------------------------------------------------------------------------------------------------------

    def look_at(self, dataset: str, text_column: str, label_column: str) -> tuple[Any, ...]:
        """Read the data: (card, text column, label column, facts that an estimate needs)."""
        from train.data_report import data_report
        from train.tables import DataError

        try:
            report = data_report(
                self._allowed(dataset),
                data_dir=self.workshop.data_dir,
                text_column=_column(text_column),
                label_column=_column(label_column),
            )
        except (DataError, ValueError, OSError) as error:
            pickers = (gr.update(choices=[NO_COLUMN, *self._columns(dataset)]),) * 2
            # Who uploaded a file knows its name, not where it lies here.
            said = str(error).replace(dataset, Path(dataset).name) if dataset else str(error)
            return f'<p class="notice" role="alert">{escape(said)}</p>', *pickers, None
        columns = [NO_COLUMN, *report.columns]
        facts = {"rows": report.rows, "classes": len(report.labels), "words": report.words}
        return (
            report_html(report),
            gr.update(choices=columns, value=text_column if text_column in columns else NO_COLUMN),
            gr.update(choices=columns, value=label_column if label_column in columns else NO_COLUMN),
            facts,
        )

    def _columns(self, dataset: str) -> list[str]:
        """What may be chosen when no column could be found by its name."""
        from train.data import columns_of
        from train.tables import DataError

        try:
            return columns_of(self._allowed(dataset), self.workshop.data_dir)
        except (DataError, ValueError, OSError):
            return []

    def choose_data(self, dataset: str) -> tuple[Any, ...]:
        """Another data set: (what `look_at` returns with its columns found anew, preset, form)."""
        name = default_preset(dataset) or "none"
        return *self.look_at(dataset, NO_COLUMN, NO_COLUMN), name, *self._preset_values(name, dataset)

    def upload(self, path: str) -> tuple[Any, ...]:
        """A file of the visitor's own: (data picker, what `choose_data` returns)."""
        kept = str(self.workshop.keep_upload(path))
        return gr.update(choices=[*_choices(), (Path(kept).name, kept)], value=kept), *self.choose_data(kept)

    def _allowed(self, dataset: str) -> str:
        """On a public page, named data sets and uploads only. Raises ValueError otherwise."""
        if not dataset:
            raise ValueError("Choose a data set, or upload a file.")
        uploads = self.workshop.uploads.resolve()
        if self.workshop.public and dataset not in NAMED and Path(dataset).resolve().parent != uploads:
            raise ValueError(f"{dataset} is not offered here: choose a data set of the list, or upload a file.")
        return dataset

    # -- arguments ----------------------------------------------------------------------------------------------------

    def choose_preset(self, preset: str, dataset: str) -> list[Any]:
        """The form's values for a preset."""
        return self._preset_values(preset, dataset)

    @staticmethod
    def _preset_values(preset: str, dataset: str) -> list[Any]:
        return values_of(Arguments.resolve({"dataset": dataset, "preset": preset}))

    def arguments(self, dataset, text_column, label_column, preset, name, probe, *form) -> Arguments:
        """What the page asks for. Raises ValueError with what is wrong."""
        arguments = Arguments.from_dict(
            given(form)
            | {
                "dataset": self._allowed(dataset),
                "text_column": _column(text_column),
                "label_column": _column(label_column),
                "preset": preset,
                "probe": (probe or "").strip() or None,
                "data_dir": self.workshop.data_dir if dataset in NAMED and dataset != "toy" else None,
            }
        )
        arguments.check()
        if self.workshop.caps is not None:
            start = arguments.train.init_from
            if start and start not in [(self.workshop.root / run / "best").as_posix() for run in self.workshop.names()]:
                raise ValueError("--init_from must be a run of this page.")
            arguments = self.workshop.caps.apply(arguments)
        arguments.train.output_dir = self.workshop.folder_for(name, dataset).as_posix()
        return arguments

    def preview(self, *inputs) -> tuple[str, str]:
        """(the command, what is wrong with the arguments)."""
        try:
            return self.command(self.arguments(*inputs)), ""
        except ValueError as error:
            return "", f'<p class="notice" role="alert">{escape(str(error))}</p>'

    def command(self, arguments: Arguments) -> str:
        return shlex.join([*train_command(arguments), "--max_runs", str(self.workshop.max_runs)])

    def estimate(self, facts: dict[str, Any] | None, *inputs) -> str:
        """What the run will take, in a line. Timed only while nothing trains: both would be slower for it."""
        try:
            arguments = self.arguments(*inputs)
            if facts is None:
                return ""
            busy = any(Run(self.workshop.root / name).state().active for name in self.workshop.names())
            return estimate_html(estimate(arguments, facts["rows"], facts["classes"], facts["words"], not busy))
        except (ValueError, OverflowError, RuntimeError, MemoryError):
            return ""  # The preview says what is wrong.

    # -- starting -----------------------------------------------------------------------------------------------------

    def start(self, request: gr.Request, *inputs) -> tuple[str, Any, Any]:
        """Start the run as a process of its own: (message, the inner tabs, the run to watch)."""
        try:
            arguments = self.arguments(*inputs)
            self.workshop.check_may_start(visitor_of(request))
            folder = Path(arguments.train.output_dir)
            run = start(arguments, folder.parent, folder.name, self.workshop.max_runs)
        except (ValueError, RunError) as error:
            return f'<p class="notice" role="alert">{escape(str(error))}</p>', gr.skip(), gr.skip()
        self.workshop.started(run.name, visitor_of(request))
        return "", gr.Tabs(selected="live"), gr.update(choices=self.workshop.names(), value=run.name)

    # -- arguments as a file ------------------------------------------------------------------------------------------

    def save(self, *inputs) -> str:
        """The arguments as a file to download. Raises gr.Error when they are wrong."""
        try:
            arguments = self.arguments(*inputs)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        path = fresh_path(f"{Path(arguments.train.output_dir).name}.json")
        path.write_text(json.dumps(arguments.to_dict(), indent=2) + "\n", encoding="utf-8")
        return str(path)

    def load(self, path: str) -> list[Any]:
        """A file of arguments into the form: data, columns, preset, probe, form."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it holds no arguments")
            arguments = Arguments.resolve(as_typed(values))
            arguments.check()
            self._allowed(arguments.data.dataset)
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise gr.Error(f"This file can't be used: {error}", print_exception=False) from error
        return self.fill(arguments)

    def fill(self, arguments: Arguments) -> list[Any]:
        """The page's inputs for given arguments, in the order of the tab's inputs; the run's name stays open."""
        data = arguments.data
        choices = _choices()
        if data.dataset not in NAMED:
            choices.append((Path(data.dataset).name, data.dataset))
        return [
            gr.update(choices=choices, value=data.dataset),
            gr.update(choices=[NO_COLUMN, data.text_column or NO_COLUMN], value=data.text_column or NO_COLUMN),
            gr.update(choices=[NO_COLUMN, data.label_column or NO_COLUMN], value=data.label_column or NO_COLUMN),
            arguments.train.preset or "none",
            "",
            arguments.train.probe or "",
            *values_of(arguments),
        ]

    def go_on_from(self, name: str | None) -> list[Any]:
        """The arguments of a run, to start another from its weights: what `fill` returns, then the inner tabs."""
        try:
            run = self.workshop.run(name)
            if not run.best.is_dir():
                raise RunError(f"{name} has no checkpoint to start from yet.")
            arguments = run.arguments()
        except (RunError, CheckpointError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        arguments.train.init_from = run.best.as_posix()
        # The model brings its tokenizer and its shape along.
        for brought in ("vocab_size", "tokenizer", "target_tokenizer"):
            setattr(arguments.data, brought, getattr(DataArguments(), brought))
        arguments.train.preset = "none"
        return [*self.fill(arguments), gr.Tabs(selected="new")]


def estimate_html(found: Estimate) -> str:
    """parameters, steps and time in one line."""
    time = f"about <b>{duration(found.seconds)}</b> on this machine" if found.seconds else "not timed"
    return (
        f'<p class="facts" role="status">At most <b>{found.parameters:,}</b> parameters, <b>{found.active:,}</b> '
        f"active per token · <b>{found.steps:,}</b> steps of about {found.tokens} tokens a text · {time}</p>"
    )


def _column(value: str | None) -> str | None:
    return None if not value or value == NO_COLUMN else value


def _choices() -> list[tuple[str, str]]:
    return [(name, name) for name in NAMED]


# -- layout -----------------------------------------------------------------------------------------------------------


def create_new_run(
    demo: gr.Blocks, handlers: NewRun, tabs: gr.Tabs, watched: gr.Dropdown
) -> tuple[list[gr.components.Component], list[dict[str, Any]]]:
    """Lay it out and connect it. Returns the inputs, and the events that follow when someone has filled them."""
    workshop, start_with = handlers.workshop, Arguments.resolve({"dataset": "toy"})
    facts = gr.State(None)
    with gr.Row(elem_classes="pair"):
        with gr.Column(elem_classes="card", scale=4, min_width=280):
            gr.HTML("<h2>Data</h2>", apply_default_css=False)
            dataset = gr.Dropdown(
                _choices(),
                value="toy",
                label="Data set",
                info="a name, a hub id such as owner/name, or your own CSV, TSV, JSONL or parquet file",
                allow_custom_value=not workshop.public,
                elem_id="train-data",
            )
            with gr.Row(elem_classes="buttons"):
                upload = gr.UploadButton(
                    "Upload a file",
                    file_types=FILE_TYPES,
                    type="filepath",
                    size="md",
                    min_width=0,
                    scale=0,
                    elem_id="upload",
                )
            with gr.Row(elem_classes="columns"):
                text_column = gr.Dropdown(
                    [NO_COLUMN], value=NO_COLUMN, label="Column of texts", allow_custom_value=True, min_width=130
                )
                label_column = gr.Dropdown(
                    [NO_COLUMN], value=NO_COLUMN, label="Column of classes", allow_custom_value=True, min_width=130
                )
            report = gr.HTML("", apply_default_css=False, elem_id="data-report")
        with gr.Column(elem_classes="card", scale=5, min_width=280):
            gr.HTML("<h2>Model and training</h2>", apply_default_css=False)
            preset = gr.Radio(PRESETS, value="none", label="Size", elem_id="preset")
            with gr.Row(elem_classes="columns"):
                name = gr.Textbox(
                    "", label="Name of the run", placeholder="that of the data", max_lines=1, elem_id="run-name"
                )
                probe = gr.Textbox(
                    "",
                    label="A text to watch",
                    placeholder="routed anew at every evaluation",
                    max_lines=2,
                    elem_id="probe",
                )
            form = create_form(start_with, workshop.public)
            known = gr.HTML("", apply_default_css=False, elem_id="estimate")
            wrong = gr.HTML("", apply_default_css=False, elem_id="wrong")
            command = gr.Textbox(
                label="The command it stands for",
                interactive=False,
                lines=2,
                max_lines=6,
                buttons=["copy"],
                elem_id="command",
            )
            with gr.Row(elem_classes="buttons"):
                go = gr.Button("Train", variant="primary", min_width=0, scale=0, elem_id="start")
                saved = gr.Button("Save arguments", size="lg", min_width=0, scale=0, elem_id="save-arguments")
                loaded = gr.UploadButton(
                    "Load arguments",
                    file_types=[".json", ".yaml", ".yml"],
                    type="filepath",
                    size="lg",
                    min_width=0,
                    scale=0,
                    elem_id="load-arguments",
                )
            if workshop.caps is not None:
                gr.HTML(f'<p class="note">{escape(workshop.caps.words())}</p>', apply_default_css=False)

    inputs = [dataset, text_column, label_column, preset, name, probe, *form]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    shown = {"fn": handlers.preview, "inputs": inputs, "outputs": [command, wrong], **quiet}
    timed = {
        "fn": handlers.estimate,
        "inputs": [facts, *inputs],
        "outputs": [known],
        "concurrency_id": "estimate",
        "concurrency_limit": 1,
        **quiet,
    }
    data_card = [report, text_column, label_column, facts]
    chosen = [*data_card, preset, *form]
    # No run is started on data that are known not to work; the card says why.
    facts.change(lambda known: gr.update(interactive=known is not None), [facts], [go], **quiet)
    dataset.input(handlers.choose_data, [dataset], chosen, **quiet).then(**shown).then(**timed)
    upload.upload(handlers.upload, [upload], [dataset, *chosen], **quiet).then(**shown).then(**timed)
    gr.on(
        [text_column.input, label_column.input],
        handlers.look_at,
        [dataset, text_column, label_column],
        data_card,
        **quiet,
    ).then(**shown)
    preset.input(handlers.choose_preset, [preset, dataset], form, **quiet).then(**shown).then(**timed)
    gr.on(_edits((name, probe)), trigger_mode="always_last", **shown)
    gr.on(_edits(form), trigger_mode="always_last", **shown).then(trigger_mode="always_last", **timed)
    go.click(handlers.start, inputs, [wrong, tabs, watched], **quiet).then(**shown)
    hand_over(saved, handlers.save, inputs, "arguments")
    looked = {"fn": handlers.look_at, "inputs": [dataset, text_column, label_column], "outputs": data_card, **quiet}
    loaded.upload(handlers.load, [loaded], inputs, **quiet).success(**looked).then(**shown).then(**timed)
    demo.load(**looked).then(**shown).then(**timed)
    return inputs, [looked, shown, timed]


def _edits(items: Iterable[gr.components.Component]) -> list[Any]:
    """What tells that a person changed one of them. Pasting into a box of text sends no `input`, leaving it `blur`."""
    return [event for item in items for event in (item.input, getattr(item, "blur", None)) if event is not None]
