"""A routed data set as HTML: tables and cards for the page, and a self-contained report that opens offline.

The templates are report.html and expert_card.html; values are escaped automatically.
Try it: report_html(corpus, expert_atlas(corpus), "AG News, test", "")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from switch_model.analysis.atlas import Atlas, ExpertEntry
from switch_model.analysis.corpus import Corpus
from switch_model.analysis.reliance import Reliance
from switch_model.analysis.specialization import (
    AgainstChance,
    TokenShare,
    caution,
    class_counts,
    class_information,
    contexts,
    lift,
    listed_tokens,
    most_telling,
    right_against_wrong,
)
from switch_model.analysis.statistics import LONG_TEXT, DistinctExperts, distinct_experts
from switch_model.grid.layer_names import layer_title
from train.analysis.atlas import atlas_html, effect_in_words, q_in_words
from train.definitions import atlas_script, definitions_script, header
from train.evaluation.reliance import html as reliance_html
from train.formatting import counted, percent, signed
from train.templates import plot_html, plotly_script, render

SHOWN_TOKENS, SHOWN_CLASSES, SHOWN_CONTEXTS = 10, 8, 3
# Confusion matrices with more classes are not shown.
MAX_MATRIX = 40


# A column of the table of layers.
DISTINCT = "distinct experts (by chance)"
# The class information of every layer, by its name.
Told = Mapping[str, AgainstChance]


def told_of_class(corpus: Corpus) -> Told:
    """Empty where no class is known."""
    return {layer: class_information(corpus, layer) for layer in corpus.layers} if corpus.classes else {}


def layer_table(corpus: Corpus, told: Told) -> str:
    """A row per sparse layer: load, entropies, drops where there can be any, distinct experts where a text is long
    enough, and mutual information with the classes."""
    information = ("mutual information with the class (normalised)",) if told else ()
    drops = ("dropped",) if corpus.may_drop else ()
    found = distinct_of(corpus)
    distinct = (DISTINCT,) if all(found) else ()
    names = ("layer", "load CV", "load entropy", "token entropy", "balance loss", *drops, *distinct, *information)
    rows = []
    for index, name in enumerate(corpus.layers):
        one = corpus.measures[index]
        numbers = [f"{one[key]:.2f}" for key in ("load_cv", "load_entropy", "token_entropy", "balance_loss")]
        numbers += [percent(one["drop_rate"]) for _ in drops]
        numbers += [f"{found[index].mean:.1f} ({found[index].chance:.1f})" for _ in distinct]
        numbers += [told_in_words(told[name]) for _ in information]
        rows.append((layer_title(name), *numbers))
    return render("evaluation/number_table.html", head=[*map(header, names)], rows=rows)


def distinct_of(corpus: Corpus) -> list[DistinctExperts | None]:
    """Distinct experts of long texts, of every layer."""
    return [distinct_experts(corpus.text, corpus.choices(name), corpus.num_experts) for name in corpus.layers]


def distinct_in_words(layers: Sequence[str], found: Sequence[DistinctExperts | None], num_experts: int) -> str:
    """The same in a sentence, every layer; "" where no text is long enough."""
    known = [(layer_title(name), one) for name, one in zip(layers, found, strict=True) if one]
    if not known:
        return ""
    means = ", ".join(f"{title} {one.mean:.1f} ({one.chance:.1f})" for title, one in known)
    return (
        f"Distinct experts in a text of {LONG_TEXT} tokens and more, of {num_experts} (in brackets by chance; mean "
        f"over {counted(known[0][1].texts, 'text')}): {means}."
    )


def told_in_words(told: AgainstChance) -> str:
    """A metric beside its chance level: "2.3 % (shuffled 0.1 %)"."""
    return f"{percent(told.value)} (shuffled {percent(told.chance)})"


def expert_card(corpus: Corpus, layer: str, expert: int, entry: ExpertEntry | None = None) -> str:
    """Tokens, classes, contexts and effect of one expert, with a warning if the evidence is thin.

    Args:
        entry: what the atlas has of it, with its effect where that was measured.
    """
    takes = corpus.takes(layer, expert)
    count, texts = int(takes.sum()), len(np.unique(corpus.text[takes]))
    facts = f"{count:,} tokens ({percent(count / len(corpus.token))}) of {counted(texts, 'text', 'texts')}"
    if entry is not None and entry.effect is not None:
        facts += f" · {effect_in_words(entry.effect)}"
    listed = listed_tokens(corpus, layer, expert, SHOWN_TOKENS) if entry is None else entry.words
    tested = () if entry is None else ("q", "lift in two halves")
    return render(
        "analysis/expert_card.html",
        expert=expert,
        layer=layer_title(layer),
        facts=facts,
        caution=caution(corpus, layer, expert),
        head=[*map(header, ("token", "count", "share here", "lift", "score", *tested))],
        rows=[
            (one.token, f"{one.count:,}", percent(one.share), signed(one.lift, 1), f"{one.score:,.1f}", *_test(one))
            for one in listed
        ],
        chance=percent(count / len(corpus.token)),
        kind="sources" if not corpus.classified else "classes" if corpus.labelled else "predicted classes",
        lifts=" · ".join(_lifts_in_words(corpus, layer, expert, entry)),
        contexts=contexts(corpus, layer, expert, listed, SHOWN_CONTEXTS),
    )


def _test(one: TokenShare) -> tuple[str, ...]:
    if one.q is None or one.halves is None:
        return ()
    halves = ("–" if np.isnan(lift) else signed(lift, 1) for lift in one.halves)
    return q_in_words(one.q).removeprefix("q "), " · ".join(halves)


def _lifts_in_words(corpus: Corpus, layer: str, expert: int, entry: ExpertEntry | None) -> list[str]:
    """The classes whose lift is farthest from 0, with the false discovery rate where the atlas has one."""
    if not corpus.classes:
        return []
    lifts = lift(class_counts(corpus, layer))[:, expert]
    order = [index for index in np.argsort(-np.abs(lifts)) if not np.isnan(lifts[index])][:SHOWN_CLASSES]
    rates = {} if entry is None else {one.name: f" ({q_in_words(one.q)})" for one in entry.classes}
    names = [corpus.classes[index] for index in order]
    return [f"{name} {signed(lifts[index], 2)}{rates.get(name, '')}" for name, index in zip(names, order, strict=True)]


def confusion(corpus: Corpus) -> np.ndarray | None:
    """(C, C) texts by true (row) and predicted (column) class; None where either is unknown."""
    known = corpus.true >= 0
    if not known.any() or not corpus.classified:
        return None
    size = len(corpus.classes)
    pairs = corpus.true[known] * size + corpus.predicted[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def report_html(
    corpus: Corpus, atlas: Atlas, title: str, note: str, found: Reliance | None = None, agreed: str = ""
) -> str:
    """The whole report of a classifier in one file, which includes plotly; `agreed` is a section on another model."""
    from switch_model.plots.corpus import class_lift, drops_by_position, layer_loads, right_and_wrong_loads

    def described(layer: str) -> dict[str, Any]:
        said, loads = right_wrong_in_words(corpus, layer)
        experts = range(corpus.num_experts)
        return {
            "title": layer_title(layer).capitalize(),
            "information": information_in_words(corpus, layer, told),
            "lift": plot_html(class_lift(corpus, layer)),
            "right_and_wrong": said,
            "right_and_wrong_loads": "" if loads is None else plot_html(right_and_wrong_loads(loads)),
            "cards": [expert_card(corpus, layer, expert, atlas.entry(layer, expert)) for expert in experts],
        }

    told = told_of_class(corpus)
    matrix = confusion(corpus)
    drawn = matrix is not None and len(matrix) <= MAX_MATRIX
    return render(
        "analysis/report.html",
        title=title,
        plotly=plotly_script(),
        facts=facts_in_words(corpus),
        note=note,
        layer_table=layer_table(corpus, told),
        most_telling=most_telling_in_words(told),
        loads=plot_html(layer_loads(corpus)),
        drops=plot_html(drops_by_position(corpus)) if corpus.may_drop else "",
        reliance=found and reliance_html(found),
        matrix=matrix.tolist() if drawn else None,
        most=max(int(matrix.max()), 1) if drawn else 1,
        classes=corpus.classes,
        layers=[described(layer) for layer in corpus.layers],
        atlas=atlas_html(atlas, corpus),
        agreement=agreed,
        no_names=NO_NAMES,
        definitions=definitions_script() + atlas_script(),
        corner=header("true class"),
    )


NO_NAMES = (
    "A lift shows which tokens an expert receives, not what it does with them. To name an expert, look for lift on "
    "enough tokens, above shuffled labels, and for a change of the prediction without it."
)


def facts_in_words(corpus: Corpus) -> str:
    """Size and accuracy in a sentence."""
    known = int((corpus.true >= 0).sum())
    which = "the texts" if known == len(corpus.texts) else f"the {known:,} texts with a known class"
    right = "" if corpus.accuracy is None else f" {percent(corpus.accuracy)} of {which} are classified correctly."
    size = [
        counted(len(corpus.texts), "text", "texts"),
        counted(len(corpus.token), "token", "tokens"),
        counted(len(corpus.layers), "sparse layer", "sparse layers"),
    ]
    return f"{', '.join(size)}.{right}"


def information_in_words(corpus: Corpus, layer: str, told: Told) -> str:
    """Mutual information of expert and class, beside chance, and whether any layer's is higher; "" without classes."""
    if layer not in told:
        return ""
    here = told[layer]
    verdict = "more than chance" if here.beyond_chance else "no more than chance"
    kind = "source" if not corpus.classified else "class" if corpus.labelled else "predicted class"
    said = (
        f"Mutual information of a token’s expert with the text’s {kind}, normalised: {told_in_words(here)}, {verdict}."
    )
    return f"{said} {most_telling_in_words(told)}" if layer == most_telling(told) else said


def most_telling_in_words(told: Told) -> str:
    """Which layer is looked at first, and why; "" where there is one only."""
    if len(told) < 2:
        return ""
    layer = most_telling(told)
    if not told[layer].beyond_chance:
        return f"No layer tells more of the class than chance; {layer_title(layer)} comes closest."
    return f"Of all layers, {layer_title(layer)} tells most of the class."


def right_wrong_in_words(corpus: Corpus, layer: str) -> tuple[str, np.ndarray | None]:
    """Whether wrongly predicted texts are routed differently, and both loads; None if they can't be compared, and ""
    where nothing is predicted."""
    if not corpus.classified:
        return "", None
    try:
        loads, apart = right_against_wrong(corpus, layer)
    except ValueError as error:
        return str(error), None
    verdict = "more than chance" if apart.beyond_chance else "no more than chance"
    said = "Wrongly predicted texts use other experts than correctly predicted ones for"
    return f"{said} {percent(apart.value)} of their tokens (shuffled {percent(apart.chance)}): {verdict}.", loads
