"""Whether a checkpoint was trained on given data, which rows its run held out, and which it was trained on.

Try it: held_out_rows(own_data("runs/my-run", DataSource("my.csv")), "my.csv", "my-run")
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Value, concatenate_datasets

from switch_model.checkpoint import read_training
from train.arguments.arguments import Arguments
from train.data.errors import DataError
from train.data.fingerprint import Fingerprint, what_changed
from train.data.loading import Split
from train.data.source import DataSource
from train.data.stored.digests import AT_ONCE, among, column, prints
from train.data.stored.table import ROWS_OF_BATCH, StoredPart
from train.formatting import counted
from train.runs.continuing import digest_of, read_fingerprint
from train.runs.run import Run, RunError
from train.tasks.registry import TASKS
from train.tasks.rows import streams_of

# How many of the evaluated rows were trained on.
MOST, SOME, NONE = "most", "some", "none"


@dataclass(frozen=True)
class Own:
    """A checkpoint's run in relation to given data.

    Attributes:
        arguments: of the run, reading from these data; None if they are not known to be the run's data.
        fingerprint: of the run's rows, if its folder has one.
    """

    arguments: Arguments | None = None
    fingerprint: Fingerprint | None = None


def own_data(checkpoint: str, source: DataSource) -> Own:
    """Relate data to a checkpoint's run.

    With the run's folder, rows are recognised by their content, wherever they are now. Without its rows.npz, the digest
    in training.json tells whether the data are the same. For a checkpoint moved out of its run, a file counts as the
    run's if it has the same name and splits into the same rows.
    """
    fingerprint = read_fingerprint(checkpoint)
    return Own(_own_arguments(checkpoint, source, fingerprint), fingerprint)


def _own_arguments(checkpoint: str, source: DataSource, fingerprint: Fingerprint | None) -> Arguments | None:
    training, dataset = read_training(checkpoint), source.dataset
    try:
        there = _run_of(checkpoint)
        arguments = there or Arguments.from_dict(training.get("arguments") or {})
        trained_on = arguments.data.dataset
        arguments.data.dataset, arguments.data.data_dir = dataset, source.data_dir or arguments.data.data_dir
        if not (there or training.get("arguments")):
            return None
        if source.is_toy:  # Other seeds than that of the split named "train" give other rows.
            data = arguments.data
            return arguments if trained_on == "toy" and not arguments.train.seed and data.num_samples is None else None
        if fingerprint is not None and trained_on != "toy":
            return arguments
        told = training.get("fingerprint")
        if not source.is_file:
            own = trained_on == dataset
            return arguments if own and (not (there and told) or digest_of(arguments) in (None, told)) else None
        if there and Path(trained_on).resolve() == Path(dataset).resolve():
            if told:
                return arguments if digest_of(arguments) == told else None
            # Runs of earlier versions over a stream recorded nothing.
            known = training.get("rows") and _by_row(arguments)
            return arguments if not known or _same_rows(arguments, training) else None
        return arguments if Path(trained_on).name == Path(dataset).name and _same_rows(arguments, training) else None
    except (DataError, RunError, TypeError, ValueError):  # From another version, or the file has changed its kind.
        return None


def _run_of(checkpoint: str) -> Arguments | None:
    """The arguments of the run whose folder, or best checkpoint, this is."""
    folder = Path(checkpoint)
    folder = folder.parent if folder.name == "best" else folder
    return Run(folder).arguments() if (folder / "arguments.json").is_file() else None


def _same_rows(arguments: Arguments, training: dict) -> bool:
    """Whether data split into the rows recorded in training.json (by digest; in earlier versions by number)."""
    told, counts = training.get("fingerprint"), training.get("rows") or {}
    task = TASKS[arguments.train.task]
    if not (_by_row(arguments) or told) or task.streamed:
        return False
    data = task.read(arguments.selection)
    if told:
        return Fingerprint.of(data).digest() == told
    return (len(data.train), len(data.validation)) == (counts.get("train"), counts.get("validation"))


def _by_row(arguments: Arguments) -> bool:
    return TASKS[arguments.train.task].keeps_every_row and arguments.train.eval_iters is None


def trained_on(own: Own, split: str, held_out: bool, rows: int | None, known: int | None, measured: int) -> str | None:
    """How many of a split's rows a model was trained on: MOST, SOME or NONE; None if unknown.

    Args:
        held_out: whether they are the rows that the run held out.
        rows: number of rows of the split; None = only some were evaluated.
        known: number of evaluated rows known to have been trained on; None = unknown.
        measured: number of evaluated rows.
    """
    if held_out or known == 0:
        return NONE
    if known is not None:
        return MOST if known > measured / 2 else SOME
    if own.arguments is None or split != "train":
        return None
    taken = own.arguments.data.num_samples  # A preset may use a subset.
    all_taken = taken is None or (rows is not None and taken >= rows)
    return MOST if all_taken and own.arguments.data.validation_size < 0.5 else SOME


def held_out_rows(own: Own, dataset: str, checkpoint: str) -> tuple[Split, str]:
    """The rows that the run held out, in its task's form, and a remark on them, or "".

    Args:
        own: from `own_data`.

    Raises:
        DataError: when the data can't be read, or are not those of the run.
    """
    if own.arguments is None:
        raise DataError(
            f"{dataset} has no validation split, and according to training.json {checkpoint} was not trained on its "
            "present content, so the held-out rows are unknown. Leave --split out to evaluate all rows of a file."
        )
    if own.fingerprint is not None:
        return _rows_known(own.arguments, own.fingerprint, dataset, checkpoint)
    data = TASKS[own.arguments.train.task].read(own.arguments.selection)
    if data is None:
        return Split(_on_disk(streams_of(own.arguments)["validation"]), []), ""
    return Split(data.validation, data.labels, part=data.parts and data.parts[1]), ""


def _rows_known(arguments: Arguments, found: Fingerprint, dataset: str, checkpoint: str) -> tuple[Split, str]:
    """All rows whose text the run held out and did not train on, wherever they are now."""
    if not len(found.truly_held_out):
        raise DataError(
            f"{checkpoint} was trained on the texts of all {counted(len(found.held_out), 'row', 'rows')} that it held "
            f"out, because {dataset} contains them more than once: there is nothing to evaluate it on."
        )
    read = TASKS[arguments.train.task].read
    try:
        data, changed = read(arguments.selection), ""
        if data is not None and not found.is_of(data):
            changed = what_changed(found, Fingerprint.of(data))
            if arguments.data.num_samples is not None:  # Changed data may give another sample.
                data = read(replace(arguments.selection, num_samples=None))
    except DataError as error:
        raise DataError(f"{error} (It is read as {checkpoint} read its data.)") from error
    if data is None:
        streams = streams_of(arguments)
        known = ("validation",) if arguments.data.source.on_hub else ("validation", "train")
        texts = chain.from_iterable(streams[name] for name in known)
        split = Split(_on_disk(_among_texts(texts, found.truly_held_out)), [])
    elif data.parts:
        split = _known_parts(*data.parts, found, changed=bool(changed))
    else:
        whole, labels = concatenate_datasets([data.validation, data.train]) if changed else data.validation, data.labels
        kept = np.flatnonzero(among(prints(column(whole, "text")), found.truly_held_out))
        split = Split(whole.select(kept), labels)
    if not len(split.rows):
        raise DataError(
            f"None of the {counted(len(found.held_out), 'row', 'rows')} that {checkpoint} held out is in {dataset}: is "
            "it the file that it was trained on, with the same columns? Leave --split out to evaluate all rows."
        )
    count = len(split.rows)
    return split, _said(found, count, f"{dataset} has changed since the run: {changed}" if changed else "")


def _known_parts(train: StoredPart, validation: StoredPart, found: Fingerprint, changed: bool) -> Split:
    """The rows of a table on disk that the run held out and did not train on."""
    whole = validation
    if changed and train.table.folder == validation.table.folder:
        whole = StoredPart(train.table, np.concatenate([validation.indices, train.indices]))
    return Split.stored(whole.of(among(whole.prints, found.truly_held_out)))


def _said(found: Fingerprint, rows: int, changed: str) -> str:
    """A remark if these are not exactly the rows that the run held out; "" otherwise."""
    held_out = counted(len(found.held_out), "row", "rows")
    said = [f"{changed}. Evaluated are {rows:,} of the {held_out} that the run held out."] if changed else []
    if found.leaked:
        said.append(
            f"{found.leaked:,} of the {held_out} that the run held out are excluded: it trained on the same texts."
        )
    return " ".join(said)


def _among_texts(texts: Iterator[str], known: np.ndarray) -> Iterator[str]:
    while some := list(islice(texts, AT_ONCE)):
        yield from (text for text, is_known in zip(some, among(prints(some), known), strict=True) if is_known)


def _on_disk(texts: Iterator[str]) -> Dataset:
    """Rows of texts, memory-mapped from a file that is removed with the process: there may be millions."""
    with TemporaryDirectory(prefix="held-out-", ignore_cleanup_errors=True) as folder:
        schema = Features({"text": Value("string")}).arrow_schema
        path = str(Path(folder) / "texts.arrow")
        with pa.OSFile(path, "wb") as sink, pa.ipc.new_stream(sink, schema) as file:
            while some := list(islice(texts, ROWS_OF_BATCH)):
                file.write_table(pa.table([pa.array(some, pa.string())], schema=schema))
        return Dataset.from_file(path)
