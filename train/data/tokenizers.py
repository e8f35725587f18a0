"""Tokenizers, trained on the training texts or loaded by name, and tokenization of data sets.

Try it: train_tokenizer(["a text", "another"], vocab_size=100, max_length=16).tokenize("a text")
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from switch_model.storage.hub import (
    UNREACHABLE,
    is_unreachable,
    is_within_reach,
    lacks_revision,
    no_revision,
    split_revision,
)
from switch_model.storage.tokenizer_io import target_of
from train.data.columns import PAIR_SEPARATOR, SEPARATOR_TOKEN
from train.data.errors import DataError

SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "sep_token": SEPARATOR_TOKEN}


# Of tokenizers for models that generate text. Sentinels replace masked spans (T5, 1910.10683).
START, END, SENTINELS = "<s>", "</s>", 100
WRITING_TOKENS = {
    "pad_token": "<pad>",
    "eos_token": END,
    "unk_token": "<unk>",
    "bos_token": START,
    "mask_token": "<mask>",
    "sep_token": SEPARATOR_TOKEN,
}


# WordPiece's prefix of pieces inside words, and the size of its alphabet.
PIECE_INSIDE, ALPHABET = "##", 1000
# Packages with which transformers reads a SentencePiece model.
SENTENCEPIECE = ("sentencepiece", "protobuf")
# Scores up to this far above the lowest belong to characters that are kept only for coverage (`in_order`).
KEPT_CHARACTERS = 0.05


def sentinel(index: int) -> str:
    """The name of the sentinel with this number, from 0."""
    return f"<extra_id_{index}>"


def sentinel_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids of the sentinel tokens, in order; empty if a tokenizer has none."""
    vocabulary, found = tokenizer.get_vocab(), []
    while (index := vocabulary.get(sentinel(len(found)))) is not None:
        found.append(index)
    return found


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, max_length: int, whole_words: bool = False
) -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer learned from `texts`; `whole_words` keeps words in one piece instead."""
    special, kind = list(SPECIAL_TOKENS.values()), models.WordLevel if whole_words else models.WordPiece
    backend = Tokenizer(kind(unk_token=SPECIAL_TOKENS["unk_token"]))
    # Line breaks in web text are written as tags; offsets still point into the raw text.
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace("<br />", " "), normalizers.BertNormalizer(lowercase=True)]
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    settings = dict(vocab_size=vocab_size, show_progress=False)
    if whole_words:
        backend.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=special, **settings))
    else:
        texts = list(texts)
        # The trainer numbers pieces inside words in hash-table order, and ids break ties between equally frequent
        # pairs. Passed as special tokens, they get the same ids for the same texts.
        alphabet = _alphabet(texts, backend.normalizer)
        inside = [PIECE_INSIDE + character for character in alphabet]
        trainer = trainers.WordPieceTrainer(
            special_tokens=special + inside, initial_alphabet=alphabet, limit_alphabet=len(alphabet), **settings
        )
        backend.train_from_iterator(texts, trainer)
        state = json.loads(backend.to_str())
        state["added_tokens"] = state["added_tokens"][: len(special)]
        backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **SPECIAL_TOKENS)


def _alphabet(texts: list[str], normalizer: normalizers.Normalizer) -> list[str]:
    """The most frequent characters of the normalized texts."""
    counts, normalized = Counter(), Counter()
    for text in texts:
        counts.update(text)
    for character, count in counts.items():
        for left in normalizer.normalize_str(character):
            normalized[left] += count
    commonest = sorted(normalized, key=lambda character: (-normalized[character], character))[:ALPHABET]
    return sorted(character for character in commonest if not character.isspace())


def train_unigram_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A unigram tokenizer as in SentencePiece (1804.10959, 1808.06226): keeps case, decodes any language, and appends
    an end token."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.Replace("<br />", " "), normalizers.NFKC()])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    special = [*WRITING_TOKENS.values(), *(sentinel(index) for index in range(SENTINELS))]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=special, unk_token=WRITING_TOKENS["unk_token"], show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    backend = in_order(backend, len(special))
    close_texts(backend)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **WRITING_TOKENS)


def in_order(backend: Tokenizer, special: int) -> Tokenizer:
    """The unigram tokenizer in a canonical order: the trainer's depends on hash tables, so that the same texts could
    give other ids.

    Characters that are kept only for coverage get the lowest score plus 0.0001, 0.0002, … in arbitrary order, and
    scores differ in their last bits.
    """
    state = json.loads(backend.to_str())
    vocabulary = state["model"]["vocab"]
    lowest = min(score for _, score in vocabulary)
    pieces = [
        (piece, round(lowest if score < lowest + KEPT_CHARACTERS else score, 6))
        for piece, score in vocabulary[special:]
    ]
    state["model"]["vocab"] = vocabulary[:special] + sorted(pieces, key=lambda item: (-item[1], item[0]))
    return Tokenizer.from_str(json.dumps(state))


def train_byte_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like GPT-2's: lossless for every text."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = {key: token for key, token in WRITING_TOKENS.items() if key in ("pad_token", "eos_token")}
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=max_length, **special)


def close_texts(backend: Tokenizer, end: str = END) -> None:
    """Make the tokenizer append the end token to every text."""
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, backend.token_to_id(end))]
    )


def load_tokenizer(name: str, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer by hub id (optionally with "@revision") or folder; a SentencePiece model is converted to a fast one.

    Raises DataError when there is none, when it can't be read, or when it can't pad.
    """
    hub_id, revision = split_revision(name)
    # Earlier downloads open without the Hub too.
    alone = Path(hub_id).exists() or not is_within_reach(hub_id)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            hub_id, revision=revision or "main", model_max_length=max_length, local_files_only=alone
        )
    except Exception as error:  # The hub client and the parsers raise many types.
        if revision and lacks_revision(error):
            raise DataError(no_revision(hub_id, revision)) from error
        if not Path(hub_id).exists() and is_unreachable(error):
            raise DataError(f"There is no tokenizer at {name!r}: it is not a folder, and {UNREACHABLE}") from error
        if isinstance(error, OSError) and not Path(name).exists():
            raise DataError(f"There is no tokenizer at {name!r}, neither as a folder nor on the hub.") from error
        raise DataError(f"The tokenizer {name!r} exists, but can't be read: {_reason(name, error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DataError(f"The tokenizer {name!r} has no tokenizer.json: only fast tokenizers are supported.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise DataError(f"The tokenizer {name!r} has no padding token.")
    return tokenizer


def _reason(name: str, error: Exception) -> str:
    """Why a tokenizer can't be read. Missing packages of SentencePiece come first: without them transformers mistakes
    the file for another kind, and names that kind's package."""
    missing = [] if (Path(name) / "tokenizer.json").is_file() else [one for one in SENTENCEPIECE if not _installed(one)]
    if missing:
        return f"a SentencePiece model needs packages that are not installed: pip install {' '.join(missing)}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


# A batch of columns -> columns with `input_ids`.
Encoder = Callable[[dict[str, list]], dict[str, list]]


def text_encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    """text (and label) -> input_ids (and labels), of a batch."""

    def encode(batch: dict[str, list]) -> dict[str, list]:
        texts = batch["text"]
        if tokenizer.sep_token != SEPARATOR_TOKEN:
            own = f" {tokenizer.sep_token or tokenizer.eos_token or ''} "
            texts = [text.replace(PAIR_SEPARATOR, own) for text in texts]
        encoded = tokenizer(texts, truncation=True, add_special_tokens=True, return_attention_mask=False)
        return {"input_ids": encoded["input_ids"]} | ({"labels": batch["label"]} if "label" in batch else {})

    return encode


def pair_encoder(tokenizer: PreTrainedTokenizerFast, cut: bool) -> Encoder:
    """text and target -> input_ids, labels, length (of both together), of a batch. `cut`: truncate longer texts."""

    def encode(batch: dict[str, list]) -> dict[str, list]:
        limit = tokenizer.model_max_length
        settings = dict(truncation=cut, max_length=limit, add_special_tokens=True, return_attention_mask=False)
        ids = tokenizer(batch["text"], **settings)["input_ids"]
        labels = target_of(tokenizer)(batch["target"], **settings)["input_ids"]
        lengths = [len(own) + len(answer) for own, answer in zip(ids, labels, strict=True)]
        return {"input_ids": ids, "labels": labels, "length": lengths}

    return encode


def pair_fits(ids: Sequence[int], labels: Sequence[int], limit: int) -> bool:
    """Whether both sides of a tokenized pair have a token beside the end token, and at most `limit`."""
    fits = range(2, limit + 1)
    return len(ids) in fits and len(labels) in fits


def tokenize(rows: Dataset, tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """text (and label) -> input_ids, length, row (and labels). Texts without a token are excluded."""
    features = rows.map(text_encoder(tokenizer), batched=True, remove_columns=rows.column_names, desc="Tokenizing")
    lengths = [len(ids) for ids in features["input_ids"]]
    features = features.add_column("length", lengths).add_column("row", range(len(lengths)))
    empty = lengths.count(0)
    return features.filter(lambda length: length > 0, input_columns="length", desc="Filtering") if empty else features


def tokenize_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerFast, cut: bool) -> Dataset:
    """text and target -> input_ids, labels, length (of both together) and row. Pairs without a token are excluded.

    `cut`: truncate longer texts. Otherwise such pairs are excluded: truncated sentences are not translations of each
    other, and teach the model to stop in the middle.
    """
    encode = pair_encoder(tokenizer, cut)
    features = rows.map(encode, batched=True, remove_columns=rows.column_names, desc="Tokenizing")
    features = features.add_column("row", range(len(features)))
    return features.filter(
        lambda ids, labels: pair_fits(ids, labels, tokenizer.model_max_length),
        input_columns=["input_ids", "labels"],
        desc="Filtering",
    )
