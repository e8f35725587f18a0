"""The cards of a class: every class with its probability, and what the model read of the text. Pure functions.

Try it: prediction_card(prediction, true_label="Business", milliseconds=9.0)
"""

from markupsafe import Markup

from switch_model import Prediction
from train.formatting import counted
from ui.cards.importance import importance_in_words
from ui.components.routing_grid import MAX_CLASSES
from ui.look.html import bar, notice, percent, render
from ui.views.view import PredictionView


def prediction_card(
    prediction: Prediction, true_label: str | None, milliseconds: float | None, base: Prediction | None = None
) -> Markup:
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
    moved = ""
    if base is not None:
        routes = sum(
            int(((now.expert != was.expert) | (now.dropped != was.dropped)).sum())
            for now, was in zip(prediction.routing, base.routing, strict=True)
        )
        moved = f"{routes} of {tokens * layers}"
    return render(
        "cards/prediction.html",
        rows=rows,
        label=prediction.label,
        base=base and base.label,
        moved=moved,
        true_label=true_label,
        mark=_mark(prediction, true_label),
        facts=facts,
    )


def _mark(prediction: Prediction, true_label: str | None) -> dict[str, str]:
    if true_label not in prediction.scores:
        return {"said": "(not a class of this model)", "kind": ""}
    right = true_label == prediction.label
    return {"said": "✓" if right else "✗", "kind": "right" if right else "wrong"}


def prediction_notice(view: PredictionView) -> Markup | str:
    """What the model read, and once it was measured what the class rests on."""
    return reading_notice(view.prediction) + importance_in_words(view)


def reading_notice(prediction: Prediction) -> Markup | str:
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
    return notice(" ".join(said), "status") if said else ""
