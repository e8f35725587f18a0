"""--format docker and space: the app with the checkpoint, as a folder to build an image of, or to push to a Space."""

import re
import shutil
from pathlib import Path

import switch_model
from switch_model.checkpoint import CheckpointError
from switch_model.commands import command
from switch_model.inference.factory import PIPELINES
from switch_model.storage.errors import a_class
from train.release.formats.opened import Opened
from train.requirements import ROOT
from train.templates import render

FOLDERS = ("assets", "train", "ui")
FILES = ("app.py", "pyproject.toml", "requirements.txt", "LICENSE")
# The Hub takes larger files through Git LFS only.
LARGE = ("*.safetensors", "*.parquet", "*.png", "*.gif", "*.json.gz")
MAX_TITLE = 60


def write_docker_folder(opened: Opened, folder: Path) -> str:
    """Write the folder of an image; returns a sentence about it."""
    _write_app(opened, folder)
    for name in ("Dockerfile", ".dockerignore", "compose.yaml"):
        template = f"release/formats/docker/{name.removeprefix('.')}.jinja"
        (folder / name).write_text(render(template), encoding="utf-8")
    (folder / "README.md").write_text(opened.card(), encoding="utf-8")
    return "docker compose up --build, in that folder, serves it at http://127.0.0.1:7860"


def write_space_folder(opened: Opened, folder: Path) -> str:
    """Write the folder of a Hugging Face Space; returns a sentence about it."""
    _write_app(opened, folder)
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    title = re.sub(r"[^\w .-]", "", opened.name)[:MAX_TITLE].strip() or "model"
    front = re.sub(r"(?m)^title: .*$", f'title: "{title}"', front, count=1)
    front = re.sub(r"(?m)^app_file: .*$", "app_file: start.py", front, count=1)
    card = opened.card()
    if licence := re.search(r"(?m)^license: .*$", card.partition("\n---\n")[0]):  # The folder holds the model.
        front = re.sub(r"(?m)^license: .*$", licence.group(), front, count=1)
    card = re.sub(r"(?s)\A---\n.*?\n---\n", "", card)
    (folder / "README.md").write_text(f"---\n{front}---\n{card}", encoding="utf-8")
    attributes = "".join(f"{name} filter=lfs diff=lfs merge=lfs -text\n" for name in LARGE)
    (folder / ".gitattributes").write_text(attributes, encoding="utf-8")
    return "push it to the Hub as a Gradio Space (git, or hf upload REPOSITORY FOLDER --repo-type space)."


def _write_app(opened: Opened, folder: Path) -> None:
    """The app, and `start.py`, which serves it with the checkpoint in `model`."""
    if type(opened.model) not in PIPELINES:
        raise CheckpointError(
            f"This checkpoint is {a_class(opened.model)}, without a head: the app can't show it. Train a head "
            f"from it with {command()} --init_from."
        )
    if missing := [name for name in (*FOLDERS, *FILES) if not (ROOT / name).exists()]:
        raise ValueError(
            f"The app's files are not all here ({', '.join(missing)}): run this command in a checkout of the project."
        )
    # Installed, switch_model lies elsewhere than the app.
    for source in (Path(switch_model.__file__).parent, *(ROOT / name for name in FOLDERS)):
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in FILES:
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copytree(opened.files, folder / "model")
    (folder / "start.py").write_text(render("release/formats/start.py.jinja"), encoding="utf-8")
