"""A finished run -> a checkpoint folder to share: in half precision, evaluated in that form, with a model card.

Try it: python -m train package --run runs/ag_news --output assets/models/ag_news
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from switch_model.analysis.typical_texts import TypicalTexts
from switch_model.checkpoint import load_checkpoint, read_training, save_checkpoint
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.whole_files import folder_written_aside
from train.data.errors import DataError
from train.data.source import DataSource
from train.evaluation.calibration import TEMPERATURE, calibrate_checkpoint
from train.evaluation.classification import evaluate
from train.evaluation.settings import EvaluationSettings
from train.evaluation.typical_texts import typical_of_run
from train.formatting import pasted
from train.release.card import model_card
from train.runs.run import Run, RunError
from train.tasks.registry import TASKS
from train.weights.mixtral import as_mixtral, largest_difference


def package(
    run_folder: str,
    output: str,
    *,
    data_dir: str | None = None,
    data_note: str | None = None,
    machine: str | None = None,
    num_beams: int = 1,
) -> dict[str, Any]:
    """Write the run's best checkpoint to `output`, evaluate it there, and put the metrics in its card.

    Args:
        data_note: description of the data for the card, if the name is not enough.
        machine: description of the machine for the card.
        num_beams: beams in the evaluation of a translation model.

    Returns:
        The metrics of `evaluate`.

    Raises:
        RunError, CheckpointError, DataError: when the run, its checkpoint or the data can't be read.
    """
    run = Run.open(run_folder)
    if not run.best.is_dir():
        raise RunError(f"{run_folder} has no checkpoint yet: it was stopped before its first evaluation.")
    model, tokenizer = load_checkpoint(run.best, "cpu")
    training = read_training(run.best)
    training |= {"arguments": run.arguments().portable(), "command": run.arguments().command()}
    if finished := run.metrics("end"):
        training["seconds"] = finished[-1]["train_runtime"]
    for key, value in (("data_note", data_note), ("machine", machine)):
        if value:
            training[key] = value
    source = run.arguments().data.source
    source = replace(source, data_dir=data_dir or source.data_dir)
    if TASKS[run.arguments().train.task].labelled:
        training |= _lacking(run_folder, training, model, tokenizer, source)
    return save_measured(model, tokenizer, training, source, output, num_beams)


def package_as_mixtral(run_folder: str, output: str) -> dict[str, Any]:
    """Write the run's best checkpoint as a MixtralForCausalLM of transformers, with its tokenizer.

    Returns:
        as, parameters, and logits_differ_by: the largest difference of logits on random ids.

    Raises:
        RunError, CheckpointError: when the run or its checkpoint can't be read, or is no model that Mixtral can hold.
    """
    run = Run.open(run_folder)
    if not run.best.is_dir():
        raise RunError(f"{run_folder} has no checkpoint yet: it was stopped before its first evaluation.")
    model, tokenizer = load_checkpoint(run.best, "cpu")
    theirs = as_mixtral(model)
    found = {
        "as": "mixtral",
        "parameters": theirs.num_parameters(),
        "logits_differ_by": largest_difference(model, theirs),
    }
    with folder_written_aside(Path(output)) as aside:
        theirs.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
    return found


def _lacking(
    run_folder: str,
    training: dict[str, Any],
    model: SwitchPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    source: DataSource,
) -> dict[str, Any]:
    """What a classifier trained by an earlier version lacks in training.json; its temperature goes into the model."""
    added: dict[str, Any] = {}
    if TEMPERATURE not in training:
        try:
            added |= calibrate_checkpoint(run_folder, model, tokenizer, source).noted
        except DataError as error:
            print(f"note: its probabilities are not calibrated: {error}", file=sys.stderr)
    if TypicalTexts.noted(training) is None and (typical := typical_of_run(run_folder, tokenizer, source)):
        added |= typical.to_note()
    return added


def save_measured(
    model: SwitchPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    training: dict[str, Any],
    source: DataSource,
    output: str,
    num_beams: int = 1,
) -> dict[str, Any]:
    """Write a checkpoint in half precision with its metrics as it lies there, in its training.json and its card.

    Args:
        source: what it is measured on.

    Returns:
        What `evaluate` measured.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # Half precision rounds, so evaluate the weights as they will be on disk.
        aside = save_checkpoint(model, tokenizer, Path(scratch) / "model", training=training, dtype=torch.float16)
        metrics = evaluate(str(aside), source, EvaluationSettings(num_beams=num_beams))
        # Names instead of local paths.
        inside = not Path(output).is_absolute() and ".." not in Path(output).parts
        metrics |= {
            "checkpoint": Path(output).as_posix() if inside else Path(output).resolve().name,
            "dataset": training["arguments"]["dataset"],
        }
        training = training | {"evaluation": metrics}
        command = (
            f"python -m train evaluate --checkpoint {pasted(metrics['checkpoint'])} "
            f"--dataset {pasted(metrics['dataset'])} --split {metrics['split']}"
            + (f" --num_beams {num_beams}" if num_beams > 1 else "")
        )
        card = model_card(model.config, training, model.parameter_counts(), metrics, command)
        save_checkpoint(model, tokenizer, output, training=training, card=card, dtype=torch.float16)
    return metrics
