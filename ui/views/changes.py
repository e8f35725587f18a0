"""Changes to the routing in words, and the capacity that they start from.

Try it: words_of_changes(view)
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from switch_model import Interventions, SwitchConfig
from switch_model.grid.layer_names import layer_title
from switch_model.routing import UNLIMITED, Routing
from train.formatting import counted
from ui.views.view import View


def words_of_changes(view: View) -> list[str]:
    """A phrase for each change; a token that is sent elsewhere goes by the name that it has now."""
    changes, both, said = view.changes, view.two_stacks, []
    for trace in view.traces:
        # A stranger's record may name any layer: with one stack, all are said to be its.
        prefix = f"{trace.stack}." if both else ""
        ablate = {place for place in changes.ablate if place[0].startswith(prefix)}
        force = {place: expert for place, expert in changes.force.items() if place[0].startswith(prefix)}
        said += changes_in_words(Interventions(ablate, force), trace.tokens, trace.routing, both)
    rest = changes_in_words(replace(changes, ablate=frozenset(), force={}, top_k=None), [], [])
    said += [f"{words} in the encoder" if both else words for words in rest]
    return said + numbers_in_words(changes.numbers, both)


def changes_in_words(
    changes: Interventions, tokens: list[str], records: Sequence[Routing], both: bool = False
) -> list[str]:
    """A phrase for each change: "expert 3 of layer 1 off"; `both` as in `layer_title`.

    Args:
        tokens: names of those that are forced, by their index.
        records: of the layers that have experts switched off.
    """
    sizes, said = {record.name: record.num_experts for record in records}, []
    for layer, places in itertools.groupby(sorted(changes.ablate), key=lambda place: place[0]):
        off, title = [expert for _, expert in places], layer_title(layer, both)
        # A layer that a stranger's record names need not be there.
        if len(off) == sizes.get(layer):
            said.append(f"all experts of {title} off")
        else:
            said += [f"expert {expert} of {title} off" for expert in off]
    for (layer, token), expert in sorted(changes.force.items()):
        # Another text, or a stranger's record, need not have that many tokens.
        name = f"“{tokens[token].strip()}”" if token < len(tokens) else f"token {token}"
        said.append(f"{name} to expert {expert} in {layer_title(layer, both)}")
    if changes.capacity_factor is not None:
        factor = changes.capacity_factor
        said.append("no capacity limit" if math.isinf(factor) else f"capacity factor {factor:g}")
    if changes.capacity_group is not None:
        said.append(f"capacity counted per {changes.capacity_group}")
    return said + numbers_in_words(changes.numbers, both)


def numbers_in_words(numbers: Mapping[str, int], both: bool) -> list[str]:
    """A phrase for each other number of experts; "" = all layers."""
    return [
        f"{counted(number, 'expert')} for each token" + (f" in {layer_title(layer, both)}" if layer else "")
        for layer, number in sorted(numbers.items())
    ]


def own_factor(record: Routing, config: SwitchConfig) -> float:
    """The capacity factor that the model routes this text with; where it has an absolute capacity, what that makes;
    with expert choice the mean number of experts of a token."""
    if getattr(config, "router", "switch") == "expert_choice":
        return float(config.num_experts_per_tok)
    if config.expert_capacity is None:
        return math.inf if config.eval_capacity_factor is None else float(config.eval_capacity_factor)
    capacity, tokens = int(record.capacity), int(record.mask.sum())
    return (
        math.inf
        if capacity == UNLIMITED
        else round(capacity * record.num_experts / (tokens * record.experts.shape[-1]), 2)
    )
