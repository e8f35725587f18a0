"""Checks before a resume: arguments, tokenizer and rows must be those that the run began with.

Try it: check_arguments(Run.open("runs/my-run"), Fingerprint.load(Path("runs/my-run/rows.npz")))
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from switch_model.commands import command
from switch_model.storage.tokenizer_io import target_of
from train.arguments.arguments import PRIVATE, Arguments
from train.data.errors import DataError
from train.data.fingerprint import Fingerprint, what_changed
from train.data.loading import TrainingData
from train.data.stored.digests import among, found_in, prints
from train.formatting import counted, listed, pasted
from train.runs.run import Run, RunError
from train.tasks.registry import TASKS
from train.tasks.rows import Rows, streams_of

# Arguments that may change while a run is stopped: locations (rows are compared by content), reporting, length of
# training, and times of logging and evaluation.
FREE = (
    *PRIVATE, "dataset", "preset", "device", "compile", "epochs", "min_steps", "max_steps", "total_iters",
    "max_minutes", "logging_steps", "eval_steps", "eval_iters", "save_total_limit",
)  # fmt: skip


def fingerprint_of(arguments: Arguments, rows: TrainingData | Rows) -> Fingerprint:
    """The fingerprint of a new run's rows, including those of the initial model if it had the same task.

    Args:
        rows: the run's texts; for a stream, the packed rows.
    """
    parent = read_fingerprint(arguments.train.init_from) if arguments.train.init_from else None
    same = parent is not None and parent.about.get("arguments", {}).get("task") == arguments.train.task
    before = parent.trained if same else None
    return Fingerprint.of_streams(rows.prints, before) if isinstance(rows, Rows) else Fingerprint.of(rows, before)


def read_fingerprint(checkpoint: str | Path) -> Fingerprint | None:
    """The fingerprint of the run whose folder, or best checkpoint, this is; None if there is none."""
    folder = Path(checkpoint)
    run = Run(folder.parent if folder.name == "best" else folder)
    return Fingerprint.load(run.rows_path) if run.arguments_path.is_file() else None


def lost_rows(checkpoint: str | Path) -> str:
    """A remark that a run's fingerprint is missing or damaged; "" otherwise, or without the run's folder."""
    folder = Path(checkpoint)
    run = Run(folder.parent if folder.name == "best" else folder)
    if not run.arguments_path.is_file() or Fingerprint.load(run.rows_path) is not None:
        return ""
    return f"{run.rows_path} is missing or damaged: how many of these rows were trained on is not known."


def digest_of(arguments: Arguments) -> dict[str, str] | None:
    """A digest of the rows that a run with these arguments would use; None if they would have to be downloaded first.
    Raises DataError when they can't be read."""
    if (data := TASKS[arguments.train.task].read(arguments.selection)) is not None:
        return Fingerprint.of(data).digest()
    if arguments.data.source.on_hub:
        return None
    return Fingerprint(*(prints(streams_of(arguments)[name]) for name in ("train", "validation"))).digest()


def check_digest(arguments: Arguments, digest: dict[str, str] | None, of: str) -> dict[str, str] | None:
    """Return the digest. Raises RunError if the rows have another digest; None is not checked."""
    if digest is not None and digest_of(arguments) != digest:
        raise RunError(
            f"{arguments.data.dataset} has changed since {of} began, so that metrics can't be compared: restore the "
            "old rows, or choose another --output_dir."
        )
    return digest


def begin(run: Run, found: Fingerprint, tokenizer: PreTrainedTokenizerFast, processes: int) -> None:
    """Store the fingerprint, arguments, vocabulary and number of processes that a run begins with."""
    about = {
        "arguments": run.arguments().to_dict(),
        "vocabulary": vocabulary_of(tokenizer),
        "processes": processes,
    }
    replace(found, about=about).save(run.rows_path)


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest of tokens and ids, of both tokenizers if there are two."""
    both = [sorted(one.get_vocab().items()) for one in (tokenizer, target_of(tokenizer))]
    return hashlib.sha256(json.dumps(both).encode()).hexdigest()[:16]


def overlap_words(found: Fingerprint) -> str:
    """A warning if a new run's validation metrics will be too optimistic; "" otherwise."""
    known = int(among(found.held_out, found.before).sum())
    if known:
        return (
            f"{known:,} of the {counted(len(found.held_out), 'validation row', 'validation rows')} were trained on by "
            "the initial model, so metrics on them are too optimistic."
        )
    if not (twice := int(found_in(found.held_out, [found.train]).sum())):
        return ""
    return (
        f"{twice:,} of the {counted(len(found.held_out), 'validation row', 'validation rows')} "
        f"{'has a text that is' if twice == 1 else 'have texts that are'} among the training rows too, so metrics on "
        f"{'it' if twice == 1 else 'them'} are too optimistic. `evaluate --split validation` excludes "
        f"{'it' if twice == 1 else 'them'}."
    )


def check_arguments(run: Run, began: Fingerprint) -> None:
    """Raise RunError if arguments were changed by hand that must not change on a resume."""
    was, now = began.about.get("arguments", {}), run.arguments().to_dict()
    changed = [name for name, value in now.items() if name not in FREE and name in was and was[name] != value]
    if changed:
        said = [f"{name} was {_shown(was[name])} and is {_shown(now[name])}" for name in changed]
        raise RunError(
            f"{run.arguments_path} was changed since the run began: {listed(said)}. Restore "
            f"{'it' if len(changed) == 1 else 'them'} to resume. For a new run with other arguments: "
            f"{command()} --config {pasted(run.arguments_path)} --output_dir …"
        )


def check_tokenizer(run: Run, began: Fingerprint, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise RunError if a run's tokenizer is not the one that it began with."""
    if began.about.get("vocabulary") not in (None, vocabulary_of(tokenizer)):
        raise RunError(
            f"{run.tokenizer} is not the tokenizer that the run began with: its token ids differ. Restore it to resume."
        )


def check_rows(run: Run, arguments: Arguments, began: Fingerprint, now: Fingerprint) -> None:
    """Raise DataError if a run's rows are not those that it began with."""
    if began.same_rows(now) and began.labels == now.labels:
        return
    changed = what_changed(began, now)
    drawn = arguments.data.num_samples
    if drawn is not None and drawn <= max(len(one.train) + len(one.held_out) for one in (began, now)):
        changed += f" (of the {drawn:,} that --num_samples draws)"
    leaked = int(found_in(now.held_out, [began.train]).sum())
    leaks = f"{leaked:,} of its {counted(len(now.held_out), 'validation row', 'validation rows')} would be rows that "
    dataset = arguments.data.dataset
    raise DataError(
        f"{dataset} has changed since this run began: {changed}. "
        f"{leaks + 'it was trained on. ' if leaked else ''}Restore the old rows to resume, or start a new run from its "
        f"weights. The command: {command()} --init_from {pasted(run.folder)} --dataset {pasted(dataset)}"
    )


def check_digests(run: Run, arguments: Arguments, told: dict[str, str], now: Fingerprint) -> None:
    """`check_rows` for a run without rows.npz, by the digest in its best checkpoint. Raises DataError likewise."""
    if now.digest() != told:
        raise DataError(
            f"{arguments.data.dataset} has changed since this run began, and {run.rows_path}, which would show what "
            "has changed, is missing or damaged: restore the old rows to resume, or start a new run from its "
            "weights. The command: "
            f"{command()} --init_from {pasted(run.folder)} --dataset {pasted(arguments.data.dataset)}"
        )


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
