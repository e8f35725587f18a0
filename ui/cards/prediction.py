"""The cards of a class: every class with its probability, and what the model read of the text. Pure functions.

Try it: prediction_card(prediction, true_label="Business", milliseconds=9.0)
"""

from html import escape

from switch_model import Prediction
from train.formatting import counted
from ui.cards.importance import importance_in_words
from ui.components.routing_grid import MAX_CLASSES
from ui.look.html import bar, percent
from ui.views.view import PredictionView

HOW_TO_READ = """
<h2>How to read this</h2>
<dl class="terms">
<dt>expert</dt><dd>One of several small networks in a layer. The router sends each token to exactly one.</dd>
<dt>gate</dt><dd>The router's probability for that expert. The expert's output is multiplied by it.</dd>
<dt>capacity</dt><dd>How many tokens of one text an expert takes in: first come, first served.</dd>
<dt>dropped</dt><dd>The expert was full. No expert of this layer reads the token: only what passes by them goes on.</dd>
</dl>
<p class="note">A picture does not prove what an expert specialises in. One text shows where its tokens went, not why;
a name such as “the sports expert” needs counts over many texts and a test of what changes without it.</p>
"""


def prediction_card(
    prediction: Prediction, true_label: str | None, milliseconds: float | None, base: Prediction | None = None
) -> str:
    """All classes, the predicted one first, and below them the facts of this run.

    Args:
        milliseconds: what the pass took; None = there was none.
        base: the prediction before the routing was changed: shown beside, with what the change made of it.
    """
    scores = sorted(prediction.scores.items(), key=lambda item: -item[1])
    rows = [
        bar(name, score, percent(score), top=not index, before=base and base.scores[name])
        for index, (name, score) in enumerate(scores[:MAX_CLASSES])
    ]
    if len(scores) > MAX_CLASSES:
        rest = sum(score for _, score in scores[MAX_CLASSES:])
        rows.append(bar(f"{len(scores) - MAX_CLASSES} more", rest, percent(rest)))
    drops = int(sum(record.dropped.sum() for record in prediction.routing))
    tokens = len(prediction.tokens)
    layers = len(prediction.routing)
    facts = [
        counted(tokens, "token"),
        f"{counted(drops, 'drop')} in {counted(layers, 'layer')}",
        *([f"{milliseconds:.0f} ms"] if milliseconds is not None else []),
    ]
    if true_label:
        mark = ("✓", "right") if true_label == prediction.label else ("✗", "wrong")
        if true_label not in prediction.scores:
            mark = ("(not a class of this model)", "")
        facts.insert(0, f'true label: {escape(true_label)} <b class="{mark[1]}">{mark[0]}</b>')
    if base is None:
        return f'<h2>Prediction</h2>{"".join(rows)}<p class="facts">{" · ".join(facts)}</p>'
    verdict = f"<b>{escape(base.label)}</b> as before"
    if prediction.label != base.label:
        verdict = f'<b>{escape(base.label)}</b> → <b class="wrong">{escape(prediction.label)}</b>'
    moved = sum(
        int(((now.expert != was.expert) | (now.dropped != was.dropped)).sum())
        for now, was in zip(prediction.routing, base.routing, strict=True)
    )
    facts.insert(0, f"{moved} of {tokens * layers} routes changed")
    return (
        f'<h2>Prediction with your changes: {verdict}</h2><div class="changed-bars">{"".join(rows)}</div>'
        f'<p class="facts"><s class="tick"></s> before · {" · ".join(facts)}</p>'
    )


def prediction_notice(view: PredictionView) -> str:
    """What the model read, and once it was measured what the class rests on."""
    return reading_notice(view.prediction) + importance_in_words(view)


def reading_notice(prediction: Prediction) -> str:
    """Sentences where the model read only the beginning of the text, or knew little of it; else nothing."""
    said, tokens, unknown = [], len(prediction.tokens), sum(prediction.unknown)
    if prediction.truncated:
        end = max(end for _, end in prediction.offsets)
        said.append(
            f"The text is longer than this model reads: only its first {tokens} tokens ({end:,} characters) were read."
        )
    if 2 * unknown >= tokens:
        share = "None" if unknown == tokens else f"Only {tokens - unknown} of {tokens}"
        said.append(f"{share} of the tokens are in this model's vocabulary: the class is a guess.")
    return f'<p class="notice" role="status">{" ".join(said)}</p>' if said else ""
