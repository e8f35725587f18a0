"""What one visitor is looking at: a text under a model, as it is and with their changes to its routing.

Plain data without Gradio, so that every card, plot and report can be made of it. A `View` has an answer with one trace
for each stack of the model; its subclasses hold what only one kind of answer has.
Try it: view_of(loaded_model, "ag_news", "Oil prices rose.")
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from switch_model import Filling, Generation, Interventions, Prediction, Routing
from switch_model.attribution.direct import DirectAttribution, direct_attribution
from switch_model.counterfactuals import WhatIf, importance, leave_one_out, what_if
from switch_model.grid.plain import result_grid
from switch_model.inference.decoding import Decoding
from switch_model.token_trace import TokenTrace
from ui.catalog.kinds import CLASSIFIER
from ui.catalog.models import LoadedModel
from ui.server.limits import MAX_SECONDS

Answer = Prediction | Generation | Filling

NO_CHANGES = Interventions()
PLAIN = Decoding(max_seconds=MAX_SECONDS)
# Steps back that are kept.
MAX_PAST = 50


@dataclass(frozen=True)
class TokenImportance:
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
        text: what was asked.
        base: the answer as the model routes by itself.
        answer: the same with `changes`.
        stack: which of the answer's traces is looked at more closely.
        token, layer: what is looked at in it, counted within the trace.
        changes: to the routing.
        past: the changes before, the last one at the end.
        saved_from: title of the model that a saved view was made with; its model's key is "".
        attributions: of a saved view, what each part wrote, by the place that was looked at.
        run: which of the texts that a page asked for it answers.
    """

    model: str
    text: str
    base: Answer
    answer: Answer
    stack: int
    token: int
    layer: int
    changes: Interventions = NO_CHANGES
    past: tuple[Interventions, ...] = ()
    saved_from: str = ""
    attributions: Mapping[tuple[int, int], DirectAttribution] = field(default_factory=dict)
    run: int = 0

    # What only one kind of answer has; a subclass that has it makes a field of it.
    true_label: ClassVar[str | None] = None
    importance: ClassVar[TokenImportance | None] = None
    asked: ClassVar[bool] = False
    decoding: ClassVar[Decoding] = PLAIN
    # Whether the answer comes token by token.
    writes: ClassVar[bool] = False
    # Whether the answer is a class, for which experts and tokens may matter.
    classifies: ClassVar[bool] = False

    @classmethod
    def showing(cls, model: str, text: str, answer: Answer, layer: int = 0, **own: Any) -> Self:
        """An answer that is there already.

        Args:
            layer: where to look first, if the model has it.
            own: fields of the subclass.
        """
        return cls(model, text, answer, answer, *cls.first_look(answer, layer), **own)

    @staticmethod
    def first_look(answer: Answer, layer: int) -> tuple[int, int, int]:
        """(stack, token, layer) to look at first."""
        raise NotImplementedError

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """One for each stack of the model, encoder first."""
        return self.answer.traces

    def grid(self, plain: bool = False) -> dict[str, Any]:
        """What the routing grid draws; `plain`: one cell for each token and layer, whatever the model."""
        return result_grid(self.answer, self.place, self.base, plain)

    @property
    def trace(self) -> TokenTrace:
        """The trace that is looked at."""
        return self.traces[self.stack]

    @property
    def record(self) -> Routing | None:
        """The routing of the layer that is looked at; None where the stack has no sparse layer."""
        return self.trace.routing[self.layer] if self.trace.routing else None

    @property
    def records(self) -> tuple[Routing, ...]:
        """The records of all sparse layers, encoder first."""
        return self.answer.routing

    @property
    def two_stacks(self) -> bool:
        """Whether a layer's name must say which stack it is in."""
        return len(self.traces) > 1

    @property
    def changed(self) -> bool:
        """Whether the routing is changed."""
        return self.changes != NO_CHANGES

    @property
    def place(self) -> tuple[int, int]:
        """(token, layer) counted through all traces, as the grid does."""
        before = self.traces[: self.stack]
        return (
            self.token + sum(len(trace.tokens) for trace in before),
            self.layer + sum(len(trace.routing) for trace in before),
        )

    def looking_at(self, token: int, layer: int) -> Self:
        """Another place, counted through all traces and kept within what there is: a browser may send anything."""
        traces = self.traces
        layers = [(stack, index) for stack, trace in enumerate(traces) for index in range(len(trace.routing))]
        stack, index = layers[min(max(layer, 0), len(layers) - 1)] if layers else (self.stack, 0)
        token -= sum(len(trace.tokens) for trace in traces[:stack])
        return replace(self, stack=stack, layer=index, token=min(max(token, 0), len(traces[stack].tokens) - 1))

    def with_changes(self, loaded: LoadedModel, changes: Interventions, sliding: bool = False) -> Self:
        """The same text with other changes, which `undone` takes back. Raises ValueError when they do not fit.

        Args:
            sliding: the capacity goes on from the change before: both are one step back.
        """
        if changes == self.changes:
            return self
        return self._answered(loaded, changes, past_of(self, changes, sliding))

    def undone(self, loaded: LoadedModel) -> Self:
        """One step back."""
        return self._answered(loaded, self.past[-1], self.past[:-1]) if self.past else self

    def measured(self, loaded: LoadedModel) -> Self:
        """With what the class rests on, where there is a class."""
        return self

    def attribution(self, loaded: LoadedModel | None) -> DirectAttribution | str | None:
        """What each part of the model adds to the logits of the prediction that is looked at; or why that can't be
        told. `loaded`: None for a saved view, of which it was kept or not."""
        if loaded is None:
            return self.attributions.get(self.place, "It was not kept in this record: ask the model itself.")
        if self.stack != len(self.traces) - 1:
            return (
                "Experts of the encoder write to no logit themselves: the decoder reads what they left through its "
                "cross-attention. Choose a token that the decoder wrote, or switch an expert off to see what changes."
            )
        token = None if self.classifies else self.token
        try:
            return direct_attribution(loaded.pipeline, self.answer, token, self.changes)
        except ValueError as error:
            return str(error)

    def what_if(self, loaded: LoadedModel | None) -> WhatIf | None:
        """What the answer would be with the token under each expert; None where that can't be asked."""
        return None

    def _answered(self, loaded: LoadedModel, changes: Interventions, past: tuple[Interventions, ...]) -> Self:
        answer = self.base if changes == NO_CHANGES else answer_of(loaded, self.text, changes, self.decoding)
        # Another text may be shorter.
        token = min(self.token, len(answer.traces[self.stack].tokens) - 1)
        return replace(self, answer=answer, changes=changes, past=past, token=token)


@dataclass(frozen=True)
class PredictionView(View):
    """A class.

    Attributes:
        true_label: of the sample that the text is; None = unknown.
        unlike: what makes the text unlike the model's training texts, in words.
        importance: what was measured of this very prediction; None = nothing yet.
        asked: whether a person chose the token: what other experts would make of it is worked out unasked then.
        answers: of a saved view, what other experts would have made of a token, by (token, layer).
    """

    true_label: str | None = None
    unlike: tuple[str, ...] = ()
    importance: TokenImportance | None = None
    asked: bool = False
    answers: Mapping[tuple[int, int], WhatIf] = field(default_factory=dict)

    classifies: ClassVar[bool] = True

    @staticmethod
    def first_look(answer: Prediction, layer: int) -> tuple[int, int, int]:
        return 0, *default_selection(answer.trace, layer)

    def grid(self, plain: bool = False) -> dict[str, Any]:
        value = super().grid(plain)
        if "matrix" in value:
            return value
        if self.importance is not None:
            matters = (self.importance.tokens * 1000).round().int().tolist()
            value |= {"matters": matters, "label": self.importance.label}
        return value | {"text": self.text}

    @property
    def prediction(self) -> Prediction:
        """The answer, by its own name."""
        return self.answer

    def looking_at(self, token: int, layer: int) -> Self:
        return replace(super().looking_at(token, layer), asked=True)

    def measured(self, loaded: LoadedModel) -> Self:
        label, _, experts = importance(loaded.predictor, self.text, self.changes)
        tokens = leave_one_out(loaded.predictor, self.text, self.changes)[1]
        return replace(self, importance=TokenImportance(label, experts, tokens))

    def what_if(self, loaded: LoadedModel | None) -> WhatIf | None:
        if loaded is None or self.record is None:
            return self.answers.get(self.place)
        return what_if(loaded.predictor, self.text, self.token, self.record.name, self.changes, self.prediction)

    def _answered(self, loaded: LoadedModel, changes: Interventions, past: tuple[Interventions, ...]) -> Self:
        return replace(super()._answered(loaded, changes, past), importance=None)


@dataclass(frozen=True)
class WrittenView(View):
    """A text that the model wrote.

    Attributes:
        decoding: how it was written.
    """

    decoding: Decoding = PLAIN

    writes: ClassVar[bool] = True

    @staticmethod
    def first_look(answer: Generation, layer: int) -> tuple[int, int, int]:
        """The first token written."""
        routed = [stack for stack, trace in enumerate(answer.traces) if trace.routing]
        stack = routed[-1] if routed else len(answer.traces) - 1
        trace = answer.traces[stack]
        return stack, min(trace.written, len(trace.tokens) - 1), 0


@dataclass(frozen=True)
class FilledView(View):
    """A text whose blanks the model filled."""

    @staticmethod
    def first_look(answer: Filling, layer: int) -> tuple[int, int, int]:
        """The first blank."""
        return 0, min(answer.blanks[0].token, len(answer.answer.tokens) - 1), 0


def answer_of(loaded: LoadedModel, text: str, changes: Interventions, decoding: Decoding) -> Answer:
    """What the model makes of a text. Raises ValueError when the text or the changes do not fit.

    Args:
        decoding: how it writes, where it does.
    """
    return loaded.pipeline.write(text, decoding, changes) if loaded.kind.writes else loaded.pipeline(text, changes)


def view_of(
    loaded: LoadedModel,
    model: str,
    text: str,
    changes: Interventions = NO_CHANGES,
    decoding: Decoding = PLAIN,
    layer: int = 0,
    true_label: str | None = None,
) -> View:
    """A text just answered. Raises ValueError when it can't be, or when the changes do not fit.

    Args:
        model: the key of `loaded`; the rest as in the views, each where the kind of model has a use for it.
    """
    answer = answer_of(loaded, text, NO_CHANGES, decoding)
    if loaded.kind is CLASSIFIER:
        view = PredictionView.showing(model, text, answer, layer, true_label=true_label, unlike=loaded.unlike(text))
    elif loaded.kind.writes:
        view = WrittenView.showing(model, text, answer, decoding=decoding)
    else:
        view = FilledView.showing(model, text, answer)
    return view.with_changes(loaded, changes)


def kept_changes(view: View | None, model: str) -> Interventions:
    """What is switched off stays off for the next text of the same model; what was forced was that text's."""
    return replace(view.changes, force={}) if view is not None and view.model == model else NO_CHANGES


def past_of(view: Any, changes: Interventions, sliding: bool) -> tuple[Interventions, ...]:
    """The steps back after other changes to what has `changes` and `past`. A sliding capacity is one step."""
    sliding = sliding and changes == replace(view.changes, capacity_factor=changes.capacity_factor)
    return view.past if sliding and view.past else (*view.past, view.changes)[-MAX_PAST:]


def default_selection(trace: TokenTrace, layer: int = 0) -> tuple[int, int]:
    """(token, layer) to look at first: a dropped token of the layer if there is one, else the longest token."""
    layer = layer if layer < len(trace.routing) else 0
    if trace.routing:
        dropped = trace.routing[layer].dropped[0].nonzero().flatten().tolist()
        if dropped:
            return dropped[0], layer
    lengths = [len(token) for token in trace.tokens]
    return lengths.index(max(lengths)), layer
