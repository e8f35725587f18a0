"""A stranger's checkpoint, opened first in a process of its own with little memory and processor time.

Opening reads JSON and safetensors only (switch_model/checkpoint.py); should a file still find a way to hang a parser or
eat memory, it does so there. What comes out is a folder that is known to open, run and end.
Try it: examine([Path("my_model.zip")], Path("an/empty/folder"))
"""

import shutil
import threading
import time
from pathlib import Path
from typing import Any

from switch_model import CheckpointError
from switch_model.commands import command
from switch_model.storage.archive import INDEX, OPTIONAL_FILES, REQUIRED_FILES, check_sizes, is_known, unzip
from switch_model.storage.hub import is_unreachable, lacks_revision, no_revision, split_revision, without_pickles
from train.bounded_process import TooMuch, in_a_child

# What one checkpoint may take: seconds of a processor's work, bytes of memory beyond the bare process and on disk. A
# busy machine takes long over a good one, so that seconds of the clock only bound what waits: for the Hub, or for ever.
WORK_SECONDS, SECONDS = 10, 120
MEMORY, FILE_BYTES = 1_200_000_000, 1_000_000_000
MAX_PARAMETERS = 200_000_000
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
_one_at_a_time = threading.Lock()


def examine(uploaded: list[Path], folder: Path, hub_id: str | None = None) -> dict[str, Any]:
    """Bring a checkpoint into `folder` and open it, all in a child process.

    Args:
        uploaded: one zip, or the loose files of a checkpoint folder.
        hub_id: fetch this one instead, with a revision behind an "@" where another than main is meant.

    Returns:
        parameters, active (parameters per token), and seconds that opening took.

    Raises:
        CheckpointError: with what is wrong and what would be accepted; then `folder` is empty again.
    """
    if not hub_id:
        _check_names(uploaded)
    with _one_at_a_time:  # Two large uploads at once would take twice the memory.
        try:
            return _in_a_child(uploaded, folder, hub_id)
        except CheckpointError:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            raise


def _check_names(uploaded: list[Path]) -> None:
    if not uploaded:
        raise CheckpointError(f"Nothing was uploaded. Give a zip, or the files {', '.join(REQUIRED_FILES)}.")
    for path in uploaded:
        if path.suffix.lower() in _PICKLES:
            raise CheckpointError(
                f"{path.name} is a pickle file: it can run code when it is opened, so it never is opened here. Turn it "
                f"into a checkpoint folder on your own machine: {command('convert')} old.pt --help"
            )
    if len(uploaded) == 1 and uploaded[0].suffix.lower() == ".zip":
        return
    strange = [path.name for path in uploaded if not is_known(path.name)]
    if strange:
        raise CheckpointError(
            f"{strange[0]} is not a file of a checkpoint. Give one zip, or the files {', '.join(REQUIRED_FILES)} "
            f"(and {', '.join(OPTIONAL_FILES)})."
        )


def _in_a_child(uploaded: list[Path], folder: Path, hub_id: str | None) -> dict[str, Any]:
    bounds = {"memory": MEMORY, "work_seconds": WORK_SECONDS, "seconds": SECONDS, "file_bytes": FILE_BYTES}
    try:
        answer = in_a_child(_open_or_say_why, uploaded, folder, hub_id, **bounds)
    except TooMuch as error:
        raise CheckpointError(
            {
                "start": "This machine is too busy to open it just now. Try again in some minutes.",
                "work": f"Opening it took more than {WORK_SECONDS:g} seconds of work, so it was stopped.",
                "clock": f"Opening it took more than {SECONDS:g} seconds, so it was stopped.",
                "memory": f"Opening it took more than {MEMORY / 1e9:g} GB of memory, or made the process end, so "
                "it was stopped.",
            }[error.what]
        ) from error
    if "error" in answer:
        raise CheckpointError(answer["error"])
    return answer


def _open_or_say_why(uploaded: list[Path], folder: Path, hub_id: str | None) -> dict[str, Any]:
    try:
        return _open(uploaded, folder, hub_id)
    except MemoryError:
        raise
    except CheckpointError as error:
        return {"error": str(error)}
    except Exception as error:  # Whatever a parser raises must reach its owner as words, not as a stack trace.
        return {"error": f"It can't be opened ({type(error).__name__})."}


def _open(uploaded: list[Path], folder: Path, hub_id: str | None) -> dict[str, Any]:
    import torch

    from switch_model.checkpoint import estimated_parameters, read_config
    from switch_model.inference.factory import open_pipeline, try_out

    torch.set_num_threads(1)
    begun = time.perf_counter()
    if hub_id:
        _fetch(hub_id, folder)
    elif uploaded[0].suffix.lower() == ".zip":
        unzip(uploaded[0], folder, FILE_BYTES)
    else:
        check_sizes({path.name: path.stat().st_size for path in uploaded}, FILE_BYTES)
        for path in uploaded:
            shutil.copyfile(path, folder / path.name)
    if (folder / "config.json").is_file():
        config, model_class = read_config(folder / "config.json")
        if estimated_parameters(config, model_class.stacks) > MAX_PARAMETERS:
            raise CheckpointError(
                f"It has more than {MAX_PARAMETERS / 1e6:g} million parameters: too many for this page."
            )
    pipeline = open_pipeline(folder, "cpu")
    try_out(pipeline)
    total, active = pipeline.model.parameter_counts()
    return {"parameters": total, "active": active, "seconds": time.perf_counter() - begun}


def _fetch(hub_id: str, folder: Path) -> None:
    from huggingface_hub import HfApi, hf_hub_download

    name, revision = split_revision(hub_id)
    try:
        found = HfApi().model_info(name, revision=revision, files_metadata=True).siblings
        present = {file.rfilename: file.size or 0 for file in found}
        if "config.json" in present and not {"model.safetensors", INDEX} & set(present):
            raise CheckpointError(f"{hub_id} holds no model.safetensors. {without_pickles(hub_id)}")
        wanted = {file: size for file, size in present.items() if is_known(file)}
        check_sizes(wanted, FILE_BYTES)
        for file in wanted:
            hf_hub_download(name, file, revision=revision, local_dir=folder)
    except CheckpointError:
        raise
    except Exception as error:  # The hub client raises many kinds; each means that there is no such checkpoint here.
        if revision and lacks_revision(error):
            raise CheckpointError(no_revision(name, revision)) from error
        if is_unreachable(error):
            raise CheckpointError(
                f"{hub_id} is not reachable: the Hugging Face Hub does not answer. Upload the checkpoint's files."
            ) from error
        raise CheckpointError(f"The Hugging Face Hub gave no checkpoint {hub_id!r}. Is the name owner/name?") from error
