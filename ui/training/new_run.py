"""New run: choose data, a size and arguments, see what it will take and the equivalent command, and start it.

Handlers take values and return values. Try it: NewRun(Workspace(Path("runs"))).choose_data("toy")
"""

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import yaml
from markupsafe import Markup

from switch_model import CheckpointError
from train.arguments.arguments import Arguments
from train.arguments.groups import DataArguments
from train.arguments.presets import default_preset
from train.data.errors import DataError
from train.preflight.argument_warnings import argument_warnings
from train.preflight.estimate import SECONDS, Estimate, estimate
from train.runs.process import start, train_command
from train.runs.run import Run, RunError
from ui.components.outputs import outputs
from ui.look.html import facts, notice, part, quiet
from ui.look.page_words import in_labels, page_words
from ui.server.downloads import fresh_path
from ui.server.workspace import Workspace, visitor_of
from ui.training.argument_form import Form, as_typed, given, values_of
from ui.training.data_choice import Chosen, DataChoice, LookedAt, task_update
from ui.training.run_summary import PIECES, duration
from ui.training.turns import Turn, Turns

PRESETS = [
    ("tiny · a first look", "tiny"),
    ("small · the default", "small"),
    ("base · larger", "base"),
    ("none", "none"),
]
# Until the new estimate is there, the old one would be wrong.
TIMING = quiet("Timing a few steps …")
READING = facts("Reading the data …")


# What the page asks for: the data, the preset, the name, and every argument of the form.
Inputs = outputs("Inputs", *Chosen._fields, "preset", "name", *Form._fields)
# Other data, or another task: what is known of it, and what follows from it.
Followed = outputs("Followed", "dataset", "task", *LookedAt._fields, "estimate", "preset", *Form._fields)
# What another preset fills in.
Sized = outputs("Sized", "preset", *Form._fields)
# What is wrong, the inner tabs, the run to watch, and the command of the next one, whose folder is another.
Started = outputs("Started", "wrong", "tabs", "watched", "command")


class NewRun:
    """The handlers of the tab."""

    def __init__(self, workspace: Workspace):
        self.workspace = workspace
        self.data = DataChoice(workspace)
        self.turns = Turns()

    # -- data and size ------------------------------------------------------------------------------------------------

    def choose_data(self, dataset: str, start_from: str = "", turn: Turn | None = None) -> Followed:
        """Another data set.

        Args:
            start_from: the form's --init_from, which stays; likewise below.
            turn: knows of a preset that is chosen meanwhile; likewise below.
        """
        name, task = default_preset(dataset) or "none", self.data.task_of(dataset)
        return self._followed(dataset, task, name, start_from, turn)

    def choose_task(
        self, task: str, dataset: str, preset: str, start_from: str = "", turn: Turn | None = None
    ) -> Followed:
        """Another task on the same data, with the preset that was chosen."""
        return self._followed(dataset, task, preset, start_from, turn)

    def upload(self, path: str, start_from: str = "", turn: Turn | None = None) -> Followed:
        """A file of the visitor's own. Raises gr.Error for one too large."""
        try:
            kept = str(self.workspace.keep_upload(path))
        except DataError as error:
            raise gr.Error(page_words(error, path), print_exception=False) from error
        picker = gr.update(choices=self.data.choices(kept), value=kept)
        return self.choose_data(kept, start_from, turn)._replace(dataset=picker)

    def choose_preset(self, preset: str, dataset: str, task: str, start_from: str = "") -> Form:
        """The form's values for a preset."""
        values = values_of(Arguments.resolve({"dataset": dataset, "preset": preset, "task": task}))
        return values._replace(init_from=start_from)

    def begin(self, request: gr.Request) -> tuple[Any, Any]:
        """Data are chosen: (what is said until they are read, the button that waits for it)."""
        self.turns.open(request.session_hash)
        return READING, gr.update(interactive=False)

    def begin_size(self, request: gr.Request, preset: str) -> Any:
        """A preset is chosen: the button that waits until the form is filled for it."""
        self.turns.size(request.session_hash, preset)
        return gr.update(interactive=False)

    def in_turn(self, handler: Callable[..., Followed]) -> Callable[..., Followed]:
        """A handler of other data whose answer is dropped where its visitor has chosen again by then."""

        def answer(request: gr.Request, *given: Any) -> Followed:
            turn = self.turns.begin(request.session_hash)
            try:
                followed = handler(*given, turn=turn)
            finally:
                turn.close()
            return followed if turn.is_latest else Followed()

        return answer

    def preset_in_turn(self, request: gr.Request, preset: str, dataset: str, task: str, start_from: str) -> Sized:
        """The form's values for a preset; where data are still being read, their answer will bring them."""
        chosen, waits = self.turns.meanwhile(request.session_hash, preset)
        if waits:
            return Sized()
        return Sized(chosen, *self.choose_preset(chosen, dataset, task, start_from))

    def ready(self, request: gr.Request, facts: dict[str, Any] | None) -> Any:
        """The button that starts a run, which waits for data that are being read and for a preset's form. No run is
        started on data that are known not to work; the card says why."""
        return gr.update(interactive=facts is not None and not self.turns.waits(request.session_hash))

    def _followed(self, dataset: str, task: str, preset: str, start_from: str, turn: Turn | None) -> Followed:
        looked = self.data.choose(dataset, task)
        known = looked.facts is not None
        # What was tried in vain is not offered as if it were there.
        picker, timing = (gr.skip(), TIMING) if known else (self.data.refresh(dataset), "")
        preset = turn.fill(preset) if turn else preset
        form = self.choose_preset(preset, dataset, task, start_from)
        return Followed(
            dataset=picker, task=task_update(task), **looked._asdict(), estimate=timing, preset=preset, **form._asdict()
        )

    # -- arguments ----------------------------------------------------------------------------------------------------

    def arguments(self, *inputs: Any) -> Arguments:
        """What the page asks for. Raises ValueError with what is wrong."""
        asked = Inputs(*inputs)
        data = self.data.values(*(getattr(asked, name) for name in Chosen._fields))
        form = given(Form(**{name: getattr(asked, name) for name in Form._fields}))
        arguments = Arguments.from_dict(form | data | {"preset": asked.preset})
        arguments.check()
        if self.workspace.limits is not None:
            start = arguments.train.init_from
            if start and start not in [
                (self.workspace.root / run / "best").as_posix() for run in self.workspace.names()
            ]:
                raise ValueError("--init_from must be a run of this page.")
            arguments = self.workspace.limits.apply(arguments)
        arguments.train.output_dir = self.workspace.folder_for(asked.name, asked.dataset).as_posix()
        return arguments

    def preview(self, *inputs) -> tuple[str, str]:
        """(the command, what is wrong with the arguments, or unusual about them)."""
        try:
            arguments = self.arguments(*inputs)
            unusual = in_labels(" ".join(argument_warnings(arguments)))
            return self.command(arguments), notice(unusual, "status") if unusual else ""
        except ValueError as error:
            return "", notice(page_words(error, asked_for(inputs)))

    def command(self, arguments: Arguments) -> str:
        """The command that the button runs, for a shell."""
        return shlex.join([*train_command(arguments), "--max_runs", str(self.workspace.max_runs)])

    def estimate(self, facts: dict[str, Any] | None, *inputs) -> Iterator[str]:
        """What the run will take, in a line: at once what can be counted, then the time. It is found only while nothing
        trains: both would be slower for it."""
        try:
            arguments = self.arguments(*inputs)
        except ValueError:
            yield ""  # The preview says what is wrong.
            return
        if facts is None:
            yield ""
            return
        busy = any(Run(self.workspace.root / name).state().active for name in self.workspace.names())
        try:
            counted = estimate(arguments, **facts, timed=False)
            timing = f"timing a few steps, for {SECONDS:g} seconds at most …"
            yield estimate_html(counted, "not timed while a run trains" if busy else timing)
            if not busy:
                yield estimate_html(estimate(arguments, **facts))
        except (ValueError, CheckpointError) as error:  # As of a model to start from that has another shape.
            yield notice(page_words(error, asked_for(inputs)))
        except (OverflowError, RuntimeError, MemoryError):
            yield ""

    def estimate_in_turn(self, request: gr.Request, facts: dict[str, Any] | None, *inputs) -> Iterator[Any]:
        """The same, but nothing while other data are being read, for which another estimate follows."""
        if not self.turns.waits(request.session_hash):
            yield from self.estimate(facts, *inputs)

    # -- starting -----------------------------------------------------------------------------------------------------

    def start(self, request: gr.Request, *inputs) -> Started:
        """Start the run as a process of its own. A refusal is the button's only answer: nothing may follow that clears
        it."""
        try:
            arguments = self.arguments(*inputs)
            self.workspace.check_may_start(visitor_of(request))
            folder = Path(arguments.train.output_dir)
            run = start(arguments, folder.parent, folder.name, self.workspace.max_runs)
        except (ValueError, RunError) as error:
            return Started(wrong=notice(page_words(error, asked_for(inputs))))
        self.workspace.started(run.name, visitor_of(request))
        watched = gr.update(choices=self.workspace.names(), value=run.name)
        return Started("", gr.Tabs(selected="live"), watched, self.preview(*inputs)[0])

    # -- arguments as a file ------------------------------------------------------------------------------------------

    def save(self, *inputs) -> str:
        """The arguments as a file to download. Raises gr.Error when they are wrong."""
        try:
            arguments = self.arguments(*inputs)
        except ValueError as error:
            raise gr.Error(page_words(error, asked_for(inputs)), print_exception=False) from error
        path = fresh_path(f"{Path(arguments.train.output_dir).name}.json")
        path.write_text(json.dumps(arguments.to_dict(), indent=2) + "\n", encoding="utf-8")
        return str(path)

    def load(self, path: str) -> Inputs:
        """A file of arguments into the tab's inputs. Raises gr.Error for one that can't be used."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError("it holds no arguments")
            arguments = Arguments.resolve(as_typed(values))
            arguments.check()
            self.data.allowed(arguments.data.dataset)
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise gr.Error(f"This file can't be used: {page_words(error)}", print_exception=False) from error
        return self.fill(arguments)

    def fill(self, arguments: Arguments) -> Inputs:
        """The page's inputs for given arguments; the run's name stays open."""
        return Inputs(
            **self.data.fill(arguments)._asdict(),
            preset=arguments.train.preset or "none",
            name="",
            **values_of(arguments)._asdict(),
        )

    def go_on_from(self, name: str | None) -> list[Any]:
        """The arguments of a run, to start another from its weights: what `fill` returns, then the inner tabs.

        Raises gr.Error where it has no checkpoint.
        """
        try:
            run = self.workspace.run(name)
            if not run.best.is_dir():
                raise RunError(f"{name} has no checkpoint to start from yet.")
            arguments = run.arguments()
        except (RunError, CheckpointError) as error:
            raise gr.Error(page_words(error), print_exception=False) from error
        arguments.train.init_from = run.best.as_posix()
        # The model brings its tokenizer and its shape along.
        for brought in ("vocab_size", "tokenizer", "target_tokenizer"):
            setattr(arguments.data, brought, getattr(DataArguments(), brought))
        arguments.train.preset = "none"
        return [*self.fill(arguments), gr.Tabs(selected="new")]


def asked_for(inputs: Any) -> str:
    """The data set among the page's inputs."""
    return Inputs(*inputs).dataset or ""


def estimate_html(found: Estimate, untimed: str = "") -> Markup:
    """parameters, steps and time in one line; `untimed` = what stands in place of the time where there is none."""
    untimed = untimed or (f"not timed: {found.untimed}" if found.untimed else "not timed")
    epochs = f"{found.epochs:,.0f}" if found.epochs >= 10 else f"{found.epochs:.2g}"
    return part(PIECES, "estimate", found, epochs, duration(found.seconds) if found.seconds else None, untimed)
