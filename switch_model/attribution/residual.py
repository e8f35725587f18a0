"""What each part of a model added to the residual stream: embedding, attention, MLPs, and every expert for itself.

Legend: B = 1 text, T tokens, P places in it that are looked at, D d_model, E experts, K choices.
Hooks that only read, on the blocks of one stack, for the length of one call. How a block adds up is not known
beforehand but found: what its children gave, through the norms that follow them, must make what it gave. Checked at
every step, so that a family which adds up in another way is refused and never shown wrong numbers.
"""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from switch_model.attribution.linear import LinearMap, NotSeparable, agree, factors, frozen_norm
from switch_model.routing import Routing
from switch_model.sparse_mlp import SparseMLP


@dataclass(frozen=True, eq=False)
class Added:
    """What one part added at P places.

    Attributes:
        name: "embedding", "attention", "experts", …
        layer: of the block: "decoder.3"; None for the embedding.
        states: (P, K, D), as they are in the last sum, before the final norm; K = 1 but for experts.
        experts, weights: (P, K) of "experts": -1 and 0 where none; None of other parts.
    """

    name: str
    layer: str | None
    states: Tensor
    experts: Tensor | None = None
    weights: Tensor | None = None

    def at(self, places: slice) -> "Added":
        """At some of the places."""
        own = (None if one is None else one[places] for one in (self.experts, self.weights))
        return Added(self.name, self.layer, self.states[places], *own)


@dataclass(frozen=True, eq=False)
class Seen:
    """One call of a module: its first input and its output at P places, float32, and all inputs."""

    name: str
    module: nn.Module
    entered: Tensor
    left: Tensor
    inputs: tuple[Any, ...]
    output: Any
    dtype: torch.dtype


class Watched:
    """The blocks of one stack, watched during one call in the thread that makes it.

    Args:
        owner: the module that holds the blocks and the final norm.
        blocks: in order.
        stack: "encoder" or "decoder".
        routers: modules of the routers.
        places: P indices of tokens.
        tokens: T.
    """

    def __init__(
        self,
        owner: nn.Module,
        blocks: Sequence[nn.Module],
        stack: str,
        routers: Sequence[nn.Module],
        places: Sequence[int],
        tokens: int,
    ):
        self.owner, self.blocks, self.stack = owner, list(blocks), stack
        self.routers, self.places, self.tokens = set(routers), list(places), tokens
        self.seen: dict[nn.Module, list[Seen]] = {}
        self.thread = threading.get_ident()

    @contextmanager
    def on(self) -> Iterator["Watched"]:
        """The hooks are on inside, and taken off whatever happens."""
        handles = []
        try:
            for owner in (self.owner, *self.blocks, *filter(None, map(self._sparse, self.blocks))):
                for name, child in owner.named_children():
                    handles.append(child.register_forward_hook(self._note(owner, name), with_kwargs=True))
            for block in self.blocks:
                handles.append(block.register_forward_hook(self._note(self.owner, "block"), with_kwargs=True))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _sparse(self, block: nn.Module) -> nn.Module | None:
        """The child of a block that holds its router."""
        return next((child for child in block.children() if self.routers & set(child.modules())), None)

    def _note(self, owner: nn.Module, name: str) -> Any:
        def note(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
            if threading.get_ident() != self.thread:
                return
            inputs = (*args, *kwargs.values())
            first = next((one for one in inputs if isinstance(one, Tensor)), None)
            entered, left = self._rows(first), self._rows(output)
            if entered is not None and left is not None:
                dtype = (output[0] if isinstance(output, tuple) else output).dtype
                self.seen.setdefault(owner, []).append(Seen(name, module, entered, left, inputs, output, dtype))

        return note

    def _rows(self, value: Any) -> Tensor | None:
        """(P, …) of a tensor (1, T, …) or (T, …), or of the first one of a tuple; None for anything else."""
        value = value[0] if isinstance(value, tuple) and value else value
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return None
        if value.dim() == 3 and value.shape[0] == 1:
            value = value[0]
        return value[self.places].float() if value.dim() == 2 and len(value) == self.tokens else None

    # -- after the call -----------------------------------------------------------------------------------------------

    def added(self) -> tuple[list[Added], Seen]:
        """Every part of the last sum, and the call of the final norm that follows it. Raises NotSeparable."""
        calls = self.seen.get(self.owner, [])
        blocks = [one for one in calls if one.name == "block"]
        if [one.module for one in blocks] != self.blocks:
            raise NotSeparable("its blocks are not called once each, one after the other")
        parts = [Added("embedding", None, blocks[0].entered.unsqueeze(1))]
        for index, block in enumerate(blocks):
            if index and not torch.equal(block.entered, blocks[index - 1].left):
                raise NotSeparable("something happens between its blocks")
            kept, own = self._of_block(block, f"{self.stack}.{index}")
            parts = [_times(part, kept) for part in parts] + own
        norm = next((one for one in calls if one.name != "block" and torch.equal(one.entered, blocks[-1].left)), None)
        if norm is None:
            raise NotSeparable("no norm follows its last block")
        return parts, norm

    def _of_block(self, block: Seen, layer: str) -> tuple[float, list[Added]]:
        """What a block multiplied its input by, and what it added to it."""
        calls = self.seen.get(block.module, [])
        sparse = self._sparse(block.module)
        if sparse is None and self.routers & set(block.module.modules()):
            raise NotSeparable("its experts are no module of their own")
        sources = [one for one in calls if not _passes(one) and one.left.shape == block.left.shape]
        ends = [(source, *_followed(source, calls)) for source in sources]
        found = factors(
            block.left, [block.entered, *(end for _, end, _ in ends)], block.dtype, of=block.left - block.entered
        )
        if found is None:
            raise NotSeparable(f"block {layer.rpartition('.')[2]} does not add up from what its parts give")
        parts = []
        for factor, (source, end, then) in zip(found[1:], ends, strict=True):
            if source.module is sparse:
                parts += [_times(part, factor) for part in self._of_experts(source, end, then, layer)]
            else:
                parts.append(Added(_kind(source.name), layer, factor * end.unsqueeze(1)))
        return found[0], parts

    def _of_experts(self, sparse: Seen, end: Tensor, then: LinearMap, layer: str) -> list[Added]:
        """The experts, each for itself, and what the block of experts gave besides. `then`: from it to `end` (P, D)."""
        if isinstance(sparse.module, SparseMLP) and isinstance(sparse.output[1], Routing):
            record = sparse.output[1]
            kept_P = record.kept[0, self.places]
            expert_P = record.expert[0, self.places].masked_fill(~kept_P, -1)
            return [Added("experts", layer, end.unsqueeze(1), expert_P[:, None], record.gate[0, self.places, None])]
        calls = self.seen.get(sparse.module, [])
        experts = next((one for one in calls if one.module is getattr(sparse.module, "experts", None)), None)
        if experts is None or not _takes_choices(experts.inputs):
            raise NotSeparable("its experts take something else than states, their numbers and weights")
        states, numbers_PK, weights_PK = each_expert(experts, self.places)
        if not agree(states.sum(1), experts.left, experts.dtype):
            raise NotSeparable("its experts' outputs do not add up")
        states, beside, share = self._through(sparse, experts, states, calls)
        states = then(share * states)
        numbers_PK = numbers_PK.masked_fill(weights_PK == 0, -1)
        parts = [Added("experts", layer, states, numbers_PK, weights_PK)]
        rest = (end - states.sum(1)).unsqueeze(1)
        return parts + ([Added("shared experts", layer, rest)] if beside else [])

    def _through(
        self, sparse: Seen, experts: Seen, states: Tensor, calls: Sequence[Seen]
    ) -> tuple[Tensor, bool, float]:
        """The experts' states in the residual's width, whether other parts add to theirs, and their factor."""
        total = experts.left
        for one in calls:
            if (
                isinstance(one.module, nn.Linear)
                and one.entered.shape == total.shape
                and torch.equal(one.entered, total)
            ):
                states, total = nn.functional.linear(states, one.module.weight.float()), one.left
        beside = [
            one.left
            for one in calls
            if one is not experts and one.module not in self.routers and one.left is not total
            if one.left.shape == sparse.left.shape
        ]
        if total.shape != sparse.left.shape:
            raise NotSeparable("its experts' outputs are not what their block gives")
        if not beside:
            share = factors(sparse.left, [total], sparse.dtype)
        else:  # A gate of each token's own may weigh the shared experts.
            each = [
                factors(sparse.left[p], [total[p], *(one[p] for one in beside)], sparse.dtype)
                for p in range(len(total))
            ]
            share = [one[0] for one in each if one is not None]
            if len(share) < len(each) or max(share) - min(share) > 0.02 * max(map(abs, share)):
                share = None
        if share is None:
            raise NotSeparable("its experts' outputs are not what their block gives")
        return states, bool(beside), sum(share) / len(share)


def each_expert(experts: Seen, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(P, K, D) each chosen expert's weighted output at each place, the (P, K) experts, the largest weight first, and
    their weights: the experts run once more, with one choice for each row."""
    hidden_TD, numbers_TK, weights_TK = experts.inputs[:3]
    hidden_TD = hidden_TD.flatten(0, -2)
    order_PK = weights_TK[places].argsort(dim=-1, descending=True, stable=True)
    numbers_PK = numbers_TK[places].gather(-1, order_PK)
    weights_PK = weights_TK[places].gather(-1, order_PK)
    rows = hidden_TD[places].repeat_interleave(numbers_PK.shape[1], dim=0)
    left = experts.module(rows, numbers_PK.reshape(-1, 1), weights_PK.reshape(-1, 1))
    return left.float().view(*numbers_PK.shape, -1), numbers_PK, weights_PK.float()


def _takes_choices(inputs: tuple[Any, ...]) -> bool:
    if len(inputs) < 3 or not all(isinstance(one, Tensor) for one in inputs[:3]):
        return False
    _, numbers, weights = inputs[:3]
    return numbers.dtype == torch.int64 and numbers.dim() == 2 and numbers.shape == weights.shape


def _passes(one: Seen) -> bool:
    """Whether a call is a norm or a dropout, which adds nothing of its own."""
    return bool(re.search("Norm|Dropout|Identity", type(one.module).__name__))


def _followed(source: Seen, calls: Sequence[Seen]) -> tuple[Tensor, LinearMap]:
    """(P, D) what a part's output became through the norms that follow it, and how, linearised."""
    end = source.left
    norms: list[LinearMap] = []
    for one in calls[calls.index(source) + 1 :]:
        if _passes(one) and one.entered.shape == end.shape and torch.equal(one.entered, end):
            if "Norm" in type(one.module).__name__:
                norms.append(frozen_norm(one.module, one.entered, one.left))
            end = one.left

    def then(states: Tensor) -> Tensor:
        for norm in norms:
            states = norm(states)
        return states

    return end, then


# Names of blocks' parts, by what their module is called.
KINDS = {
    "cross|encoder_attn": "cross-attention",
    "shared": "shared experts",
    "attn|attention": "attention",
    "mamba|conv|mixer|delta|ssm": "sequence mixer",
    "mlp|feed_forward|ffn|dense": "dense MLP",
}


def _kind(name: str) -> str:
    return next((kind for pattern, kind in KINDS.items() if re.search(pattern, name)), name.replace("_", " "))


def _times(part: Added, factor: float) -> Added:
    if factor == 1.0:
        return part
    return Added(part.name, part.layer, factor * part.states, part.experts, part.weights)
