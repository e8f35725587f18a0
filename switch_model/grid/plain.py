"""The grid with one cell for each token and layer, as its script draws it.

Try it: grid_value(predictor("Oil prices rose.").trace, (0, 0))
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

import torch

from switch_model.grid.layer_names import layer_label, layer_title
from switch_model.grid.matrix import matrix_value, needs_matrix
from switch_model.grid.tokens import tokens_value
from switch_model.grid.votes import has_votes, votes_strip
from switch_model.routing import UNLIMITED, Routing
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting

_READS, _WRITES = "Encoder: what it reads", "Decoder: what it writes"
_GOES_ON = "Decoder: the beginning, and what the model wrote"


class Traced(Protocol):
    """A prediction, a filled text or a generated one."""

    @property
    def traces(self) -> Sequence[TokenTrace]: ...

    @property
    def routing(self) -> Sequence[AnyRouting]: ...


def result_grid(
    result: Traced, place: tuple[int, int], before: Traced | None = None, plain: bool = False
) -> dict[str, Any]:
    """What the scripts draw of a result.

    Args:
        place: (token, layer) to start with.
        before: the result for the same text before its routing was changed: other routes are marked.
        plain: one cell for each token and layer, also where a token has several experts: then its first choice.
    """
    traces, bases = result.traces, None if before is None else before.traces
    if needs_matrix(result.routing) and not plain:
        return matrix_value(traces, place)
    if len(traces) > 1 or traces[0].stack == "decoder":
        return stacked_value(traces, place, bases)
    value = grid_value(traces[0], place, None if bases is None else bases[0])
    return value | {"votes": votes_strip(result) if has_votes(result) else None}


def grid_value(trace: TokenTrace, selected: tuple[int, int], base: TokenTrace | None = None) -> dict[str, Any]:
    """What the script draws: tokens, and per layer the lists expert, gate (in thousandths), slot and dropped.

    Args:
        selected: (token, layer) indices to start with.
        base: the same before the routing was changed: where a token went then is told apart.
    """
    records = _records(trace)
    tokens = tokens_value(trace) | {
        "selected": {"token": selected[0], "layer": selected[1]},
        "experts": records[0].num_experts if records else 0,
        "matters": None,
        "label": "",
    }
    if not records:
        return tokens | {"layers": []}
    # All layers at once: a few tensor operations however long the text is.
    expert_LT = torch.cat([record.expert for record in records])
    gate_LT = torch.cat([record.gate for record in records])
    slot_LT = torch.cat([record.slot for record in records])
    capacity_L = torch.cat([record.capacity for record in records])
    before = None if base is None or base is trace else _records(base)
    dropped_LT = slot_LT >= capacity_L.unsqueeze(-1)
    lists = zip(
        records,
        capacity_L.tolist(),
        expert_LT.tolist(),
        (gate_LT * 1000).round().int().tolist(),
        slot_LT.tolist(),
        dropped_LT.int().tolist(),
        strict=True,
    )
    return tokens | {
        "layers": [
            {
                "title": layer_title(record.name),
                "label": layer_label(record.name),
                "capacity": None if capacity == UNLIMITED else capacity,
                "expert": expert_T,
                "gate": gate_T,
                "slot": slot_T,
                "dropped": dropped_T,
                "before": None if before is None else _before(record, before[index]),
            }
            for index, (record, capacity, expert_T, gate_T, slot_T, dropped_T) in enumerate(lists)
        ]
    }


def stacked_value(
    traces: Sequence[TokenTrace], place: tuple[int, int], bases: Sequence[TokenTrace] | None = None
) -> dict[str, Any]:
    """The grid of a model that writes: tokens and layers are counted through all its stacks, and a layer knows nothing
    (None) of the tokens of another stack.

    Args:
        place: (token, layer) to start with.
        bases: the same before the routing was changed.
    """
    two = len(traces) > 1
    titles = (_READS, _WRITES) if two else (_GOES_ON,)
    parts = []
    for index, trace in enumerate(traces):
        part = grid_value(trace, (0, 0))
        for layer, record in zip(part["layers"], trace.routing, strict=True):
            layer["title"] = layer_title(record.name, both=two)
        if bases is not None and bases[index] is not trace:
            # What was written after the first difference is another text: its routes have nothing to be compared with.
            base, rest = bases[index], len(trace.tokens) - (same := _alike(trace, bases[index]))
            for layer, record, was in zip(part["layers"], _records(trace), _records(base), strict=True):
                layer["before"] = _before(_first(record, same), _first(was, same)) + [None] * rest
        parts.append(part)
    value: dict[str, Any] = {
        key: [one for part in parts for one in part[key]] for key in ("tokens", "joined", "unknown", "special")
    }
    token, layer = place
    value |= {"selected": {"token": token, "layer": layer}, "matters": None, "label": "", "layers": []}
    value |= {"experts": max(part["experts"] for part in parts), "stacks": []}
    total, start = len(value["tokens"]), 0
    for title, trace, part in zip(titles, traces, parts, strict=True):
        end = start + len(trace.tokens)
        for layer in part["layers"]:
            for key in ("expert", "gate", "slot", "dropped", "before"):
                if layer[key] is not None:
                    layer[key] = [None] * start + layer[key] + [None] * (total - end)
            value["layers"].append(layer)
        value["stacks"].append({"title": title, "start": start, "end": end, "written": start + trace.written})
        start = end
    return value


def _alike(one: TokenTrace, other: TokenTrace) -> int:
    """How many tokens two traces begin with alike."""
    pairs = zip(one.tokens, other.tokens, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one.tokens), len(other.tokens)))


def _records(trace: TokenTrace) -> list[Routing]:
    """Its layers' records, of one expert for each token: `needs_matrix` sends all others to another grid."""
    return cast(list[Routing], list(trace.routing))


def _first(record: Routing, tokens: int) -> Routing:
    parts = ("logits", "expert", "slot", "mask")
    return replace(record, **{name: getattr(record, name)[:, :tokens] for name in parts})


def _before(record: Routing, base: Routing) -> list[list[int] | None]:
    """[expert, dropped] of each token whose route was another one before; None where it was the same."""
    same_T = ((record.expert == base.expert) & (record.dropped == base.dropped))[0].tolist()
    routes = zip(same_T, base.expert[0].tolist(), base.dropped[0].int().tolist(), strict=True)
    return [None if same else [expert, dropped] for same, expert, dropped in routes]
