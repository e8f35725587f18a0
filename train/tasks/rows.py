"""From a run's texts to its tokenizer and rows of token ids, for each kind of rows.

Try it: make_rows(arguments, TASKS["classification"].read(arguments.selection), tokenizer)
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from switch_model.storage.tokenizer_io import target_of, with_target
from train.arguments.arguments import Arguments
from train.data.errors import DataError
from train.data.loading import TrainingData, load_training_data
from train.data.packing import Blocks, held_out_every, packed, prints_of, stream_texts
from train.data.source import Selection
from train.data.stored.tokens import Tokens, tokenized
from train.data.stored.vectors import VECTORS, vector_rows
from train.data.tokenizers import (
    END,
    SENTINELS,
    close_texts,
    load_tokenizer,
    sentinel,
    sentinel_ids,
    tokenize,
    tokenize_pairs,
    train_byte_tokenizer,
    train_tokenizer,
    train_unigram_tokenizer,
)
from train.data.toy import TOY_VOCABULARY
from train.tasks.collators import token_counts
from train.tasks.generation import SHOWN_SAMPLES, SampleWriter, storyteller, translator
from train.tasks.registry import TASKS, Task
from train.tasks.teaching import with_teachers

DEFAULT_VOCABULARY = 16_000
# Value of --target_tokenizer for a tokenizer trained on the targets.
OWN = "own"
LONGER_PAIRS = "{count:,} pairs are longer than {most} tokens (--seq_len) and excluded."
# Most validation pairs of a table too large for memory that are translated at an evaluation.
MOST_TRANSLATED = 2_000
# Maximum number of texts of a stream, or of a table too large for memory, to learn a tokenizer from; words of a prompt.
TEXTS_FOR_A_TOKENIZER, PROMPT_WORDS = 50_000, 6


@dataclass(frozen=True)
class Rows:
    """Training and validation rows of a run.

    Attributes:
        train, validation: rows for the task's collator.
        lengths: tokens of each training row.
        sample_writer: generates texts at evaluations; None for models that do not generate.
        characters_per_token: of the validation texts, for bits per character; None if not applicable.
        prints: of a stream, the files with the hashes of training and validation texts.
        tokens: of a table too large for memory, where the training rows are.
        width: of vectors instead of token ids; None = token ids.
        sample: of rows that are read as they come, the first ones; `train` then has rows of text.
    """

    train: Any
    validation: Any
    lengths: Sequence[int] | np.ndarray
    sample_writer: SampleWriter | None = None
    characters_per_token: float | None = None
    prints: dict[str, Path] | None = None
    tokens: Tokens | None = None
    width: int | None = None
    sample: Dataset | None = None

    @property
    def looked_at(self) -> Dataset:
        """Training rows, tokenized: all, or of a stream the first."""
        return self.train if self.sample is None else self.sample

    def count_tokens(self, vocabulary: int) -> np.ndarray:
        """(V,) how often each token occurs in the training rows."""
        return self.tokens.counts(vocabulary) if self.tokens else token_counts(self.looked_at, vocabulary)

    @property
    def mean_tokens(self) -> float:
        """Mean number of tokens per training row."""
        return float(np.sum(self.lengths)) / max(len(self.lengths), 1)


def streams_of(arguments: Arguments) -> dict[str, Iterator[str]]:
    """Iterators over the training texts and the held-out ones."""
    data, source = arguments.data, arguments.data.source
    if source.is_toy:
        toy = load_training_data(
            Selection(source, num_samples=data.num_samples, seed=arguments.train.seed), labelled=False
        )
        return {"train": iter(toy.train["text"]), "validation": iter(toy.validation["text"])}

    def train_texts() -> Iterator[str]:
        return islice(stream_texts(source.at("train")), data.num_samples)

    if source.has_own_validation:
        return {"train": train_texts(), "validation": stream_texts(source.at("validation"))}
    every = held_out_every(data.validation_size)
    return {
        "train": (text for index, text in enumerate(train_texts()) if index % every),
        "validation": (text for index, text in enumerate(train_texts()) if index % every == 0),
    }


def make_tokenizer(
    arguments: Arguments, data: TrainingData | None, source: PreTrainedTokenizerFast | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer `source` of the initial model, the one in the arguments, or one trained on the training texts; with
    a second one for the targets (`target_of`) if requested, or if `source` has one."""
    wanted, task = arguments.data, TASKS[arguments.train.task]
    tokenizer = _reader(arguments, data) if source is None else source
    target = target_of(tokenizer)
    if source is None and wanted.target_tokenizer == OWN:
        target = train_unigram_tokenizer(
            _texts_to_learn(data, "target"), wanted.vocab_size or DEFAULT_VOCABULARY, wanted.seq_len
        )
    elif source is None and wanted.target_tokenizer is not None:
        target = load_tokenizer(wanted.target_tokenizer, wanted.seq_len)
    for own in (tokenizer, target):
        _add_tokens_for(own, task)
        own.model_max_length = wanted.seq_len
    return tokenizer if target is tokenizer else with_target(tokenizer, target)


def asked_vocabulary(arguments: Arguments) -> int:
    """Maximum vocabulary size of a tokenizer trained for these arguments; few texts may give fewer tokens."""
    wanted, task = arguments.data, arguments.train.task
    if wanted.dataset == "toy" and not (TASKS[task].streamed or TASKS[task].rewrites):
        # The toy's own words and the special tokens.
        return (wanted.vocab_size or TOY_VOCABULARY) + 10
    return wanted.vocab_size or DEFAULT_VOCABULARY


def _reader(arguments: Arguments, data: TrainingData | None) -> PreTrainedTokenizerFast:
    """The tokenizer of the source texts, and of the targets too unless they have their own."""
    wanted, task = arguments.data, TASKS[arguments.train.task]
    if wanted.features_column:  # Special tokens alone: a checkpoint has a tokenizer.
        return train_tokenizer([], DEFAULT_VOCABULARY, wanted.seq_len, whole_words=True)
    if wanted.tokenizer is not None:
        return load_tokenizer(wanted.tokenizer, wanted.seq_len)
    if task.streamed:
        texts = islice(streams_of(arguments)["train"], TEXTS_FOR_A_TOKENIZER)
    elif task.paired and wanted.target_tokenizer is None:
        texts = _texts_to_learn(data, "text", "target")
    else:
        texts = _texts_to_learn(data, "text")
    return learn_tokenizer(texts, wanted.dataset, arguments.train.task, asked_vocabulary(arguments), wanted.seq_len)


def _texts_to_learn(data: TrainingData, *columns: str) -> list[str]:
    """The training texts of some columns; of a table too large for memory a sample."""
    rows = data.parts[0].spread(TEXTS_FOR_A_TOKENIZER) if data.parts else data.train
    return [text for column in columns for text in rows[column][:]]


def learn_tokenizer(
    texts: Iterable[str], dataset: str, task: str, vocab_size: int, max_length: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of the task's kind on `texts`, with at most `vocab_size` tokens."""
    if TASKS[task].streamed:
        return train_byte_tokenizer(texts, vocab_size, max_length)
    if TASKS[task].rewrites:
        return train_unigram_tokenizer(texts, vocab_size, max_length)
    return train_tokenizer(texts, vocab_size, max_length, whole_words=dataset == "toy")


def _add_tokens_for(tokenizer: PreTrainedTokenizerFast, task: Task) -> None:
    """Append the special tokens that the task needs and the tokenizer lacks."""
    if task.hides_tokens and tokenizer.mask_token is None:
        tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    if task.writes and tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": END})
    if task.restores_gaps and not sentinel_ids(tokenizer):
        tokenizer.add_tokens([sentinel(index) for index in range(SENTINELS)], special_tokens=True)
    if task.rewrites and tokenizer("a")["input_ids"][-1:] != [tokenizer.eos_token_id]:
        close_texts(tokenizer.backend_tokenizer, tokenizer.eos_token)


def make_rows(arguments: Arguments, data: TrainingData | None, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """Texts -> token ids. Raises DataError when the data can't be read."""
    task = TASKS[arguments.train.task]
    batch_size = max(arguments.train.batch_size, 64)
    most = None if arguments.train.eval_iters is None else arguments.train.eval_iters * batch_size
    if task.streamed:
        return _blocks(arguments, tokenizer, most)
    if data.parts:
        return _stored_rows(arguments, data, tokenizer, most, batch_size)
    held_out = data.validation if most is None else data.validation.select(range(min(most, len(data.validation))))
    sample_writer = None
    if VECTORS in data.train.column_names:
        train, validation = (vector_rows(rows, tokenizer.model_max_length) for rows in (data.train, held_out))
        return Rows(train, validation.sort("length"), list(train["length"]), width=len(train[0][VECTORS][0]))
    if task.paired:
        train = tokenize_pairs(data.train, tokenizer, cut=False)
        if longer := len(data.train) - len(train):
            print(LONGER_PAIRS.format(count=longer, most=tokenizer.model_max_length))
        validation = tokenize_pairs(held_out, tokenizer, cut=True)
        sample_writer = translator(
            tokenizer, list(held_out["text"]), list(held_out["target"]), batch_size, arguments.train.metrics
        )
    else:
        train, validation = tokenize(data.train, tokenizer), tokenize(held_out, tokenizer)
        if arguments.train.teachers and task.labelled:
            train = with_teachers(train, data.train["text"], data.labels, arguments.train)
    if data.stream:
        return Rows(data.stream, validation.sort("length"), [], sample=train)
    # Sorted by length, so that evaluation batches have little padding.
    return Rows(train, validation.sort("length"), list(train["length"]), sample_writer)


def _translator(
    arguments: Arguments, rows: Dataset, tokenizer: PreTrainedTokenizerFast, batch_size: int
) -> SampleWriter:
    return translator(tokenizer, list(rows["text"]), list(rows["target"]), batch_size, arguments.train.metrics)


def _stored_rows(
    arguments: Arguments, data: TrainingData, tokenizer: PreTrainedTokenizerFast, most: int | None, batch_size: int
) -> Rows:
    """`make_rows` for a table on disk."""
    task, (own, held_out) = TASKS[arguments.train.task], data.parts
    if arguments.train.teachers and task.labelled:
        raise ValueError(
            "--teachers predict every training text beforehand and keep the result in memory, which is not done for a "
            f"table as large as {arguments.data.dataset}: leave --teachers out, or train on a smaller file."
        )
    held_out = held_out if most is None else held_out.first(most)
    train = tokenized(own, tokenizer, pairs=task.paired, cut=not task.paired)
    validation = tokenized(held_out, tokenizer, pairs=task.paired).by_length()
    sample_writer = None
    if task.paired:
        if longer := len(own) - len(train.rows):
            print(LONGER_PAIRS.format(count=longer, most=tokenizer.model_max_length))
        texts = held_out.first(MOST_TRANSLATED).rows
        sample_writer = translator(
            tokenizer, list(texts["text"]), list(texts["target"]), batch_size, arguments.train.metrics
        )
    return Rows(train.rows, validation.rows, train.lengths, sample_writer, tokens=train)


def _blocks(arguments: Arguments, tokenizer: PreTrainedTokenizerFast, most: int | None) -> Rows:
    data, source = arguments.data, arguments.data.source
    shown = islice(streams_of(arguments)["validation"], SHOWN_SAMPLES)
    prompts = [" ".join(text.split()[:PROMPT_WORDS]) for text in shown]
    what: dict[str, Any] = {
        key: getattr(data, key) for key in ("dataset", "text_column", "language", "num_samples", "validation_size")
    }
    if source.is_toy:
        what["seed"] = arguments.train.seed
    splits = ("train", "validation") if source.has_own_validation else ("train",)
    for path in [path for split in splits for path in source.at(split).local_files()]:
        state = path.stat()  # So that a changed file is packed again.
        what[path.name] = [str(path.resolve()), state.st_size, state.st_mtime_ns]
    files, info = packed(what, tokenizer, streams_of(arguments))
    train, validation = (Blocks(files[name], info["dtype"], data.seq_len) for name in ("train", "validation"))
    if not len(train) or not len(validation):
        raise DataError(
            f"{data.dataset} has {info['train']['tokens']:,} tokens to train on and {info['validation']['tokens']:,} "
            f"to validate on: too few for blocks of {data.seq_len}. Take a smaller --seq_len, or more texts."
        )
    if most is not None:
        validation.tokens = validation.tokens[: most * data.seq_len]
    counts, sample_writer = info["validation"], storyteller(tokenizer, prompts)
    characters_per_token = counts["characters"] / counts["tokens"]
    kept = {name: prints_of(path) for name, path in files.items()}
    return Rows(train, validation, [data.seq_len] * len(train), sample_writer, characters_per_token, kept)
