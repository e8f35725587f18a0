"""What one does with runs that have ended: rename, delete, and pack the part that is safe to share.

Try it: archive(Run.open("runs/toy"), Path("toy.zip"))
"""

import json
import shutil
import zipfile
from pathlib import Path

from switch_model.storage.whole_files import write_atomically, written_aside
from train.runs.run import Run, RunError

# Weights without pickles, words and metrics. Not: optimizer files, which are pickles, and the log, which knows folders.
SHARED = ("metrics.jsonl", "training_curve.png", "training_curve.html")


def rename(run: Run, name: str) -> Run:
    """Give a run another name beside its old place. Raises RunError when it is at work or the name is taken."""
    _check_ended(run)
    folder = run.folder.with_name(name)
    if not name or Path(name).name != name or name.startswith("."):
        raise RunError(f"{name!r} is no name for a run: take letters, digits, dots, dashes and underscores.")
    if folder.exists():
        raise RunError(f"There is a run {name} already.")
    run.folder.rename(folder)
    renamed = Run(folder)
    # So that its arguments, fed back, name the folder in which it lies.
    arguments = renamed.arguments()
    arguments.train.output_dir = str(folder)
    write_atomically(renamed.arguments_path, json.dumps(arguments.to_dict(), indent=2) + "\n")
    return renamed


def delete(run: Run) -> None:
    """Remove a run with everything in it. Raises RunError when it is at work."""
    _check_ended(run)
    try:
        shutil.rmtree(run.folder)
    except OSError as error:
        raise RunError(f"{run.folder} can't be removed: {error.strerror}.") from error


def archive(run: Run, path: Path) -> Path:
    """Pack the best checkpoint, arguments, metrics and curves into a zip whose best/ the app opens as it is.

    Raises RunError when there is no checkpoint yet.
    """
    if not run.best.is_dir():
        raise RunError(f"{run.name} has no checkpoint yet.")
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(run.best.iterdir()):
            packed.write(file, f"best/{file.name}")
        packed.writestr("arguments.json", json.dumps(run.arguments().portable(), indent=2) + "\n")
        for name in SHARED:
            if (run.folder / name).is_file():
                packed.write(run.folder / name, name)
    return path


def _check_ended(run: Run) -> None:
    if run.state().active:
        raise RunError(f"{run.name} is {run.state().name}: stop it first.")
