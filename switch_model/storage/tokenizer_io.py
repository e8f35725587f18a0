"""Read and write the tokenizers of a checkpoint, validated as untrusted files.

A model with a second output vocabulary (SwitchConfig.decoder_vocab_size) has two: a checkpoint holds the second as
target_tokenizer.json, and in memory it is an attribute of the first, so that functions pass one object.
Try it: target_of(load_checkpoint("assets/models/ag_news")[1])
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from switch_model.storage.archive import MAX_TOKENIZER_BYTES
from switch_model.storage.errors import CheckpointError
from switch_model.storage.json_file import read_json

# Prefix of the output tokenizer's files, where it has its own.
TARGET = "target_"
_SPECIAL_TOKENS = ("unk_token", "pad_token", "mask_token", "cls_token", "sep_token", "bos_token", "eos_token")


def target_of(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's output: its own, or else the input's."""
    target = getattr(tokenizer, "target_tokenizer", None)
    return tokenizer if target is None else target


def with_target(tokenizer: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast | None) -> PreTrainedTokenizerFast:
    """The tokenizer, with `target` attached as the output's; None = the same for both."""
    tokenizer.target_tokenizer = target
    return tokenizer


def write_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path, prefix: str = "") -> None:
    """Write tokenizer.json and tokenizer_config.json, their names after `prefix`."""
    # Not with the tokenizer's own methods, which fail on paths that are not UTF-8; likewise below.
    written = tokenizer.backend_tokenizer.to_str(pretty=False)
    (folder / f"{prefix}tokenizer.json").write_text(written, encoding="utf-8", newline="")
    settings = {"model_max_length": tokenizer.model_max_length}
    settings |= {key: getattr(tokenizer, key) for key in _SPECIAL_TOKENS if getattr(tokenizer, key) is not None}
    path = folder / f"{prefix}tokenizer_config.json"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_tokenizer(folder: Path, vocab_size: int, pad_token_id: int, prefix: str = "") -> PreTrainedTokenizerFast:
    """Read and validate tokenizer.json and tokenizer_config.json, their names after `prefix`.

    Args:
        vocab_size: rows of the embedding table.
        pad_token_id: the padding token where the files name none.

    Raises:
        CheckpointError: when they can't be read, are not safe, or don't fit the model.
    """
    path = folder / f"{prefix}tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"The checkpoint lacks {path.name}.")
    _check_tokenizer(read_json(path, limit=MAX_TOKENIZER_BYTES), path.name)
    try:
        backend = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # The Rust library raises bare Exception.
        raise CheckpointError(f"{path.name} can't be read: {error}.") from error
    backend.no_truncation()  # TextPipeline truncates, and reports it.
    backend.no_padding()
    # A far higher id would also keep transformers busy for a minute.
    highest = max(backend.get_vocab().values(), default=-1)
    if max(backend.get_vocab_size(), highest + 1) > vocab_size:
        raise CheckpointError(
            f"{path.name} has {backend.get_vocab_size():,} tokens with ids up to {highest:,}, but the model's "
            f"{'decoder_' if prefix else ''}vocab_size is {vocab_size:,}."
        )
    settings_path = folder / f"{prefix}tokenizer_config.json"
    settings = read_json(settings_path) if settings_path.is_file() else {}
    special = {key: _token_text(settings.get(key)) for key in _SPECIAL_TOKENS}
    special = {key: text for key, text in special.items() if text is not None and backend.token_to_id(text) is not None}
    if "pad_token" not in special and (pad := backend.id_to_token(pad_token_id)) is not None:
        special["pad_token"] = pad
    limit = settings.get("model_max_length")
    limit = limit if isinstance(limit, int) and 1 <= limit <= 100_000 else 512
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=limit, **special)


def _token_text(value: Any) -> str | None:
    """A special token as tokenizer_config.json holds it: plain text, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


# Stages of a tokenizer.json that take bounded time without regular expressions.
_TOKENIZER_STAGES = {
    "normalizer": {
        "Sequence", "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Nmt",
        "Prepend", "Replace", "Precompiled", "ByteLevel",
    },
    "pre_tokenizer": {
        "Sequence", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Punctuation", "Digits", "ByteLevel",
        "Metaspace", "UnicodeScripts",
    },
}  # fmt: skip


# WordPiece takes quadratic time in the length of a word; longer ones are "unknown" at once.
MAX_WORD = 1_000


def _check_tokenizer(values: dict[str, Any], name: str) -> None:
    model = values.get("model")
    longest = model.get("max_input_chars_per_word", 100) if isinstance(model, dict) else 100
    if type(longest) is not int or not 1 <= longest <= MAX_WORD:
        raise CheckpointError(f"{name}: max_input_chars_per_word must be 1 to {MAX_WORD:,}.")
    for stage, allowed in _TOKENIZER_STAGES.items():
        pending = [values.get(stage)]
        while pending:
            part = pending.pop()
            if part is None:
                continue
            kind = part.get("type") if isinstance(part, dict) else part
            if not isinstance(part, dict) or not isinstance(kind, str) or kind not in allowed:
                raise CheckpointError(f"{name}: the {stage} {kind!r} is not accepted.")
            for children in (part.get("normalizers"), part.get("pretokenizers")):
                pending.extend(children if isinstance(children, list) else [])
    # Anywhere but in the model, which holds only tokens and may be large.
    if _names_a_regex({key: value for key, value in values.items() if key != "model"}):
        raise CheckpointError(f"{name}: a part with a regular expression is not accepted.")


def _names_a_regex(values: Any) -> bool:
    pending = [values]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if "Regex" in part:
                return True
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return False
