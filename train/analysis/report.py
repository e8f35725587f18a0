"""A routed data set as HTML: tables and cards for the page, and a whole report that opens without a network.

Every text that is not ours goes through html.escape.
Try it: report_html(corpus, None, "AG News, test", "")
"""

from html import escape

import numpy as np

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.layer_names import layer_title
from switch_model.analysis.reliance import Reliance
from switch_model.analysis.specialization import (
    AgainstChance,
    Context,
    caution,
    class_counts,
    class_information,
    contexts,
    lift,
    right_against_wrong,
    vocabulary,
)
from train.evaluation.reliance import html as reliance_html
from train.formatting import counted

SHOWN_TOKENS, SHOWN_CLASSES = 10, 8
# A confusion matrix with more classes than this is no picture any more.
MAX_MATRIX = 40

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2125; background: #fbfaf7; }
body { max-width: 1080px; margin: 24px auto; padding: 0 20px; }
h1 { font-size: 22px; } h2 { font-size: 17px; margin-top: 36px; } h3 { font-size: 14px; margin: 18px 0 6px; }
table { border-collapse: collapse; font-size: 13.5px; }
td, th { border-bottom: 1px solid #e5e2da; padding: 4px 14px 4px 0; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.facts, .caution { color: #666d78; font-size: 13px; } .caution { color: #8a5a00; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 14px; }
.expert-card { background: #fff; border: 1px solid #e5e2da; border-radius: 10px; padding: 12px 14px; }
.context { font-size: 13px; margin: 4px 0; } .context mark { background: #f6e3b5; }
.matrix td { text-align: center; } .matrix td, .matrix th { padding: 6px 10px; }
@media (prefers-color-scheme: dark) {
  body { color: #e8e6e1; background: #14161a; }
  .expert-card { background: #1c1f25; border-color: #2c3038; } td, th { border-color: #2c3038; }
  .context mark { background: #6b5520; color: inherit; } .caution { color: #e0b45c; }
}
"""


def layer_table(corpus: Corpus) -> str:
    """A row per sparse layer: load, entropies, drops, and what it tells of the classes."""
    told_by = "told of the class by a token’s expert"
    head = ("layer", "load CV", "load entropy", "token entropy", "balance loss", "dropped", told_by)
    rows = []
    for index, name in enumerate(corpus.layers):
        one, told = corpus.measures[index], class_information(corpus, name)
        numbers = [f"{one[key]:.2f}" for key in ("load_cv", "load_entropy", "token_entropy", "balance_loss")]
        numbers += [f"{one['drop_rate']:.1%}", told_in_words(told)]
        rows.append(
            f"<tr><th>{layer_title(name)}</th>{''.join(f'<td class=number>{number}</td>' for number in numbers)}</tr>"
        )
    titles = "".join(f"<th{' class=number' if index else ''}>{title}</th>" for index, title in enumerate(head))
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def told_in_words(told: AgainstChance) -> str:
    """A measure beside its chance: "2.31 % (shuffled 0.12 %)"."""
    return f"{100 * told.value:.2f} % (shuffled {100 * told.chance:.2f} %)"


def expert_card(corpus: Corpus, layer: str, expert: int, importance: tuple[float, float, float] | None) -> str:
    """Tokens, classes, contexts and importance of one expert, with a word of caution where the evidence is thin.

    Args:
        importance: mean change of the predicted class's probability without it, share of texts whose class changes, and
            how many were tried.
    """
    takes = corpus.expert[corpus.layer_index(layer)] == expert
    count, texts = int(takes.sum()), len(np.unique(corpus.text[takes]))
    facts = f"{count:,} tokens ({count / len(corpus.token):.1%}) of {counted(texts, 'text', 'texts')}"
    if importance is not None:
        change, flipped, tried = importance
        points = f"{100 * change:+.2f}".replace("-", "−")
        facts += f" · without it the predicted class gets {points} points on average, and the class changes in "
        facts += f"{100 * flipped:.0f} % of the {tried:.0f} texts tried"
    warned = caution(corpus, layer, expert)
    return (
        f"<h3>Expert {expert} of {layer_title(layer)}</h3><p class=facts>{facts}</p>"
        + (f'<p class="caution">{warned}</p>' if warned else "")
        + _tokens_table(corpus, layer, expert)
        + _classes_line(corpus, layer, expert)
        + "".join(context_html(one) for one in contexts(corpus, layer, expert, 3))
    )


def _tokens_table(corpus: Corpus, layer: str, expert: int) -> str:
    shown = [one for one in vocabulary(corpus, layer, expert) if one.lift > 0][:SHOWN_TOKENS]
    if not shown:
        return "<p class=facts>No frequent token goes here more often than all tokens do.</p>"
    rows = "".join(
        f"<tr><td>{escape(one.token)}</td><td class=number>{one.count:,}</td><td class=number>{one.share:.0%}</td>"
        f"<td class=number>{one.lift:+.1f}</td></tr>"
        for one in shown
    )
    head = "<th>token</th><th class=number>occurs</th><th class=number>comes here</th><th class=number>lift</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _classes_line(corpus: Corpus, layer: str, expert: int) -> str:
    values = lift(class_counts(corpus, layer))[:, expert]
    order = [index for index in np.argsort(-np.abs(values)) if not np.isnan(values[index])][:SHOWN_CLASSES]
    said = " · ".join(f"{escape(corpus.classes[index])} {values[index]:+.2f}" for index in order)
    kind = "classes" if corpus.labelled else "predicted classes"
    return f"<p class=facts>Lift of {kind}: {said}</p>"


def context_html(context: Context) -> str:
    """A snippet with its token marked."""
    return (
        f'<p class="context" dir="auto">{escape(context.before)}<mark>{escape(context.token)}</mark>'
        f"{escape(context.after)}</p>"
    )


def confusion(corpus: Corpus) -> np.ndarray | None:
    """(C, C) texts by true (row) and predicted (column) class; None where true classes are unknown."""
    known = corpus.true >= 0
    if not known.any():
        return None
    size = len(corpus.classes)
    pairs = corpus.true[known] * size + corpus.predicted[known]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def report_html(
    corpus: Corpus, importance: np.ndarray | None, title: str, note: str, found: Reliance | None = None
) -> str:
    """The whole report in one file. Pictures are drawn by plotly, which the file holds."""
    from plotly.offline import get_plotlyjs

    from switch_model.plots.corpus import class_lift, drops_by_position, layer_loads, right_and_wrong_loads

    def picture(figure) -> str:
        return figure.to_html(full_html=False, include_plotlyjs=False, config={"displayModeBar": False})

    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=facts>{facts_in_words(corpus)} {escape(note)}</p>",
        f"<h2>Layers</h2>{layer_table(corpus)}",
        f"<h2>Load of every expert, as a multiple of an even share</h2>{picture(layer_loads(corpus))}",
        f"<h2>Dropped tokens by position in the text</h2>{picture(drops_by_position(corpus))}",
    ]
    if found is not None:
        parts.append(f"<h2>Do the experts matter?</h2>{reliance_html(found)}")
    if (matrix := confusion(corpus)) is not None and len(matrix) <= MAX_MATRIX:
        parts.append(f"<h2>True class (row) and predicted class (column)</h2>{_matrix_html(matrix, corpus.classes)}")
    for index, layer in enumerate(corpus.layers):
        parts.append(f"<h2>{layer_title(layer).capitalize()}: which classes use which expert (log2 lift)</h2>")
        parts.append(f"<p class=facts>{information_in_words(corpus, layer)}</p>{picture(class_lift(corpus, layer))}")
        said, loads = right_wrong_in_words(corpus, layer)
        parts.append(f"<p class=facts>{said}</p>")
        if loads is not None:
            parts.append(picture(right_and_wrong_loads(loads)))
        measured = [None] * corpus.num_experts if importance is None else list(map(tuple, importance[index]))
        cards = "".join(
            f'<div class="expert-card">{expert_card(corpus, layer, expert, measured[expert])}</div>'
            for expert in range(corpus.num_experts)
        )
        parts.append(f'<div class="cards">{cards}</div>')
    parts.append(f"<p class=facts>{NO_NAMES}</p>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head><body>{''.join(parts)}</body></html>\n"
    )


NO_NAMES = (
    "A lift shows what comes to an expert, not what it is for. To name an expert takes a lift, enough tokens, more "
    "than shuffled labels give, and a change of the prediction without it."
)


def facts_in_words(corpus: Corpus) -> str:
    """Size and accuracy in a sentence."""
    known = int((corpus.true >= 0).sum())
    which = "the texts" if known == len(corpus.texts) else f"the {known:,} texts with a known class"
    right = "" if corpus.accuracy is None else f" {corpus.accuracy:.1%} of {which} are classified right."
    size = [
        counted(len(corpus.texts), "text", "texts"),
        counted(len(corpus.token), "token", "tokens"),
        counted(len(corpus.layers), "sparse layer", "sparse layers"),
    ]
    return f"{', '.join(size)}.{right}"


def information_in_words(corpus: Corpus, layer: str) -> str:
    """How much a token's expert tells of its text's class, beside chance."""
    told = class_information(corpus, layer)
    verdict = "more than chance" if told.beyond_chance else "no more than chance"
    kind = "class" if corpus.labelled else "predicted class"
    return f"A token’s expert tells {told_in_words(told)} of its text’s {kind}: {verdict}."


def right_wrong_in_words(corpus: Corpus, layer: str) -> tuple[str, np.ndarray | None]:
    """Whether wrong predictions are routed otherwise, and the loads of both; None where they can't be compared."""
    try:
        loads, apart = right_against_wrong(corpus, layer)
    except ValueError as error:
        return str(error), None
    verdict = "more than chance" if apart.beyond_chance else "no more than chance"
    said = f"Texts predicted wrong use other experts than texts predicted right for {apart.value:.1%} of their tokens"
    return f"{said} (shuffled {apart.chance:.1%}): {verdict}.", loads


def _matrix_html(matrix: np.ndarray, classes: list[str]) -> str:
    most = max(int(matrix.max()), 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in classes)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        + "".join(f'<td style="background:rgba(64,120,176,{0.7 * count / most:.2f})">{count:,}</td>' for count in row)
        + "</tr>"
        for name, row in zip(classes, matrix.tolist(), strict=True)
    )
    return f'<table class="matrix"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'
