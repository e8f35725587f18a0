"""python -m train resume, stop and runs: what can be done with runs, and how one ended in words."""

import json
import sys

from switch_model.commands import app_command, command
from train.cli.parser import as_path, command_parser, positive
from train.formatting import pasted
from train.launch import ignore_closed_stdout, is_main
from train.runs.run import RUNS, Run, RunError
from train.runs.signals import ended_by_signals


def resume_command(argv: list[str]) -> None:
    parser = command_parser(
        "resume", "Resume a stopped run from its last checkpoint, or from the beginning if it has none."
    )
    ignore_closed_stdout()
    parser.add_argument("run", type=as_path, help="folder of the run")
    parser.add_argument("--max_runs", type=positive, help="wait until fewer than this many runs of its folder run")
    options = parser.parse_args(argv)
    with ended_by_signals():
        from train.training.resuming import resume

    run = resume(options.run, options.max_runs)
    if is_main():
        report_end(run)


def stop_command(argv: list[str]) -> None:
    parser = command_parser("stop", "Stop a run after its current step, with a checkpoint to resume from.")
    parser.add_argument("run", type=as_path, help="folder of the run")
    run = Run.open(parser.parse_args(argv).run)
    if not run.state().active:
        raise RunError(f"{run.folder} is not running: its state is {run.state().name}.")
    run.request_stop()
    print(f"{run.folder} stops after its current step. Resume it: {command('resume')} {pasted(run.folder)}")


def runs_command(argv: list[str]) -> None:
    parser = command_parser("runs", "List all runs of a folder, the newest first.")
    parser.add_argument("folder", nargs="?", type=as_path, default=str(RUNS), help="folder of the runs")
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


def report_end(run: Run) -> None:
    """Print how a run ended, its best checkpoint, and what can be done with it."""
    from train.tasks.registry import TASKS

    state = run.state()
    if state.name == "stopped":
        how = "Resume" if run.last_checkpoint() else "Start it"
        print(f"{state.message} {how} with: {command('resume')} {pasted(run.folder)}")
    elif state.message:
        print(state.message)
    if not run.metrics("eval"):
        return
    task = TASKS[run.arguments().train.task]
    pick = max if task.higher_is_better else min
    best = pick(run.metrics("eval"), key=lambda record: record[task.best])
    print(f"Best validation {task.describe(best[task.best])} (step {best['step']}). Checkpoint: {run.best}")
    print(f"Explore it: {app_command()} {pasted(run.best)}")
    if not task.labelled:
        print(f"Train a classifier from it: {command()} --init_from {pasted(run.best)} --dataset …")
