"""Open and save checkpoints. Opening reads JSON and safetensors only: nothing in a checkpoint can run code.

A checkpoint is a folder, the same folder zipped, or a repository on the Hugging Face Hub: config.json,
model.safetensors (or its shards and their index), tokenizer.json (+ tokenizer_config.json, README.md, training.json;
a model with a second output vocabulary also has target_tokenizer.json and target_tokenizer_config.json).
Try it: model, tokenizer = load_checkpoint("assets/models/ag_news")
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from switch_model.commands import command
from switch_model.config import SwitchConfig, check_untrusted
from switch_model.config_fields import OPTIONS
from switch_model.models.auto import MODEL_CLASSES
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.storage.archive import INDEX, OPTIONAL_FILES, REQUIRED_FILES, SHARDS, missing_files, unzip
from switch_model.storage.errors import CheckpointError, a_class, opened_by
from switch_model.storage.hub import download, with_revision, without_pickles
from switch_model.storage.json_file import MAX_JSON_BYTES, read_json
from switch_model.storage.paths import local_path
from switch_model.storage.safetensors_io import Entry, Weights, write_tensors
from switch_model.storage.tokenizer_io import TARGET, read_tokenizer, target_of, with_target, write_tokenizer
from switch_model.storage.whole_files import folder_written_aside

# Limits for files of unknown origin: far above any model this package makes, far below what hurts a machine.
MAX_PARAMETERS = 20_000_000_000
MAX_LABELS, MAX_LABEL_LENGTH = 10_000, 200
# Room that config.json needs for everything but the class names.
_BYTES_BESIDE_LABELS = 50_000
IMPORT_FIRST = f" Convert this transformers checkpoint first: {command('import')} SOURCE --output_dir FOLDER."
# What save_pretrained writes besides our own fields. `auto_map` is not accepted: it names code to run.
_LIBRARY_CONFIG_KEYS = frozenset(
    [
        "architectures",
        "chunk_size_feed_forward",
        "dtype",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "model_type",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "_name_or_path",
        "use_cache",
    ]
)


def load_checkpoint(
    folder_zip_or_hub_id: str | Path, device: str | torch.device | None = None, revision: str | None = None
) -> tuple[SwitchPreTrainedModel, PreTrainedTokenizerFast]:
    """Open a checkpoint folder, zip or hub repository.

    Args:
        folder_zip_or_hub_id: a folder (a run folder opens its best checkpoint), a .zip of one, "owner/name", or
            "owner/name@revision".
        device: where the model goes; None = CUDA when there is one, else CPU.
        revision: of a hub repository: a branch, a tag, a commit, or refs/pr/N; None = main.

    Returns:
        The model in evaluation mode, in float32 whatever the file holds, and its tokenizer;
        `storage.tokenizer_io.target_of(tokenizer)` is the one of the output, where the model has two.

    Raises:
        CheckpointError: with the reason, and what would be accepted.
    """
    with checkpoint_files(folder_zip_or_hub_id, revision) as folder:
        return _load_folder(folder, device)


@contextmanager
def checkpoint_files(folder_zip_or_hub_id: str | Path, revision: str | None = None) -> Iterator[Path]:
    """The folder with a checkpoint's files, unpacked or downloaded; an unpacked one is removed afterwards.

    Nothing in it has been checked. Arguments as `load_checkpoint`; raises CheckpointError where there is none.
    """
    try:
        name = with_revision(local_path(folder_zip_or_hub_id), revision)
        source = Path(name)
        is_file, is_folder = source.is_file(), source.is_dir()
    except (OSError, ValueError) as error:  # Not a valid path, such as a name of a thousand letters.
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(f"There is no checkpoint at {str(folder_zip_or_hub_id)!r}: {why}") from error
    if is_file:
        with tempfile.TemporaryDirectory() as scratch:
            yield checkpoint_folder(unzip(source, Path(scratch)))
        return
    if is_folder:
        yield checkpoint_folder(source)
        return
    folder = download(name, [*REQUIRED_FILES, *OPTIONAL_FILES, INDEX, SHARDS])
    weights = [file for file in ("model.safetensors", INDEX) if (folder / file).is_file()]
    if (folder / "config.json").is_file() and not weights:
        raise CheckpointError(f"{name} holds no model.safetensors. {without_pickles(name)}")
    yield checkpoint_folder(folder)


def require_classifier(model: Any) -> None:
    """Raise CheckpointError for a model that was not trained to classify."""
    if not (isinstance(model, SwitchForSequenceClassification) or getattr(model, "classifies", False)):
        raise CheckpointError(
            f"This checkpoint is {a_class(model)}: it predicts tokens, not classes.{opened_by(model)}"
            + ("" if hasattr(model, "library") else f" Train a classifier from it with {command()} --init_from.")
        )
    if model.config.problem_type == "regression":
        raise CheckpointError("This checkpoint predicts a number (problem_type='regression'), not a class.")


def check_labels(names: Sequence[str]) -> None:
    """Raise ValueError for class names with which a saved checkpoint could not be opened again."""
    if len(names) > MAX_LABELS:
        raise ValueError(f"there are {len(names):,} classes, above the limit of {MAX_LABELS:,}.")
    longest = max(names, key=len, default="")
    if len(longest) > MAX_LABEL_LENGTH:
        start = " ".join(longest[:60].split())
        raise ValueError(
            f"a class name has {len(longest):,} characters (“{start} …”), above the limit of {MAX_LABEL_LENGTH}."
        )
    # config.json holds each name twice (id2label, label2id), JSON-escaped.
    size = 2 * sum(len(json.dumps(name)) + 16 for name in names)
    if size > MAX_JSON_BYTES - _BYTES_BESIDE_LABELS:
        raise ValueError(
            f"the names of all {len(names):,} classes take {size:,} bytes in config.json, above its limit of "
            f"{MAX_JSON_BYTES:,}: shorten them."
        )


def save_checkpoint(
    model: SwitchPreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | Path,
    *,
    training: Mapping[str, Any] | None = None,
    card: str | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a checkpoint folder atomically; returns it.

    Args:
        training: written to training.json: arguments, data, metrics.
        card: the model card, written to README.md.
        dtype: of the weights on disk (torch.float16 halves the folder); None = unchanged.

    Raises:
        ValueError: for class names with which it could not be opened again.
        OSError: with the folder's name and a readable reason; the previous files are unchanged.
    """
    check_labels(model.config.labels)
    folder = Path(local_path(folder))
    with folder_written_aside(folder) as aside:
        (aside / "config.json").write_text(config_text(model), encoding="utf-8")
        write_tensors(aside / "model.safetensors", model.state_dict(), dtype)
        write_tokenizer(tokenizer, aside)
        if model.config.decoder_vocab_size is not None:
            write_tokenizer(target_of(tokenizer), aside, TARGET)
        if training is not None:
            (aside / "training.json").write_text(json.dumps(training, indent=2) + "\n", encoding="utf-8")
        if card is not None:
            (aside / "README.md").write_text(card, encoding="utf-8", errors="replace")
    return folder


def config_text(model: SwitchPreTrainedModel) -> str:
    """config.json of a model: our own fields and the model class alone, for a trainer leaves others on the config."""
    values = model.config.to_dict()
    config = {"model_type": model.config.model_type, "architectures": [type(model).__name__]}
    config |= {key: values[key] for key in (*OPTIONS, "id2label", "label2id", "transformers_version")}
    return json.dumps(config, indent=2) + "\n"


def read_training(folder: str | Path) -> dict[str, Any]:
    """training.json of a checkpoint folder; empty when there is none."""
    path = checkpoint_folder(local_path(folder)) / "training.json"
    return read_json(path) if path.is_file() else {}


def checkpoint_folder(folder: str | Path) -> Path:
    """The folder itself, or `best/` inside a run folder."""
    folder = Path(folder)
    best = folder / "best"
    return best if not (folder / "config.json").is_file() and (best / "config.json").is_file() else folder


def _load_folder(
    folder: Path, device: str | torch.device | None
) -> tuple[SwitchPreTrainedModel, PreTrainedTokenizerFast]:
    present = {path.name for path in folder.iterdir() if path.is_file()}
    if missing := missing_files(present):
        hint = ""
        if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
            hint = " Pickle files (.bin, .pt) are never opened: they can run code. Save the weights as .safetensors."
        raise CheckpointError(
            f"The checkpoint lacks {', '.join(missing)}. A checkpoint folder holds {', '.join(REQUIRED_FILES)}.{hint}"
        )
    # Cheap checks first: nothing large is allocated before names, shapes and dtypes are known to fit.
    config, model_class = read_config(folder / "config.json")
    weights = Weights.find(folder)
    try:
        with torch.device("meta"):
            model = model_class(config)
    except ValueError as error:  # Some combinations are only rejected by the model class.
        raise CheckpointError(f"config.json: {error}") from error
    compare_header(weights.header, model.state_dict())
    tokenizer = read_tokenizer(folder, config.vocab_size, config.pad_token_id)
    if config.decoder_vocab_size is not None:
        with_target(tokenizer, read_tokenizer(folder, config.decoder_vocab_size, config.pad_token_id, TARGET))
    try:
        # In float32: with half-precision weights the whole model would compute in half precision, slowly on a CPU.
        state = weights.read()
    except OSError as error:
        raise CheckpointError(f"The weights can't be read: {error}.") from error
    model.load_state_dict(state, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return model.eval().to(device), tokenizer


def read_config(path: Path) -> tuple[SwitchConfig, type[SwitchPreTrainedModel]]:
    """config.json under a strict schema: known keys, allowed values, a bounded size. Raises CheckpointError."""
    values = read_json(path)
    if values.get("model_type") != SwitchConfig.model_type:
        raise CheckpointError(
            f"config.json says model_type={values.get('model_type')!r}; this package opens {SwitchConfig.model_type!r}."
            + (IMPORT_FIRST if values.get("model_type") == "switch_transformers" else "")
        )
    architectures = values.get("architectures") or ["SwitchForSequenceClassification"]
    if not (isinstance(architectures, list) and len(architectures) == 1 and str(architectures[0]) in MODEL_CLASSES):
        raise CheckpointError(f"config.json names architectures={architectures!r}; known: {', '.join(MODEL_CLASSES)}.")
    unknown = sorted(set(values) - set(OPTIONS) - _LIBRARY_CONFIG_KEYS)
    if unknown:
        raise CheckpointError(f"config.json holds keys that this package does not know: {', '.join(unknown[:5])}.")
    labels = values.get("id2label")
    if labels is not None and not (
        isinstance(labels, dict)
        and 1 <= len(labels) <= MAX_LABELS
        and sorted(labels) == sorted(str(index) for index in range(len(labels)))
        and all(isinstance(name, str) and len(name) <= MAX_LABEL_LENGTH for name in labels.values())
    ):
        raise CheckpointError('config.json: id2label must map "0", "1", … to class names.')
    settings = {key: values[key] for key in OPTIONS if key in values}
    try:
        check_untrusted(settings)
        config = SwitchConfig(**settings, id2label=labels)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"config.json: {error}") from error
    model_class = MODEL_CLASSES[architectures[0]]
    size = estimated_parameters(config, model_class.stacks)
    if size > MAX_PARAMETERS:
        raise CheckpointError(f"config.json describes {size:,} parameters, above the limit of {MAX_PARAMETERS:,}.")
    return config, model_class


def estimated_parameters(config: SwitchConfig, stacks: Sequence[str] = ("encoder",)) -> int:
    """Number of parameters of embeddings, attention and MLPs, computed from the config without building the model."""
    inner = 3 if config.dense_act_fn.startswith("gated") else 2
    mlp = inner * config.d_model * config.d_ff
    experts = inner * config.d_model * config.expert_width * (config.num_experts + config.num_shared_experts)
    attention = 4 * config.d_model * config.num_heads * config.d_kv
    tables = (not config.tie_word_embeddings) + (not config.share_embeddings)
    written = (config.decoder_vocab_size or config.vocab_size) * tables
    rows = config.vocab_size + written + config.bigram_buckets + config.max_positions
    total = (rows + (config.inputs_embeds_size or 0) + config.conv_width * config.d_model) * config.d_model
    total += config.counted_rows * (len(config.labels) + 1)
    for stack in stacks:
        for layer in range(config.depth(stack)):
            total += experts if config.is_sparse(layer, stack) else mlp
            total += attention * (config.num_experts if config.attention_is_sparse(layer, stack) else 1)
            total += attention * (stack == "decoder" and len(stacks) > 1)
    return total


def compare_header(header: Mapping[str, Entry], expected: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError unless a header names exactly these weights in these shapes."""
    missing = sorted(set(expected) - set(header))
    extra = sorted(set(header) - set(expected))
    if missing or extra:
        parts = [f"it lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"it has {', '.join(extra[:3])}, which the model does not have"] if extra else []
        raise CheckpointError(f"model.safetensors does not fit config.json: {'; '.join(parts)}.")
    for name, tensor in expected.items():
        if list(tensor.shape) != header[name].shape:
            raise CheckpointError(
                f"The weight {name} has shape {header[name].shape}, but config.json asks for {list(tensor.shape)}."
            )
