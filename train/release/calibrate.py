"""A classifier's checkpoint, calibrated: a temperature fitted on validation rows and folded into its weights.

Try it: python -m train calibrate --checkpoint assets/models/sst2 --dataset sst2
"""

from typing import Any

from switch_model.checkpoint import CheckpointError, checkpoint_folder, load_checkpoint, read_training, save_checkpoint
from switch_model.storage.paths import local_path
from switch_model.storage.safetensors_io import Weights
from train.data.source import DataSource
from train.evaluation.calibration import TEMPERATURE, calibrate_checkpoint
from train.release.card import model_card
from train.release.package import save_measured


def calibrate(checkpoint: str, source: DataSource, output: str | None = None) -> dict[str, Any]:
    """Write the checkpoint calibrated; a packaged one is evaluated again, since its card has probabilities.

    Args:
        output: the folder to write; None = in the checkpoint's place.

    Returns:
        temperature and calibration, as training.json has them.

    Raises:
        CheckpointError: if it can't be opened, is already calibrated, or is no classifier.
        DataError: if the rows can't be read.
    """
    folder = checkpoint_folder(local_path(checkpoint))
    if not folder.is_dir():
        raise CheckpointError(f"{checkpoint} is no folder of this disk: only such a checkpoint can be calibrated.")
    model, tokenizer = load_checkpoint(folder, "cpu")
    training = read_training(folder)
    if TEMPERATURE in training:
        raise CheckpointError(f"{checkpoint} is calibrated already: its temperature is {training[TEMPERATURE]:.3f}.")
    noted = calibrate_checkpoint(checkpoint, model, tokenizer, source).noted
    training, place = training | noted, output or str(folder)
    if measured := training.get("evaluation"):
        save_measured(model, tokenizer, training, source.at(measured["split"]), place)
        return noted
    if "arguments" in training:
        card = model_card(model.config, training, model.parameter_counts())
    else:
        card = old.read_text(encoding="utf-8") if (old := folder / "README.md").is_file() else None
    stored = next(iter(Weights.find(folder).header.values())).dtype
    save_checkpoint(model, tokenizer, place, training=training, card=card, dtype=stored)
    return noted
