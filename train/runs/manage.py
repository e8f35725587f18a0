"""Rename, delete or archive runs that have ended.

Try it: archive(Run.open("runs/toy"), Path("toy.zip"))
"""

import json
import shutil
import zipfile
from pathlib import Path

from switch_model.storage.whole_files import write_atomically, written_aside
from train.runs.run import Run, RunError

# Safe to share. Not optimizer files, which are pickles, nor the log, which has local paths.
SHARED = ("metrics.jsonl", "training_curve.png", "training_curve.html")


def rename(run: Run, name: str) -> Run:
    """Rename a run's folder. Raises RunError when it is running or the name is taken."""
    _check_ended(run)
    folder = run.folder.with_name(name)
    if not name or Path(name).name != name or name.startswith("."):
        raise RunError(f"{name!r} is not a valid name: use letters, digits, dots, dashes and underscores.")
    if folder.exists():
        raise RunError(f"A run {name} already exists.")
    run.folder.rename(folder)
    renamed = Run(folder)
    # So that its arguments contain its present folder.
    arguments = renamed.arguments()
    arguments.train.output_dir = str(folder)
    write_atomically(renamed.arguments_path, json.dumps(arguments.to_dict(), indent=2) + "\n")
    return renamed


def delete(run: Run) -> None:
    """Delete a run's folder. Raises RunError when it is running."""
    _check_ended(run)
    try:
        shutil.rmtree(run.folder)
    except OSError as error:
        raise RunError(f"{run.folder} can't be removed: {error.strerror}.") from error


def archive(run: Run, path: Path) -> Path:
    """Write the best checkpoint, arguments, metrics and curves to a zip, which the app can open as a model.

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
