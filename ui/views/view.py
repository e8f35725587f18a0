"""What one visitor is looking at: a text under a model, as it is and with their changes to its routing.

Plain data without Gradio, so that every card, picture and report can be made of it.
Try it: View.of(loaded_model, "ag_news", "Oil prices rose.")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from switch_model import Interventions, Prediction, Routing
from switch_model.counterfactuals import WhatIf
from switch_model.inference.traces import TokenTrace
from ui.catalog.models import LoadedModel

NO_CHANGES = Interventions()
# Steps back that are kept.
MAX_PAST = 50


@dataclass(frozen=True)
class Matters:
    """What the predicted class rests on, as changes of its probability.

    Attributes:
        label: the class.
        experts: (L, E) when an expert of a layer is ablated.
        tokens: (T,) when the model does not see a token.
    """

    label: str
    experts: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class View:
    """One visitor's view.

    Attributes:
        model: its key on the shelf.
        text: what was routed.
        base: the prediction as the model routes by itself.
        prediction: the same with `changes`.
        token, layer: what is looked at more closely.
        true_label: of the sample that the text is; None = unknown.
        changes: to the routing.
        past: the changes before, the last one at the end.
        matters: what was measured of this very prediction; None = nothing yet.
        saved_from: title of the model that a saved view was made with; its model's key is "".
        asked: whether a person chose the token: what other experts would make of it is worked out unasked then.
        answers: of a saved view, what other experts would have made of a token, by (token, layer).
    """

    model: str
    text: str
    base: Prediction
    prediction: Prediction
    token: int
    layer: int
    true_label: str | None = None
    changes: Interventions = NO_CHANGES
    past: tuple[Interventions, ...] = field(default=())
    matters: Matters | None = None
    saved_from: str = ""
    asked: bool = False
    answers: Mapping[tuple[int, int], WhatIf] = field(default_factory=dict)

    @classmethod
    def of(cls, loaded: LoadedModel, model: str, text: str, layer: int = 0, true_label: str | None = None) -> "View":
        """A text just routed. Raises ValueError when it has no tokens."""
        prediction = loaded.predictor(text)
        return cls(model, text, prediction, prediction, *default_selection(prediction, layer), true_label)

    @property
    def changed(self) -> bool:
        return self.changes != NO_CHANGES

    @property
    def records(self) -> tuple[Routing, ...]:
        return self.prediction.routing

    @property
    def bands(self) -> tuple[Prediction, ...]:
        """What has tokens and records of its own: one text, read by one stack."""
        return (self.prediction,)

    @property
    def place(self) -> tuple[int, int]:
        """(token, layer) as the grid counts."""
        return self.token, self.layer

    def looking_at(self, token: int, layer: int) -> "View":
        """Another token and layer, kept within what there is: a browser may send anything."""
        tokens, layers = len(self.prediction.tokens), len(self.prediction.routing)
        token, layer = min(max(token, 0), tokens - 1), min(max(layer, 0), max(layers - 1, 0))
        return replace(self, token=token, layer=layer, asked=True)

    def with_changes(self, loaded: LoadedModel, changes: Interventions, sliding: bool = False) -> "View":
        """The same text with other changes, which `undone` takes back. Raises ValueError when they do not fit.

        Args:
            sliding: the capacity goes on from the change before: both are one step back.
        """
        if changes == self.changes:
            return self
        return self._routed(loaded, changes, past_of(self, changes, sliding))

    def undone(self, loaded: LoadedModel) -> "View":
        """One step back."""
        return self._routed(loaded, self.past[-1], self.past[:-1]) if self.past else self

    def _routed(self, loaded: LoadedModel, changes: Interventions, past: tuple[Interventions, ...]) -> "View":
        prediction = self.base if changes == NO_CHANGES else loaded.predictor(self.text, changes)
        return replace(self, prediction=prediction, changes=changes, past=past, matters=None)


def past_of(view: Any, changes: Interventions, sliding: bool) -> tuple[Interventions, ...]:
    """The steps back after other changes to what has `changes` and `past`. A sliding capacity is one step."""
    sliding = sliding and changes == replace(view.changes, capacity_factor=changes.capacity_factor)
    return view.past if sliding and view.past else (*view.past, view.changes)[-MAX_PAST:]


def default_selection(prediction: Prediction | TokenTrace, layer: int = 0) -> tuple[int, int]:
    """(token, layer) to look at first: a dropped token of the layer if there is one, else the longest token."""
    layer = layer if layer < len(prediction.routing) else 0
    if prediction.routing:
        dropped = prediction.routing[layer].dropped[0].nonzero().flatten().tolist()
        if dropped:
            return dropped[0], layer
    lengths = [len(token) for token in prediction.tokens]
    return lengths.index(max(lengths)), layer
