"""--format onnx, onnx-int8: model.onnx and beside it tokenizer, labels, card, a script that runs it without torch."""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

from switch_model.checkpoint import CheckpointError, config_text, require_classifier
from switch_model.export import onnx_graph
from switch_model.export.int8 import quantize
from switch_model.inference.factory import PIPELINES
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.storage.errors import a_class
from switch_model.storage.tokenizer_io import write_tokenizer
from train.formatting import counted
from train.release.formats.opened import Opened
from train.templates import render

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SCRIPT = Path(onnx_graph.__file__).with_name("infer.py")


def write_onnx_folder(opened: Opened, folder: Path) -> str:
    """Write the folder; returns how the graph compares with the model.

    Raises:
        CheckpointError: for a model that no single graph answers for.
        ValueError: where a package is missing, or the graph's logits differ from the model's.
    """
    check_packages()
    check_kind(opened)
    graph = folder / "model.onnx"
    onnx_graph.write_onnx(opened.model, graph, opened.with_routing)
    agreement = onnx_graph.compare(opened.model, graph, opened.with_routing)
    compared = in_words(agreement)
    write_beside(opened, folder, compared)
    return compared


def write_int8_folder(opened: Opened, folder: Path) -> str:
    """Write the folder with quantized weights; returns sizes and how the graph compares.

    Raises as `write_onnx_folder`.
    """
    check_packages()
    check_kind(opened)
    graph = folder / "model.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "model.onnx"
        onnx_graph.write_onnx(opened.model, whole, opened.with_routing)
        if whole.with_name("model.onnx.data").exists():
            raise ValueError("This model is above 1.5 GB: its ONNX file can't be quantized here. Use --format onnx.")
        quantize(whole, graph)
        sizes = f"{graph.stat().st_size / 1e6:.1f} MB, from {whole.stat().st_size / 1e6:.1f} MB in float32"
    agreement = onnx_graph.compare(opened.model, graph, opened.with_routing, tolerance=None)
    said = (
        f"Weights in int8: {sizes}. {in_words(agreement)} These are random tokens: measure the accuracy on your data."
    )
    write_beside(opened, folder, said)
    return said


def check_packages() -> None:
    """Raise ValueError where a package that export needs is missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"Export to ONNX needs {', '.join(missing)}: pip install {' '.join(missing)} (or this package's "
            "[export] extra)."
        )


def check_kind(opened: Opened) -> None:
    """Raise CheckpointError unless the model is a classifier or a masked model."""
    model = opened.model
    if not isinstance(model, onnx_graph.EXPORTABLE):
        writes = model.can_generate()
        why = "writes text token by token, which one graph does not" if writes else "has no head"
        instead = "Use --format endpoint or sagemaker" if writes else "Train a head with --init_from"
        raise CheckpointError(
            f"This checkpoint is {a_class(model)}: it {why}. ONNX takes classifiers and masked models. {instead}."
        )
    if not isinstance(model, SwitchForMaskedLM):
        require_classifier(model)


def in_words(agreement: onnx_graph.Agreement) -> str:
    """How a graph compares with its model."""
    batches = counted(agreement.batches, "batch", "batches")
    chosen = ""
    if agreement.choices:
        chosen = f"; {agreement.others:,} of {agreement.choices:,} choices of experts differ"
    return f"Compared with PyTorch in {batches}: logits differ by at most {agreement.difference:.1g}{chosen}."


def write_beside(opened: Opened, folder: Path, compared: str) -> None:
    """Write what the graph is used with: tokenizer, config with the labels, card and script."""
    write_reader(opened, folder)
    layers = onnx_graph.output_names(opened.model, opened.with_routing)[1:]
    about = render("release/formats/onnx_card.md.jinja", compared=compared, layers=layers)
    (folder / "README.md").write_text(f"{opened.card().rstrip()}\n\n{about}", encoding="utf-8")


def write_reader(opened: Opened, folder: Path) -> None:
    """Write what reads texts for a graph and names its answers: tokenizer, config with the labels, script."""
    # Written anew, since a checkpoint of an earlier version lacks fields that the script reads.
    (folder / "config.json").write_text(config_text(opened.model), encoding="utf-8")
    write_tokenizer(opened.tokenizer, folder)
    # The length that the model can read, which may be below the tokenizer's own.
    pipeline = PIPELINES[type(opened.model)](opened.model, opened.tokenizer)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"model_max_length": pipeline.max_length}
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(SCRIPT, folder / SCRIPT.name)
