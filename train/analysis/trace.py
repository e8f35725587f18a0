"""Routing recorded elsewhere, analysed: a trace in, a folder with report and measures out.

Try it: python -m train analyze --from_trace capture.csv --top_k 8 --output report
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from switch_model.analysis.atlas import Atlas
from switch_model.analysis.corpus import Corpus
from switch_model.analysis.statistics import distinct_experts
from switch_model.grid.layer_names import layer_title
from switch_model.storage.whole_files import folder_written_aside
from switch_model.traces.agreement import LayerAgreement
from switch_model.traces.measures import layer_measures
from switch_model.traces.trace import RoutingTrace
from train.analysis.agreement import agreement_html, agreement_json
from train.analysis.analyze import write_tables
from train.analysis.atlas import atlas_html, write_atlas
from train.analysis.report import DISTINCT, NO_NAMES, distinct_in_words
from train.data.errors import DataError
from train.definitions import atlas_script, definitions_script, header
from train.evaluation.reliance import html as reliance_html
from train.evaluation.reliance import known
from train.formatting import counted, percent
from train.templates import plot_html, plotly_script, render


def write_trace_report(
    trace: RoutingTrace, title: str, folder: Path, found: Sequence[LayerAgreement] = (), other: str = ""
) -> str:
    """Write report.html and measures.json; `found` is the agreement with `other`. Returns the facts in a sentence.
    Raises DataError when that fails."""
    measures = layer_measures(trace)
    try:
        with folder_written_aside(folder) as aside:
            _write(aside, trace, measures, _report(trace, measures, title, found, other), found)
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error.strerror}.") from error
    return facts_in_words(trace)


def write_texts_report(
    corpus: Corpus,
    atlas: Atlas,
    title: str,
    note: str,
    folder: Path,
    relied: Mapping[str, Any] = MappingProxyType({}),
    found: Sequence[LayerAgreement] = (),
    other: str = "",
) -> str:
    """The report of a trace, with an expert atlas, of texts routed by a model that gives them no class: report.html,
    measures.json, atlas.csv, atlas.json and two parquet tables. Returns the facts in a sentence.

    Args:
        relied: from `train.evaluation.reliance.measured`.
        found: the agreement with `other`.

    Raises:
        DataError: when that fails.
    """
    trace = trace_of(corpus)
    # What a trace lacks, the corpus has measured.
    measures = [
        own | {key: whole[key] for key in ("token_entropy", "weight_mass") if key in whole}
        for own, whole in zip(layer_measures(trace), corpus.measures, strict=True)
    ]
    trace = replace(trace, notes=(note,) if note else ())
    try:
        with folder_written_aside(folder) as aside:
            sections = {"atlas": atlas_html(atlas, corpus), "reliance": (own := known(relied)) and reliance_html(own)}
            report = _report(trace, measures, title, found, other, **sections)
            _write(aside, trace, measures, report, found, relied)
            write_atlas(atlas, corpus, aside)
            write_tables(corpus, aside)
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error.strerror}.") from error
    return facts_in_words(trace)


def trace_of(corpus: Corpus) -> RoutingTrace:
    """A routed data set as a trace; its weights were not kept. Raises ValueError with expert choice."""
    if corpus.experts is not None and (corpus.experts < 0).any():
        raise ValueError(
            "With expert choice a token has any number of experts: how far two models agree is measured where each "
            "token has equally many."
        )
    own = zip(corpus.text.tolist(), corpus.start.tolist(), corpus.end.tolist(), corpus.token.tolist(), strict=True)
    return RoutingTrace(
        layers=corpus.layers,
        experts=np.stack([corpus.choices(layer) for layer in corpus.layers]).astype(np.int32),
        weights=None,
        num_experts=corpus.num_experts,
        text=corpus.text,
        position=corpus.position,
        tokens=[corpus.texts[text][start:end] or corpus.names[token] for text, start, end, token in own],
    )


def _write(
    folder: Path,
    trace: RoutingTrace,
    measures: list[dict[str, Any]],
    report: str,
    found: Sequence[LayerAgreement] = (),
    relied: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    values = {"layers": measures, "notes": trace.notes, "agreement": agreement_json(found), **relied}
    (folder / "measures.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    (folder / "report.html").write_text(report, "utf-8")


def facts_in_words(trace: RoutingTrace) -> str:
    """Size of a trace in a sentence."""
    return (
        f"{counted(int(trace.text.max()) + 1, 'text')}, {counted(len(trace.text), 'token')}, "
        f"{counted(len(trace.layers), 'layer')} of {counted(trace.num_experts, 'expert')}, "
        f"{trace.top_k} for each token."
    )


def distinct_of_trace(trace: RoutingTrace) -> str:
    """Distinct experts of its long texts in a sentence; "" where there is none."""
    found = [distinct_experts(trace.text, experts, trace.num_experts) for experts in trace.experts]
    return distinct_in_words(trace.layers, found, trace.num_experts)


def _report(
    trace: RoutingTrace,
    measures: list[dict[str, Any]],
    title: str,
    found: Sequence[LayerAgreement] = (),
    other: str = "",
    atlas: str = "",
    reliance: str | None = None,
) -> str:
    from switch_model.plots.traces import load_map

    return render(
        "analysis/trace_report.html",
        title=title,
        definitions=definitions_script() + atlas_script(),
        atlas=atlas,
        reliance=reliance,
        no_names=NO_NAMES,
        plotly=plotly_script(),
        facts=facts_in_words(trace),
        notes=trace.notes,
        layers=layer_table(measures),
        loads=plot_html(load_map([one["load"] for one in measures], trace.layers)),
        agreement=agreement_html(found, other, trace.top_k),
    )


def layer_table(measures: list[dict[str, Any]]) -> str:
    """A row per layer of a trace as HTML: load, idle, distinct and repeated experts, the strongest pair; beside
    chance."""
    distinct = (DISTINCT,) if all(one["distinct_experts"] for one in measures) else ()
    names = ("layer", "load CV (by chance)", "idle (by chance)", *distinct, "repeated (by chance)", "strongest pair")
    rows = []
    for one in measures:
        pairs = one.get("coactivation") or []
        strongest = "–"
        if pairs:
            (i, j), tokens, expected = pairs[0]["experts"], pairs[0]["tokens"], pairs[0]["expected"]
            strongest = f"{i} and {j}: {counted(tokens, 'token')} ({expected:.1f})"
        repeated = "–"
        if one["repeated"] is not None:
            repeated = f"{percent(one['repeated'])} ({percent(one['repeated_chance'])})"
        by_chance = one.get("load_cv_chance")
        cv = f"{one['load_cv']:.2f}" + ("" if by_chance is None else f" ({by_chance:.2f})")
        idle, own = f"{one['idle']} ({one['idle_chance']:.1f})", one["distinct_experts"]
        several = [f"{own['mean']:.1f} ({own['chance']:.1f})" for _ in distinct]
        rows.append((layer_title(one["layer"]), cv, idle, *several, repeated, strongest))
    return render("evaluation/number_table.html", head=[*map(header, names)], rows=rows)
