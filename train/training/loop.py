"""One training run from its arguments to its best checkpoint.

Try it: python -m train --dataset toy --epochs 3
"""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from switch_model.commands import command
from switch_model.layers.allocator import keep_freed_memory
from switch_model.models.pretrained import IGNORED_LABEL, SwitchPreTrainedModel
from switch_model.storage.tokenizer_io import target_of
from switch_model.storage.whole_files import folder_written_aside
from train.arguments.arguments import Arguments
from train.arguments.device import pick_device
from train.arguments.groups import TrainArguments
from train.data.fingerprint import Fingerprint
from train.distributed.checks import check_same_number, check_several, several_in_words
from train.distributed.processes import Processes, processes_of_launch
from train.formatting import counted, pasted
from train.preflight.data_report import notes
from train.runs.continuing import (
    begin,
    check_arguments,
    overlap_words,
)
from train.runs.process import StopRequest, recorded, stopped_early, wait_for_turn
from train.runs.run import Run, RunError
from train.runs.trainer_files import at_its_end
from train.tasks.collators import RareTokenCollator
from train.tasks.registry import TASKS, Task
from train.training.curves import write_curves
from train.training.preparation import TrainingParts, prepare, prepare_again
from train.training.probe import make_probe
from train.training.progress import ProgressCallback, last_value
from train.training.reporting import Reporting, log_in, reporting
from train.training.trainer import SwitchTrainer, training_arguments
from train.weights.kept import put_weights


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
                return _run(run, arguments, parts, device, None, processes)
        run = processes.by_main(lambda: Run.create(arguments, state="queued"))
        with recorded(run) if processes.is_main else nullcontext():
            if processes.by_main(lambda: wait_for_turn(run, max_runs)):
                _run(run, arguments, prepare(arguments, processes), device, None, processes)
        return run


def resume(folder: str | Path, max_runs: int | None = None) -> Run:
    """Resume a stopped run from its last checkpoint, or from the beginning if it has none yet.

    A finished run is unchanged, except that a missing best checkpoint is rebuilt. Raises RunError when it is running,
    or its checkpoints are gone.
    """
    run = Run.open(folder)
    arguments = run.arguments()
    with processes_of_launch(arguments.train.device) as processes:
        check_several(processes, arguments)
        found = processes.by_main(lambda: _state_to_resume(run, arguments, processes))
        if found is None:
            return run
        device = pick_device(arguments.train.device)
        with recorded(run) if processes.is_main else nullcontext():
            if processes.by_main(lambda: wait_for_turn(run, max_runs)):
                processes.by_main(lambda: found.clear(run))
                if found.checkpoint is None:
                    return _run(run, arguments, prepare(arguments, processes), device, None, processes)
                parts = prepare_again(run, arguments, found.checkpoint, processes)
                processes.by_main(lambda: found.remove_damaged(run))
                _run(run, arguments, parts, device, found.checkpoint, processes)
    return run


@dataclass(frozen=True)
class _StateToResume:
    """The checkpoint from which a run is resumed, None = the beginning; and newer, damaged ones -> what is wrong."""

    checkpoint: Path | None
    damaged: dict[Path, str]

    def clear(self, run: Run) -> None:
        """Delete what an interrupted process has left."""
        run.discard_incomplete()
        if self.checkpoint is None:
            print(f"{run.name} has no checkpoint yet: it starts from the beginning.", flush=True)
            run.discard_beginning()

    def remove_damaged(self, run: Run) -> None:
        """The Trainer would count them in save_total_limit, and remove good ones."""
        for path, why in self.damaged.items():
            print(
                f"{path.name} is damaged ({why}) and removed: {run.name} resumes from {self.checkpoint.name}.",
                flush=True,
            )
            shutil.rmtree(path)


def _state_to_resume(run: Run, arguments: Arguments, processes: Processes) -> _StateToResume | None:
    """Where a run goes on; None if it is finished. Raises RunError when it can't be resumed."""
    folder = run.folder
    if (state := run.state()).active and not run.waits_for_this_process():
        raise RunError(f"{folder} is {state.name} in process {state.pid}: there is nothing to resume.")
    checkpoint = run.last_checkpoint()
    # It died before it could set its state.
    if checkpoint and not state.active and state.name != "finished" and at_its_end(checkpoint):
        run.set_state("finished")
        state = run.state()
    if state.name == "finished" and (checkpoint or run.best.is_dir()):
        if not run.best.is_dir():
            _rebuild_best(run, arguments)
        print(f"{folder} is finished. To train further: {command()} --init_from {pasted(folder)} --dataset …")
        return None
    damaged = run.damaged_since(checkpoint)
    if not checkpoint and damaged:
        newest, why = list(damaged.items())[-1]
        raise RunError(
            f"{folder} can't be resumed: {newest.name} is damaged ({why}), and there is no other complete checkpoint. "
            f"Restore that file, or start again. The command:\n  {arguments.again()}"
        )
    if run.watched:
        raise RunError(f"{folder} is trained by another program, which alone can go on with it.")
    if not run.can_resume():
        raise RunError(f"{folder} has no complete checkpoint: start again. The command:\n  {arguments.again()}")
    if checkpoint and (began := Fingerprint.load(run.rows_path)):
        check_arguments(run, began)
        check_same_number(run, began.about.get("processes", 1), processes.count)
    arguments.check_reporters()
    log_in(arguments.train)
    if not state.active:
        run.stop_path.unlink(missing_ok=True)  # Left by a process that was killed before it could stop.
    return _StateToResume(checkpoint, damaged)


def _rebuild_best(run: Run, arguments: Arguments) -> None:
    """Rebuild `best/` from the best remaining checkpoint. Raises RunError if none was evaluated."""
    task, damaged = TASKS[arguments.train.task], run.damaged_since(None)
    kept = {step: path for step, path in run.kept_checkpoints().items() if path not in damaged}
    measured = [record for record in run.metrics("eval") if record["step"] in kept and task.best in record]
    if not measured:
        raise RunError(f"{run.folder} has no best/ and no evaluated checkpoint any more: train it again.")
    record = (max if task.higher_is_better else min)(measured, key=lambda record: record[task.best])
    parts = prepare_again(run, arguments, kept[record["step"]])
    put_weights(parts.model, kept[record["step"]])
    metrics = {key: value for key, value in record.items() if key not in ("kind", "seconds", "tokens", "routing")}
    best, seconds = parts.best_of(run, arguments), run.progress().get("seconds", 0.0)
    best.keep(parts.model.eval(), metrics, seconds)
    best.finish("cpu", seconds)
    print(f"best/ was missing: rebuilt from step {record['step']:,}, the best remaining checkpoint.")


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


def _run(
    run: Run,
    arguments: Arguments,
    parts: TrainingParts,
    device: str,
    resume_from: Path | None,
    processes: Processes,
) -> Run:
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
    if processes.is_main:
        _announce(run, arguments, parts, device, processes, is_new=resume_from is None)

    # Train, and keep the best model so far.
    best = parts.best_of(run, arguments)

    def keep_best(model: SwitchPreTrainedModel, metrics: dict[str, Any]) -> None:
        best.keep(model, metrics, time.monotonic() - started)

    stop = StopRequest(run)
    reports = reporting(run, arguments, resume_from) if processes.is_main else nullcontext(Reporting())
    with reports as reported, stop.noticed():
        progress = ProgressCallback(run, stop, arguments.train.max_minutes, resume_from, processes)
        trainer = _trainer(run, arguments, parts, device, resume_from, reported, keep_best, progress)
        if not processes.is_main:  # Else all would drop out the same units.
            torch.manual_seed(arguments.train.seed + processes.rank)
        with processes.connected():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        if not processes.is_main:
            return run
        if not run.best.exists():
            # Stopped before the first evaluation: keep the current model.
            keep_best(trainer.kept_model, {"step": progress.step, "epoch": trainer.state.epoch})
        best.finish(device, time.monotonic() - started)
        write_curves(run)

    where = f"step {progress.step:,} of {progress.max_steps:,}"
    if progress.stopped:
        run.set_state("stopped", f"Stopped at {where}, with a checkpoint.")
    else:
        run.set_state("finished", f"Time limit reached after {where}." if progress.out_of_time else "")
    return run


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
        eval_collator=task.collator(parts.tokenizer, settings),
        compute_metrics=task.metrics,
        processes=progress.processes,
    )


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
    count = counted(len(rows.train), *task.rows_in_words(arguments.data.seq_len))
    return (
        f"{arguments.data.dataset}, preset {arguments.train.preset}: {count} for training, "
        f"{len(rows.validation):,} for validation, {aim}.\n{total:,} parameters, {active:,} of them active per token; "
        f"on {device}; into {run.folder}"
    )


def _keep_tokenizers(run: Run, tokenizer: PreTrainedTokenizerFast) -> None:
    if (target := target_of(tokenizer)) is not tokenizer:
        with folder_written_aside(run.target_tokenizer) as aside:
            target.save_pretrained(aside)
    with folder_written_aside(run.tokenizer) as aside:
        tokenizer.save_pretrained(aside)


def _training_collator(
    task: Task, settings: TrainArguments, parts: TrainingParts
) -> Callable[[list], dict[str, Tensor]]:
    """The task's collator, or RareTokenCollator with --rare_token_dropout."""
    if not settings.rare_token_dropout:
        return task.collator(parts.tokenizer, settings)
    return RareTokenCollator(parts.tokenizer, parts.rows.train, settings.rare_token_dropout, settings.seed)
