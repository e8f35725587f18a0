"""--format torchao-int8: a checkpoint whose matrices torchao holds in 8 bits, with this package's code to open it."""

import importlib.util
import shutil
from pathlib import Path

from switch_model.export import torchao_int8
from train.formatting import listed
from train.release.formats.opened import Opened
from train.release.formats.with_code import CALLED, write_code, write_model
from train.templates import render

PACKAGE = "torchao"


def write_torchao_folder(opened: Opened, folder: Path) -> str:
    """Write the folder; returns its size, and what stays in float32.

    Raises:
        CheckpointError: for a model without a head.
        ValueError: without torchao.
    """
    if importlib.util.find_spec(PACKAGE) is None:
        raise ValueError(f"--format torchao-int8 needs {PACKAGE}: pip install {PACKAGE}")
    write_model(opened, folder)
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    whole = sum(weight.numel() * weight.element_size() for weight in opened.model.state_dict().values())
    left = torchao_int8.quantize(opened.model)
    small = torchao_int8.save(opened.model, folder).stat().st_size
    write_code(folder)
    with (folder / "requirements.txt").open("a", encoding="utf-8") as file:
        file.write(f"{PACKAGE}\n")
    shutil.copyfile(CALLED / "infer_torchao.py", folder / "infer.py")
    said = f"{small / 1e6:.1f} MB of weights, from {whole / 1e6:.1f} MB in float32. In float32 stay {listed(left)}."
    about = render("release/formats/torchao_card.md.jinja", said=said)
    (folder / "README.md").write_text(f"{opened.card().rstrip()}\n\n{about}", encoding="utf-8")
    return said
