"""A checkpoint of any kind -> its pipeline: a Predictor, a TextGenerator or a MaskFiller.

Try it: open_pipeline("assets/models/ag_news")("Oil prices rose.")
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from switch_model.adapters.loading import load_any
from switch_model.adapters.model import (
    AdaptedCausalLM,
    AdaptedClassifier,
    AdaptedEncoderDecoder,
    AdaptedTokenClassifier,
)
from switch_model.checkpoint import CheckpointError, load_checkpoint
from switch_model.commands import command
from switch_model.inference.classifier import Predictor
from switch_model.inference.mask_filler import BLANK, MaskFiller
from switch_model.inference.text_generator import TextGenerator
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.storage.errors import a_class

Pipeline = Predictor | TextGenerator | MaskFiller

# Model class -> pipeline class.
PIPELINES: dict[type, Callable[[Any, PreTrainedTokenizerFast], Pipeline]] = {
    SwitchForSequenceClassification: Predictor,
    SwitchForConditionalGeneration: TextGenerator,
    SwitchForCausalLM: TextGenerator,
    SwitchForMaskedLM: MaskFiller,
    AdaptedClassifier: Predictor,
    AdaptedCausalLM: TextGenerator,
    AdaptedEncoderDecoder: TextGenerator,
}


def open_pipeline(
    folder_zip_or_hub_id: str | Path,
    device: str | torch.device | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    trusted: bool = False,
) -> Pipeline:
    """Open a checkpoint of any kind. Raises CheckpointError when it can't be opened, or has no head.

    Args:
        dtype: of a model of transformers; None = that of its file.
        trusted: whether it may be one of transformers' families (docs/adapters.md): never for what a visitor sent.
    """
    if trusted:
        model, tokenizer = load_any(folder_zip_or_hub_id, device, revision, dtype)
    else:
        model, tokenizer = load_checkpoint(folder_zip_or_hub_id, device, revision)
    pipeline = PIPELINES.get(type(model))
    if isinstance(model, AdaptedTokenClassifier):
        raise CheckpointError(
            "This checkpoint gives a class to each token, which the page can't show: use TokenClassifier in Python."
        )
    if pipeline is None:
        raise CheckpointError(
            f"This checkpoint is {a_class(model)}, without a head: it gives hidden states only. Train a head "
            f"with {command()} --init_from."
        )
    return pipeline(model, tokenizer)


def try_out(pipeline: Pipeline) -> None:
    """Run the pipeline once on a few words. Raises CheckpointError when it fails."""
    words = "a few words to try it with " * 6
    try:
        if isinstance(pipeline, TextGenerator):
            pipeline(words, max_new_tokens=2)
        else:
            pipeline(f"{BLANK} {words}" if isinstance(pipeline, MaskFiller) else words)
    except ValueError as error:
        raise CheckpointError(f"The checkpoint opens, but fails on a short text: {error}") from error


def architecture(folder: str | Path) -> tuple[str, bool]:
    """The model class in a checkpoint folder's config, and whether it was trained by span corruption; ("", False)
    without a readable config. Does not open the checkpoint."""
    for path in (Path(folder) / "config.json", Path(folder) / "best" / "config.json"):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            named = values.get("architectures") or [""]
            return str(named[0]), values.get("restores_gaps") is True
        except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError):
            continue
    return "", False
