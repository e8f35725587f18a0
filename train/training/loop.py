"""One training run from its arguments to its best checkpoint.

Try it: python -m train --dataset toy --epochs 3
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import disable_progress_bars
from torch import Tensor
from transformers import PreTrainedTokenizerFast, set_seed

from switch_model.config import SwitchConfig
from switch_model.layers.allocator import keep_freed_memory
from switch_model.models.pretrained import IGNORED_LABEL, SwitchPreTrainedModel
from switch_model.storage.tokenizer_io import target_of
from switch_model.storage.whole_files import folder_written_aside
from train.arguments.arguments import Arguments
from train.arguments.device import pick_device
from train.arguments.groups import TrainArguments
from train.arguments.steps import logging_interval, planned_steps
from train.data.errors import DataError
from train.data.fingerprint import Fingerprint
from train.data.tokenizers import text_encoder
from train.distributed.checks import check_experts, check_several, several_in_words
from train.distributed.divided import Divided
from train.distributed.processes import Processes, processes_of_launch
from train.formatting import counted
from train.preflight.data_report import notes
from train.runs.continuing import begin, fingerprint_of, overlap_words
from train.runs.process import StopRequest, recorded, stopped_early, wait_for_turn
from train.runs.run import Run
from train.tasks.collators import RareTokenCollator, TextCollator, VectorCollator
from train.tasks.registry import TASKS, Task
from train.tasks.rows import Rows, make_rows, make_tokenizer
from train.tasks.teaching import TokenTeachers, token_teachers
from train.training.best import BestCheckpoint
from train.training.curves import write_curves
from train.training.parts.lora import write_adapter
from train.training.parts.trained_part import TrainedPart, check_part, choose, trained_part, trains_all
from train.training.probe import make_probe
from train.training.progress import ProgressCallback, last_value
from train.training.reporting import Reporting, log_in, reporting
from train.training.trainer import SwitchTrainer
from train.training.trainer_arguments import training_arguments
from train.weights.initial import read_initial, take_weights, with_shape_of
from train.weights.upcycle import divide_by_gates, with_experts

# Rows in place of a number that is not known.
UNENDING = 2**62


def train(arguments: Arguments, max_runs: int | None = None) -> Run:
    """Train a model into a new run folder; returns the run, which may have been stopped.

    Args:
        max_runs: queue until fewer than this many runs of the parent folder run; None = start at once.

    Raises:
        ValueError, DataError, RunError, CheckpointError: with what is wrong with the arguments, the data, the folder or
            the initial checkpoint.
    """
    arguments.check()
    device = pick_device(arguments.train.device)
    if arguments.train.liger:
        fused_loss(TASKS[arguments.train.task], device, arguments.model.label_smoothing)
    with processes_of_launch(arguments.train.device) as processes:
        check_several(processes, arguments)
        processes.by_main(lambda: log_in(arguments.train))
        if max_runs is None:
            # Prepare before creating the folder: a run that can't start leaves none behind.
            parts = prepare(arguments, processes)
            run = processes.by_main(lambda: Run.create(arguments))
            with recorded(run) if processes.is_main else nullcontext():
                return run_prepared(run, arguments, parts, device, None, processes)
        run = processes.by_main(lambda: Run.create(arguments, state="queued"))
        with recorded(run) if processes.is_main else nullcontext():
            if processes.by_main(lambda: wait_for_turn(run, max_runs)):
                run_prepared(run, arguments, prepare(arguments, processes), device, None, processes)
        return run


@dataclass(frozen=True)
class TrainingParts:
    """Tokenizer, rows and model of a run; max_steps, if the epochs do not determine it; the rows' fingerprint; the
    names of weights that an initial model did not have; and the teachers of a language model."""

    tokenizer: PreTrainedTokenizerFast
    rows: Rows
    model: SwitchPreTrainedModel
    max_steps: int | None
    logging_steps: int
    fingerprint: Fingerprint
    new: list[str]
    teachers: TokenTeachers | None

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
        if arguments.train.upcycle:
            start = with_experts(start, arguments.train.upcycle, arguments.model)
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
    if data is not None and data.parts and processes.count > 1:  # One tokenizes; the others find it on disk.
        processes.by_main(lambda: make_rows(arguments, data, tokenizer) and None)
    rows = make_rows(arguments, data, tokenizer)
    if found is None:
        found = fingerprint_of(arguments, rows)
        if check:
            check(found)
    if not len(rows.looked_at) or not len(rows.validation):
        raise DataError(f"{arguments.data.dataset} has no texts left after tokenizing.")
    max_steps, logging_steps = _plan(arguments.train, rows, processes.count)
    ends = (target.bos_token_id, target.eos_token_id) if task.writes else (None, None)
    labels = data.labels if task.labelled else []
    written = None if target is tokenizer else len(target)
    config = arguments.config(
        len(tokenizer), target.pad_token_id, labels, *ends, decoder_vocab_size=written, restores_gaps=task.restores_gaps
    )
    config.inputs_embeds_size = rows.width
    if begun_with is not None:
        config = with_shape_of(config, begun_with, start is None or start.of_tokens)
    model, new = task.model_class(config), []
    if start is not None:
        new = take_weights(model, start.weights)
        if arguments.train.upcycle:
            divide_by_gates(model)
    teachers = token_teachers(task, arguments.train, tokenizer)
    check_experts(arguments.train.expert_parallel, model)
    check_part(model, arguments.train, new)
    processes.share_weights(model)
    return TrainingParts(tokenizer, rows, model, max_steps, logging_steps, found, new, teachers)


def _plan(settings: TrainArguments, rows: Rows, processes: int) -> tuple[int | None, int]:
    """TrainingParts.max_steps, and steps between log lines; sets the gradient accumulation of --total_batch_size."""
    texts = settings.batch_size * processes
    if settings.total_batch_size:
        settings.gradient_accumulation_steps = max(round(settings.total_batch_size / (texts * rows.mean_tokens)), 1)
    # Of rows without an end, more than any run has.
    count = len(rows.train) if rows.sample is None else UNENDING
    updates_per_epoch = math.ceil(math.ceil(count / texts) / settings.gradient_accumulation_steps)
    steps, decided_by = planned_steps(settings, updates_per_epoch)
    if settings.warmup >= 1 and settings.warmup >= steps:
        raise ValueError(
            f"--warmup {settings.warmup:g} is not allowed: the run has {steps} steps; below 1 it is a share."
        )
    return steps if decided_by else None, logging_interval(settings, steps, updates_per_epoch)


def fused_loss(task: Task, device: str, smoothing: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Liger's fused output layer and cross-entropy. Raises ValueError if it can't be used."""
    if not task.writes:
        raise ValueError("--liger is for models that generate text: --task clm, translation or span_corruption.")
    if device != "cuda":
        raise ValueError("--liger needs CUDA: its kernels run on a GPU only.")
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError as error:
        raise ValueError("--liger needs a package that is not installed: pip install liger-kernel") from error
    return LigerFusedLinearCrossEntropyLoss(ignore_index=IGNORED_LABEL, label_smoothing=smoothing)


def run_prepared(
    run: Run,
    arguments: Arguments,
    parts: TrainingParts,
    device: str,
    resume_from: Path | None,
    processes: Processes,
) -> Run:
    """Train to the end, or until a stop; returns the run."""
    if processes.by_main(run.stop_path.exists):  # Stopped while the data were read.
        if processes.is_main:
            run.set_state("stopped", stopped_early(run))
        return run
    started = time.monotonic()
    keep_freed_memory()
    # Adam's moments of rare words decay to denormal numbers, which a CPU handles several times slower.
    torch.set_flush_denormal(True)
    if arguments.train.liger:
        task = TASKS[arguments.train.task]
        parts.model.fused_loss = fused_loss(task, device, arguments.model.label_smoothing)
    part = None if trains_all(arguments.train) else processes.by_main(partial(_part_of, run, arguments, parts))
    if processes.is_main:
        _announce(run, arguments, parts, device, processes, is_new=resume_from is None)
    if part is not None:
        print(choose(parts.model, arguments.train, part), flush=True)

    # Train, and keep the best model so far.
    best = parts.best_of(run, arguments)

    def keep_best(model: SwitchPreTrainedModel, metrics: dict[str, Any]) -> None:
        best.keep(model, metrics, time.monotonic() - started)
        if arguments.train.lora_rank and not arguments.train.upcycle:  # Its initial model is in no folder.
            write_adapter(run.adapter, trainer.kept_model, str(arguments.portable()["init_from"]))

    stop = StopRequest(run)
    reports = reporting(run, arguments, resume_from) if processes.is_main else nullcontext(Reporting())
    with reports as reported, stop.noticed():
        progress = ProgressCallback(run, stop, arguments.train.max_minutes, resume_from, processes)
        trainer = _trainer(run, arguments, parts, device, resume_from, reported, keep_best, progress)
        if not processes.is_main:  # Else all would drop out the same units.
            torch.manual_seed(arguments.train.seed + processes.rank)
        with processes.connected():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        # Stopped before the first evaluation: keep the current model.
        keeps = not processes.by_main(run.best.exists)
        whole = trainer.whole(trainer.kept_model) if keeps else None
        if not processes.is_main:
            return run
        if keeps:
            keep_best(whole, {"step": progress.step, "epoch": trainer.state.epoch})
        best.finish(device, time.monotonic() - started)
        write_curves(run)

    where = f"step {progress.step:,} of {progress.max_steps:,}"
    if progress.stopped:
        run.set_state("stopped", f"Stopped at {where}, with a checkpoint.")
    else:
        run.set_state("finished", f"Time limit reached after {where}." if progress.out_of_time else "")
    return run


def _part_of(run: Run, arguments: Arguments, parts: TrainingParts) -> TrainedPart:
    collate = TASKS[arguments.train.task].collator(parts.tokenizer, arguments.train)
    return trained_part(run.trained_path, arguments.train, parts.model, parts.new, parts.rows.train, collate)


def _trainer(
    run: Run,
    arguments: Arguments,
    parts: TrainingParts,
    device: str,
    resume_from: Path | None,
    reported: Reporting,
    keep_best: Callable[[SwitchPreTrainedModel, dict[str, Any]], None],
    progress: ProgressCallback,
) -> SwitchTrainer:
    task, settings, rows = TASKS[arguments.train.task], arguments.train, parts.rows
    return SwitchTrainer(
        run=run,
        task=task,
        settings=settings,
        keep_best=keep_best,
        progress=progress,
        report=reported.record,
        callbacks=reported.callbacks,
        probe=make_probe(settings.probe, parts.tokenizer),
        resume_from=resume_from,
        tokens_before=int(last_value(run, "tokens", resume_from)),
        model=parts.model,
        args=training_arguments(settings, task, run, device, parts.max_steps, parts.logging_steps),
        train_dataset=rows.train,
        eval_dataset=rows.validation,
        train_lengths=rows.lengths,
        sample_writer=rows.sample_writer,
        characters_per_token=rows.characters_per_token,
        # Separate collators: training masks change with the epoch, validation masks do not.
        data_collator=_training_collator(task, settings, parts),
        eval_collator=VectorCollator() if rows.width else task.collator(parts.tokenizer, settings),
        compute_metrics=task.metrics,
        processes=progress.processes,
        teachers=parts.teachers,
        divide=_division(settings),
    )


def _division(settings: TrainArguments) -> Callable[[SwitchPreTrainedModel], Divided] | None:
    """Divides a model's weights among the processes; None = each has the whole model."""
    if settings.fsdp:
        from train.distributed.sharded import ShardedWeights

        return ShardedWeights
    if settings.expert_parallel > 1:
        from train.distributed.spread import SpreadExperts

        return partial(SpreadExperts, count=settings.expert_parallel)
    return None


def _announce(
    run: Run, arguments: Arguments, parts: TrainingParts, device: str, processes: Processes, is_new: bool
) -> None:
    """Print what is trained on what, with notes on the data; record what a new run begins with."""
    print(_summary(run, arguments, parts, device), flush=True)
    if processes.count > 1:
        print(several_in_words(processes, arguments), flush=True)
    if is_new:
        for note in filter(None, [*notes(arguments), overlap_words(parts.fingerprint)]):
            print(f"note: {note}", file=sys.stderr, flush=True)
        begin(run, parts.fingerprint, parts.tokenizer, processes.count)
    if not run.tokenizer.exists():
        _keep_tokenizers(run, parts.tokenizer)


def _summary(run: Run, arguments: Arguments, parts: TrainingParts, device: str) -> str:
    """Data, model and device, the first lines of a run's log."""
    task, rows = TASKS[arguments.train.task], parts.rows
    total, active = parts.model.parameter_counts()
    aim = f"{parts.model.config.num_labels} classes" if task.labelled else task.aim
    if arguments.data.features_column:
        count = counted(len(rows.train), "row of vectors", "rows of vectors")
    else:
        count = _rows_in_words(rows, task, arguments.data.seq_len)
    return (
        f"{arguments.data.dataset}, preset {arguments.train.preset}: {count} for training, "
        f"{len(rows.validation):,} for validation, {aim}.\n{total:,} parameters, {active:,} of them active per token; "
        f"on {device}; into {run.folder}"
    )


def _rows_in_words(rows: Rows, task: Task, seq_len: int) -> str:
    return "texts as they come" if rows.sample is not None else counted(len(rows.train), *task.rows_in_words(seq_len))


def _keep_tokenizers(run: Run, tokenizer: PreTrainedTokenizerFast) -> None:
    if (target := target_of(tokenizer)) is not tokenizer:
        with folder_written_aside(run.target_tokenizer) as aside:
            target.save_pretrained(aside)
    with folder_written_aside(run.tokenizer) as aside:
        tokenizer.save_pretrained(aside)


def _training_collator(
    task: Task, settings: TrainArguments, parts: TrainingParts
) -> Callable[[list], dict[str, Tensor]]:
    """The task's collator, or RareTokenCollator with --rare_token_dropout; of texts as they come, tokenized first."""
    if parts.rows.width:
        return VectorCollator()
    collate = task.collator(parts.tokenizer, settings)
    if settings.rare_token_dropout:
        counts = parts.rows.count_tokens(len(parts.tokenizer))
        collate = RareTokenCollator(parts.tokenizer, counts, settings.rare_token_dropout, settings.seed)
    return collate if parts.rows.sample is None else TextCollator(collate, text_encoder(parts.tokenizer))
