"""All runs of a folder, as rows: for the command line, the page and JSON.

Try it: python -m train runs
"""

import time
from pathlib import Path
from typing import Any

from train.runs import RUNS, Run, RunError, list_runs
from train.tasks import TASKS

COLUMNS = ("name", "state", "data set", "best", "steps", "time", "started")


def summaries(root: str | Path = RUNS) -> list[dict[str, Any]]:
    """`summary` of every run, the newest first. A folder that can't be read is left out."""
    found = []
    for run in list_runs(root):
        try:
            found.append(summary(run))
        except (RunError, OSError):
            continue
    return found


def summary(run: Run) -> dict[str, Any]:
    """name, folder, state, message, dataset, task, preset, best (figure, or None) and best_words, step, max_steps,
    seconds, queued, started, ended (seconds since 1970)."""
    arguments, state, progress = run.arguments(), run.state(), run.progress()
    task = TASKS[arguments.train.task]
    figures = [record[task.best] for record in run.metrics("eval") if task.best in record]
    best = (max if task.higher_is_better else min)(figures, default=None)
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


def run_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text in columns."""
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(COLUMNS))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    steps = f"{row['step']:,}" + (f" of {row['max_steps']:,}" if row["max_steps"] else "")
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started"])) if row["started"] else "-"
    seconds = int(row["seconds"])
    clock = f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return row["name"], row["state"], row["dataset"], row["best_words"] or "-", steps, clock, started
