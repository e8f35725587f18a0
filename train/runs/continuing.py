"""A run goes on with the arguments, the tokenizer and the rows that it began with, or says what has changed.

Try it: check_arguments(Run.open("runs/my-run"), Fingerprint.load(Path("runs/my-run/rows.npz")))
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from switch_model.storage.tokenizer_io import target_of
from train.arguments.arguments import PRIVATE, Arguments
from train.data.errors import DataError
from train.data.fingerprint import Fingerprint, among, prints, what_changed
from train.data.loading import TrainingData
from train.formatting import counted, listed, pasted
from train.runs.run import Run, RunError
from train.tasks.rows import Rows, read_data, streams_of

# What may be edited while a run is stopped: where things lie (rows are compared by what stands in them), who watches,
# how long it trains and when it looks at itself.
FREE = (
    *PRIVATE, "dataset", "preset", "device", "compile", "epochs", "min_steps", "max_steps", "total_iters",
    "max_minutes", "logging_steps", "eval_steps", "eval_iters", "save_total_limit",
)  # fmt: skip


def fingerprint_of(arguments: Arguments, rows: TrainingData | Rows) -> Fingerprint:
    """Of what a run is about to train on, and of the model it starts from where that learned the same task.

    Args:
        rows: its texts; of a run over a stream, the rows that were made of them.
    """
    parent = read_fingerprint(arguments.train.init_from) if arguments.train.init_from else None
    same = parent is not None and parent.about.get("arguments", {}).get("task") == arguments.train.task
    before = parent.trained if same else None
    return Fingerprint.of_streams(rows.prints, before) if isinstance(rows, Rows) else Fingerprint.of(rows, before)


def read_fingerprint(checkpoint: str | Path) -> Fingerprint | None:
    """Of the run whose folder, or whose best checkpoint, this is; None where there is none."""
    folder = Path(checkpoint)
    run = Run(folder.parent if folder.name == "best" else folder)
    return Fingerprint.load(run.rows_path) if run.arguments_path.is_file() else None


def lost_rows(checkpoint: str | Path) -> str:
    """That a run no longer tells which rows it was trained on; "" where it does, or where its folder is not at hand."""
    folder = Path(checkpoint)
    run = Run(folder.parent if folder.name == "best" else folder)
    if not run.arguments_path.is_file() or Fingerprint.load(run.rows_path) is not None:
        return ""
    return f"{run.rows_path} is missing or damaged: how many of these rows were trained on is not known."


def digest_of(arguments: Arguments) -> dict[str, str] | None:
    """A digest of the rows that a run with these arguments would train on and hold out; None where they would have to
    be fetched first. Raises DataError when they can't be had."""
    if (data := read_data(arguments)) is not None:
        return Fingerprint.of(data).digest()
    if arguments.data.source.on_hub:
        return None
    return Fingerprint(*(prints(streams_of(arguments)[name]) for name in ("train", "validation"))).digest()


def check_digest(arguments: Arguments, digest: dict[str, str] | None, of: str) -> dict[str, str] | None:
    """The digest, unless the rows are not those that it is of: then RunError. None tells nothing."""
    if digest is not None and digest_of(arguments) != digest:
        raise RunError(
            f"{arguments.data.dataset} has changed since {of} began, so that metrics can't be compared: bring the old "
            "rows back, or choose another --output_dir."
        )
    return digest


def begin(run: Run, found: Fingerprint, tokenizer: PreTrainedTokenizerFast) -> None:
    """Keep what a run begins with."""
    about = {"arguments": run.arguments().to_dict(), "vocabulary": vocabulary_of(tokenizer)}
    replace(found, about=about).save(run.rows_path)


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> str:
    """A digest of which tokens there are under which numbers, of both tokenizers where there are two."""
    both = [sorted(one.get_vocab().items()) for one in (tokenizer, target_of(tokenizer))]
    return hashlib.sha256(json.dumps(both).encode()).hexdigest()[:16]


def overlap_words(found: Fingerprint) -> str:
    """Why the metrics of a run that begins will flatter it; "" where they won't."""
    known = int(among(found.held_out, found.before).sum())
    if known:
        return (
            f"{known:,} of the {counted(len(found.held_out), 'row', 'rows')} to validate on were trained on by the "
            "model that it starts from: metrics on them speak of memory."
        )
    if not (twice := int(among(found.held_out, np.unique(found.train)).sum())):
        return ""
    return (
        f"{twice:,} of the {counted(len(found.held_out), 'row', 'rows')} to validate on "
        f"{'has a text that stands' if twice == 1 else 'have texts that stand'} among the rows to train on as well: "
        f"metrics on {'it' if twice == 1 else 'them'} speak of memory. `evaluate --split validation` leaves "
        f"{'it' if twice == 1 else 'them'} out."
    )


def check_arguments(run: Run, began: Fingerprint) -> None:
    """Raise RunError when arguments were changed by hand with which a run can't go on."""
    was, now = began.about.get("arguments", {}), run.arguments().to_dict()
    changed = [name for name, value in now.items() if name not in FREE and name in was and was[name] != value]
    if changed:
        said = [f"{name} was {_shown(was[name])} and is {_shown(now[name])}" for name in changed]
        raise RunError(
            f"{run.arguments_path} was changed since the run began: {listed(said)}. Put "
            f"{'it' if len(changed) == 1 else 'them'} back to go on. For a new run with other arguments: "
            f"python -m train --config {pasted(run.arguments_path)} --output_dir …"
        )


def check_tokenizer(run: Run, began: Fingerprint, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise RunError when a run's tokenizer is not the one that it began with."""
    if began.about.get("vocabulary") not in (None, vocabulary_of(tokenizer)):
        raise RunError(
            f"{run.tokenizer} is not the tokenizer that the run began with: its tokens have other numbers. Put it back "
            "to go on."
        )


def check_rows(run: Run, arguments: Arguments, began: Fingerprint, now: Fingerprint) -> None:
    """Raise DataError when a run's data are not those that it began with."""
    if began.same_rows(now) and began.labels == now.labels:
        return
    changed = what_changed(began, now)
    drawn = arguments.data.num_samples
    if drawn is not None and drawn <= max(len(one.train) + len(one.held_out) for one in (began, now)):
        changed += f" (of the {drawn:,} that --num_samples draws)"
    leaked = int(among(now.held_out, np.unique(began.train)).sum())
    leaks = f"{leaked:,} of the {counted(len(now.held_out), 'row', 'rows')} that it would be measured on are rows that "
    dataset = arguments.data.dataset
    raise DataError(
        f"{dataset} is not what it was when this run began: {changed}. "
        f"{leaks + 'it was trained on. ' if leaked else ''}Bring the old rows back to go on, or train on from the "
        f"run's weights: python -m train --init_from {pasted(run.folder)} --dataset {pasted(dataset)}"
    )


def check_digests(run: Run, arguments: Arguments, told: dict[str, str], now: Fingerprint) -> None:
    """`check_rows` of a run that has lost its rows.npz: by the digest that goes with its best checkpoint."""
    if now.digest() != told:
        raise DataError(
            f"{arguments.data.dataset} is not what it was when this run began, and {run.rows_path}, which would tell "
            "what has changed, is missing or damaged: bring the old rows back to go on, or train on from the run's "
            f"weights: python -m train --init_from {pasted(run.folder)} --dataset {pasted(arguments.data.dataset)}"
        )


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
