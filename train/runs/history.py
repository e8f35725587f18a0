"""All runs of a folder as table rows, for the command line, the page and JSON.

Try it: python -m train runs
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from train.formatting import aligned, clock
from train.runs.run import RUNS, Run, RunError, list_runs
from train.tasks.registry import TASKS, Task

COLUMNS = ("name", "state", "data set", "best", "steps", "time", "started")


def summaries(root: str | Path = RUNS) -> list[dict[str, Any]]:
    """`summary` of every run, the newest first; for one whose arguments can't be read, its name and the error."""
    found = []
    for run in list_runs(root):
        try:
            found.append(summary(run))
        except RunError as error:
            if run.arguments_path.exists():  # And not deleted since it was listed.
                found.append(_unreadable(run, str(error)))
        except OSError:
            continue
    return found


def _unreadable(run: Run, why: str) -> dict[str, Any]:
    words = {"name": run.name, "folder": str(run.folder), "state": "failed", "message": why}
    unknown = ("dataset", "task", "preset", "best", "max_steps", "queued", "started", "ended")
    return words | dict.fromkeys(unknown) | {"dataset": "?", "best_words": "", "step": 0, "seconds": 0.0}


def summary(run: Run) -> dict[str, Any]:
    """name, folder, state, message, dataset, task, preset, best (metric, or None) and best_words, step, max_steps,
    seconds, queued, started, ended (seconds since 1970)."""
    arguments, state, progress = run.arguments(), run.state(), run.progress()
    task, best = TASKS[arguments.train.task], best_metric(run)
    return {
        "name": run.name,
        "folder": str(run.folder),
        "state": state.name,
        "message": state.message,
        "dataset": Path(arguments.data.dataset).name,
        "task": arguments.train.task,
        "preset": arguments.train.preset,
        "best": best,
        "best_words": "" if best is None else task.describe(best),
        "step": progress.get("step", 0),
        "max_steps": progress.get("max_steps"),
        "seconds": progress.get("seconds", 0.0),
        "queued": state.queued,
        "started": state.started,
        "ended": state.ended,
    }


def best_metric(run: Run) -> float | None:
    """The run's best validation metric (its task's `best`); None before the first evaluation."""
    return best_of(run.metrics("eval"), TASKS[run.arguments().train.task])


def best_of(records: Sequence[Mapping[str, Any]], task: Task) -> float | None:
    """`best_metric` of lines of metrics."""
    metrics = [record[task.best] for record in records if record["kind"] == "eval" and task.best in record]
    return (max if task.higher_is_better else min)(metrics, default=None)


def run_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text in aligned columns."""
    return aligned([COLUMNS, *(_cells(row) for row in rows)])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    steps = f"{row['step']:,}" + (f" of {row['max_steps']:,}" if row["max_steps"] else "")
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started"])) if row["started"] else "-"
    time_taken = clock(row["seconds"])
    return row["name"], row["state"], row["dataset"], row["best_words"] or "-", steps, time_taken, started
