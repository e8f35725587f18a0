"""What a run trains with: tokenizer, rows and model, and how many steps.

Try it: prepare(Arguments.resolve({"dataset": "toy"}), Processes()).model
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import transformers
from datasets import disable_progress_bars
from transformers import PreTrainedTokenizerFast, set_seed

from switch_model.checkpoint import read_training
from switch_model.config import SwitchConfig
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.tokenizer_io import target_of, with_target
from train.arguments.arguments import Arguments
from train.arguments.groups import TrainArguments
from train.arguments.steps import logging_interval, planned_steps
from train.data.errors import DataError
from train.data.fingerprint import Fingerprint
from train.data.tokenizers import load_tokenizer
from train.distributed.processes import Processes
from train.runs.continuing import check_digests, check_rows, check_tokenizer, fingerprint_of
from train.runs.run import Run
from train.tasks.registry import TASKS
from train.tasks.rows import Rows, make_rows, make_tokenizer
from train.training.best import BestCheckpoint
from train.weights.initial import read_initial, take_weights, with_shape_of


@dataclass(frozen=True)
class TrainingParts:
    """Tokenizer, rows and model of a run; max_steps, if the epochs do not determine it; and the rows' fingerprint."""

    tokenizer: PreTrainedTokenizerFast
    rows: Rows
    model: SwitchPreTrainedModel
    max_steps: int | None
    logging_steps: int
    fingerprint: Fingerprint

    def best_of(self, run: Run, arguments: Arguments) -> BestCheckpoint:
        return BestCheckpoint(run, arguments, self.tokenizer, self.rows, self.fingerprint)


def prepare(
    arguments: Arguments,
    processes: Processes,
    tokenizer: PreTrainedTokenizerFast | None = None,
    begun_with: SwitchConfig | None = None,
    check: Callable[[Fingerprint], None] | None = None,
) -> TrainingParts:
    """Tokenize the texts, and make a model with random or initial weights. A resumed run passes its tokenizer, its
    original configuration, and a check that its rows are the same."""
    task, start = TASKS[arguments.train.task], None
    if arguments.train.init_from and tokenizer is None:
        start = read_initial(arguments.train.init_from, task)
        arguments.adopt(start.config)
        begun_with, tokenizer = start.config, start.tokenizer
    data = task.read(arguments.selection)
    set_seed(arguments.train.seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()
    found = None if data is None else fingerprint_of(arguments, data)
    if found and check:
        check(found)
    # By one process: training a tokenizer is not certain to give the same one twice.
    tokenizer = processes.by_main(partial(make_tokenizer, arguments, data, tokenizer))
    target = target_of(tokenizer)
    rows = make_rows(arguments, data, tokenizer)
    if found is None:
        found = fingerprint_of(arguments, rows)
        if check:
            check(found)
    if not len(rows.train) or not len(rows.validation):
        raise DataError(f"{arguments.data.dataset} has no texts left after tokenizing.")
    max_steps, logging_steps = _plan(arguments.train, rows, processes.count)
    ends = (target.bos_token_id, target.eos_token_id) if task.writes else (None, None)
    labels = data.labels if task.labelled else []
    written = None if target is tokenizer else len(target)
    config = arguments.config(
        len(tokenizer),
        target.pad_token_id,
        labels,
        *ends,
        decoder_vocab_size=written,
        restores_gaps=task.restores_gaps,
    )
    if begun_with is not None:
        config = with_shape_of(config, begun_with, start is None or start.of_tokens)
    model = task.model_class(config)
    if start is not None:
        take_weights(model, start.weights)
    processes.share_weights(model)
    return TrainingParts(tokenizer, rows, model, max_steps, logging_steps, found)


def _plan(settings: TrainArguments, rows: Rows, processes: int) -> tuple[int | None, int]:
    """TrainingParts.max_steps, and steps between log lines; sets the gradient accumulation of --total_batch_size."""
    texts = settings.batch_size * processes
    if settings.total_batch_size:
        settings.gradient_accumulation_steps = max(round(settings.total_batch_size / (texts * rows.mean_tokens)), 1)
    updates_per_epoch = math.ceil(math.ceil(len(rows.train) / texts) / settings.gradient_accumulation_steps)
    steps, decided_by = planned_steps(settings, updates_per_epoch)
    if settings.warmup >= 1 and settings.warmup >= steps:
        raise ValueError(
            f"--warmup {settings.warmup:g} is not allowed: the run has {steps} steps; below 1 it is a share."
        )
    return steps if decided_by else None, logging_interval(settings, steps, updates_per_epoch)


def prepare_again(
    run: Run, arguments: Arguments, checkpoint: Path, processes: Processes | None = None
) -> TrainingParts:
    """`prepare` for a run that is resumed, with its own tokenizers."""
    kept = run.tokenizer if run.tokenizer.is_dir() else run.best
    tokenizer = load_tokenizer(str(kept), arguments.data.seq_len)
    if run.target_tokenizer.is_dir():
        with_target(tokenizer, load_tokenizer(str(run.target_tokenizer), arguments.data.seq_len))
    check = None
    if (began := Fingerprint.load(run.rows_path)) is not None:
        check_tokenizer(run, began, tokenizer)
        check = partial(check_rows, run, arguments, began)
    elif told := read_training(run.folder).get("fingerprint"):
        check = partial(check_digests, run, arguments, told)
    return prepare(arguments, processes or Processes(), tokenizer, SwitchConfig.from_pretrained(checkpoint), check)
