"""What a run's experts tell of a text's class: its best checkpoint on some validation texts.

Try it: class_told(Run.open("runs/toy"), 300)
"""

import contextlib
import json
import statistics

from switch_model.analysis.corpus import route_corpus
from switch_model.analysis.specialization import class_information
from switch_model.inference.classifier import Predictor
from switch_model.storage.errors import CheckpointError
from switch_model.storage.whole_files import write_atomically
from train.data.columns import align_labels
from train.data.errors import DataError
from train.evaluation.classification import load_rows
from train.evaluation.held_out import held_out_rows, own_data
from train.runs.run import Run
from train.tasks.registry import TASKS

# Validation texts where a page waits for the figure.
FEW_TEXTS = 300
_KEPT = "class_told.json"


def class_told(run: Run, most: int) -> float | None:
    """I(class; expert) / H(class) beyond its chance level, mean over layers, of at most so many validation texts.

    None for rows of vectors.

    Raises:
        CheckpointError, DataError, ValueError: when either can't be read, or the classes do not fit.
    """
    source = run.arguments().data.source.at("validation")
    predictor = Predictor.from_checkpoint(run.best)
    if source.lacks_validation:
        split, _ = held_out_rows(own_data(str(run.best), source), source.dataset, str(run.best))
    else:
        split = load_rows(str(run.best), source)
    few = split.rows.select(range(min(len(split.rows), most)))
    if "text" not in few.column_names:
        return None
    rows = align_labels(few, split.names, predictor.model.config.labels)
    corpus = route_corpus(predictor, list(rows["text"]), list(rows["label"]))
    told = [class_information(corpus, layer) for layer in corpus.layers]
    return statistics.fmean(one.value - one.chance for one in told)


def kept_class_told(run: Run, measure: bool = True) -> float | None:
    """`class_told` of a run that ended, for a page: measured once, then read from the run's folder.

    None where there is no such figure: no classifier, no experts, rows read as they come, or rows that can't be read.

    Args:
        measure: False = only read it.
    """
    arguments = run.arguments()
    if not TASKS[arguments.train.task].labelled or arguments.model.is_dense or arguments.data.streaming:
        return None
    kept, checkpoint = run.folder / _KEPT, run.best / "config.json"
    with contextlib.suppress(OSError, ValueError, KeyError):
        of = checkpoint.stat().st_mtime_ns
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["checkpoint_ns"] == of:
            return found["class_told"]
    if not measure:
        return None
    try:
        of, told = checkpoint.stat().st_mtime_ns, class_told(run, FEW_TEXTS)
    except (CheckpointError, DataError, OSError, ValueError):
        return None
    with contextlib.suppress(OSError):  # A folder that can only be read.
        write_atomically(kept, json.dumps({"class_told": told, "texts": FEW_TEXTS, "checkpoint_ns": of}) + "\n")
    return told
