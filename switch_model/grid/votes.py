"""The votes of the tokens for the classes, as the grid draws them below each word.

Try it: votes_strip(predictor("Oil prices rose."))
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeGuard

from torch import Tensor

from switch_model.topk_routing import AnyRouting

# Classes whose votes are shown, the likeliest ones: as many as the card of the prediction has bars.
MAX_CLASSES = 12


class Voted(Protocol):
    """What is read of a prediction."""

    @property
    def scores(self) -> dict[str, float]: ...

    @property
    def votes(self) -> Tensor | None: ...

    @property
    def routing(self) -> Sequence[AnyRouting]: ...

    @property
    def voters(self) -> AnyRouting: ...

    @property
    def votes_of_experts(self) -> Tensor: ...

    @property
    def logits(self) -> Tensor: ...


def has_votes(result: object) -> TypeGuard[Voted]:
    """Whether a result has votes of tokens for classes."""
    return getattr(result, "votes", None) is not None


def votes_strip(prediction: Voted, rounded: int = 6) -> dict[str, Any] | None:
    """What the grid draws below each word: the votes of the tokens for the classes of the card, the predicted one
    first; None stands for a token without a vote. None without votes.

    Args:
        rounded: digits behind the point.
    """
    if prediction.votes is None:
        return None
    record, names = prediction.voters, list(prediction.scores)
    kept = record.kept[0].tolist()
    classes = classes_shown(prediction)
    votes = prediction.votes.T.tolist()
    return {
        "layer": prediction.routing.index(record),
        "digits": digits_of(prediction) + 1,
        "classes": [
            {
                "name": names[c],
                "votes": [round(vote, rounded) if voted else None for vote, voted in zip(votes[c], kept, strict=True)],
            }
            for c in classes
        ],
    }


def classes_shown(prediction: Voted) -> list[int]:
    """Indices of the likeliest classes, the predicted one first."""
    scores = list(prediction.scores.values())
    return sorted(range(len(scores)), key=lambda c: -scores[c])[:MAX_CLASSES]


def digits_of(prediction: Voted) -> int:
    """Digits behind the point that sums of votes are shown with: more where all are small."""
    largest = max(float(prediction.votes_of_experts.abs().max()), float(prediction.logits.abs().max()))
    return 2 if largest >= 1 else 3 if largest >= 0.1 else 4
