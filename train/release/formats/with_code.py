"""--format endpoint and sagemaker: a checkpoint, this package's code, and the file that the platform calls.

Both folders are what the platform unpacks; the tar for SageMaker lies in its folder too.
"""

import re
import shutil
import tarfile
from pathlib import Path

import switch_model
from switch_model.checkpoint import CheckpointError
from switch_model.commands import command
from switch_model.export import service
from switch_model.inference.factory import PIPELINES
from switch_model.storage.errors import a_class
from train.release.formats.opened import Opened
from train.requirements import needed

# What switch_model imports when it answers; the platform's image brings Python.
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "numpy", "psutil")
CALLED = Path(service.__file__).parent


def write_endpoint_folder(opened: Opened, folder: Path) -> str:
    """Write the folder of a Hugging Face Inference Endpoint; returns a sentence about it."""
    write_model(opened, folder)
    shutil.copyfile(CALLED / "handler.py", folder / "handler.py")
    write_code(folder)
    return "push it to the Hub as a model repository and make an endpoint of it: handler.py answers the requests."


def write_sagemaker_folder(opened: Opened, folder: Path) -> str:
    """Write the folder of a SageMaker model, and model.tar.gz of it; returns a sentence about it."""
    write_model(opened, folder)
    code = folder / "code"
    code.mkdir()
    shutil.copyfile(CALLED / "inference.py", code / "inference.py")
    write_code(code)
    archive = folder / "model.tar.gz"
    contents = sorted(path for path in folder.iterdir())
    with tarfile.open(archive, "w:gz") as tar:
        for path in contents:
            tar.add(path, path.name, filter=_anonymous)
    return "model.tar.gz is what SageMaker's model data points to; code/inference.py answers the requests."


def requirements(*packages: str) -> str:
    """requirements.txt, with this package's ranges; without names, of all that switch_model needs."""
    ranges = {re.split(r"[^\w-]", line)[0].lower().replace("-", "_"): line for line in needed()}
    return "".join(f"{ranges[name]}\n" for name in packages or PACKAGES if name in ranges)


def write_model(opened: Opened, folder: Path) -> None:
    """The checkpoint's files. Raises CheckpointError for one without a head."""
    if type(opened.model) not in PIPELINES:
        raise CheckpointError(
            f"This checkpoint is {a_class(opened.model)}, without a head: it can't answer requests. Train "
            f"a head from it with {command()} --init_from."
        )
    for path in opened.files.iterdir():
        shutil.copyfile(path, folder / path.name)


def write_code(folder: Path) -> None:
    """requirements.txt and a copy of switch_model."""
    (folder / "requirements.txt").write_text(requirements(), encoding="utf-8")
    source = Path(switch_model.__file__).parent
    shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the names and ids of this machine's user."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
