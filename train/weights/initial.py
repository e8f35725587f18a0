"""--init_from: tokenizer, shape and weights inherited from an initial model.

Try it: read_initial("assets/models/ag_news", TASKS["mlm"]).config
"""

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import load_checkpoint, read_config
from switch_model.config import SwitchConfig
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.storage.tokenizer_io import TARGET, read_tokenizer, target_of, with_target
from train.tasks.registry import Task

CONFIG = "config.json"
# Weights with a row for each token.
TABLES = ("shared.weight", "decoder_embedding.weight", "lm_head.weight", "bias")


@dataclass(frozen=True)
class InitialWeights:
    """What a run inherits from the initial model.

    Attributes:
        config: its configuration.
        weights: by name.
        tokenizer: its tokenizer, with the target tokenizer attached, if any.
        of_tokens: whether it has an output layer over tokens; a classifier has none.
    """

    config: SwitchConfig
    weights: Mapping[str, Tensor]
    tokenizer: PreTrainedTokenizerFast
    of_tokens: bool


def read_initial(checkpoint: str, task: Task) -> InitialWeights:
    """A checkpoint as initial model of a task. Raises CheckpointError when it can't be opened.

    Of two vocabularies, a task with one text inherits the one of the stack that it uses: the output's for decoder-only
    tasks, else the input's. The other's rows belong to other tokens.
    """
    model, tokenizer = load_checkpoint(checkpoint, "cpu")
    weights = model.state_dict()
    if model.config.decoder_vocab_size is not None and not task.paired:
        written = weights.pop("decoder_embedding.weight")
        if _only_writes(task):
            weights["shared.weight"] = written
        else:
            weights.pop("lm_head.weight", None)
    return _start(model.config, weights, tokenizer, type(model), task)


def read_initial_shape(checkpoint: str, task: Task) -> InitialWeights | None:
    """`read_initial` for a local folder, without reading its weights; None for any other checkpoint."""
    folders = [folder for folder in (Path(checkpoint), Path(checkpoint) / "best") if os.path.isfile(folder / CONFIG)]
    if not folders:
        return None
    config, model_class = read_config(folders[0] / CONFIG)
    tokenizer = read_tokenizer(folders[0], config.vocab_size, config.pad_token_id)
    if config.decoder_vocab_size is not None:
        target = read_tokenizer(folders[0], config.decoder_vocab_size, config.pad_token_id, TARGET)
        tokenizer = with_target(tokenizer, target)
    return _start(config, {}, tokenizer, model_class, task)


def _only_writes(task: Task) -> bool:
    return task.model_class.stacks == ("decoder",)


def _start(
    config: SwitchConfig,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerFast,
    model_class: type[SwitchPreTrainedModel],
    task: Task,
) -> InitialWeights:
    """Reduce two vocabularies to one if the task has one text. Raises ValueError for a model without texts."""
    if config.inputs_embeds_size is not None:
        raise ValueError(
            "--init_from is not possible with that model: it takes vectors of numbers, and what it has learned of them "
            "says nothing of texts. Leave --init_from out, or start from a model of texts."
        )
    if config.decoder_vocab_size is not None and not task.paired:
        config = copy.deepcopy(config)
        if _only_writes(task):
            config.vocab_size, tokenizer = config.decoder_vocab_size, target_of(tokenizer)
        else:
            tokenizer = with_target(tokenizer, None)
        config.decoder_vocab_size, config.share_embeddings = None, True
    return InitialWeights(config, weights, tokenizer, of_tokens=model_class is not SwitchForSequenceClassification)


# Fields without a flag that determine shapes, or that the weights were trained with.
_INHERITED = (
    "max_positions", "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon",
    "router_dtype", "inputs_embeds_size", "share_embeddings", "scale_decoder_outputs",
)  # fmt: skip


def with_shape_of(config: SwitchConfig, source: SwitchConfig, of_tokens: bool = True) -> SwitchConfig:
    """The configuration, with fields that have no flag inherited from the initial model.

    Args:
        of_tokens: whether that model has an output layer over tokens, and so a meaningful tie_word_embeddings.
    """
    config = copy.deepcopy(config)
    for name in _INHERITED:
        setattr(config, name, getattr(source, name))
    if of_tokens:
        config.tie_word_embeddings = source.tie_word_embeddings
    # The table may have more rows than the tokenizer has tokens, or the task may have added tokens.
    config.vocab_size = max(config.vocab_size, source.vocab_size)
    if config.decoder_vocab_size is not None and source.decoder_vocab_size is not None:
        config.decoder_vocab_size = max(config.decoder_vocab_size, source.decoder_vocab_size)
    config.validate()
    return config


def take_weights(model: SwitchPreTrainedModel, theirs: Mapping[str, Tensor]) -> list[str]:
    """Copy the weights that both have; returns the names of those that keep their random values (a new head).

    Rows of tokens that were added to the tokenizer keep their random values too.
    """
    own, shared = model.state_dict(), {}
    for name in own.keys() & theirs.keys():
        if own[name].shape == theirs[name].shape:
            shared[name] = theirs[name]
        elif own[name].shape[1:] == theirs[name].shape[1:] and len(own[name]) > len(theirs[name]) and name in TABLES:
            shared[name] = torch.cat([theirs[name], own[name][len(theirs[name]) :]])
    model.load_state_dict(shared, strict=False)
    return [name for name in own if name not in shared]
