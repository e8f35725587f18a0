"""Numbers that the experts of two models have in common, where `prune` made one from the other.

Try it: removed_of("smaller")
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from switch_model.analysis.pruning import Removed
from switch_model.checkpoint import CheckpointError, checkpoint_folder
from switch_model.grid.layer_names import layer_title
from switch_model.routing import Routing
from switch_model.storage.archive import PRUNING as FILE
from switch_model.storage.json_file import read_json
from switch_model.storage.paths import local_path
from switch_model.topk_routing import AnyRouting
from switch_model.traces.trace import MAX_EXPERTS, RoutingTrace, TraceError

# Layers whose removed experts are named.
MAX_LAYERS = 6
Numbers = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Numbering:
    """Two models' experts by numbers in common.

    Attributes:
        experts: how many numbers there are in a layer.
        first, second: layer -> the number of each expert of the model, ascending.
    """

    experts: int
    first: Numbers
    second: Numbers

    @property
    def in_words(self) -> str:
        """Which experts of a larger model each of the two lacks; "" where neither lacks any."""
        return " ".join(filter(None, (self._lacks("first", self.first), self._lacks("second", self.second))))

    def _lacks(self, name: str, numbers: Numbers) -> str:
        gone = {layer: sorted({*range(self.experts)} - {*own}) for layer, own in numbers.items()}
        if not any(gone.values()):
            return ""
        named = [f"{layer_title(layer)}: {', '.join(map(str, own))}" for layer, own in list(gone.items())[:MAX_LAYERS]]
        named += ["…"] * (len(gone) > MAX_LAYERS)
        return (
            f"The {name} model lacks experts of the larger one that prune made it from ({'; '.join(named)}); the "
            "others are shown by their numbers there, which a model trained apart does not share."
        )


def removed_of(checkpoint: str | Path) -> Removed:
    """Layer -> experts that prune removed from a checkpoint, by their numbers before; {} where nothing says so.

    Raises:
        CheckpointError: for a pruning.json that prune did not write.
    """
    path = checkpoint_folder(local_path(checkpoint)) / FILE
    if not path.is_file():
        return {}
    removed = read_json(path).get("removed")
    if not isinstance(removed, dict) or not removed or not all(map(_are_numbers, removed.values())):
        raise CheckpointError(f"{FILE} does not say which experts of each layer were removed: take the one of prune.")
    return removed


def _are_numbers(experts: Any) -> bool:
    return (
        isinstance(experts, list)
        and 0 < len(experts) < MAX_EXPERTS
        and all(type(expert) is int and 0 <= expert < MAX_EXPERTS for expert in experts)
        and len(set(experts)) == len(experts)
    )


def numbering(one: tuple[Sequence[str], int, Removed], other: tuple[Sequence[str], int, Removed]) -> Numbering:
    """The numbers in common of two models: those before prune, where it made one of them from the other, or both from a
    third.

    Args:
        one, other: a model's layers, the number of experts in each, and what prune removed, of `removed_of`.

    Raises:
        CheckpointError: where what was removed does not fit its model.
        TraceError: where they have other numbers of experts, and prune made neither from the other.
    """
    first, second = _numberings(*one), _numberings(*other)
    if not (common := set(first) & set(second)):
        raise TraceError(
            f"One has {one[1]} experts in a layer, the other {other[1]}: only models of one shape can be compared "
            f"choice by choice, or a model with what prune made of it, whose folder has {FILE}."
        )
    return Numbering(max(common), first[max(common)], second[max(common)])


def _numberings(layers: Sequence[str], experts: int, removed: Removed) -> dict[int, Numbers]:
    """Number of experts -> numbers of a model's experts among so many: its own, and those before prune."""
    own: dict[int, Numbers] = {experts: {layer: range(experts) for layer in layers}}
    if not removed or not layers:
        return own
    gone = {layer: set(removed.get(layer, ())) for layer in layers}
    before = experts + max(map(len, gone.values()))
    kept = {layer: [expert for expert in range(before) if expert not in gone[layer]] for layer in layers}
    if any(len(numbers) != experts for numbers in kept.values()):
        raise CheckpointError(f"{FILE} is not of this model: it has {experts} experts in a layer.")
    return own | {before: kept}


def renumbered_trace(trace: RoutingTrace, numbers: Numbers, experts: int) -> RoutingTrace:
    """A trace by other numbers, of `experts` in a layer."""
    chosen = zip(trace.layers, trace.experts, strict=True)
    mapped = [np.asarray(numbers[layer], np.int32)[experts_TK] for layer, experts_TK in chosen]
    return replace(trace, experts=np.stack(mapped), num_experts=experts)


def renumbered_record(record: AnyRouting, numbers: Numbers, experts: int) -> AnyRouting:
    """A record by other numbers, of `experts` in a layer: those that the model lacks are as switched off."""
    if experts == record.num_experts:
        return record
    places_E, logits = torch.tensor(numbers[record.name]), record.logits
    if logits is not None:
        logits = logits.new_full((*logits.shape[:-1], experts), -math.inf)
        logits[..., places_E] = record.logits
    if isinstance(record, Routing):
        return replace(record, expert=places_E[record.expert], logits=logits)
    return replace(record, experts=places_E[record.experts], logits=logits, num_experts=experts)


def with_common_numbers(
    one: RoutingTrace, first: Removed, other: RoutingTrace, second: Removed
) -> tuple[RoutingTrace, RoutingTrace, Numbering]:
    """The choices of two models by their numbers in common; raises as `numbering`.

    Args:
        first, second: what prune removed from each, of `removed_of`.
    """
    found = numbering((one.layers, one.num_experts, first), (other.layers, other.num_experts, second))
    return (
        renumbered_trace(one, found.first, found.experts),
        renumbered_trace(other, found.second, found.experts),
        found,
    )
