"""Analyse the routing of a whole data set: rows in, a folder with report and tables out.

Try it: python -m train analyze --checkpoint assets/models/ag_news --dataset my.csv --output report
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.specialization import (
    class_counts,
    class_information,
    lift,
    listed_tokens,
    right_against_wrong,
)
from switch_model.counterfactuals import mean_importance
from switch_model.inference.classifier import Predictor
from switch_model.storage.whole_files import folder_written_aside
from train.data.errors import DataError
from train.data.loading import load_split
from train.data.source import DataSource
from train.evaluation.held_out import held_out_rows, own_data
from train.evaluation.reliance import known
from train.formatting import counted, listed
from train.runs.continuing import lost_rows, read_fingerprint

# Number of texts for expert importance, which takes a pass over all of them for each expert.
IMPORTANCE_TEXTS = 32


@dataclass(frozen=True)
class Rows:
    """Texts with the model's class indices (-1 = unknown), a remark on the data, and whether a run held them out."""

    texts: list[str]
    true: list[int]
    note: str
    held_out: bool = False


def rows_to_analyze(
    labels: list[str], source: DataSource, *, num_samples: int | None = None, checkpoint: str | None = None
) -> Rows:
    """Rows of a data set for a model with the classes `labels`; the data's classes are used if they fit.

    Args:
        checkpoint: if the data have no validation split, "validation" means the rows that this checkpoint's run held
            out.

    Raises:
        DataError: when there are no texts.
    """
    said, held_out = "", checkpoint is not None and source.split == "validation" and source.lacks_validation
    try:
        if not held_out:
            rows, names = load_split(source)
    except DataError:
        if source.label_column:
            raise
        # Perhaps it has no classes. Any other problem is raised again.
        rows, names = load_split(source, labelled=False)
    if held_out:
        rows, names, said = held_out_rows(own_data(checkpoint, source), source.dataset, checkpoint)
    if num_samples is not None and num_samples < len(rows):
        rows = rows.shuffle(seed=0).select(range(num_samples))
    texts = list(rows["text"])
    if not names:
        said = f"{said} The data have no classes: predicted ones are used instead.".strip()
        return Rows(texts, [-1] * len(texts), said, held_out)
    index_of = [labels.index(name) if name in labels else -1 for name in names]
    true = [index_of[label] for label in rows["label"]]
    unknown = sorted({names[label] for label, index in zip(rows["label"], true, strict=True) if index < 0})
    if not unknown:
        return Rows(texts, true, said, held_out)
    note = f"{said} The model does not know the class{'es' if len(unknown) > 1 else ''} {listed(unknown)}: "
    which = "all rows" if max(true) < 0 else f"{true.count(-1):,} of {len(true):,} rows"
    note = f"{note}the predicted class is used instead in {which}.".strip()
    return Rows(texts, true, note, held_out)


def with_overlap(rows: Rows, checkpoint: str) -> Rows:
    """The rows, with the number of rows that the model was trained on in their note, if known."""
    found = read_fingerprint(checkpoint)
    if found is None and not rows.held_out:
        return replace(rows, note=f"{rows.note} {lost_rows(checkpoint)}".strip())
    if found is None or not (known := found.known(rows.texts)):
        return rows
    of_all = f"{known:,} of the {counted(len(rows.texts), 'text', 'texts')}"
    said = f"{of_all} {'was' if known == 1 else 'were'} trained on, so metrics on them are too optimistic."
    return replace(rows, note=f"{rows.note} {said}".strip())


def texts_to_try(corpus: Corpus, texts: int = IMPORTANCE_TEXTS) -> list[str]:
    """Texts for expert importance, sampled at random with a fixed seed."""
    chosen = np.random.default_rng(0).permutation(len(corpus.texts))[:texts]
    return [corpus.texts[index] for index in chosen.tolist()]


def importances(predictor: Predictor, corpus: Corpus, texts: int = IMPORTANCE_TEXTS) -> np.ndarray:
    """(L, E, 3) mean change of the predicted class's probability when each expert is ablated, the share of texts whose
    class changes, and the number of texts (`texts_to_try`)."""
    some = texts_to_try(corpus, texts)
    return np.array(
        [
            [(*mean_importance(predictor, some, layer, expert), len(some)) for expert in range(corpus.num_experts)]
            for layer in corpus.layers
        ]
    )


def measures(corpus: Corpus, importance: np.ndarray | None, found: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics of a report, for JSON: per layer those of `Corpus.measures`, mutual information with the classes,
    lift, right against wrong, and per expert its tokens (`listed_tokens`) and its importance; and `found`, from
    `train.evaluation.reliance.measured`."""
    layers = []
    for index, name in enumerate(corpus.layers):
        experts = [
            {
                "expert": expert,
                "tokens": [asdict(one) | {"score": one.score} for one in listed_tokens(corpus, name, expert, 10)],
                "importance": None if importance is None else float(importance[index, expert, 0]),
                "changes_class": None if importance is None else float(importance[index, expert, 1]),
            }
            for expert in range(corpus.num_experts)
        ]
        counts = class_counts(corpus, name)
        layers.append(
            corpus.measures[index]
            | {
                "class_information": asdict(class_information(corpus, name)),
                "class_counts": counts.tolist(),
                "class_lift": [None if np.isnan(row).any() else row.round(4).tolist() for row in lift(counts)],
                "right_against_wrong": _right_wrong(corpus, name),
                "experts": experts,
            }
        )
    return {
        "texts": len(corpus.texts),
        "tokens": len(corpus.token),
        "classes": corpus.classes,
        "accuracy": corpus.accuracy,
        "layers": layers,
        **found,
    }


def write_report(
    corpus: Corpus,
    importance: np.ndarray | None,
    title: str,
    note: str,
    folder: Path,
    found: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write report.html, measures.json, tokens.parquet and texts.parquet. Raises DataError when that fails."""
    from train.analysis.report import report_html

    try:
        with folder_written_aside(folder) as aside:
            write_tables(corpus, aside)
            (aside / "measures.json").write_text(
                json.dumps(measures(corpus, importance, found), indent=2) + "\n", "utf-8"
            )
            (aside / "report.html").write_text(
                report_html(corpus, importance, title, note, known(found)), encoding="utf-8"
            )
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error.strerror}.") from error


def write_tables(corpus: Corpus, folder: Path) -> tuple[Path, Path]:
    """Write tokens.parquet, a row per token, and texts.parquet, a row per text."""
    paths = folder / "tokens.parquet", folder / "texts.parquet"
    for path, columns in zip(paths, (corpus.tokens_table(), corpus.texts_table()), strict=True):
        pq.write_table(pa.table(columns), path)
    return paths


def _right_wrong(corpus: Corpus, layer: str) -> dict[str, float] | None:
    try:
        return asdict(right_against_wrong(corpus, layer)[1])
    except ValueError:
        return None
