"""Routing recorded elsewhere, analysed: a trace in, a folder with report and measures out.

Try it: python -m train analyze --from_trace capture.csv --top_k 8 --output report
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from switch_model.analysis.corpus import batches_by_length
from switch_model.analysis.layer_names import layer_title
from switch_model.inference.pipeline import TextPipeline, padded
from switch_model.storage.whole_files import folder_written_aside
from switch_model.topk_routing import TopKRouting
from switch_model.traces.agreement import LayerAgreement
from switch_model.traces.measures import layer_measures
from switch_model.traces.trace import RoutingTrace
from train.data.errors import DataError
from train.definitions import definitions_script, header
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
            values = {"layers": measures, "notes": trace.notes, "agreement": [_plain(one) for one in found]}
            (aside / "measures.json").write_text(json.dumps(values, indent=2) + "\n", "utf-8")
            (aside / "report.html").write_text(_report(trace, measures, title, found, other), "utf-8")
    except OSError as error:
        raise DataError(f"{folder} can't be written: {error.strerror}.") from error
    return facts_in_words(trace)


@torch.inference_mode()
def route_texts(
    pipeline: TextPipeline, texts: Sequence[str], progress: Callable[[int, int], None] | None = None
) -> RoutingTrace:
    """The routing of texts by a model that reads them with one stack. Raises DataError when none has a token."""
    read = [one for one in map(pipeline.read, texts) if one.ids]
    if not read:
        raise DataError("None of the texts has a token: there is nothing to analyse.")
    lengths, model = np.array([len(one.ids) for one in read]), pipeline.model
    parts: list[list[TopKRouting]] = [[]] * len(read)
    done = 0
    for rows in batches_by_length(lengths):
        ids, mask = padded([read[row].ids for row in rows], model.config.pad_token_id)
        records = model(ids.to(model.device), mask.to(model.device), output_routing=True).routing
        for place, row in enumerate(rows):
            parts[row] = [record.example(place).detached() for record in records]
        done += len(rows)
        if progress:
            progress(done, len(read))
    layers = list(zip(*parts, strict=True))
    return RoutingTrace(
        layers=tuple(own[0].name for own in layers),
        experts=np.stack([np.concatenate([one.experts[0].numpy() for one in own]) for own in layers]).astype(np.int32),
        weights=np.stack([np.concatenate([one.weights[0].numpy() for one in own]) for own in layers]),
        num_experts=model.config.num_experts,
        text=np.repeat(np.arange(len(read)), lengths),
        position=np.concatenate([np.arange(length) for length in lengths]),
        tokens=[token for one in read for token in one.tokens],
    )


def facts_in_words(trace: RoutingTrace) -> str:
    """Size of a trace in a sentence."""
    return (
        f"{counted(int(trace.text.max()) + 1, 'text')}, {counted(len(trace.text), 'token')}, "
        f"{counted(len(trace.layers), 'layer')} of {counted(trace.num_experts, 'expert')}, "
        f"{trace.top_k} for each token."
    )


def _report(
    trace: RoutingTrace, measures: list[dict[str, Any]], title: str, found: Sequence[LayerAgreement], other: str
) -> str:
    from switch_model.plots.traces import agreement_by_layer, load_map

    return render(
        "analysis/trace_report.html",
        title=title,
        definitions=definitions_script(),
        plotly=plotly_script(),
        facts=facts_in_words(trace),
        notes=trace.notes,
        layers=layer_table(measures),
        loads=plot_html(load_map([one["load"] for one in measures], trace.layers)),
        agreement=agreement_table(found) if found else "",
        agreement_plot=plot_html(agreement_by_layer(found)) if found else "",
        other=other,
        top_k=trace.top_k,
    )


def layer_table(measures: list[dict[str, Any]]) -> str:
    names = ("layer", "load CV (by chance)", "idle (by chance)", "repeated (by chance)", "strongest pair")
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
        rows.append((layer_title(one["layer"]), cv, f"{one['idle']} ({one['idle_chance']:.1f})", repeated, strongest))
    return render("evaluation/number_table.html", head=[*map(header, names)], rows=rows)


def agreement_table(found: Sequence[LayerAgreement]) -> str:
    names = ("layer", "same experts (by chance)", "rank (by chance)", "same first choice (by chance)")
    rows = [
        (
            layer_title(one.layer),
            f"{percent(one.overlap)} ({percent(one.overlap_chance)})",
            f"{percent(one.rank)} ({percent(one.rank_chance)})",
            f"{percent(one.same_first)} ({percent(one.same_first_chance)})",
        )
        for one in found
    ]
    return render("evaluation/number_table.html", head=[*map(header, names)], rows=rows)


def _plain(one: LayerAgreement) -> dict[str, Any]:
    values = asdict(one)
    values["by_position"] = [None if value != value else round(float(value), 4) for value in one.by_position]
    return {key: round(float(value), 6) if isinstance(value, float) else value for key, value in values.items()}
