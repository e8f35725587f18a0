"""Analyse the routing of a whole data set: rows in, a folder with report and tables out.

Try it: python -m train analyze --checkpoint assets/models/ag_news --dataset my.csv --output report
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from switch_model.analysis.atlas import Atlas, expert_atlas
from switch_model.analysis.corpus import Corpus
from switch_model.analysis.effects import expert_effects
from switch_model.analysis.scoring import MEASURED
from switch_model.analysis.specialization import (
    class_counts,
    class_information,
    lift,
    right_against_wrong,
)
from switch_model.analysis.statistics import distinct_experts
from switch_model.inference.pipeline import TextPipeline
from switch_model.storage.whole_files import folder_written_aside
from switch_model.traces.agreement import LayerAgreement
from train.analysis.agreement import agreement_html, agreement_json
from train.analysis.atlas import word_json, write_atlas
from train.data.columns import NUMBER
from train.data.errors import DataError
from train.data.loading import Split, read_split
from train.data.pairs import usual_source
from train.data.source import DataSource
from train.data.stored.digests import column
from train.evaluation.held_out import held_out_rows, own_data
from train.evaluation.measured_rows import rows_of
from train.evaluation.reliance import drawn, known
from train.formatting import counted, listed, shortened
from train.runs.continuing import lost_rows, read_fingerprint

# Of a table too large for memory, so many texts are routed unless more are asked for: their tokens with their experts
# take about a kilobyte a text and layer.
MOST_OF_LARGE = 20_000


@dataclass(frozen=True)
class Rows:
    """Texts with class indices (-1 = unknown), a remark on the data, whether a run held them out, and the names of the
    classes: the model's, or for a model without classes those of the data."""

    texts: list[str]
    true: list[int]
    note: str
    held_out: bool = False
    classes: tuple[str, ...] = ()


def rows_to_analyze(
    labels: list[str], source: DataSource, *, num_samples: int | None = None, checkpoint: str | None = None
) -> Rows:
    """Rows of a data set for a model with the classes `labels`, or none; the data's classes are used if they fit.

    Args:
        checkpoint: if the data have no validation split, "validation" means the rows that this checkpoint's run held
            out.

    Raises:
        DataError: when there are no texts.
    """
    said, held_out = "", checkpoint is not None and source.split == "validation" and source.lacks_validation
    try:
        if not held_out:
            split = read_split(source)
    except DataError:
        if source.label_column:
            raise
        # Perhaps it has no classes. Any other problem is raised again.
        split, said = _texts_alone(source)
    if held_out:
        split, said = held_out_rows(own_data(checkpoint, source), source.dataset, checkpoint)
    else:
        said = f"{said} {split.left_out}".strip()
    rows, names = split.rows, split.names
    if num_samples is None and split.part and len(rows) > MOST_OF_LARGE:
        num_samples = MOST_OF_LARGE
        said = (
            f"{said} {num_samples:,} of the {len(rows):,} texts, drawn at random: a routed data set is held in memory. "
            "--num_samples takes more."
        ).strip()
    if num_samples is not None and num_samples < len(rows):
        rows = rows.select(np.sort(np.random.default_rng(0).choice(len(rows), num_samples, replace=False)))
    texts = list(column(rows, "text"))
    if not labels:
        true = list(rows["label"]) if names else [-1] * len(texts)
        return Rows(texts, true, said, held_out, tuple(names or ()))
    if not names:
        said = f"{said} The data have no classes: predicted ones are used instead.".strip()
        return Rows(texts, [-1] * len(texts), said, held_out, tuple(labels))
    index_of = [labels.index(name) if name in labels else -1 for name in names]
    true = [index_of[label] for label in rows["label"]]
    unknown = sorted({names[label] for label, index in zip(rows["label"], true, strict=True) if index < 0})
    if not unknown:
        return Rows(texts, true, said, held_out, tuple(labels))
    note = f"{said} The model does not know the class{'es' if len(unknown) > 1 else ''} {listed(unknown)}: "
    which = "all rows" if max(true) < 0 else f"{true.count(-1):,} of {len(true):,} rows"
    note = f"{note}the predicted class is used instead in {which}.".strip()
    return Rows(texts, true, note, held_out, tuple(labels))


def _texts_alone(source: DataSource) -> tuple[Split, str]:
    """(rows without classes, a remark): the texts of a data set; of pairs the sources, which is what an encoder reads.

    Raises DataError where they are all numbers, or true and false.
    """
    if (own := usual_source(source)) is None:
        split, said = read_split(source, labelled=False), ""
    else:
        split = read_split(replace(source, text_column=own), labelled=False)
        said = f"The texts are the sources of pairs (column '{own}')."
    texts = column(split.rows, "text")
    if all(NUMBER.fullmatch(text.strip()) or text.strip() in ("True", "False") for text in texts):
        raise DataError(
            f"{source.dataset} has no texts, only values such as {shortened(split.rows[0]['text'], 40)}. Each row "
            'needs a text: in JSON an object such as {"text": "…", "label": "…"}, one to a line or all in a list; in '
            "CSV a column of texts."
        )
    return split, said


def with_tokenless(rows: Rows, corpus: Corpus) -> Rows:
    """The rows, with the number of texts in their note that the tokenizer made nothing of."""
    missing = len(rows.texts) - len(corpus.texts)
    said = f"{counted(missing, 'text')} without a visible character left out." if missing else ""
    return replace(rows, note=f"{rows.note} {said}".strip())


def with_overlap(rows: Rows, checkpoint: str) -> Rows:
    """The rows, with the number of rows that the model was trained on in their note, if known."""
    found = read_fingerprint(checkpoint)
    if found is None and not rows.held_out:
        return replace(rows, note=f"{rows.note} {lost_rows(checkpoint)}".strip())
    if found is None or not (known := found.known(rows.texts)):
        return rows
    # Of rows that were read as they came, the first alone are known.
    least = "At least " if found.about.get("arguments", {}).get("streaming") else ""
    of_all = f"{least}{known:,} of the {counted(len(rows.texts), 'text', 'texts')}"
    said = f"{of_all} {'was' if known == 1 else 'were'} trained on, so metrics on them are too optimistic."
    return replace(rows, note=f"{rows.note} {said}".strip())


def atlas_of(
    pipeline: TextPipeline,
    corpus: Corpus,
    texts: int,
    progress: Callable[[int, int], None] | None = None,
) -> Atlas:
    """The expert atlas of a routed data set, with the effect of every expert on `texts` random texts; 0 = without
    effects, as for models that are measured by target texts, or have no head."""
    atlas = expert_atlas(corpus)
    if not texts or not isinstance(pipeline.model, MEASURED):
        return atlas
    rows = drawn(rows_of(corpus, pipeline), texts)
    return atlas.with_effects(expert_effects(pipeline.model, rows, progress=progress))


def measures(corpus: Corpus, atlas: Atlas, found: Mapping[str, Any]) -> dict[str, Any]:
    """All metrics of a report, for JSON: per layer those of `Corpus.measures`, mutual information with the classes,
    lift, distinct experts of a text, right against wrong, and per expert its tokens and its importance; and `found`,
    from `train.evaluation.reliance.measured`."""
    layers = []
    for index, name in enumerate(corpus.layers):
        experts = [
            {
                "expert": entry.expert,
                "tokens": [*map(word_json, entry.words)],
                "importance": entry.effect and entry.effect.change,
                "changes_class": entry.effect and entry.effect.flipped,
            }
            for entry in atlas.entries
            if entry.layer == name
        ]
        counts = class_counts(corpus, name)
        distinct = distinct_experts(corpus.text, corpus.choices(name), corpus.num_experts)
        layers.append(
            corpus.measures[index]
            | {
                "distinct_experts": distinct and asdict(distinct),
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
    atlas: Atlas,
    title: str,
    note: str,
    folder: Path,
    found: Mapping[str, Any] = MappingProxyType({}),
    agreed: Sequence[LayerAgreement] = (),
    other: str = "",
) -> None:
    """Write report.html, measures.json, atlas.csv, atlas.json, tokens.parquet and texts.parquet. Raises DataError when
    that fails.

    Args:
        agreed: the agreement with `other`, a checkpoint that routed the same texts.
    """
    from train.analysis.report import report_html

    section = agreement_html(agreed, other, 1 if corpus.experts is None else corpus.experts.shape[-1])
    try:
        with folder_written_aside(folder) as aside:
            write_tables(corpus, aside)
            write_atlas(atlas, corpus, aside)
            (aside / "measures.json").write_text(
                json.dumps(measures(corpus, atlas, found) | {"agreement": agreement_json(agreed)}, indent=2) + "\n",
                "utf-8",
            )
            (aside / "report.html").write_text(
                report_html(corpus, atlas, title, note, known(found), section), encoding="utf-8"
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
