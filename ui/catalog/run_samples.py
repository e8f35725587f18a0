"""Texts that a run held out, as samples for its model: what it can read, and was not trained on.

Try it: validation_samples(Run(Path("runs/my-run")), "run my-run", CLASSIFIER)
"""

from itertools import islice

from train.data.errors import DataError
from train.runs.run import Run
from ui.catalog.kinds import CLASSIFIER, FILLER, RESTORER, STORYTELLER, Kind
from ui.catalog.samples import Sample

MAX_SAMPLES = 500
# Larger data would keep whoever opens a model waiting.
MAX_BYTES = 300_000_000
# A text to write on from is its beginning.
BEGINNING_WORDS = 6
BLANK = "___"


def validation_samples(run: Run, source: str, kind: Kind) -> list[Sample]:
    """Some of the run's validation rows in their order; none where they would have to be fetched, or are gone.

    Args:
        source: what the samples are said to be from.
        kind: of the run's model, which decides what is left of a text.
    """
    from train.tasks.registry import TASKS
    from train.tasks.rows import streams_of

    arguments = run.arguments()
    data = arguments.data.source
    files = [path for path in data.files() if path.is_file()]
    if data.on_hub or sum(path.stat().st_size for path in files) > MAX_BYTES:
        return []
    try:
        rows = TASKS[arguments.train.task].read(arguments.selection)
        if rows is None:
            texts, labels = list(islice(streams_of(arguments)["validation"], MAX_SAMPLES)), None
        else:
            some = rows.validation[:MAX_SAMPLES]
            texts, labels = some["text"], some.get("label")
    except (DataError, OSError):
        return []
    names = (
        ["" for _ in texts] if labels is None or kind is not CLASSIFIER else [rows.labels[label] for label in labels]
    )
    return [Sample(_asked(text, kind), name, source) for text, name in zip(texts, names, strict=True)]


def _asked(text: str, kind: Kind) -> str:
    words = text.split()
    if kind is STORYTELLER:
        return " ".join(words[:BEGINNING_WORDS])
    if kind in (FILLER, RESTORER) and words:
        words[len(words) // 2] = BLANK
        return " ".join(words)
    return text
