"""--format tensorrt: the folder of --format onnx, a script that builds an engine of its graph, and one that runs it.

Where CUDA and TensorRT are present the engine is built and compared with the model.
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch

from switch_model.checkpoint import CheckpointError
from switch_model.export.infer_trt import Engine
from switch_model.inference.factory import PIPELINES
from switch_model.storage.errors import a_class
from train.formatting import listed
from train.release.formats.onnx_folder import write_onnx_folder
from train.release.formats.opened import Opened
from train.release.formats.with_code import CALLED
from train.templates import render

MOST_TEXTS, USUAL_TEXTS, USUAL_TOKENS = 32, 8, 64
INPUTS = ("input_ids", "attention_mask")
# Operators that TensorRT's parser does not read, of those that torch's exporter may write for a model of this package.
UNREAD = {"BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "SplitToSequence", "SequenceAt", "Unique"}
UNBUILT = "It was not built here: that takes a GPU with CUDA and TensorRT (trtexec and its Python package)."


def write_tensorrt_folder(opened: Opened, folder: Path) -> str:
    """Write the folder; returns how graph, and engine where it was built, compare with the model.

    Raises as `write_onnx_folder`, and CheckpointError for a model that writes text, or whose graph TensorRT can't read.
    """
    if opened.model.can_generate():
        raise CheckpointError(
            f"This checkpoint is {a_class(opened.model)}: it writes text with a cache, for which no engine is "
            "built. Use --format onnx, and infer.py --provider tensorrt."
        )
    compared = write_onnx_folder(opened, folder)
    check_operators(folder / "model.onnx")
    longest = PIPELINES[type(opened.model)](opened.model, opened.tokenizer).max_length
    shapes = {
        "min": (1, 1),
        "opt": (USUAL_TEXTS, min(USUAL_TOKENS, longest)),
        "max": (MOST_TEXTS, longest),
    }
    script = folder / "build_engine.sh"
    values = {"shapes": shapes, "inputs": INPUTS}
    script.write_text(render("release/formats/tensorrt/build_engine.sh.jinja", **values), encoding="utf-8")
    shutil.copyfile(CALLED / "infer_trt.py", folder / "infer_trt.py")
    built = _built(opened, script, shapes) if can_build() else UNBUILT
    about = {"most": MOST_TEXTS, "longest": longest, "built": built}
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8").rstrip()
    said = render("release/formats/tensorrt/card.md.jinja", **about)
    card.write_text(f"{text}\n\n{said}", encoding="utf-8")
    return f"{compared} The engine: bash build_engine.sh. {built}"


def check_operators(path: Path) -> None:
    """Raise CheckpointError for an ONNX file with an operator that TensorRT does not read."""
    import onnx

    if found := UNREAD & {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}:
        raise CheckpointError(
            f"TensorRT reads no {listed(sorted(found))}, which the graph of this model has (counts of words, "
            "counted_rows, are computed with them). Use --format onnx."
        )


def can_build() -> bool:
    """Whether this machine builds and runs engines."""
    packages = all(importlib.util.find_spec(name) for name in ("tensorrt", "cuda"))
    return packages and shutil.which("trtexec") is not None and torch.cuda.is_available()


@torch.no_grad()
def _built(opened: Opened, script: Path, shapes: dict[str, tuple[int, int]]) -> str:
    """Build the engine and compare its logits. Raises ValueError where that fails."""
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise ValueError(f"trtexec could not build the engine: {' '.join(last)}")
    engine, difference = Engine(script.with_name("model.plan")), 0.0
    for texts, tokens in shapes.values():
        random = torch.Generator().manual_seed(tokens)
        ids = torch.randint(opened.model.config.vocab_size, (texts, tokens), generator=random)
        mask = torch.ones_like(ids)
        found = engine({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})["logits"]
        difference = max(difference, float(np.abs(found - opened.model(ids, mask).logits.numpy()).max()))
    return f"Built here; its logits differ from PyTorch's by at most {difference:.1g}."
