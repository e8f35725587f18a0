"""The cards of one token and of one layer's load: where a token went, how likely elsewhere, and who had how much to do.

Pure functions of a trace or a view. Try it: token_card(prediction.trace, 3, 0)
"""

from typing import Any, NamedTuple

import torch
from markupsafe import Markup

from switch_model import Routing
from switch_model.grid.layer_names import layer_label, layer_title
from switch_model.grid.palette import shade_of
from switch_model.grid.tokens import visible
from switch_model.routing import UNLIMITED, load_balancing_loss
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting
from train.formatting import percent
from ui.look.html import message_card, render
from ui.views.view import View

# Above this many experts, bars are too thin for numbers.
MAX_NUMBERED = 16
# Of many experts, so many have their number below the bars at most.
MAX_MARKS = 9
# Shares below this are no segment of their own.
MIN_SEGMENT = 0.015


def look_cards(view: View, followers: Markup | str = "") -> tuple[Markup, Markup]:
    """(token card, load card) of the place that is looked at.

    Args:
        followers: HTML below the token: what the model might have written there.
    """
    if view.record is None:
        sentence = (
            f"This {'stack' if view.two_stacks else 'model'} has no sparse layer: every token takes the same path."
        )
        return message_card("One token", sentence) + followers, message_card("Load per expert", sentence)
    token = token_card(view.trace, view.token, view.layer, view.two_stacks) + followers
    return token, load_card(view.trace, view.layer, view.two_stacks)


def token_card(trace: TokenTrace, token: int, layer: int, both: bool = False) -> Markup:
    """One token: where it went in the chosen layer, then its probabilities in every layer."""
    record = trace.routing[layer]
    probs_LE = torch.cat([record.probs[:, token] for record in trace.routing]).tolist()
    expert, slot, capacity = (
        int(values) for values in (record.expert[0, token], record.slot[0, token], record.capacity)
    )
    none_on, several = _none_on(record, token), record.experts.shape[-1] > 1
    place = _choices_in_words(record, token) if several else _place(expert, slot, capacity)
    return render(
        "cards/token.html",
        token=visible(trace.tokens[token]),
        layer=layer_title(record.name, both),
        place="Every expert of this layer is off: none reads the token." if none_on else place,
        shares="Weights of the chosen experts" if several else "Router probabilities",
        stacks=[
            _stacked(record, probs_LE[index], token, chosen=index == layer)
            for index, record in enumerate(trace.routing)
        ],
    )


def load_card(trace: TokenTrace, layer: int, both: bool = False) -> Markup:
    """How many tokens chose each expert of one layer, against an even share and the capacity."""
    record = trace.routing[layer]
    counts, tokens = record.choices.tolist(), len(trace.tokens)
    experts, capacity = record.num_experts, int(record.capacity)
    even, busiest = tokens * record.per_token / experts, max(counts)
    limited = capacity != UNLIMITED
    # A capacity far above every bar would flatten them all: then words say it.
    in_sight = limited and capacity <= 1.5 * max(busiest, even)
    top = max(busiest, even, capacity if in_sight else 0) * 1.18  # Room for the number above the tallest bar.
    dropped, bars = int(record.dropped.sum()), []
    for expert, count in enumerate(counts):
        over = max(count - capacity, 0)
        bars.append(
            {
                "expert": expert,
                "colour": shade_of(expert, experts),
                "count": count,
                "dropped": over,
                "over": f"{100 * over / top:.1f}",
                "served": f"{100 * (count - over) / top:.1f}",
            }
        )
    return render(
        "cards/load.html",
        layer=layer_title(record.name, both),
        words=_load_in_words(counts, capacity),
        bars=bars,
        tokens=tokens,
        numbered=experts <= MAX_NUMBERED,
        marks=range(0, experts, -(-experts // MAX_MARKS)),
        experts=experts,
        extremes="" if experts <= MAX_NUMBERED else _extremes(counts),
        even=f"{even:.1f}",
        even_at=f"{100 * even / top:.1f}",
        capacity=capacity if limited else None,
        capacity_at=f"{100 * capacity / top:.1f}" if in_sight else "",
        dropped=dropped,
        choices=f"{record.per_token:.3g}",
        most=f"{experts / max(record.per_token, 1):.3g}",
        balance=f"{float(load_balancing_loss(record)):.2f}",
    )


class _Segment(NamedTuple):
    """An expert's share of a layer's probabilities; `named` = wide enough for its number."""

    expert: int
    colour: int
    own: bool
    named: bool
    grow: str
    prob: str


def _stacked(record: Routing, probs_E: list[float], token: int, chosen: bool) -> dict[str, Any]:
    """A layer's probabilities of the token, side by side."""
    expert, off = int(record.expert[0, token]), _none_on(record, token)
    own = f"{probs_E[expert]:.2f}"
    # Slivers that nobody could see or hover become one grey rest.
    rest = sum(prob for prob in probs_E if prob < MIN_SEGMENT)
    chosen_one = "every expert is off" if off else f"expert {expert}, probability {own}"
    return {
        "label": layer_label(record.name),
        "words": f"{layer_title(record.name)}: {chosen_one}",
        "chosen": chosen,
        "parts": [
            _Segment(
                index, shade_of(index, record.num_experts), index == expert, prob >= 0.12, f"{prob:.4f}", f"{prob:.2f}"
            )
            for index, prob in sorted(enumerate(probs_E), key=lambda item: -item[1])
            if prob >= MIN_SEGMENT
        ],
        "rest": {"grow": f"{rest:.4f}", "prob": f"{rest:.2f}"} if rest >= MIN_SEGMENT else None,
        "dropped": bool(record.dropped[0, token]) and not off,
        "prob": "–" if off else own,
    }


def _none_on(record: Routing, token: int) -> bool:
    """Whether all experts of the layer are off."""
    several = record.experts.shape[-1] > 1  # Then a dropped token has no logit of a used expert either.
    return not bool(record.chosen_logit[0, token].isfinite() or (several and record.dropped[0, token]))


def _place(expert: int, slot: int, capacity: int) -> str:
    if capacity == UNLIMITED:
        return f"Expert {expert}, slot {slot + 1} of its buffer, which has no limit."
    if slot >= capacity:
        return f"Expert {expert} was full: position {slot + 1}, {capacity} slots. Dropped: no expert reads it."
    return f"Expert {expert}, slot {slot + 1} of {capacity}."


def _choices_in_words(record: AnyRouting, token: int) -> str:
    """The experts of a token that has several, and how its weights are shared among them."""
    if record.dropped[0, token]:
        why = "No expert chose it" if record.by_experts else "Every expert that it chose was full"
        return f"{why}: only the residual goes on."
    probs_E = record.probs[0, token]
    experts = [one for one in record.experts[0, token].tolist() if probs_E[one] > 0]
    shown = ", ".join(f"{one} ({percent(float(probs_E[one]))})" for one in experts)
    return f"Experts {shown}: each one’s share of the token’s weights."


def _extremes(counts: list[int]) -> str:
    """The busiest of many experts by number, and how many have nothing to do."""
    busiest = sorted(range(len(counts)), key=lambda expert: -counts[expert])[:5]
    idle = [str(expert) for expert, count in enumerate(counts) if not count]
    said = "Busiest: " + ", ".join(f"expert {expert} with {counts[expert]}" for expert in busiest if counts[expert])
    if not idle:
        return f"{said}. Every expert has a token."
    more = f" and {len(idle) - MAX_MARKS} more" if len(idle) > MAX_MARKS else ""
    return f"{said}. Without a token: {', '.join(idle[:MAX_MARKS])}{more}."


def _load_in_words(counts: list[int], capacity: int) -> str:
    shown = ", ".join(f"expert {expert}: {count}" for expert, count in enumerate(counts) if count)
    return f"Tokens per expert: {shown}. " + ("No limit." if capacity == UNLIMITED else f"Capacity {capacity}.")
