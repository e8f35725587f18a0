"""Allowed values of the fields of SwitchConfig, as data: validation, error messages, docstring and flags use it.

Not huggingface_hub's strict dataclasses: they check every assignment on its own, but fields of a model depend on each
other, and their errors name a type rather than a range.
Try it: Rule(int, low=1).words
"""

import math
from dataclasses import Field, dataclass, field
from types import NoneType
from typing import Any, Literal, get_args, get_origin

Activation = Literal["relu", "gelu", "gated-gelu", "gated-silu"]
Priority = Literal["position", "probability"]
Balance = Literal["loss", "bias", "none"]
RouterKind = Literal["switch", "topk", "sigmoid_bias", "expert_choice"]
CapacityGroup = Literal["sequence", "batch"]
Pooling = Literal["mean", "first", "max", "mean+max", "attention"]
Readout = Literal["residual", "experts"]
Position = Literal["relative", "sinusoidal", "learned", "rotary"]
Head = Literal["linear", "mlp"]
AttentionExperts = Literal["none", "projections", "module"]
RouterDtype = Literal["float32", "bfloat16", "float16"]
# transformers' names.
Problem = Literal["single_label_classification", "multi_label_classification", "regression"]
# Poolings under which a pooled vector is a sum over tokens.
ADDING_POOLINGS = ("mean", "attention")
# Bounds of a dropout probability.
PROBABILITY: dict[str, Any] = {"low": 0.0, "below": 1.0}
# Limits for untrusted checkpoints: far above any model this package makes.
MAX_LAYERS, MAX_EXPERTS, MAX_WIDTH = 128, 1_024, 10_000_000


def is_int(value: Any) -> bool:
    """Whether a value is a whole number; a bool, an int to Python, is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Rule:
    """Allowed values of one field.

    Attributes:
        kind: int, float or bool.
        low, high: the least and the greatest value allowed.
        above, below: bounds that are not allowed themselves.
        even: whether a whole number must be even.
        choices: the only values allowed; no bounds then.
        none: what None means; "" where None is not allowed.
    """

    kind: type = str
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    even: bool = False
    choices: tuple[Any, ...] = ()
    none: str = ""

    def allows(self, value: Any) -> bool:
        """Whether the field may have this value."""
        if value is None and self.none:
            return True
        if self.choices:
            # `True == 1`: membership alone would accept a bool for a number.
            return any(type(value) is type(choice) and value == choice for choice in self.choices)
        if not (is_int(value) if self.kind is int else _is_number(value)):
            return False
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and (not self.even or value % 2 == 0)
        )

    @property
    def words(self) -> str:
        """What is allowed, to follow "it must be"."""
        if self.choices:
            words = "one of " + ", ".join(map(repr, self.choices))
        else:
            words = ("an even " if self.even else "a ") + ("whole number" if self.kind is int else "number")
            words += self._range()
        return f"{words}, or None ({self.none})" if self.none else words

    def _range(self) -> str:
        if self.low is not None and self.high is not None:
            return f" from {self.low:g} to {self.high:g}"
        bounds: list[tuple[str, float | None]] = [
            ("of at least", self.low),
            ("above", self.above),
            ("below", self.below),
        ]
        present = [f"{name} {bound:g}" for name, bound in bounds if bound is not None]
        return " " + " and ".join(present) if present else ""


def option(default: Any, help: str, note: str = "", effect: str = "", largest: int | None = None, **limits: Any) -> Any:
    """A field of SwitchConfig, declared once.

    Args:
        help: what it is, in a few words, for the docstring and the flag of the same name.
        note: whole sentences, for the docstring alone.
        effect: what it does to a model, for a reader who is new to them (the tab How it works).
        largest: limit for untrusted files only; whoever makes a model may exceed it.
        limits: arguments of `Rule`: bounds, and what None means; kind and choices follow from the annotation.
    """
    return field(
        default=default, metadata={"help": help, "note": note, "effect": effect, "largest": largest, "limits": limits}
    )


def rule_of(own: Field) -> Rule:
    """The rule of a field that `option` made."""
    kind: Any = own.type
    limits = own.metadata["limits"]
    if NoneType in get_args(kind):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    if kind is bool:
        return Rule(bool, choices=(True, False), **limits)
    if get_origin(kind) is Literal:
        return Rule(choices=get_args(kind), **limits)
    return Rule(kind, **limits)
