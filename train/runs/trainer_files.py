"""What the Trainer leaves in a checkpoint to go on from, and whether that is whole: a full disk, or a copy that broke
off, may have left anything there.

Try it: damage_of(Path("runs/my-run/checkpoints/checkpoint-40"))
"""

import zipfile
from pathlib import Path

from train.runs.run_files import read_object, what_is_wrong

# The average of the weights, where a run keeps one (torch's AveragedModel).
AVERAGE_FILE = "averaged.safetensors"


def checkpoint_step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])


def at_its_end(checkpoint: Path) -> bool:
    """Whether a checkpoint was saved after the last step of all."""
    try:
        told = read_object(checkpoint / "trainer_state.json")
        return told["global_step"] >= told["max_steps"] > 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def keeps_average(checkpoint: Path) -> bool:
    """Whether the run whose folder a checkpoint lies in averages its weights."""
    try:
        return read_object(checkpoint.parent.parent / "arguments.json")["ema_decay"] > 0
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def damage_of(checkpoint: Path) -> str:
    """What is wrong with a checkpoint, "" where nothing is. Headers and lengths are looked at, no weights are read."""
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
            read_header(average, others=True)  # It counts its steps in a whole number.
        elif keeps_average(checkpoint):
            return f"{AVERAGE_FILE} is not there"
    except (CheckpointError, OSError) as error:
        return str(error).rstrip(".")
    # Pickles inside of zip archives, whose table of contents stands at their end. Never opened here.
    pickles = {checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")}
    for path in sorted(pickles):
        if not path.is_file():
            return f"{path.name} is not there"
        if not zipfile.is_zipfile(path):
            return f"{path.name} is empty or torn"
    return ""
