"""What a run will take, before it starts: parameters, steps, and time from a few timed steps on this machine.

Try it: estimate(Arguments.resolve({"dataset": "toy"}), rows=1000, classes=3, words=[10, 12])
"""

import functools
import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from switch_model.memory import keep_freed_memory
from train.arguments import Arguments
from train.tasks import TASKS

# A word comes to so many tokens, more or less, whatever the vocabulary.
TOKENS_PER_WORD = 1.3
TIMED_STEPS, WARM_UP = 4, 2
# A larger model would take a machine's memory only to be timed.
LARGEST_TIMED, LARGEST_BATCH = 200_000_000, 100_000
# Forward without gradient, over forward and backward.
EVALUATION_SHARE = 0.3
# Reading, training a tokenizer, cutting texts: seconds at least, and per row.
PREPARATION, PREPARATION_PER_ROW = 3.0, 1e-4


@dataclass(frozen=True)
class Estimate:
    """parameters, and those active per token; steps; tokens per text; seconds in all, None = not timed."""

    parameters: int
    active: int
    steps: int
    tokens: int
    seconds: float | None


def estimate(arguments: Arguments, rows: int, classes: int, words: Sequence[int], timed: bool = True) -> Estimate:
    """What training with these arguments takes.

    Args:
        rows: rows to train on, those that will be held out included.
        classes: classes of the data.
        words: words per text, of a sample of them.
        timed: run a few steps to time them; it takes a second or two.

    Raises:
        ValueError: with what is wrong with the arguments.
    """
    arguments.check()
    data, train = arguments.data, arguments.train
    if data.num_samples is not None:
        rows = min(rows, data.num_samples)
    toy = data.dataset == "toy"  # Makes its validation rows on top.
    held_out = max(round(rows * data.validation_size), 1)
    tokens = round(statistics.mean(min(TOKENS_PER_WORD * count + 1, data.seq_len) for count in words or [data.seq_len]))
    vocabulary = data.vocab_size or (510 if toy else 16_000)
    labels = [str(index) for index in range(max(classes, 2))]
    written = None if data.target_tokenizer is None else vocabulary
    config = arguments.config(vocabulary, 0, labels, decoder_vocab_size=written)
    task = TASKS[train.task]
    with torch.device("meta"):
        total, active = task.model_class(config).parameter_counts()
    batches = math.ceil(max(rows if toy else rows - held_out, 1) / train.batch_size)
    updates_per_epoch = math.ceil(batches / train.gradient_accumulation_steps)
    steps = math.ceil(updates_per_epoch * train.epochs)
    if train.max_steps is not None:
        steps = min(steps, train.max_steps)
    seconds = None
    if timed and total <= LARGEST_TIMED and train.batch_size * tokens <= LARGEST_BATCH:
        per_step = train.gradient_accumulation_steps * _seconds(
            train.task, config.to_json_string(use_diff=False), train.batch_size, tokens
        )
        evaluations = steps / (train.eval_steps or updates_per_epoch)
        validation = evaluations * held_out / train.batch_size * per_step * EVALUATION_SHARE
        seconds = PREPARATION + PREPARATION_PER_ROW * rows + steps * per_step + validation
        if train.max_minutes is not None:
            seconds = min(seconds, 60 * train.max_minutes)
    return Estimate(total, active, steps, tokens, seconds)


@functools.lru_cache(maxsize=64)
def _seconds(task: str, config: str, batch_size: int, tokens: int) -> float:
    """As `_time_step`, once for each shape: everyone who opens the page asks about the same one first."""
    model_class = TASKS[task].model_class
    return _time_step(model_class(model_class.config_class.from_dict(json.loads(config))), batch_size, tokens)


def _time_step(model: torch.nn.Module, batch_size: int, tokens: int) -> float:
    """Median seconds of one step: forward, backward, update."""
    keep_freed_memory()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    # Of its own, so that nobody's random numbers move.
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, model.config.vocab_size, (batch_size, max(tokens, 1)), generator=generator).to(device)
    classifies = hasattr(model, "classifier")
    labels = torch.zeros(batch_size, dtype=torch.long, device=device) if classifies else ids
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
    return statistics.median(times[WARM_UP:])
