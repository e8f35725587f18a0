"""Convert a transformers SwitchTransformers or Mixtral checkpoint to a checkpoint folder with the same logits.

Try it: python -m train import google/switch-base-8 --revision refs/pr/5 --output_dir switch-base-8
"""

import importlib.util
from pathlib import Path

import torch
from transformers import MixtralForCausalLM, PreTrainedTokenizerFast, T5TokenizerFast

from switch_model.checkpoint import CheckpointError, save_checkpoint
from switch_model.config import SwitchConfig
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.encoder import SwitchEncoderModel
from switch_model.storage.json_file import read_json
from switch_model.storage.switch_transformers import MAX_JSON_BYTES, SENTENCEPIECE, find_checkpoint, read_config
from switch_model.storage.tokenizer_io import read_tokenizer
from train.data.tokenizers import load_tokenizer
from train.weights.mixtral import of_mixtral

# Default maximum length, if the tokenizer's files have none.
TOKENS_READ = 512


def import_checkpoint(
    source: str,
    output: str | Path,
    *,
    dtype: torch.dtype | None = None,
    encoder_only: bool = False,
    tokenizer: str | None = None,
    revision: str | None = None,
) -> SwitchConfig:
    """Write a transformers checkpoint as a folder that `load_checkpoint` opens; returns the model's configuration.

    Args:
        source: a folder in transformers' layout, or a hub id.
        dtype: of the weights on disk; None = as in the source.
        tokenizer: a hub id or folder; None = the source's own.
        revision: of a hub id; None = main, or the one after its "@".

    Raises:
        DataError: when there is no such tokenizer.
        CheckpointError: when a file is missing, can't be read, or is not supported.
    """
    folder = find_checkpoint(source, revision)
    # The small files first: do not read gigabytes in vain.
    if read_json(folder / "config.json", MAX_JSON_BYTES).get("model_type") == "mixtral":
        return _import_mixtral(folder, output, dtype, tokenizer)
    config = read_config(folder)
    own = _tokenizer(folder, config) if tokenizer is None else _named_tokenizer(tokenizer, config)
    model_class = SwitchEncoderModel if encoder_only else SwitchForConditionalGeneration
    model = model_class.from_switch_transformers(folder, dtype=dtype)
    save_checkpoint(model, own, output)
    return model.config


def _import_mixtral(folder: Path, output: str | Path, dtype: torch.dtype | None, tokenizer: str | None) -> SwitchConfig:
    try:
        theirs = MixtralForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except Exception as error:  # The library raises many types.
        raise CheckpointError(f"{folder} can't be read as a Mixtral: {error}") from error
    model = of_mixtral(theirs)
    del theirs
    own = _tokenizer(folder, model.config) if tokenizer is None else _named_tokenizer(tokenizer, model.config)
    save_checkpoint(model, own, output, dtype=dtype)
    return model.config


def _named_tokenizer(name: str, config: SwitchConfig) -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer(name, TOKENS_READ)
    if (highest := max(tokenizer.get_vocab().values())) >= config.vocab_size:
        raise CheckpointError(
            f"The tokenizer {name!r} has token ids up to {highest:,}, but the model has vocab_size "
            f"{config.vocab_size:,}: it was trained with another."
        )
    return tokenizer


def _tokenizer(folder: Path, config: SwitchConfig) -> PreTrainedTokenizerFast:
    if (folder / "tokenizer.json").is_file():
        return read_tokenizer(folder, config.vocab_size, config.pad_token_id)
    remedy = (
        "Give the tokenizer that this model was trained with: --tokenizer NAME, a hub id or a folder (for Google's "
        "models and those fine-tuned from them: google/switch-base-8)."
    )
    if not (folder / SENTENCEPIECE).is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json. {remedy}")
    if importlib.util.find_spec("sentencepiece") is None:
        raise CheckpointError(f"{folder} has its tokenizer only as {SENTENCEPIECE}: pip install sentencepiece protobuf")
    try:
        return T5TokenizerFast.from_pretrained(folder)
    except Exception as error:  # The parsers raise many types.
        raise CheckpointError(f"{folder / SENTENCEPIECE} can't be read. {remedy}") from error
