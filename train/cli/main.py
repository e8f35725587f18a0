"""The command line: python -m train [command] --flags. Without a command, it trains (`train_command`).

Unknown and abbreviated flags are errors; errors are reported in one line, with exit status 2.
"""

import os
import sys
import warnings
from collections.abc import Callable

from switch_model.checkpoint import CheckpointError
from switch_model.commands import command
from train.cli.analyze import analyze_command
from train.cli.convert import convert_command, import_command
from train.cli.evaluate import evaluate_command
from train.cli.export import export_command
from train.cli.parser import COMMANDS_HELP, did_you_mean, read_flags
from train.cli.predict import predict_command
from train.cli.prune import prune_command
from train.cli.release import calibrate_command, package_command, publish_command
from train.cli.runs import report_end, resume_command, runs_command, stop_command
from train.cli.sweep import compare_routers_command, sweep_command
from train.data.errors import DataError
from train.data.table_file import is_table
from train.formatting import pasted
from train.launch import UNREAD, drop_output, ignore_closed_stdout, is_main
from train.release.publish import PublishError
from train.requirements import why_not_imported
from train.runs.run import RunError
from train.runs.signals import INTERRUPTED, ended_by_signals


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # An incompatibility of datasets and pyarrow that users can't fix.
    warnings.filterwarnings("ignore", "Specifying null_placement", FutureWarning)
    if argv and argv[0] not in COMMANDS and not argv[0].startswith("-"):
        print(_no_such_command(argv[0]), file=sys.stderr)
        return 2
    command, rest = (COMMANDS[argv[0]], argv[1:]) if argv and argv[0] in COMMANDS else (train_command, argv)
    try:
        try:
            command(rest)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # The reader of the output has closed it.
        drop_output()
        return UNREAD
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if (said := _in_words(error)) is None:
            raise
        if isinstance(error, OSError) and error.filename is None:
            drop_output()  # Writing to stdout may be what failed; do not try again at exit.
        print(f"error: {said}" if is_main() else f"error in process {os.environ['RANK']}: {said}", file=sys.stderr)
        return 2
    return 0


def train_command(argv: list[str]) -> None:
    ignore_closed_stdout()
    arguments, max_runs = read_flags(argv, COMMANDS_HELP)
    with ended_by_signals():
        from train.training.loop import train

    run = train(arguments, max_runs)
    if is_main():
        report_end(run)


def _in_words(error: Exception) -> str | None:
    """The message for an expected exception; None for a bug."""
    if said := why_not_imported(error):
        return said
    if isinstance(error, (CheckpointError, DataError, PublishError, RunError, ValueError, FloatingPointError)):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}."
    return None


def _no_such_command(word: str) -> str:
    if is_table(word):
        return f"error: {word} is not a command. To train on it: {command()} --dataset {pasted(word)}"
    if near := did_you_mean(word, COMMANDS):
        return f"error: there is no command {word}{near}. See {command()} --help"
    return f"error: there is no command {word}. Commands: {', '.join(COMMANDS)}; without one, it trains."


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "runs": runs_command,
    "stop": stop_command,
    "resume": resume_command,
    "evaluate": evaluate_command,
    "predict": predict_command,
    "analyze": analyze_command,
    "package": package_command,
    "calibrate": calibrate_command,
    "publish": publish_command,
    "export": export_command,
    "prune": prune_command,
    "convert": convert_command,
    "import": import_command,
    "sweep": sweep_command,
    "compare-routers": compare_routers_command,
}
