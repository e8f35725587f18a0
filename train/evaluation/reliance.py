"""Expert reliance in sentences and tables, as Markdown or HTML.

Try it: sentences(Reliance.from_dict(read_training("assets/models/ag_news")["evaluation"]["reliance"]))
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from switch_model.analysis.reliance import Effect, Estimate, Reliance, reliance
from switch_model.grid.layer_names import layer_titles
from switch_model.inference.pipeline import AnyModel
from train.definitions import header
from train.formatting import counted, percent, signed
from train.templates import render

# Thresholds for the lost share of a metric beyond chance: below the first, the model hardly needs its experts (or the
# right ones); below the second, it needs them for a part.
HARDLY, SOME = 0.05, 0.5

# What is counted while it is measured, one of it and several. Passes differ in length: their number tells no time.
PASSES = ("text of all passes", "texts of all passes")
# Called with (texts done, total), of all passes.
Progress = Callable[[int, int], None] | None

HEAD = ("layer", "experts off", "choices shuffled", "most important expert off")


def drawn(rows: Sequence[Any], count: int) -> list[Any]:
    """At most `count` rows, sampled at random with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[index] for index in order.tolist()]


def measured(
    model: AnyModel,
    rows: Sequence[Mapping[str, Any]],
    count: int,
    progress: Progress = None,
) -> dict[str, Any]:
    """{"reliance": metrics on `count` random rows, for JSON, and their meaning "in_words"}; empty without rows or
    sparse layers. `rows` as in `switch_model.analysis.scoring.batches_of`."""
    if not count or not len(rows) or not model.config.sparse_layers:
        return {}
    found = reliance(model, drawn(rows, count), progress=progress)
    return {"reliance": {"in_words": sentences(found), **found.to_dict()}}


def known(metrics: Mapping[str, Any] | None) -> Reliance | None:
    """Expert reliance from an evaluation's metrics; None if they have none, or none that can be read."""
    try:
        return Reliance.from_dict(metrics["reliance"])
    except (KeyError, TypeError, ValueError):
        return None


def sentences(found: Reliance) -> list[str]:
    """The results in sentences."""
    said = [_without(found), _shuffled(found)]
    busiest = found.busiest_off
    if "class_changes" in busiest:
        points = signed(100 * busiest["probability_change"].value, 1)
        said.append(
            "With the busiest expert of each layer off in each text, the predicted class changes in "
            f"{percent(busiest['class_changes'].value)} of the texts, and its probability changes by {points} points "
            "on average."
        )
    else:
        said.append(f"With the busiest expert of each layer off in each text, {_result(found, busiest)}.")
    if len(found.layers) > 1:
        said.append(_by_layer(found))
    if (most := max(len(one.experts) for one in found.layers)) < found.num_experts:
        said.append(f"Of each layer’s {found.num_experts} experts, the {most} most used were switched off one by one.")
    return said


def _without(found: Reliance) -> str:
    with_them, off = found.as_it_is[found.figure], found.all_off[found.figure]
    beside = f"without them {_result(found, found.all_off)}, with them {_value(found, with_them)}"
    if found.figure == "accuracy" and found.chance == 1:
        return f"All these texts have the same class, so that accuracy tells little of what the experts do: {beside}."
    if found.chance is not None:
        chance = f"always predicting the most frequent class gives {percent(found.chance)}"
        if _is_at_chance(found):
            return f"With its experts and without, this model is at chance: {beside}; {chance}."
        if off.low <= found.chance:
            return f"Without its experts this model is at chance: {beside}; {chance}."
    if _lost(found, found.all_off) < HARDLY:
        return f"This model hardly needs its experts: {beside}."
    if not _is_certain(found, found.all_off):
        return f"Too few texts to tell whether this model needs its experts: {beside}."
    how_much = "partly needs" if _lost(found, found.all_off) < SOME else "needs"
    return f"This model {how_much} its experts: {beside}."


def _is_at_chance(found: Reliance) -> bool:
    """Whether the unchanged model is no better than always the most frequent class: then it has nothing to lose."""
    return found.figure == "accuracy" and found.chance is not None and found.as_it_is["accuracy"].low <= found.chance


def _shuffled(found: Reliance) -> str:
    told = f"with the choices of all layers shuffled among the tokens of all texts, {_result(found, found.shuffled)}"
    if _is_at_chance(found):
        return f"So it can’t be told whether it matters which expert a token goes to: {told}."
    if _lost(found, found.shuffled) < HARDLY:
        return f"Which expert a token goes to hardly matters: {told}."
    if not _is_certain(found, found.shuffled):
        return f"Too few texts to tell whether it matters which expert a token goes to: {told}."
    return f"It matters which expert a token goes to: {told}."


def _by_layer(found: Reliance) -> str:
    titles = layer_titles(one.layer for one in found.layers)
    missed = [titles[one.layer] for one in found.layers if _is_certain(found, one.off)]
    if not missed:
        return "Switching off the experts of any single layer makes no clear difference."
    if len(missed) == len(found.layers):
        return "Switching off the experts of any single layer makes the metric worse."
    rest = [title for title in titles.values() if title not in missed]
    return (
        f"Switching off the experts of {_listed(missed)} alone makes the metric worse; of {_listed(rest)} alone, it "
        "makes no clear difference."
    )


def _listed(titles: list[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"


def _lost(found: Reliance, effect: Effect) -> float:
    """The lost share of the metric beyond chance; for perplexity, the relative increase."""
    before, now = found.as_it_is[found.figure].value, effect[found.figure].value
    if found.figure == "perplexity":
        return now / before - 1
    beyond = before - (found.chance or 0.0)
    return (before - now) / beyond if beyond > 0 else 0.0


def _is_certain(found: Reliance, effect: Effect) -> bool:
    """Whether the metric is significantly worse (its 95 % interval excludes no change)."""
    change = effect["change"]
    return change.low > 0 if found.figure == "perplexity" else change.high < 0


def _result(found: Reliance, effect: Effect) -> str:
    value = _value(found, effect[found.figure])
    if found.figure == "accuracy":
        return f"{value} of the texts are classified correctly"
    if found.figure == "agreement":
        return f"{value} of the texts keep their class"
    return f"the perplexity is {value} and {percent(effect['accuracy'].value)} of the tokens are predicted"


def _value(found: Reliance, one: Estimate) -> str:
    return f"{one.value:,.2f}" if found.figure == "perplexity" else percent(one.value)


def facts(found: Reliance) -> str:
    """A caption for the table."""
    name = {"accuracy": "Accuracy", "agreement": "Texts that keep their class", "perplexity": "Perplexity"}[
        found.figure
    ]
    said = f"{name} on {counted(found.rows, 'random row', 'random rows')}, in brackets the 95 % confidence interval"
    if found.expert_rows < found.rows:
        said += f"; single experts on {found.expert_rows} of them"
    as_it_is, free = (_with_interval(found, effect[found.figure]) for effect in (found.as_it_is, found.without_limit))
    said += f". Unchanged: {as_it_is}."
    return said if as_it_is == free else f"{said} Without dropping tokens (baseline of the shuffled choices): {free}."


def _with_interval(found: Reliance, one: Estimate) -> str:
    if found.figure == "perplexity":
        return f"{one.value:,.2f} ({one.low:,.2f} to {one.high:,.2f})"
    return f"{percent(one.value)} ({percent(one.low)} to {percent(one.high)})"


def table(found: Reliance) -> list[tuple[str, ...]]:
    """A row for all layers, and one per layer; columns as in HEAD."""
    titles, rows = layer_titles(one.layer for one in found.layers), []
    if len(found.layers) > 1:
        both = (_with_interval(found, effect[found.figure]) for effect in (found.all_off, found.shuffled))
        rows.append(("all layers", *both, ""))
    for one in found.layers:
        expert, worst = max(zip(one.experts, one.experts_off, strict=True), key=lambda pair: _lost(found, pair[1]))
        cells = [_with_interval(found, effect[found.figure]) for effect in (one.off, one.shuffled, worst)]
        rows.append((titles[one.layer], *cells[:2], f"expert {expert}: {cells[2]}"))
    return rows


def markdown(found: Reliance) -> list[str]:
    """Lines for a model card."""
    rows = [f"| {' | '.join(row)} |" for row in (HEAD, *table(found))]
    rows.insert(1, "|---" * len(HEAD) + "|")
    return [" ".join(sentences(found)), "", *rows, "", facts(found)]


def html(found: Reliance) -> str:
    """The same for the page and for reports."""
    said = " ".join(sentences(found))
    return render(
        "evaluation/reliance.html", head=[*map(header, HEAD)], rows=table(found), said=said, facts=facts(found)
    )
