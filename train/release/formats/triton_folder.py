"""--format triton: a model repository for Triton Inference Server, which gathers requests into batches.

Classifiers and masked models are an ONNX graph and, before it, a model in Python that reads texts; a model that writes
is one model in Python, with this package's code.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from train.release.formats.onnx_folder import write_graphs, write_reader
from train.release.formats.opened import Opened
from train.release.formats.with_code import CALLED, requirements, write_code, write_model
from train.templates import render

# Texts in one batch.
MOST_TEXTS = 64
TYPES = {"tensor(int64)": "TYPE_INT64", "tensor(float)": "TYPE_FP32"}


def write_triton_folder(opened: Opened, folder: Path) -> str:
    """Write the repository; returns a sentence about it. Raises as `write_onnx_folder`."""
    name = re.sub(r"[^\w.-]", "_", opened.name, flags=re.ASCII).strip(".") or "model"
    graph = not opened.model.can_generate()
    compared = ""
    version = folder / name / "1"
    version.mkdir(parents=True)
    if graph:
        compared = _write_graph(opened, folder / f"{name}-graph")
        write_reader(opened, version)
        (folder / "requirements.txt").write_text(requirements("tokenizers", "numpy"), encoding="utf-8")
    else:
        write_model(opened, version)
        write_code(version)
        shutil.move(version / "requirements.txt", folder / "requirements.txt")
    shutil.copyfile(CALLED / "triton_model.py", version / "model.py")
    values = {"name": name, "graph": graph, "most": MOST_TEXTS}
    _write("texts.pbtxt", folder / name / "config.pbtxt", values)
    _write("run_triton.sh", folder / "run_triton.sh", values)
    about = render("release/formats/triton/card.md.jinja", compared=compared, **values)
    (folder / "README.md").write_text(f"{opened.card().rstrip()}\n\n{about}", encoding="utf-8")
    return f"a model repository: bash run_triton.sh serves {name} at http://127.0.0.1:8000. {compared}".rstrip()


def _write_graph(opened: Opened, folder: Path) -> str:
    """The graph as a model of the repository; returns how it compares with PyTorch."""
    version = folder / "1"
    version.mkdir(parents=True)
    compared = write_graphs(opened, version)
    import onnxruntime

    session = onnxruntime.InferenceSession(version / "model.onnx", providers=["CPUExecutionProvider"])
    inputs, outputs = ([_tensor(one) for one in some] for some in (session.get_inputs(), session.get_outputs()))
    values = {"name": folder.name.removesuffix("-graph"), "most": MOST_TEXTS, "inputs": inputs, "outputs": outputs}
    _write("graph.pbtxt", folder / "config.pbtxt", values)
    return compared


def _tensor(value: Any) -> dict[str, Any]:
    """A graph's input or output as Triton names it: without the batch, and -1 for a size that may be any."""
    return {
        "name": value.name,
        "type": TYPES[value.type],
        "dims": [size if isinstance(size, int) else -1 for size in value.shape[1:]],
    }


def _write(template: str, path: Path, values: dict[str, Any]) -> None:
    path.write_text(render(f"release/formats/triton/{template}.jinja", **values), encoding="utf-8")
