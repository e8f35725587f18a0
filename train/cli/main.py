"""The command line: python -m train [command] --flags. Without a command, it trains.

Unknown and abbreviated flags are errors; what goes wrong is said in a line, with exit status 2.
"""

import argparse
import json
import shlex
import sys
import warnings
from collections.abc import Callable

from switch_model.checkpoint import CheckpointError
from train.cli.commands import (
    analyze_command,
    convert_command,
    evaluate_command,
    import_command,
    package_command,
    predict_command,
    publish_command,
)
from train.cli.parser import Parser, as_path, command_parser, did_you_mean, natural, positive, read_flags
from train.data.table_file import is_table
from train.launch import UNREAD, drop_output, go_on_unread
from train.release.publish import PublishError
from train.requirements import why_not_imported
from train.runs.run import RUNS, Run, RunError, pasted
from train.runs.signals import INTERRUPTED, ended_by_signals
from train.words import DataError

COMMANDS_HELP = """
other commands (each has --help):
  python -m train runs [FOLDER]    all runs: state, data set, best figure, time
  python -m train stop RUN         end a run after its step, with a checkpoint
  python -m train resume RUN       go on with a stopped run
  python -m train evaluate …       scores, confusion matrix and routing of a checkpoint
  python -m train analyze …        where the tokens of a whole data set go
  python -m train predict …        classes of texts, what a model writes, or what fits into blanks
  python -m train package …        a finished run as a small checkpoint folder with a model card
  python -m train publish …        a checkpoint and its model card to the Hugging Face Hub
  python -m train convert OLD.pt … a state dict as a checkpoint folder
  python -m train import SOURCE …  a transformers SwitchTransformers checkpoint, such as google/switch-base-32
  python -m train sweep …          a search over any arguments, a run each
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # Between datasets and pyarrow; nobody who trains can do anything about it.
    warnings.filterwarnings("ignore", "Specifying null_placement", FutureWarning)
    if argv and argv[0] not in COMMANDS and not argv[0].startswith("-"):
        print(_no_such_command(argv[0]), file=sys.stderr)
        return 2
    command, rest = (COMMANDS[argv[0]], argv[1:]) if argv and argv[0] in COMMANDS else (_train, argv)
    try:
        try:
            command(rest)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # Whoever read the output has seen enough.
        drop_output()
        return UNREAD
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if (said := _in_words(error)) is None:
            raise
        if isinstance(error, OSError) and error.filename is None:
            drop_output()  # It may have been what could not be written, and would be tried again at the end.
        print(f"error: {said}", file=sys.stderr)
        return 2
    return 0


def _in_words(error: Exception) -> str | None:
    """What is said of an exception that is no fault of the program's."""
    if said := why_not_imported(error):
        return said
    if isinstance(error, (CheckpointError, DataError, PublishError, RunError, ValueError, FloatingPointError)):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}."
    return None


def _no_such_command(word: str) -> str:
    if is_table(word):
        return f"error: {word} is no command. To train on it: python -m train --dataset {pasted(word)}"
    if near := did_you_mean(word, COMMANDS):
        return f"error: there is no command {word}{near}. See python -m train --help"
    return f"error: there is no command {word}: there are {', '.join(COMMANDS)}; without one, it trains."


def _train(argv: list[str]) -> None:
    go_on_unread()
    arguments, max_runs = read_flags(argv, COMMANDS_HELP)
    with ended_by_signals():
        from train.training.loop import train

    _report(train(arguments, max_runs))


def _resume(argv: list[str]) -> None:
    parser = command_parser(
        "resume", "Go on with a stopped run from its last checkpoint, or begin again where it has none."
    )
    go_on_unread()
    parser.add_argument("run", type=as_path, help="folder of the run")
    parser.add_argument("--max_runs", type=positive, help="wait until fewer than so many runs of its folder run")
    options = parser.parse_args(argv)
    with ended_by_signals():
        from train.training.loop import resume

    _report(resume(options.run, options.max_runs))


def _stop(argv: list[str]) -> None:
    parser = command_parser("stop", "Ask a run to end after its step, with a checkpoint to resume from.")
    parser.add_argument("run", type=as_path, help="folder of the run")
    run = Run.open(parser.parse_args(argv).run)
    if not run.state().active:
        raise RunError(f"{run.folder} is not at work: its state is {run.state().name}.")
    run.request_stop()
    print(f"{run.folder} stops after its step. Go on with it: python -m train resume {pasted(run.folder)}")


def _runs(argv: list[str]) -> None:
    parser = command_parser("runs", "All runs of a folder, the newest first.")
    parser.add_argument("folder", nargs="?", type=as_path, default=str(RUNS), help="where they lie")
    parser.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(argv)
    from train.runs.history import run_table, summaries

    found = summaries(options.folder)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(run_table(found) if found else f"There are no runs in {options.folder}.")
        for row in found:
            if row["task"] is None:
                print(row["message"], file=sys.stderr)


def _sweep(argv: list[str]) -> None:
    go_on_unread()
    from train.sweep.search_space import SYNTAX
    from train.sweep.sweep import DEFAULT_TRIALS, SAMPLERS, sweep, sweep_table

    parser = Parser(
        prog="python -m train sweep",
        description="A search over training arguments: one run after another, compared by their validation figure.",
        epilog=f"values of --search, such as lr=1e-4..1e-2:log,num_experts=2|4|8:\n{SYNTAX}\n\n"
        "Every other flag is one of training, for all trials: see python -m train --help.\n"
        "The same command goes on with a sweep that was stopped.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--search", action="append", required=True, help="arguments and their values, see below")
    parser.add_argument("--sampler", choices=SAMPLERS, default="random", help="how values are chosen (default: random)")
    parser.add_argument("--trials", type=positive, help=f"how many runs (default: the whole grid, or {DEFAULT_TRIALS})")
    parser.add_argument("--search_seed", type=natural, default=0, help="of the choice of values (default: 0)")
    options, rest = parser.parse_known_args(argv)
    arguments, max_runs = read_flags(rest, COMMANDS_HELP)
    if max_runs is not None:
        parser.error("--max_runs does not go with a sweep: its runs follow one another")
    found = sweep(
        arguments,
        options.search,
        sampler=options.sampler,
        trials=options.trials,
        search_seed=options.search_seed,
    )
    print(f"\n{sweep_table(found)}\n")
    if found.stopped:
        given = [*argv, *([] if arguments.train.output_dir else ["--output_dir", str(found.folder)])]
        print(f"{found.stopped} Go on with: python -m train sweep {shlex.join(given)}")
    if found.best is not None:
        equal = sum(trial.figure == found.best.figure for trial in found.ranked())
        tie = f", the first of {equal} equal ones" if equal > 1 else ""
        print(
            f"Best on validation: trial {found.best.number}{tie}.\n"
            f"Checkpoint: {found.folder / found.best.run / 'best'}\n"
            f"The same again: {found.best_arguments().again()}\n"
            f"Look at all: {found.folder / 'parallel_coordinates.html'}"
        )


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "runs": _runs,
    "stop": _stop,
    "resume": _resume,
    "evaluate": evaluate_command,
    "predict": predict_command,
    "analyze": analyze_command,
    "package": package_command,
    "publish": publish_command,
    "convert": convert_command,
    "import": import_command,
    "sweep": _sweep,
}


def _report(run: Run) -> None:
    from train.tasks.registry import TASKS

    state = run.state()
    if state.name == "stopped":
        how = "Go on" if run.last_checkpoint() else "Start it"
        print(f"{state.message} {how} with: python -m train resume {pasted(run.folder)}")
    elif state.message:
        print(state.message)
    if not run.metrics("eval"):
        return
    task = TASKS[run.arguments().train.task]
    pick = max if task.higher_is_better else min
    best = pick(run.metrics("eval"), key=lambda record: record[task.best])
    print(f"Best validation {task.describe(best[task.best])} (step {best['step']}). Checkpoint: {run.best}")
    print(f"Look at it: python app.py --checkpoint {pasted(run.best)}")
    if not task.labelled:
        print(f"Make a classifier of it: python -m train --init_from {pasted(run.best)} --dataset …")
