"""The Trainer's checkpoint files, and whether they are undamaged: a full disk or an interrupted copy may have damaged
them.

Try it: damage_of(Path("runs/my-run/checkpoints/checkpoint-40"))
"""

import zipfile
from pathlib import Path

from train.runs.run_files import read_object, what_is_wrong

# The average of the weights, with --ema_decay (torch's AveragedModel).
AVERAGE_FILE = "averaged.safetensors"
# What merging loses, with --lora_rank: adapters, and the weights that they are beside.
ADAPTERS_FILE = "adapters.safetensors"


def checkpoint_step(path: Path) -> int:
    """The step in the name of a Trainer checkpoint's folder."""
    return int(path.name.rsplit("-", 1)[1])


def at_its_end(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved after the run's last step."""
    try:
        told = read_object(checkpoint / "trainer_state.json")
        return told["global_step"] >= told["max_steps"] > 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def keeps_average(checkpoint: Path) -> bool:
    """Whether a checkpoint's run averages its weights."""
    return _asked_for(checkpoint, "ema_decay")


def _asked_for(checkpoint: Path, name: str) -> bool:
    """Whether a number among the arguments of a checkpoint's run is above 0."""
    try:
        return read_object(checkpoint.parent.parent / "arguments.json")[name] > 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def damage_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, or "". Checks headers and lengths, without reading weights."""
    from switch_model.storage.errors import CheckpointError
    from switch_model.storage.safetensors_io import Weights, read_header

    for path in (checkpoint / "trainer_state.json", checkpoint / "config.json"):
        try:
            read_object(path)
        except (OSError, ValueError, RecursionError):
            return f"{path.name} can't be read: {what_is_wrong(path)}"
    try:
        Weights.find(checkpoint, others=True)
        if (average := checkpoint / AVERAGE_FILE).exists():
            read_header(average, others=True)  # Its step counter is an integer.
        elif keeps_average(checkpoint):
            return f"{AVERAGE_FILE} is missing"
        if (adapters := checkpoint / ADAPTERS_FILE).exists():
            read_header(adapters)
        elif _asked_for(checkpoint, "lora_rank"):
            return f"{ADAPTERS_FILE} is missing"
    except (CheckpointError, OSError) as error:
        return str(error).rstrip(".")
    # Pickles in zip archives, whose directory is at their end. Never unpickled here.
    pickles = {checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")}
    for path in sorted(pickles):
        if not path.is_file():
            return f"{path.name} is missing"
        if not zipfile.is_zipfile(path):
            return f"{path.name} is empty or incomplete"
    return ""
