"""Estimate a run's cost before it starts: parameters, steps, and time, from a few timed steps on this machine.

Try it: estimate(Arguments.resolve({"dataset": "toy"}), rows=1000, classes=3, words=[10, 12])
"""

import copy
import functools
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from switch_model.config import SwitchConfig
from switch_model.layers.allocator import keep_freed_memory
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.tokenizer_io import target_of
from train.arguments.arguments import Arguments
from train.arguments.steps import planned_steps
from train.bounded_process import TooMuch, in_a_child
from train.data import pairs
from train.tasks.generation import SHOWN_SAMPLES
from train.tasks.registry import TASKS, Task
from train.tasks.rows import asked_vocabulary, make_tokenizer
from train.weights.initial import InitialWeights, read_initial_shape, with_shape_of
from train.weights.upcycle import with_experts

# Approximate; more in pairs (train.data.pairs).
TOKENS_PER_WORD = 1.3
TIMED_STEPS, WARM_UP = 4, 2
# Limits for timing, in parameters and tokens per batch: larger ones would take too much memory.
LARGEST_TIMED, LARGEST_BATCH = 200_000_000, 100_000
# Limits of timing, and of counting parameters that no formula gives: bytes, processor seconds, seconds.
MEMORY, WORK_SECONDS, SECONDS = 4_000_000_000, 10.0, 30.0
# With more layers, even a model without weights takes much memory.
MOST_COUNTED_HERE = 48
# Time of a forward pass without gradients / time of forward and backward.
EVALUATION_SHARE = 0.3
# Generated tokens for timing, and tokens of a causal model's samples.
TIMED_TOKENS, STORY_TOKENS = 6, 60
# Reading, training a tokenizer, tokenizing: minimum seconds, and seconds per row.
PREPARATION, PREPARATION_PER_ROW = 3.0, 1e-4


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a run.

    Attributes:
        parameters: total number.
        active: number active per token.
        exact: whether the numbers are exact (the tokenizer is known) or upper bounds.
        steps: optimizer steps.
        epochs: the same in epochs.
        ended_by: the flag that determines the steps, if not --epochs.
        tokens: mean per row, of both sides of a pair.
        row: name of a row: text, pair or block.
        seconds: total; None = not timed.
        untimed: why it is not timed, if known.
    """

    parameters: int
    active: int
    exact: bool
    steps: int
    epochs: float
    ended_by: str | None
    tokens: int
    row: str
    seconds: float | None
    untimed: str = ""


@dataclass(frozen=True)
class _Work:
    """Training and validation rows, and mean source and target tokens per row."""

    train: int
    validation: int
    tokens: int
    target_tokens: int


def estimate(
    arguments: Arguments,
    rows: int,
    classes: int = 0,
    words: Sequence[int] = (),
    target_words: Sequence[int] = (),
    validation: int | None = None,
    vocabulary: int | None = None,
    timed: bool = True,
) -> Estimate:
    """Estimate the cost of training with these arguments.

    Args:
        rows: rows of the data set (of a stream: texts), including those that will be held out.
        classes: number of classes, if the task has them.
        words: words per text, of a sample.
        target_words: words per target text, of the same rows.
        validation: rows of the data set's validation split; None = some training rows are held out.
        vocabulary: maximum vocabulary of a tokenizer trained on the data; None = the requested size.
        timed: run and time a few steps, which takes a second or two.

    Raises:
        ValueError: with what is wrong with the arguments.
    """
    arguments.check()
    data, train = arguments.data, arguments.train
    if data.num_samples is not None:
        rows = data.num_samples if data.dataset == "toy" else min(rows, data.num_samples)
    work = _work(arguments, rows, words, target_words, validation)
    task = TASKS[train.task]
    start = read_initial_shape(train.init_from, task) if train.init_from else None
    if start is not None and train.upcycle:
        start = with_experts(start, train.upcycle, arguments.model)
    labels = [str(index) for index in range(max(classes, 2))] if task.labelled else []
    config = _config(arguments, labels, vocabulary, start).to_json_string(use_diff=False)
    total, active = _counts(train.task, config)

    accumulated = train.gradient_accumulation_steps
    if train.total_batch_size:
        read = min(work.tokens, data.seq_len) if task.paired else work.tokens
        accumulated = max(round(train.total_batch_size / (train.batch_size * read)), 1)
    updates_per_epoch = math.ceil(math.ceil(work.train / train.batch_size) / accumulated)
    steps, ended_by = planned_steps(train, updates_per_epoch)
    seconds, untimed, tokens = None, "", work.tokens + work.target_tokens
    timing = None
    if timed and total <= LARGEST_TIMED and train.batch_size * tokens <= LARGEST_BATCH:
        timing, untimed = _seconds(train.task, config, train.batch_size, work.tokens, work.target_tokens)
    elif timed:
        untimed = "it is too large to be tried out here"
    if timing is not None:
        evaluations = max(steps / (train.eval_steps or updates_per_epoch), 1)
        preparation = PREPARATION + PREPARATION_PER_ROW * rows
        evaluating = evaluations * _evaluation_seconds(arguments, work.validation, *timing)
        seconds = preparation + steps * accumulated * timing[0] + evaluating
        if train.max_minutes is not None:
            seconds = min(seconds, 60 * train.max_minutes)
    epochs = steps / updates_per_epoch
    return Estimate(total, active, start is not None, steps, epochs, ended_by, tokens, task.row, seconds, untimed)


def _evaluation_seconds(arguments: Arguments, rows: int, per_step: float, per_token: float) -> float:
    """Seconds of one evaluation on `rows` validation rows, generated samples included. `per_step` and `per_token` in
    seconds, from `_time`."""
    train, task = arguments.train, TASKS[arguments.train.task]
    batch = max(train.batch_size, 64)
    evaluated = rows if train.eval_iters is None else min(train.eval_iters * batch, rows)
    seconds = evaluated / train.batch_size * per_step * EVALUATION_SHARE
    if task.paired:
        # An untrained model generates up to the maximum length.
        seconds += math.ceil(evaluated / batch) * arguments.data.seq_len * per_token
    elif task.streamed:
        seconds += SHOWN_SAMPLES * STORY_TOKENS * per_token
    return seconds


def _config(
    arguments: Arguments, labels: list[str], vocabulary: int | None, start: InitialWeights | None
) -> SwitchConfig:
    """The model's configuration: exact with an initial model, else with the maximum vocabulary."""
    gaps = TASKS[arguments.train.task].restores_gaps
    if start is None:
        size = asked_vocabulary(arguments)
        # The bound holds only for a tokenizer trained on these texts.
        learned = arguments.data.tokenizer is None and arguments.data.target_tokenizer is None
        size = min(size, vocabulary) if vocabulary is not None and learned else size
        written = arguments.data.target_tokenizer and size
        return arguments.config(size, 0, labels, decoder_vocab_size=written, restores_gaps=gaps)
    arguments = copy.deepcopy(arguments)
    arguments.adopt(start.config)
    tokenizer = make_tokenizer(arguments, None, start.tokenizer)
    target = target_of(tokenizer)
    written = None if target is tokenizer else len(target)
    config = arguments.config(
        len(tokenizer), target.pad_token_id, labels, decoder_vocab_size=written, restores_gaps=gaps
    )
    return with_shape_of(config, start.config, start.of_tokens)


def _work(
    arguments: Arguments, rows: int, words: Sequence[int], target_words: Sequence[int], validation: int | None
) -> _Work:
    data, task = arguments.data, TASKS[arguments.train.task]
    if data.dataset == "toy":  # Its validation rows are generated in addition.
        train, held_out = rows, max(rows // 5, 50)
    else:
        held_out = max(round(rows * data.validation_size), 1) if validation is None else validation
        train = rows - held_out if validation is None else rows
    per_word = pairs.TOKENS_PER_WORD if task.paired else TOKENS_PER_WORD
    read = [per_word * count + 1 for count in words or [data.seq_len]]
    if task.streamed:
        per_text = statistics.mean(read)
        blocks = (max(int(texts * per_text / data.seq_len), 1) for texts in (train, held_out))
        return _Work(*blocks, data.seq_len, 0)
    tokens = statistics.mean(min(count, data.seq_len) for count in read)
    written = 0.0
    if task.paired:
        wanted = [per_word * count + 1 for count in target_words] or read
        # Pairs with a longer side are excluded.
        whole = [pair for pair in zip(read, wanted, strict=False) if max(pair) <= data.seq_len]
        train = round(train * len(whole) / len(read))
        tokens, written = (statistics.mean(side) for side in zip(*whole, strict=True)) if whole else (data.seq_len,) * 2
    elif task.restores_gaps:
        hidden = arguments.train.mlm_probability * tokens
        tokens, written = tokens - hidden / 2, 1.5 * hidden  # Roughly; spans of three become one sentinel.
    return _Work(max(train, 1), held_out, max(round(tokens), 1), round(written))


@functools.lru_cache(maxsize=64)
def _counts(task: str, config: str) -> tuple[int, int]:
    """(parameters, active per token), without allocating them. Raises ValueError if there are too many layers to
    count.

    Which layers are sparse repeats itself, so that from some depth on each repetition adds as many parameters as the
    one before: a deep model is counted as a shallow one and that difference.
    """
    shape = json.loads(config)
    steps = (shape[name] or 1 for name in ("encoder_sparse_step", "decoder_sparse_step", "attention_sparse_step"))
    period = math.lcm(*steps)
    depths = {name: shape[name] for name in ("num_layers", "num_decoder_layers") if shape[name]}
    shallow = {name: depth - max((depth - 2) // period - 1, 0) * period for name, depth in depths.items()}
    total, active = _count_within(task, shape | shallow)
    for name, depth in depths.items():
        if more := (depth - shallow[name]) // period:
            deeper = _count_within(task, shape | shallow | {name: shallow[name] + period})
            first = _count_within(task, shape | shallow)
            total, active = (
                count + more * (added - before)
                for count, added, before in zip((total, active), deeper, first, strict=True)
            )
    return total, active


def _count_within(task: str, shape: dict[str, Any]) -> tuple[int, int]:
    config = json.dumps(shape)
    if (shape["num_layers"] or 0) + (shape["num_decoder_layers"] or 0) <= MOST_COUNTED_HERE:
        return _count(task, config)
    try:
        total, active = in_a_child(_count, task, config, memory=MEMORY, work_seconds=WORK_SECONDS, seconds=SECONDS)
    except TooMuch as error:
        raise ValueError(f"--num_layers: so many layers can't be counted here, {error}.") from error
    return total, active


def _count(task: str, config: str) -> tuple[int, int]:
    with torch.device("meta"):
        return _model(task, config).parameter_counts()


def _seconds(
    task: str, config: str, batch_size: int, tokens: int, target_tokens: int
) -> tuple[tuple[float, float] | None, str]:
    """(result of `_time`, "") or (None, why there is none)."""
    try:
        return _timed_in_a_child(task, config, batch_size, tokens, target_tokens), ""
    except TooMuch as error:
        slow = error.what in ("work", "clock")
        return None, f"a few steps take more than {WORK_SECONDS:g} seconds here" if slow else str(error)
    except ValueError as error:
        return None, str(error)


@functools.lru_cache(maxsize=64)
def _timed_in_a_child(task: str, config: str, batch_size: int, tokens: int, target_tokens: int) -> tuple[float, float]:
    """Cached: every visitor of the page requests the same shape first."""
    bounds = {"memory": MEMORY, "work_seconds": WORK_SECONDS, "seconds": SECONDS}
    step, token = in_a_child(_time_model, task, config, batch_size, tokens, target_tokens, **bounds)
    return step, token


def _time_model(task: str, config: str, batch_size: int, tokens: int, target_tokens: int) -> tuple[float, float]:
    return _time(TASKS[task], _model(task, config), batch_size, tokens, target_tokens)


def _model(task: str, config: str) -> SwitchPreTrainedModel:
    model_class = TASKS[task].model_class
    return model_class(model_class.config_class.from_dict(json.loads(config)))


def _time(
    task: Task, model: SwitchPreTrainedModel, batch_size: int, tokens: int, target_tokens: int
) -> tuple[float, float]:
    """(median seconds of one step: forward, backward, update; seconds per generated token of a batch, or 0)."""
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    # Its own generator: the global random state must not change.
    generator = torch.Generator().manual_seed(0)

    def drawn(length: int) -> torch.Tensor:
        return torch.randint(1, model.config.vocab_size, (batch_size, max(length, 1)), generator=generator).to(device)

    ids = drawn(tokens)
    labels = task.labels_to_time(ids, drawn(target_tokens) if target_tokens else None)
    times = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(WARM_UP + TIMED_STEPS):
            start = time.perf_counter()
            model(ids, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        per_token = 0.0
        if task.writes_samples:
            prompt, model = ids if task.paired else ids[:1, : min(tokens, 8)], model.eval()
            start = time.perf_counter()
            model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=TIMED_TOKENS,
                min_new_tokens=TIMED_TOKENS,
                do_sample=False,
            )
            per_token = (time.perf_counter() - start) / TIMED_TOKENS
    return statistics.median(times[WARM_UP:]), per_token
