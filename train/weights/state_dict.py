"""Convert a .pt state dict to a checkpoint folder. Only here a pickle is opened, with torch's weights_only loader.

Try it: python -m train convert old.pt --tokenizer my-tokenizer --output my-model
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from switch_model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from switch_model.config import SwitchConfig
from switch_model.config_fields import OPTIONS
from switch_model.models.auto import MODEL_CLASSES
from switch_model.storage.whole_files import folder_written_aside
from train.arguments.arguments import Arguments
from train.data.tokenizers import load_tokenizer

# Keys under which training scripts save a state dict, and prefixes that wrappers add to its names.
WRAPPERS = ("model_state_dict", "state_dict", "model", "weights", "module")
PREFIXES = ("module.", "_orig_mod.", "model.")
ONE_EXPERT = re.compile(r"^(?P<before>.*\.experts)\.(?:expert_)?(?P<index>\d+)\.(?P<name>wi|wi_0|wi_1|wo)\.weight$")
BLOCK = re.compile(r"^encoder\.blocks\.(\d+)\.")
CONVOLUTION = "encoder.convolution.filters.weight"


def convert(
    source: str,
    output: str,
    *,
    tokenizer: str,
    config: str | None = None,
    labels: list[str] | None = None,
    seq_len: int = 128,
) -> SwitchConfig:
    """Write the weights in `source` as a checkpoint folder; returns the model's configuration.

    Args:
        source: a .pt or .pth file with a state dict of this package's models, perhaps wrapped. Experts may be stacked,
            or separate as `experts.expert_0.wi.weight`.
        tokenizer: folder or hub id of the tokenizer that the model was trained with, or of a checkpoint that has it.
        config: a config.json or a run's arguments.json, for fields that are not in the weights (activation, pooling,
            capacity …).
        labels: class names; None = those of `config`, else of the tokenizer's checkpoint, if as many, else LABEL_0,
            LABEL_1 …
        seq_len: maximum number of tokens per text.

    Raises:
        CheckpointError, DataError, ValueError: when a file can't be read, or its weights fit none of our models.
    """
    best = Path(tokenizer) / "best"
    kept = str(best if best.is_dir() else tokenizer)
    weights = stacked(read_state_dict(Path(source)))
    # The default of this command line.
    settings = read_settings(Path(config)) if config else {"embedding_norm": True}
    if labels:
        settings["id2label"] = dict(enumerate(labels))
    settings |= shape_of(weights)
    if "classifier.weight" in weights:
        classes = len(weights["classifier.weight"])
        if len(settings.get("id2label") or range(classes)) != classes:
            raise CheckpointError(f"{source} has {classes} classes, but {len(settings['id2label'])} names are given.")
        settings.setdefault("num_labels", classes)
        if "id2label" not in settings and (found := _labels_beside(kept, classes)):
            settings["id2label"] = found
    backend = load_tokenizer(kept, seq_len)
    model_config = SwitchConfig(**settings | {"pad_token_id": backend.pad_token_id})
    model_class = MODEL_CLASSES[
        "SwitchForMaskedLM" if "transform.weight" in weights else "SwitchForSequenceClassification"
    ]
    if len(backend) > model_config.vocab_size:
        raise CheckpointError(
            f"The tokenizer has {len(backend):,} tokens, but the model only {model_config.vocab_size:,}: it belongs to "
            "another model."
        )
    with torch.device("meta"):
        model = model_class(model_config)
    try:
        model.load_state_dict({name: weight.float() for name, weight in weights.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"The weights of {source} do not fit a {model_class.__name__}: {error}") from error
    with folder_written_aside(output) as aside:
        save_checkpoint(model, backend, aside)
        load_checkpoint(aside, "cpu")  # Check that it opens.
    return model_config


def labels_are_numbers(config: SwitchConfig) -> bool:
    """Whether the classes of a model are named LABEL_0, LABEL_1 …"""
    return config.labels == [f"LABEL_{index}" for index in range(config.num_labels)]


def _labels_beside(tokenizer: str, classes: int) -> dict[int, str] | None:
    """The class names in the config.json beside a tokenizer, if there are as many as the model's."""
    path = Path(tokenizer) / "config.json"
    if not path.is_file():
        return None
    named = read_settings(path).get("id2label") or {}
    return {int(index): name for index, name in named.items()} if len(named) == classes else None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pt file, without wrappers. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file raises many types.
        raise CheckpointError(
            f"{path} can't be opened as weights only: it is damaged, or contains more than tensors, which could run "
            "code. Save it again with torch.save(model.state_dict(), path)."
        ) from error
    while isinstance(values, Mapping) and not any(isinstance(value, Tensor) for value in values.values()):
        inner = next((values[name] for name in WRAPPERS if name in values), None)
        if inner is None:
            break
        values = inner
    is_named = isinstance(values, Mapping) and all(isinstance(name, str) for name in values)
    if not is_named or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path} is not a state dict of names and tensors.")
    weights = dict(values)
    for prefix in PREFIXES * 2:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights


def stacked(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with separate experts stacked, as in our layers. Raises CheckpointError where one is missing."""
    result, alone = {}, {}
    for name, weight in weights.items():
        if match := ONE_EXPERT.match(name):
            alone.setdefault(f"{match['before']}.{match['name']}", {})[int(match["index"])] = weight
        else:
            result[name] = weight
    for name, experts in alone.items():
        if sorted(experts) != list(range(len(experts))):
            raise CheckpointError(f"{name}: experts {sorted(experts)} are there; some are missing.")
        result[name] = torch.stack([experts[index] for index in range(len(experts))])
    return result


def read_settings(path: Path) -> dict[str, Any]:
    """Fields of SwitchConfig in a config.json or a run's arguments.json. Raises CheckpointError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if "output_dir" in values:
            values = Arguments.from_dict(values).config(1_000_000, 0, []).to_dict()
        return {key: values[key] for key in OPTIONS if key in values} | (
            {"id2label": values["id2label"]} if len(values.get("id2label") or ()) and "output_dir" not in values else {}
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} can't be read as a configuration: {error}") from error


def shape_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fields of the configuration that follow from the weights. Raises CheckpointError if they fit no model of ours."""
    try:
        vocab_size, d_model = weights["shared.weight"].shape
        buckets, num_heads = weights["encoder.position_bias.relative_attention_bias.weight"].shape
        num_layers = 1 + max(int(match[1]) for match in map(BLOCK.match, weights) if match)
        mlps = [f"encoder.blocks.{layer}.mlp" for layer in range(num_layers)]
        sparse = [layer for layer, mlp in enumerate(mlps) if f"{mlp}.experts.wo" in weights]
        last = [weights.get(f"{mlp}.experts.wo", weights.get(f"{mlp}.wo.weight")) for mlp in mlps]
        shape = {
            "vocab_size": vocab_size,
            "d_model": d_model,
            "d_kv": len(weights["encoder.blocks.0.attention.q.weight"]) // num_heads,
            "d_ff": last[0].shape[-1],
            "num_heads": num_heads,
            "num_layers": num_layers,
            "relative_attention_num_buckets": buckets,
            "encoder_sparse_step": _step(sparse, num_layers),
            "bigram_buckets": len(weights.get("bigrams.table.weight", ())),
            "conv_width": weights[CONVOLUTION].shape[1] // d_model if CONVOLUTION in weights else 0,
        }
    except (KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"These are not weights of this package's encoder ({error}). Their first names: "
            f"{', '.join(list(weights)[:5])}"
        ) from error
    if sparse:
        router = f"{mlps[sparse[0]]}.router.classifier"
        shape |= {"num_experts": len(last[sparse[0]]), "router_bias": f"{router}.bias" in weights}
    if any(name.endswith("wi_0") or name.endswith("wi_0.weight") for name in weights):
        shape["dense_act_fn"] = "gated-gelu"
    if "classifier.weight" in weights and weights["classifier.weight"].shape[1] == 2 * d_model:
        shape["pooling"] = "mean+max"
    return shape


def _step(sparse: list[int], num_layers: int) -> int:
    for step in range(num_layers + 1):
        config = SwitchConfig(encoder_sparse_step=step)
        if [layer for layer in range(num_layers) if config.is_sparse(layer)] == sparse:
            return step
    raise ValueError(f"blocks {sparse} are sparse, which no encoder_sparse_step gives")
