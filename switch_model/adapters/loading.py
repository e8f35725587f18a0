"""Open a mixture-of-experts checkpoint of transformers: a folder or a repository on the Hugging Face Hub.

Only for whoever starts the app or a command: transformers reads the configuration. Weights are safetensors, and no code
of a checkpoint is run. What a visitor uploads goes through `switch_model.checkpoint` alone.
Try it: model, tokenizer = load_adapted("a/mixtral")
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from switch_model.adapters.families import SUPPORTED, reason_against, too_old
from switch_model.adapters.model import AdaptedModel, adapt
from switch_model.checkpoint import checkpoint_folder, load_checkpoint
from switch_model.config import SwitchConfig
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.errors import CheckpointError
from switch_model.storage.hub import download, with_revision, without_pickles
from switch_model.storage.json_file import read_json
from switch_model.storage.paths import local_path

HEADS = ("ForCausalLM", "ForConditionalGeneration", "ForSequenceClassification", "ForTokenClassification")
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.tiktoken")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# A CPU computes in float16 three times more slowly than in float32, which takes twice the memory.
MOST_WIDENED = 1_000_000_000


def load_any(
    folder_zip_or_hub_id: str | Path,
    device: str | torch.device | None = None,
    revision: str | None = None,
    dtype: str | None = None,
) -> tuple[SwitchPreTrainedModel | AdaptedModel, PreTrainedTokenizerFast]:
    """Open a checkpoint of this package, or of a mixture-of-experts family of transformers.

    Arguments as `load_checkpoint` and `load_adapted`. Raises CheckpointError with the reason why it can't be opened.
    """
    family = family_of(folder_zip_or_hub_id, revision)
    if family is None:
        if dtype is not None:
            raise CheckpointError(
                f"dtype={dtype!r} is for transformers' own models: a Switch model computes in float32."
            )
        return load_checkpoint(folder_zip_or_hub_id, device, revision)
    return load_adapted(folder_zip_or_hub_id, device, revision, dtype)


def family_of(folder_zip_or_hub_id: str | Path, revision: str | None = None) -> str | None:
    """The family of a checkpoint of transformers; None for one of this package, or what can't be read."""
    try:
        path = Path(with_revision(local_path(folder_zip_or_hub_id), revision))
        if path.is_file():
            return None
        folder = checkpoint_folder(path) if path.is_dir() else download(str(path), ["config.json"])
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (CheckpointError, OSError, ValueError, AttributeError, RecursionError):
        return None  # Opening it says why.
    return family if isinstance(family, str) and family != SwitchConfig.model_type else None


def load_adapted(
    folder_or_hub_id: str | Path,
    device: str | torch.device | None = None,
    revision: str | None = None,
    dtype: str | None = None,
) -> tuple[AdaptedModel, PreTrainedTokenizerFast]:
    """Open a mixture-of-experts checkpoint of transformers.

    Args:
        folder_or_hub_id: a folder, "owner/name", or "owner/name@revision".
        device: where the model goes; None = CUDA when there is one, else CPU.
        revision: of a hub repository; None = main.
        dtype: "float32", "bfloat16" or "float16"; None = that of the file, but float32 for one of float16 on a CPU with
            at most `MOST_WIDENED` parameters.

    Raises:
        CheckpointError: with the reason, and what would be accepted.
    """
    if problem := too_old():
        raise CheckpointError(problem)
    if dtype not in (None, *DTYPES):
        raise CheckpointError(f"dtype={dtype!r} is not allowed: it must be one of {', '.join(DTYPES)}, or None.")
    name = with_revision(local_path(folder_or_hub_id), revision)
    folder = Path(name) if Path(name).is_dir() else download(name, FILES, "no folder")
    values = read_json(folder / "config.json")
    if problem := reason_against(str(values.get("model_type"))):
        raise CheckpointError(problem)
    model_class = _class_of(values)
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(f"{name} holds no .safetensors. {without_pickles(name)}")
    tokenizer = _tokenizer(folder)
    library = _weights(model_class, folder, dtype)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    is_slow = device.type == "cpu" and dtype is None and library.dtype == torch.float16
    if is_slow and library.num_parameters() <= MOST_WIDENED:
        library = library.float()
    return adapt(library.to(device), tokenizer), tokenizer


def _class_of(values: dict[str, Any]) -> Any:
    """The library's class that config.json names."""
    family, named = values.get("model_type"), values.get("architectures") or []
    name = str(named[0]) if isinstance(named, list) and len(named) == 1 else ""
    found = getattr(transformers, name, None) if name.endswith(HEADS) else None
    if found is None or not issubclass(found, transformers.PreTrainedModel):
        own = " It names code of its own, which is never run." if "auto_map" in values else ""
        raise CheckpointError(
            f"config.json names architectures={named!r} of the family {family!r}, which transformers "
            f"{transformers.__version__} has not, or which has no head for text.{own} {SUPPORTED}"
        )
    return found


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # Of a broken file, or a missing package: of any type.
        raise CheckpointError(f"The tokenizer can't be opened: {_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(
            f"Its tokenizer is a {type(tokenizer).__name__}, which gives no offsets: a tokenizer.json is needed."
        )
    return tokenizer


def _weights(model_class: Any, folder: Path, dtype: str | None) -> Any:
    try:
        library, report = model_class.from_pretrained(
            folder,
            dtype="auto" if dtype is None else DTYPES[dtype],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            # Reported below: the library's own error names an argument of a function that nobody here calls.
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # Of a broken file, a wrong shape, or a missing package: of any type.
        raise CheckpointError(f"The model can't be opened: {_line(error)}") from error
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, expected = mismatched[0]
        others = f", and {len(mismatched) - 1} more do not fit" if len(mismatched) > 1 else ""
        raise CheckpointError(
            f"{name} has the shape {tuple(found)} in the weights, but {tuple(expected)} by config.json{others}: "
            "one of the two files belongs to another model. Take both from the same checkpoint."
        )
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"The weights lack {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}: they "
            "would be random. Is this the whole checkpoint, with the head that its config.json names?"
        )
    for name, weight in library.named_parameters():
        if not bool(torch.isfinite(weight.sum())) and not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"{name} holds numbers that are not finite (NaN or infinite): the file is damaged.")
    return library


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
