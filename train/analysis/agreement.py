"""How far two traces, or two checkpoints on the same texts, send tokens to the same experts: tables, sections, numbers.

Try it: agreement_html(agreement(one, other), "the other", 8)
"""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from switch_model.grid.layer_names import layer_title
from switch_model.traces.agreement import LayerAgreement
from train.definitions import header
from train.formatting import percent
from train.templates import plot_html, render


def agreement_table(found: Sequence[LayerAgreement], top_k: int) -> str:
    """A row per layer as HTML: agreement of the chosen experts, of their ranks and of the first ones, beside chance.

    Of one expert for each token, ranks and first choices say nothing more.
    """
    names = ("layer", "same experts (by chance)", "rank (by chance)", "same first choice (by chance)")
    shown = len(names) if top_k > 1 else 2
    rows = [
        (
            layer_title(one.layer),
            f"{percent(one.overlap)} ({percent(one.overlap_chance)})",
            f"{percent(one.rank)} ({percent(one.rank_chance)})",
            f"{percent(one.same_first)} ({percent(one.same_first_chance)})",
        )[:shown]
        for one in found
    ]
    return render("evaluation/number_table.html", head=[*map(header, names[:shown])], rows=rows)


def agreement_html(found: Sequence[LayerAgreement], other: str, top_k: int) -> str:
    """A section of a report, with plots by layer and by position; "" where nothing was compared."""
    if not found:
        return ""
    from switch_model.plots.traces import agreement_by_layer, agreement_by_position

    return render(
        "analysis/agreement.html",
        other=other,
        table=agreement_table(found, top_k),
        plot=plot_html(agreement_by_layer(found, top_k)),
        positions=plot_html(agreement_by_position(found)),
        top_k=top_k,
    )


def agreement_in_words(found: Sequence[LayerAgreement], other: str) -> str:
    """One sentence; "" where nothing was compared."""
    if not found:
        return ""
    same, chance = fmean(one.overlap for one in found), fmean(one.overlap_chance for one in found)
    return f"A token's experts are the same as with {other}: {percent(same)} (by chance {percent(chance)})."


def agreement_json(found: Sequence[LayerAgreement]) -> list[dict[str, Any]]:
    """Plain numbers for JSON, a dict per layer; null at a position without tokens."""
    return [*map(_plain, found)]


def _plain(one: LayerAgreement) -> dict[str, Any]:
    values = asdict(one)
    values["by_position"] = [None if value != value else round(float(value), 4) for value in one.by_position]
    return {key: round(float(value), 6) if isinstance(value, float) else value for key, value in values.items()}
