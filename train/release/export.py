"""A checkpoint -> a folder in the format that a runtime or platform reads.

Try it: python -m train export --checkpoint assets/models/ag_news --format onnx --output news-onnx
"""

import difflib
import errno
import tempfile
from collections.abc import Callable
from pathlib import Path

from switch_model.adapters.loading import family_of
from switch_model.checkpoint import CheckpointError, checkpoint_files
from switch_model.storage.paths import local_path
from switch_model.storage.whole_files import folder_written_aside
from train.release.formats.app_folder import write_docker_folder, write_space_folder
from train.release.formats.onnx_folder import write_int8_folder, write_onnx_folder
from train.release.formats.opened import Opened
from train.release.formats.openvino_folder import write_openvino_folder
from train.release.formats.tensorrt_folder import write_tensorrt_folder
from train.release.formats.torchao_folder import write_torchao_folder
from train.release.formats.triton_folder import write_triton_folder
from train.release.formats.with_code import write_endpoint_folder, write_sagemaker_folder
from train.release.shared_copy import shared_copy

# Format -> what writes its folder, and returns a sentence about it.
FORMATS: dict[str, Callable[[Opened, Path], str]] = {
    "onnx": write_onnx_folder,
    "onnx-int8": write_int8_folder,
    "openvino": write_openvino_folder,
    "tensorrt": write_tensorrt_folder,
    "torchao-int8": write_torchao_folder,
    "triton": write_triton_folder,
    "endpoint": write_endpoint_folder,
    "sagemaker": write_sagemaker_folder,
    "docker": write_docker_folder,
    "space": write_space_folder,
}
WITH_ROUTING = ("onnx", "onnx-int8", "tensorrt")
# Formats that are not written -> what to do instead.
INSTEAD = {
    "executorch": "--format onnx, which ONNX Runtime runs on phones too; for texts of one fixed size, "
    "transformers.exporters (docs/export.md has the call)",
    "litert": "--format onnx, which ONNX Runtime runs on phones too; LiteRT takes fixed shapes only, and each text "
    "gives an expert another number of tokens",
    "torchscript": "--format onnx; TorchScript is deprecated by torch itself",
}


def check_format(name: str, with_routing: bool = False) -> None:
    """Raise ValueError, with what to do instead, for a format that can't be written."""
    if name in INSTEAD:
        raise ValueError(f"--format {name} is not written by this command. Use {INSTEAD[name]}.")
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"There is no --format {name}{hint}. Formats: {', '.join(FORMATS)}.")
    if with_routing and name not in WITH_ROUTING:
        raise ValueError(f"--with_routing is for --format {' and '.join(WITH_ROUTING)}.")


def export(
    checkpoint: str | Path, format: str, output: str | Path, *, with_routing: bool = False, revision: str | None = None
) -> str:
    """Write a checkpoint to a new folder in another format, whole or not at all; returns a sentence about it.

    Args:
        checkpoint: folder, run folder, zip or hub id.
        format: a key of FORMATS.
        with_routing: whether an exported graph also gives the routing.

    Raises:
        ValueError: for another format, or where a package is missing.
        CheckpointError: when the checkpoint can't be opened, or the format does not take its kind.
        OSError: when the folder can't be written, or is not empty.
    """
    check_format(format, with_routing)
    target = Path(local_path(output))
    if target.is_dir() and any(target.iterdir()):
        raise OSError(errno.ENOTEMPTY, "it is not empty. Name a new folder, or empty it first", str(output))
    if family := family_of(checkpoint, revision):
        raise CheckpointError(
            f"This is a model of transformers' family {family}: this command exports models of this package "
            "only. Export it with transformers.exporters."
        )
    name = Path(local_path(checkpoint)).resolve().name
    with checkpoint_files(checkpoint, revision) as files, tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "model"
        model, tokenizer = shared_copy(files, copy)
        opened = Opened(name, copy, model, tokenizer, with_routing)
        with folder_written_aside(target) as folder:
            return FORMATS[format](opened, folder)
