"""The expert atlas as a table for page and report, in sentences, and as files.

Try it: atlas_html(expert_atlas(corpus), corpus)
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from switch_model.analysis.atlas import RATE, Atlas, ExpertEntry
from switch_model.analysis.corpus import Corpus
from switch_model.analysis.effects import ExpertEffect
from switch_model.analysis.specialization import TokenShare, contexts
from switch_model.grid.layer_names import layer_title
from train.definitions import header
from train.formatting import counted, percent, signed
from train.templates import render

# Rows of the table in a page or report, which a browser sorts; the files have all.
MOST_ROWS = 600
SHOWN_WORDS, KEPT_CONTEXTS = 5, 5
_HEAD = ("layer", "number", "share of tokens", "typical tokens", "found", "stability (by chance)")
_OF_CLASSES, _OF_EFFECTS = ("typical class (q)",), ("effect (by chance)", "q of the effect")


def atlas_html(atlas: Atlas, corpus: Corpus, picks: bool = False) -> str:
    """The atlas as a table that can be sorted and searched.

    Args:
        picks: whether the number of an expert is a button, with its place among the entries.
    """
    entries = list(enumerate(atlas.entries))
    shown = sorted(sorted(entries, key=lambda one: -one[1].found)[:MOST_ROWS])
    with_classes = any(entry.classes for _, entry in shown)
    with_effects = any(entry.effect for _, entry in shown)
    head = [*_HEAD, *(_OF_CLASSES if with_classes else ()), *(_OF_EFFECTS if with_effects else ())]
    rows = [
        {
            "place": place,
            "expert": entry.expert,
            "words": [(one.token, is_found(one)) for one in entry.words[:SHOWN_WORDS]],
            "searched": " ".join(
                [f"{layer_title(entry.layer)} expert {entry.expert}", *(one.token for one in entry.words)]
                + [one.name for one in entry.classes[:1]]
            ).lower(),
            "cells": _cells(entry, corpus.classified, with_classes, with_effects),
            "layer": layer_title(entry.layer),
        }
        for place, entry in shown
    ]
    return render(
        "analysis/atlas.html",
        head=[(name, header(name)) for name in head],
        rows=rows,
        said=atlas_in_words(atlas),
        left_out=len(entries) - len(shown),
        picks=picks,
    )


def _cells(
    entry: ExpertEntry, classified: bool, with_classes: bool, with_effects: bool
) -> dict[str, list[tuple[float, str]]]:
    """(what it is sorted by, what is shown) before and behind the tokens."""
    stability = "–"
    if entry.stability is not None:
        by_chance = "" if entry.stability_chance is None else f" ({signed(entry.stability_chance, 2)})"
        stability = f"{signed(entry.stability, 2)}{by_chance}"
    behind = [
        (float(entry.found), f"{entry.found:,}"),
        (-9.0 if entry.stability is None else entry.stability, stability),
    ]
    if with_classes:
        first = entry.classes[0] if entry.classes else None
        told = "–" if first is None else f"{first.name} {signed(first.lift, 1)} ({q_in_words(first.q)})"
        behind.append((-99.0 if first is None else first.lift, told))
    if with_effects:
        effect = entry.effect
        told = "–" if effect is None else f"{_size(effect.change, classified)} ({_size(effect.chance, classified)})"
        behind.append((99.0 if effect is None else effect.change, told))
        behind.append((9.0 if effect is None else effect.q, "–" if effect is None else q_in_words(effect.q)))
    return {"before": [(entry.share, percent(entry.share))], "behind": behind}


def atlas_in_words(atlas: Atlas) -> str:
    """What was found in all, beside chance."""
    tested = f"{counted(atlas.vocabulary, 'token')} and {counted(len(atlas.entries), 'expert')}"
    return (
        f"Of all pairs of {tested}, {atlas.found:,} are together more often than chance, at a false discovery rate of "
        f"{100 * RATE:.0f}\u00a0%; with the routes of each text permuted, {atlas.found_chance:,.1f}. Bold: such a pair."
    )


def is_found(one: TokenShare) -> bool:
    """Whether an expert takes a token more often than chance would, at the atlas' false discovery rate."""
    return one.q is not None and one.q <= RATE


def q_in_words(q: float) -> str:
    """A false discovery rate with three digits."""
    return f"q {q:.3f}" if q >= 0.001 else "q < 0.001"


def effect_in_words(effect: ExpertEffect) -> str:
    """What is lost without an expert, beside random experts of the same load."""
    classifies = effect.flipped is not None
    change, chance, low, high = (
        _size(one, classifies) for one in (effect.change, effect.chance, effect.low, effect.high)
    )
    what = "the predicted class’s probability" if classifies else "the log-probability of a token"
    points = " points" if classifies else ""
    said = (
        f"without it {what} changes by {change}{points} on average (random experts of the same load: {chance}, 95 % of "
        f"them {low} to {high}; {q_in_words(effect.q)})"
    )
    texts = counted(effect.texts, "text")
    return (
        f"{said}, and the class changes in {percent(effect.flipped)} of {texts}" if classifies else f"{said}, {texts}"
    )


def _size(change: float, classifies: bool) -> str:
    return signed(100 * change, 1) if classifies else signed(change, 3)


_COLUMNS = [
    "layer",
    "expert",
    "tokens",
    "share",
    "texts",
    "typical_tokens",
    "found",
    "stability",
    "stability_by_chance",
    "typical_class",
    "class_lift",
    "class_q",
    "effect",
    "effect_by_chance",
    "effect_low",
    "effect_high",
    "effect_p",
    "effect_q",
    "class_changes",
    "effect_texts",
]


def atlas_csv(atlas: Atlas) -> str:
    """A row for each expert; tokens that were found alone, separated by spaces, the others in brackets."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in atlas.entries:
        words = " ".join(word.token if is_found(word) else f"({word.token})" for word in one.words)
        first, effect = (one.classes or [None])[0], one.effect
        told: Sequence[Any] = ("", "", "") if first is None else (first.name, _rounded(first.lift), _rounded(first.q))
        measured: Sequence[Any] = [""] * 8
        if effect is not None:
            numbers = (effect.change, effect.chance, effect.low, effect.high, effect.p, effect.q, effect.flipped)
            measured = [*map(_rounded, numbers), effect.texts]
        sizes = (one.tokens, _rounded(one.share), one.texts, words, one.found)
        stability = (_rounded(one.stability), _rounded(one.stability_chance))
        writer.writerow([one.layer, one.expert, *sizes, *stability, *told, *measured])
    return file.getvalue()


def atlas_json(atlas: Atlas, corpus: Corpus) -> dict[str, Any]:
    """All of it, with contexts of each expert's first tokens."""
    return {
        "texts": len(corpus.texts),
        "tokens": len(corpus.token),
        "rate": RATE,
        "vocabulary": atlas.vocabulary,
        "found": atlas.found,
        "found_by_chance": atlas.found_chance,
        "experts": [
            asdict(one)
            | {
                "words": [word_json(word) for word in one.words],
                "contexts": [
                    {"text": place.text, "before": place.before, "token": place.token, "after": place.after}
                    for place in contexts(corpus, one.layer, one.expert, one.words, KEPT_CONTEXTS)
                ],
            }
            for one in atlas.entries
        ],
    }


def write_atlas(atlas: Atlas, corpus: Corpus, folder: Path) -> tuple[Path, Path]:
    """Write atlas.csv, a row for each expert, and atlas.json, all of it."""
    paths = folder / "atlas.csv", folder / "atlas.json"
    paths[0].write_text(atlas_csv(atlas), encoding="utf-8")
    values = json.dumps(atlas_json(atlas, corpus), indent=1, ensure_ascii=False, allow_nan=False)
    paths[1].write_text(values + "\n", encoding="utf-8")
    return paths


def word_json(one: TokenShare) -> dict[str, Any]:
    """A token of an expert for JSON; null where a half of the texts has no occurrence."""
    halves = None if one.halves is None else [None if math.isnan(lift) else lift for lift in one.halves]
    return asdict(one) | {"score": one.score, "halves": halves}


def _rounded(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.6g}")
