"""The cards of a class: every class with its probability, and what the model read of the text. Pure functions.

Try it: prediction_card(prediction, true_label="Business")
"""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from switch_model import Prediction
from switch_model.analysis.typical_texts import unlike_in_words
from switch_model.grid.layer_names import layer_title
from switch_model.grid.palette import shade_of
from switch_model.grid.votes import MAX_CLASSES, digits_of
from switch_model.routing import may_drop
from train.formatting import counted, percent, signed
from ui.look.html import bar, notice, render

# Experts whose votes stand in one line.
MAX_VOTERS = 4


def prediction_card(
    prediction: Prediction, true_label: str | None, base: Prediction | None = None, unlike: Sequence[str] = ()
) -> Markup:
    """What to know before reading it, all classes, the predicted one first, and below them the facts of this run.

    Args:
        base: the prediction before the routing was changed: shown beside, with what the change made of it.
        unlike: what makes the text unlike the training texts, in words.
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
        *([f"{counted(drops, 'drop')} in {counted(layers, 'layer')}"] if may_drop(prediction.routing) else []),
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
        notice=reading_notice(prediction, unlike),
        votes=votes_line(prediction),
        rows=rows,
        label=prediction.label,
        base=base and base.label,
        moved=moved,
        true_label=true_label,
        mark=_mark(prediction, true_label),
        facts=facts,
    )


def votes_line(prediction: Prediction) -> dict[str, Any] | None:
    """The votes for the predicted class, the largest first: each expert's, the rest in one, the bias ("" = ±0), and
    their sum."""
    if prediction.votes is None:
        return None
    label, digits = list(prediction.scores).index(prediction.label), digits_of(prediction)
    bias = round(float(prediction.bias[label]), digits)
    voted_E = prediction.votes_of_experts[:, label].tolist()
    order = sorted((e for e, vote in enumerate(voted_E) if vote), key=lambda e: -abs(voted_E[e]))
    rest = order[MAX_VOTERS:]
    return {
        "layer": layer_title(prediction.voters.name),
        "experts": [
            {"expert": e, "colour": shade_of(e, len(voted_E)), "number": signed(voted_E[e], digits)}
            for e in order[:MAX_VOTERS]
        ],
        "rest": f"{len(rest)} more {signed(sum(voted_E[e] for e in rest), digits)}" if rest else "",
        "bias": signed(bias, digits) if bias else "",
        "sum": signed(float(prediction.logits[label]), digits),
    }


def _mark(prediction: Prediction, true_label: str | None) -> dict[str, str]:
    if true_label not in prediction.scores:
        return {"said": "(not a class of this model)", "kind": ""}
    right = true_label == prediction.label
    return {"said": "✓" if right else "✗", "kind": "right" if right else "wrong"}


def reading_notice(prediction: Prediction, unlike: Sequence[str] = ()) -> Markup | str:
    """Sentences where the model read only the beginning of the text, knew little of it, or was trained on others; else
    nothing.

    Args:
        unlike: what makes the text unlike the training texts, in words.
    """
    said, tokens, unknown = [], len(prediction.tokens), sum(prediction.unknown)
    if prediction.truncated:
        end = max(end for _, end in prediction.offsets)
        said.append(
            f"The text is longer than this model reads: only its first {tokens} tokens ({end:,} characters) were read."
        )
    if 2 * unknown >= tokens:
        share = "None" if unknown == tokens else f"Only {tokens - unknown} of {tokens}"
        said.append(f"{share} of the tokens are in this model's vocabulary: the class is a guess.")
    elif unlike:
        said.append(f"This text is {unlike_in_words(unlike)}")
    return notice(" ".join(said), "status") if said else ""
