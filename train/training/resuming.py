"""A stopped run goes on: from its last checkpoint, or from the beginning.

Try it: python -m train --dataset toy --epochs 200, then Ctrl-C, then python -m train resume RUN
"""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from switch_model.checkpoint import read_training
from switch_model.commands import command
from switch_model.config import SwitchConfig
from switch_model.storage.tokenizer_io import with_target
from train.arguments.arguments import Arguments
from train.arguments.device import pick_device
from train.data.fingerprint import Fingerprint
from train.data.tokenizers import load_tokenizer
from train.distributed.checks import check_same_number, check_several
from train.distributed.processes import Processes, processes_of_launch
from train.formatting import pasted
from train.runs.continuing import check_arguments, check_digests, check_rows, check_tokenizer
from train.runs.process import recorded, wait_for_turn
from train.runs.run import Run, RunError
from train.runs.trainer_files import at_its_end
from train.tasks.registry import TASKS
from train.training.loop import TrainingParts, prepare, run_prepared
from train.training.reporting import log_in
from train.weights.kept import put_weights


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
                    return run_prepared(run, arguments, prepare(arguments, processes), device, None, processes)
                parts = prepare_again(run, arguments, found.checkpoint, processes)
                processes.by_main(lambda: found.remove_damaged(run))
                run_prepared(run, arguments, parts, device, found.checkpoint, processes)
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
    arguments.check_packages()
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
