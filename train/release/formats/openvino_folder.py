"""--format openvino: the graph as OpenVINO's files, and beside it what reads texts and a script that runs it."""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from switch_model.checkpoint import CheckpointError
from switch_model.export.graphs import Graph
from switch_model.export.parity import Runner, compare, random_batches
from switch_model.storage.errors import a_class
from train.release.formats.onnx_folder import SCRIPTS, in_words, write_files, write_reader
from train.release.formats.opened import Opened
from train.templates import render

PACKAGE = "openvino"
# In float32: where a CPU has bfloat16, OpenVINO would compute in that.
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}


def write_openvino_folder(opened: Opened, folder: Path) -> str:
    """Write the folder; returns how OpenVINO's answers compare with the model's.

    Raises as `write_onnx_folder`, and CheckpointError for a model that writes text, or adds counts of words.
    """
    if opened.model.can_generate():
        raise CheckpointError(
            f"This checkpoint is {a_class(opened.model)}: --format openvino takes classifiers and masked models. "
            "Use --format onnx."
        )
    if opened.model.config.counted_rows:
        raise CheckpointError(
            "This model adds counts of words (counted_rows), found by hashes of 64 bits, which OpenVINO narrows to 32. "
            "Use --format onnx."
        )
    if importlib.util.find_spec(PACKAGE) is None:
        raise ValueError(f"--format openvino needs {PACKAGE}: pip install {PACKAGE}")
    with tempfile.TemporaryDirectory() as scratch:
        import openvino

        for path in write_files(opened, Path(scratch)):
            # Beside <name>.xml it writes the weights, as <name>.bin.
            openvino.save_model(openvino.convert_model(path), folder / f"{path.stem}.xml", compress_to_fp16=False)
    compared = in_words(compare(opened.model, openvino_runner(folder), random_batches(opened.model)))
    write_reader(opened, folder)
    shutil.copyfile(SCRIPTS / "infer_openvino.py", folder / "infer.py")
    about = render("release/formats/openvino_card.md.jinja", compared=compared)
    (folder / "README.md").write_text(f"{opened.card().rstrip()}\n\n{about}", encoding="utf-8")
    return compared


def openvino_runner(folder: Path, threads: int = 0) -> Runner:
    """What runs the files of a folder; 0 threads = as many as OpenVINO chooses."""
    import openvino

    core, opened = openvino.Core(), dict[str, Any]()
    settings = SETTINGS | ({"INFERENCE_NUM_THREADS": threads} if threads else {})

    def run(graph: Graph, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if graph.name not in opened:
            opened[graph.name] = core.compile_model(folder / f"{graph.name}.xml", "CPU", settings)
        model = opened[graph.name]
        found = model({one.any_name: inputs[one.any_name].numpy() for one in model.inputs})
        return {one.any_name: torch.from_numpy(found[one].copy()) for one in model.outputs}

    return run
