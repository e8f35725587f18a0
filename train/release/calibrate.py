"""What runs end with, for a classifier's checkpoint that lacks it: a temperature fitted on validation rows and folded
into its weights, and bounds of its training texts.

Try it: python -m train calibrate --checkpoint assets/models/sst2 --dataset sst2
"""

import json
import shutil
from pathlib import Path
from typing import Any

from switch_model.analysis.typical_texts import TypicalTexts
from switch_model.checkpoint import CheckpointError, checkpoint_folder, load_checkpoint, read_training, save_checkpoint
from switch_model.storage.paths import local_path
from switch_model.storage.safetensors_io import Weights
from switch_model.storage.whole_files import folder_written_aside
from train.data.source import DataSource
from train.evaluation.calibration import TEMPERATURE, calibrate_checkpoint
from train.evaluation.typical_texts import typical_of_run
from train.release.card import model_card
from train.release.package import save_measured


def calibrate(checkpoint: str, source: DataSource, output: str | None = None) -> dict[str, Any]:
    """Write the checkpoint with what it lacks. Given a temperature, a packaged one is evaluated again, since its card
    has probabilities. Bounds of its training texts, from the data of its run alone, change training.json only.

    Args:
        output: the folder to write; None = in the checkpoint's place.

    Returns:
        What was added to training.json: temperature and calibration, typical_texts.

    Raises:
        CheckpointError: if it can't be opened, is no classifier, or lacks nothing that the data could give.
        DataError: if the rows can't be read.
    """
    folder = checkpoint_folder(local_path(checkpoint))
    if not folder.is_dir():
        raise CheckpointError(f"{checkpoint} is no folder of this disk: only such a checkpoint can be calibrated.")
    model, tokenizer = load_checkpoint(folder, "cpu")
    training = read_training(folder)
    place, typical = output or str(folder), {}
    noted = {} if TEMPERATURE in training else calibrate_checkpoint(checkpoint, model, tokenizer, source).noted
    if TypicalTexts.noted(training) is None and (found := typical_of_run(checkpoint, tokenizer, source)):
        typical = found.to_note()
    training |= noted | typical
    if not noted and not typical:
        raise CheckpointError(f"{checkpoint} is calibrated already: its temperature is {training[TEMPERATURE]:.3f}.")
    if not noted:
        _write_training(folder, training, place)
        return typical
    if measured := training.get("evaluation"):
        save_measured(model, tokenizer, training, source.at(measured["split"]), place)
        return noted | typical
    if "arguments" in training:
        card = model_card(model.config, training, model.parameter_counts())
    else:
        card = old.read_text(encoding="utf-8") if (old := folder / "README.md").is_file() else None
    stored = next(iter(Weights.find(folder).header.values())).dtype
    save_checkpoint(model, tokenizer, place, training=training, card=card, dtype=stored)
    return noted | typical


def _write_training(folder: Path, training: dict[str, Any], place: str) -> None:
    """The checkpoint with another training.json; its other files byte for byte."""
    target = Path(local_path(place))
    with folder_written_aside(target) as aside:
        if target.resolve() != folder.resolve():
            for file in filter(Path.is_file, folder.iterdir()):
                shutil.copy(file, aside)
        (aside / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
