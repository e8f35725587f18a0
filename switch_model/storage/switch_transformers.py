"""Import transformers' SwitchTransformers checkpoints as models of this package, with the same logits.

Reads config.json and model.safetensors, or the shards in model.safetensors.index.json; never a pickle. Every weight is
read directly into the stacked experts, so that importing takes little more memory than the model.
Try it: SwitchForConditionalGeneration.from_switch_transformers("google/switch-base-8", revision="refs/pr/5")
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, SwitchTransformersConfig

from switch_model.config import SwitchConfig, check_untrusted
from switch_model.storage.archive import INDEX
from switch_model.storage.errors import CheckpointError
from switch_model.storage.hub import download, split_revision, with_revision, without_pickles
from switch_model.storage.json_file import read_json
from switch_model.storage.paths import local_path
from switch_model.storage.safetensors_io import Limits, Weights, read_tensor

Model = TypeVar("Model", bound=PreTrainedModel)
FILES = ["config.json", "generation_config.json", "*.safetensors", INDEX, "tokenizer*.json", "special_tokens_map.json"]
SENTENCEPIECE = "spiece.model"
# 128 experts in 12 layers are 3,072 tensors, 256 are 6,144.
MAX_JSON_BYTES, LIMITS = 20_000_000, Limits(header_bytes=20_000_000, tensors=200_000, index_bytes=20_000_000)
HOW_TO_CONVERT = (
    "If you trust it, save it again as safetensors with transformers:\n"
    '  python -c "from transformers import SwitchTransformersForConditionalGeneration as M; '
    "M.from_pretrained('{source}').save_pretrained('converted')\"\n"
    "then copy its tokenizer files into the folder converted, and import that folder."
)
# Fields with the same meaning in both; the others are translated in `read_config`.
_SAME = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers", "num_decoder_layers", "num_experts",
    "expert_capacity", "encoder_sparse_step", "decoder_sparse_step", "router_bias", "router_dtype",
    "router_jitter_noise", "router_aux_loss_coef", "router_z_loss_coef", "relative_attention_num_buckets",
    "relative_attention_max_distance", "layer_norm_epsilon", "initializer_factor", "dense_act_fn", "dropout_rate",
    "tie_word_embeddings", "eos_token_id", "bos_token_id",
)  # fmt: skip
_TOKENS = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
# Read by transformers' config class, not by either forward pass.
_DERIVING = ("num_sparse_encoder_layers", "num_sparse_decoder_layers", "router_ignore_padding_tokens")


def find_checkpoint(path_or_hub_id: str | Path, revision: str | None = None) -> Path:
    """The folder itself, or the folder with a hub repository's JSON and safetensors files. Raises CheckpointError."""
    name = with_revision(local_path(path_or_hub_id), revision)
    folder = Path(name)
    if not folder.is_dir():
        folder = download(name, [*FILES, SENTENCEPIECE], "not a folder")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{name} lacks config.json: it is not a transformers checkpoint.")
    if not (folder / "model.safetensors").is_file() and not (folder / INDEX).is_file():
        what_to_do = without_pickles(name)
        if "A pull request" not in what_to_do:
            what_to_do += " " + HOW_TO_CONVERT.format(source=split_revision(name)[0])
        raise CheckpointError(f"{name} holds no model.safetensors. {what_to_do}")
    return folder


def read_config(folder: Path) -> SwitchConfig:
    """A SwitchTransformers config.json -> the same model's SwitchConfig. Raises CheckpointError.

    transformers' own class derives which layers are sparse, so that edge cases agree. `router_ignore_padding_tokens` is
    read nowhere in transformers; here padding is never routed, which with right padding changes no real token's logits.
    """
    values = read_json(folder / "config.json", MAX_JSON_BYTES)
    if values.get("model_type") != SwitchTransformersConfig.model_type:
        raise CheckpointError(
            f"config.json says model_type={values.get('model_type')!r}: only {SwitchTransformersConfig.model_type!r} "
            "and 'mixtral' can be imported."
        )
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json", MAX_JSON_BYTES)
        values = {key: generation[key] for key in _TOKENS if generation.get(key) is not None} | values
    wanted = {*_SAME, *_TOKENS, *_DERIVING}
    try:
        theirs = SwitchTransformersConfig(**{key: value for key, value in values.items() if key in wanted})
    except ZeroDivisionError as error:
        raise CheckpointError("config.json: its numbers of layers do not fit together.") from error
    except Exception as error:  # transformers' strict dataclass raises many types.
        raise CheckpointError(f"config.json: {error}") from error
    settings = {key: getattr(theirs, key) for key in _SAME}
    # A negative step makes no layer sparse in transformers.
    settings |= {key: max(0, settings[key]) for key in ("encoder_sparse_step", "decoder_sparse_step")}
    if isinstance(theirs.eos_token_id, list):
        if len(theirs.eos_token_id) != 1:
            raise CheckpointError(
                f"config.json: eos_token_id={theirs.eos_token_id} has several tokens; only one is supported."
            )
        settings["eos_token_id"] = theirs.eos_token_id[0]
    pad = theirs.pad_token_id if theirs.pad_token_id is not None else 0
    start = getattr(theirs, "decoder_start_token_id", None)
    try:
        check_untrusted(settings)
        return SwitchConfig(
            **settings,
            pad_token_id=pad,
            decoder_start_token_id=pad if start is None else start,
            # T5 scales only before a tied output layer.
            scale_decoder_outputs=theirs.tie_word_embeddings,
            expert_dropout=theirs.dropout_rate,
            # Their pretraining task (2101.03961, section 2.5).
            restores_gaps=True,
            is_encoder_decoder=True,
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"config.json: {error}") from error


def import_switch_transformers(
    model_class: type[Model],
    path_or_hub_id: str | Path,
    dtype: torch.dtype | None = torch.float32,
    revision: str | None = None,
) -> Model:
    """A transformers SwitchTransformers checkpoint as a model of this package, in evaluation mode on the CPU.

    Args:
        model_class: of the new model: both stacks, or the encoder alone. A head that the checkpoint lacks (a
            classifier's) is initialised at random.
        path_or_hub_id: a folder in transformers' layout, or "owner/name" on the Hugging Face Hub.
        dtype: of the weights; None = as in the file.
        revision: of a hub repository: a branch, a tag, a commit, or refs/pr/N; None = main.

    Raises:
        CheckpointError: with the reason, and what to do.
    """
    folder = find_checkpoint(path_or_hub_id, revision)
    config, weights = read_config(folder), Weights.find(folder, LIMITS, others=True)
    encoder_table = weights.first("encoder.embed_tokens.weight", "shared.weight", "lm_head.weight")
    decoder_table = weights.first("decoder.embed_tokens.weight", "shared.weight")
    if config.tie_word_embeddings:
        encoder_table = decoder_table = weights.first("shared.weight", "encoder.embed_tokens.weight", "lm_head.weight")
    # transformers 5 may have three separate tables where the output layer is not tied.
    config.share_embeddings = not weights.differ(encoder_table, decoder_table)
    with torch.device("meta"):
        model = model_class(config)
    dtype = dtype or weights.dtype()

    tables = {"shared.weight": encoder_table, "decoder_embedding.weight": decoder_table}
    plan = _plan(model, weights, {name: table for name, table in tables.items() if table})
    state: dict[str, Tensor] = {}
    with ExitStack() as opened:
        paths = {path for path, _ in weights.entries.values()}
        files = {path: opened.enter_context(path.open("rb", buffering=0)) for path in paths}
        for name, whole, sources in plan:
            state[name] = torch.empty(whole, dtype=dtype)
            places = state[name].unbind(0) if _is_stacked(name) else [state[name]]
            for source, place in zip(sources, places, strict=True):
                path, entry = weights.entries[source]
                read_tensor(files[path], source, entry, place)
    model.load_state_dict(state, strict=False, assign=True)
    _start_new_parts(model, dtype)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


def _plan(model: PreTrainedModel, weights: Weights, tables: dict[str, str]) -> list[tuple[str, torch.Size, list[str]]]:
    """For each weight of the model: its name, its shape, and the tensors in the files that it is read from. Checks the
    shapes before anything is allocated.

    Args:
        tables: embedding table of the model -> the tensor that it is read from.
    """
    plan = []
    for name, weight in model.state_dict().items():
        sources = [tables[name]] if name in tables else list(their_names(name, model.config.num_experts))
        missing = [source for source in sources if source not in weights.entries]
        if missing and name.split(".")[0] not in ("shared", "encoder", "decoder", "decoder_embedding", "lm_head"):
            continue  # Of a new head.
        if missing:
            both = any(source.startswith("decoder.block.") for source in weights.entries)
            hint = "" if both else " It is an encoder alone: import it with --encoder_only, or as SwitchEncoderModel."
            raise CheckpointError(f"The checkpoint lacks {missing[0]}, which its config.json asks for.{hint}")
        shape = list(weight.shape[1:] if _is_stacked(name) else weight.shape)
        for source in sources:
            if (found := weights.entries[source][1].shape) != shape:
                raise CheckpointError(f"The weight {source} has shape {found}, but config.json asks for {shape}.")
        plan.append((name, weight.shape, sources))
    return plan


def _is_stacked(name: str) -> bool:
    return ".experts." in name


def their_names(name: str, num_experts: int) -> Iterator[str]:
    """transformers' name of the weight called `name` here; one for each expert where experts are stacked."""
    stack, *rest = name.split(".")
    if stack not in ("encoder", "decoder"):
        yield name
        return
    if rest[0] == "final_norm":
        yield f"{stack}.final_layer_norm.weight"
        return
    if rest[0] == "position_bias":
        yield f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        return
    _, layer, part, *inner = rest
    last = 2 if stack == "decoder" else 1
    places = {
        "attention_norm": (0, "layer_norm"),
        "attention": (0, "SelfAttention"),
        "cross_norm": (1, "layer_norm"),
        "cross_attention": (1, "EncDecAttention"),
        "mlp_norm": (last, "layer_norm"),
        "mlp": (last, "mlp"),
    }
    number, module = places[part]
    before = f"{stack}.block.{layer}.layer.{number}.{module}"
    if inner[0] == "experts":
        yield from (f"{before}.experts.expert_{expert}.{inner[1]}.weight" for expert in range(num_experts))
    else:
        yield ".".join([before, *inner])


def _start_new_parts(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Allocate and initialise the weights that the checkpoint lacks."""
    for module in model.modules():
        if any(weight.is_meta for weight in module.parameters(recurse=False)):
            module.to_empty(device="cpu", recurse=False).to(dtype)
            model._init_weights(module)
