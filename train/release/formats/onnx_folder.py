"""--format onnx, onnx-int8: the model's graphs and beside them tokenizer, labels, card, a script that runs them without
torch."""

import importlib.util
import json
import shutil
import tempfile
from pathlib import Path

from switch_model.checkpoint import CheckpointError, config_text, require_classifier
from switch_model.export import onnx_graph
from switch_model.export.graphs import EXPORTABLE, graphs_of
from switch_model.export.int8 import quantize
from switch_model.export.parity import TOLERANCE, Agreement, compare, random_batches
from switch_model.inference.factory import PIPELINES
from switch_model.inference.text_generator import TextGenerator
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.storage.errors import a_class
from switch_model.storage.tokenizer_io import TARGET, target_of, write_tokenizer
from train.formatting import counted
from train.release.formats.opened import Opened
from train.templates import render

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
SCRIPTS = Path(onnx_graph.__file__).parent
SCRIPT = "infer.py"


def write_onnx_folder(opened: Opened, folder: Path) -> str:
    """Write the folder; returns how the graphs compare with the model.

    Raises:
        CheckpointError: for a model without a head.
        ValueError: where a package is missing, or the graphs' logits differ from the model's.
    """
    compared = write_graphs(opened, folder)
    write_beside(opened, folder, compared)
    return compared


def write_int8_folder(opened: Opened, folder: Path) -> str:
    """Write the folder with quantized weights; returns sizes and how the graphs compare.

    Raises as `write_onnx_folder`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        whole = write_files(opened, Path(scratch))
        if any(path.with_name(f"{path.name}.data").exists() for path in whole):
            raise ValueError("This model is above 1.5 GB: its ONNX file can't be quantized here. Use --format onnx.")
        small = [folder / path.name for path in whole]
        for source, target in zip(whole, small, strict=True):
            quantize(source, target)
        sizes = [sum(path.stat().st_size for path in paths) / 1e6 for paths in (small, whole)]
    compared = in_words(compared_in(opened, folder, tolerance=None))
    said = (
        f"Weights in int8: {sizes[0]:.1f} MB, from {sizes[1]:.1f} MB in float32. {compared} These are random tokens: "
        "measure the accuracy on your data."
    )
    write_beside(opened, folder, said)
    return said


def write_graphs(opened: Opened, folder: Path) -> str:
    """Write the model's ONNX files, and compare them with the model; returns how. Raises as `write_onnx_folder`."""
    write_files(opened, folder)
    return in_words(compared_in(opened, folder))


def write_files(opened: Opened, folder: Path) -> list[Path]:
    """Write the model's ONNX files; returns their paths. Raises as `write_onnx_folder`."""
    check_packages()
    check_kind(opened)
    graphs = graphs_of(opened.model, opened.with_routing)
    for graph in graphs:
        onnx_graph.write_onnx(graph, folder / f"{graph.name}.onnx")
    return [folder / f"{graph.name}.onnx" for graph in graphs]


def compared_in(opened: Opened, folder: Path, tolerance: float | None = TOLERANCE) -> Agreement:
    """Run the ONNX files of a folder and the model on random tokens. Raises ValueError where logits differ."""
    return compare(opened.model, onnx_graph.onnx_runner(folder), random_batches(opened.model), tolerance)


def check_packages() -> None:
    """Raise ValueError where a package that export needs is missing."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"Export to ONNX needs {', '.join(missing)}: pip install {' '.join(missing)} (or this package's "
            "[export] extra)."
        )


def check_kind(opened: Opened) -> None:
    """Raise CheckpointError for a model without a head."""
    model = opened.model
    if not isinstance(model, EXPORTABLE):
        raise CheckpointError(f"This checkpoint is {a_class(model)}: it has no head. Train a head with --init_from.")
    if not model.can_generate() and not isinstance(model, SwitchForMaskedLM):
        require_classifier(model)


def in_words(agreement: Agreement) -> str:
    """How exported files compare with their model."""
    batches = counted(agreement.batches, "batch", "batches")
    chosen = ""
    if agreement.choices:
        chosen = f"; {agreement.other_choices:,} of {agreement.choices:,} choices of experts differ"
    return f"Compared with PyTorch in {batches}: logits differ by at most {agreement.difference:.1g}{chosen}."


def write_beside(opened: Opened, folder: Path, compared: str) -> None:
    """Write what the graphs are used with: tokenizer, config with the labels, card and script."""
    write_reader(opened, folder)
    graphs = graphs_of(opened.model, opened.with_routing)
    about = render(
        "release/formats/onnx_card.md.jinja",
        compared=compared,
        graphs=graphs,
        layers=[name for graph in graphs for name in graph.routing],
        writes=opened.model.can_generate(),
    )
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
    writes = isinstance(pipeline, TextGenerator)
    script, beside = ("infer_text.py", "writing.py") if writes else (SCRIPT, "texts.py")
    shutil.copyfile(SCRIPTS / script, folder / SCRIPT)
    shutil.copyfile(SCRIPTS / beside, folder / beside)
    if writes:
        if target_of(opened.tokenizer) is not opened.tokenizer:
            write_tokenizer(target_of(opened.tokenizer), folder, TARGET)
        tokens = {"eos_token_id": pipeline.end, "bos_token_id": pipeline.opener}
        (folder / "generation_config.json").write_text(json.dumps(tokens, indent=2) + "\n", encoding="utf-8")
