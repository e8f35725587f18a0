"""A search over training arguments: one run after another in a folder, compared by their best validation metric.

A trial is a normal run in its own process: a failed one does not end the sweep. Completed trials are read from the
runs' folders, so that the same command resumes a stopped sweep.
Try it: python -m train sweep --search "lr=1e-4..1e-2:log,num_experts=2|4|8" --trials 4 --output_dir runs/my-sweep
"""

import csv
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.arguments.device import pick_device
from train.formatting import aligned, clock
from train.runs.continuing import check_digest, digest_of
from train.runs.history import best_metric
from train.runs.process import StopRequest, go_on, start
from train.runs.run import RUNS, Run, RunError, named_after, reserve_folder
from train.runs.run_files import read_object
from train.sweep.search_space import chosen_values, grid, parse_search, with_values, written
from train.sweep.study import Sweep, Trial
from train.tasks.registry import TASKS

SAMPLERS = ("random", "grid", "tpe")
DEFAULT_TRIALS = 10
WAIT_SECONDS = 0.2


def sweep(
    arguments: Arguments,
    search: list[str],
    *,
    sampler: str = "random",
    trials: int | None = None,
    search_seed: int = 0,
) -> Sweep:
    """Run the missing trials; write sweep.json, sweep.csv and the plots into `output_dir`.

    Args:
        arguments: of every trial.
        search: in the syntax of train/sweep/search_space.py.
        sampler: random, grid (all combinations), or tpe (Optuna's tree-structured Parzen estimator, 10 trials or more).
        trials: total number; None = the whole grid, or 10.
        search_seed: of the sampler; the runs' seed is an argument.

    Raises:
        ValueError, DataError, RunError: with what is wrong with the search, the data or the folder.
    """
    task = TASKS[arguments.train.task]
    arguments.check()
    dimensions = parse_search(search, arguments)
    combinations = grid(dimensions) if sampler == "grid" else None
    most = len(combinations) if combinations else DEFAULT_TRIALS
    trials = most if trials is None else min(trials, most) if combinations else trials
    folder = Path(arguments.train.output_dir or reserve_folder(RUNS, named_after(arguments.data.dataset, "-sweep")))
    found = Sweep(folder, dimensions, sampler, search_seed, arguments, task.best, task.higher_is_better)
    try:
        _take_folder(found)
    except BaseException:
        if not arguments.train.output_dir:
            folder.rmdir()  # A sweep that can't start leaves no folder behind.
        raise
    with _exclusive(folder):
        for number in range(1, trials + 1):
            values = _values_of(found, number) or (combinations[number - 1] if combinations else found.draw(number))
            if values is None:
                print(f"All {number - 1} combinations have been tried.", flush=True)
                break
            words = " ".join(f"{key}={written(value)}" for key, value in values.items())
            print(f"Trial {number} of {trials}: {words}", flush=True)
            trial, interrupted = _carry_out(found, number, values)
            found.trials.append(trial)
            print(f"  {_outcome(found, trial)}", flush=True)
            if interrupted or trial.state == "stopped":
                found.stopped = f"Stopped at trial {number} of {trials}. {trial.message}".strip()
            write_sweep(found)
            if found.stopped:
                break
        if found.best is not None:
            from train.sweep.plots import write_plots

            write_plots(found, folder)
    return found


def _take_folder(found: Sweep) -> None:
    """Create the folder, or check that it contains the same sweep. Errors common to all trials are raised here."""
    folder = found.folder
    if (folder / "arguments.json").exists():
        raise RunError(f"{folder} contains a run. Choose another --output_dir for the sweep.")
    if not (folder / "sweep.json").exists():
        pick_device(found.arguments.train.device)
        found.rows = digest_of(found.arguments)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_sweep(found)
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}.") from error
        return
    old = read_sweep(folder)
    found.rows = check_digest(found.arguments, old.get("rows"), f"the sweep in {folder}")
    for key, value in found.plan().items():
        if old.get(key) != json.loads(json.dumps(value)):
            raise RunError(
                f"{folder} contains a sweep with other {key.replace('_', ' ')}. Choose another --output_dir, or give "
                "the same command to resume it (only --trials may change)."
            )


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Context in which no other process can run this sweep."""
    lock = FileLock(folder / ".sweep.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"Another process is running the sweep in {folder}.") from None
    try:
        yield
    finally:
        lock.release()


# Which values


def _run_folder(folder: Path, number: int) -> Path:
    return folder / f"trial-{number:03}"


def _values_of(found: Sweep, number: int) -> dict[str, Any] | None:
    """The values of a trial that has begun; None for a new one."""
    run = Run(_run_folder(found.folder, number))
    return dict(chosen_values(found.dimensions, run.arguments())) if run.arguments_path.exists() else None


# One trial


def _carry_out(found: Sweep, number: int, values: dict[str, Any]) -> tuple[Trial, bool]:
    """Run, resume or read a trial; returns it, and whether the sweep was interrupted."""
    run = Run(_run_folder(found.folder, number))
    try:
        if not run.arguments_path.exists():
            _start(found, run, number, values)
        elif run.state().active:
            print("  It is still running; waiting for it.", flush=True)
        elif _unfinished(run):
            if run.last_checkpoint() is None:
                shutil.rmtree(run.folder)
                _start(found, run, number, values)
            else:
                go_on(run)
    except ValueError as error:
        return Trial(number, values, None, "failed", message=str(error)), False
    interrupted = _wait(run)
    state = run.state()
    seconds = run.progress().get("seconds", 0.0)
    return Trial(number, values, run.name, state.name, best_metric(run), seconds, state.message), interrupted


def _unfinished(run: Run) -> bool:
    """Whether a trial was stopped, or its process died. A run that failed with an error would fail again."""
    state = run.state()
    return state.name == "stopped" or (state.name == "failed" and state.ended is None)


def _start(found: Sweep, run: Run, number: int, values: dict[str, Any]) -> None:
    arguments = with_values(found.arguments, values)
    # Unique names in TensorBoard and W&B.
    arguments.train.run_name = f"{arguments.train.run_name or found.folder.name}-{run.name}"
    start(arguments, found.folder, run.name)


def _wait(run: Run) -> bool:
    """Wait for the run. Ctrl-C or SIGTERM stops it with a checkpoint, a second one kills it. Returns whether it was
    stopped."""
    asked = False
    stop = StopRequest(run)
    with stop.noticed():
        try:
            while run.state().active:
                if stop.signalled and not asked:
                    run.request_stop()
                    asked = True
                time.sleep(WAIT_SECONDS)
        except KeyboardInterrupt:
            if (state := run.state()).active and state.process_lives() and state.pid != os.getpid():
                os.kill(state.pid, signal.SIGKILL)
            raise
    if asked:
        run.stop_path.unlink(missing_ok=True)  # The run may have ended just before the request.
    return stop.signalled


# Results


def write_sweep(found: Sweep) -> None:
    """sweep.json and sweep.csv."""
    write_atomically(found.folder / "sweep.json", json.dumps(found.to_dict(), indent=2) + "\n")
    names = [dimension.name for dimension in found.dimensions]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["trial", "run", "state", found.figure, "seconds", *names])
    for trial in found.trials:
        values = ["none" if trial.values[name] is None else trial.values[name] for name in names]
        writer.writerow([trial.number, trial.run, trial.state, trial.figure, round(trial.seconds, 1), *values])
    write_atomically(found.folder / "sweep.csv", text.getvalue())


def read_sweep(folder: str | Path) -> dict[str, Any]:
    """sweep.json of a folder, as `Sweep.to_dict` wrote it. Raises RunError when there is none."""
    try:
        return read_object(Path(folder) / "sweep.json")
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{folder} is not a sweep: sweep.json can't be read. Delete it to start again.") from error


def sweep_table(found: Sweep) -> str:
    """All trials as text in aligned columns, the best first."""
    ranked = found.ranked()
    rest = [trial for trial in found.trials if trial not in ranked]
    names = [dimension.name for dimension in found.dimensions]
    cells = [["trial", "state", found.figure, "time", *names]]
    for trial in ranked + rest:
        metric = "-" if trial.figure is None else found.metric_text(trial.figure)
        values = [written(trial.values[name]) for name in names]
        cells.append([str(trial.number), trial.state, metric, clock(trial.seconds), *values])
    return aligned(cells)


def _outcome(found: Sweep, trial: Trial) -> str:
    if trial.measured:
        return f"{TASKS[found.arguments.train.task].describe(trial.figure)} in {clock(trial.seconds)}"
    return f"{trial.state}. {next(iter(trial.message.splitlines()), '')}".strip()
