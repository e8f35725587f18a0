"""Hooks on a model's routers for one call: what each returned, as records, and changes to what it chooses.

Data flow: model called -> a stack's hook notes rows, tokens and padding -> before a router, its changes are
put on (`rechoosing.py`) -> after it they are off, and what it returned is kept -> hooks off -> records.
Legend: B batch, T tokens, N = B · T, E experts, K choices, R rows of interventions.
"""

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from switch_model.adapters.contracts import Choice, TopKContract, contract_of
from switch_model.adapters.rechoosing import ChangedScores, Changes
from switch_model.interventions import Interventions, ablated_experts, forced_experts
from switch_model.topk_routing import TopKRouting


@dataclass(frozen=True)
class Router:
    """One router: its layer's name, its stack, the module, what it returns, E, and whether it chooses among groups of
    experts first."""

    name: str
    stack: str
    module: nn.Module
    contract: TopKContract
    num_experts: int
    grouped: bool

    @classmethod
    def of(cls, name: str, module: nn.Module) -> "Router":
        """Of a router module; the first part of the name is its stack."""
        grouped = getattr(module, "num_group", None) is not None
        return cls(name, name.partition(".")[0], module, contract_of(module), _experts_of(module), grouped)


def _experts_of(module: nn.Module) -> int:
    for name in ("n_routed_experts", "num_experts"):
        if isinstance(number := getattr(module, name, None), int):
            return number
    if isinstance(weight := getattr(module, "weight", None), Tensor) and weight.dim() == 2:
        return weight.shape[0]
    return next(child.out_features for child in module.modules() if isinstance(child, nn.Linear))


@dataclass(frozen=True, eq=False)
class Call:
    """The tokens that a stack is called with: which are real (B, T), and how many each row had before them (B,)."""

    mask: Tensor
    past: Tensor


class Hooks:
    """Hooks for one call of a model, in the thread that makes it.

    Args:
        routers: of the model, by layer.
        stacks: "encoder" and "decoder", as far as there are, and the modules that are called with their tokens.
        rows: interventions: none, one for all sequences, or one for each.
        growing: whether more tokens follow in later calls of the stacks.
    """

    def __init__(
        self,
        routers: Sequence[Router],
        stacks: Mapping[str, nn.Module],
        rows: Sequence[Interventions],
        growing: bool = False,
    ):
        self.routers, self.stacks, self.rows, self.growing = routers, stacks, rows, growing
        self.calls: dict[str, Call] = {}
        self.seen: dict[str, Choice] = {}
        self.forced: dict[str, Tensor] = {}
        self.mode: ChangedScores | None = None
        self.thread = threading.get_ident()

    @contextmanager
    def on(self) -> Iterator["Hooks"]:
        """The hooks are on inside, and taken off whatever happens."""
        handles = []
        try:
            for stack, module in self.stacks.items():
                handles.append(module.register_forward_pre_hook(self._note(stack), with_kwargs=True))
            for router in self.routers:
                handles.append(router.module.register_forward_pre_hook(self._before(router)))
                handles.append(router.module.register_forward_hook(self._after(router), always_call=True))
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def records(self) -> tuple[TopKRouting, ...]:
        """One for each router that was called, in the order of the layers."""
        return tuple(self._record(router) for router in self.routers if router.name in self.seen)

    def _record(self, router: Router) -> TopKRouting:
        choice = self.seen[router.name]
        mask_BT = self.calls[router.stack].mask.to(choice.experts.device)  # Layers may be on several devices.
        weights_NK, experts_NK, logits_NE = choice.weights.float(), choice.experts.long(), choice.logits.float()
        # The largest weight first: some families return them in no order. A forced expert precedes them.
        ranks_NK = weights_NK
        if (forced_N := self.forced.get(router.name)) is not None:
            ranks_NK = weights_NK.masked_fill(experts_NK == forced_N.unsqueeze(-1), torch.inf)
        order_NK = ranks_NK.argsort(dim=-1, descending=True, stable=True)
        if logits_NE.shape[-1] > router.num_experts:
            logits_NE = logits_NE[:, : router.num_experts]
        return TopKRouting(
            name=router.name,
            experts=experts_NK.gather(-1, order_NK).unflatten(0, mask_BT.shape),
            weights=weights_NK.gather(-1, order_NK).unflatten(0, mask_BT.shape),
            mask=mask_BT,
            num_experts=router.num_experts,
            logits=logits_NE.unflatten(0, mask_BT.shape),
        )

    def _is_elsewhere(self) -> bool:
        """Whether this thread is another one, which shares the model but not this call."""
        return threading.get_ident() != self.thread

    def _note(self, stack: str) -> Any:
        def note(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            if not self._is_elsewhere():
                self.calls[stack] = call_of(module, args, kwargs)

        return note

    def _before(self, router: Router) -> Any:
        def before(module: nn.Module, args: tuple) -> None:
            if self._is_elsewhere() or not self.rows:
                return
            changes = self._changes(router)
            if changes.rechooses:
                self.mode = ChangedScores(
                    changes, self.calls[router.stack].mask.numel(), router.num_experts, router.grouped
                )
                self.mode.__enter__()

        return before

    def _after(self, router: Router) -> Any:
        def after(module: nn.Module, args: tuple, output: Any) -> Any:
            if self._is_elsewhere():
                return None
            mode, self.mode = self.mode, None
            if mode is not None:
                mode.__exit__(None, None, None)
            if output is None:  # The router failed, or never began.
                return None
            try:
                output = self._changed(router, output, mode)
                changes = mode.changes if mode else None
                choice = router.contract.read(output, None if changes is None else changes.top_k)
                if changes is not None and changes.ablated is not None:
                    # In some families these are probabilities, or not those that the router chose by.
                    logits = choice.logits.masked_fill(changes.ablated, -torch.inf)
                    choice = replace(choice, logits=logits)
                self.seen[router.name] = choice.detached()
            except ValueError as error:
                raise ValueError(f"{router.name} of this model: {error}.") from error
            tokens, expected = len(self.seen[router.name].experts), self.calls[router.stack].mask.numel()
            if tokens != expected:
                raise ValueError(f"{router.name} of this model routed {tokens} tokens, but the text has {expected}.")
            return output

        return after

    def _changed(self, router: Router, output: Any, mode: ChangedScores | None) -> Any:
        if mode is not None:
            if not mode.chose:
                raise ValueError("its router chooses by token, not by scores, so that its choices can't be changed")
            if mode.changes.ablated is not None:
                output = router.contract.without(output, mode.changes.ablated)
        if self.rows and any(row.choices.get(router.name) for row in self.rows):
            own = router.contract.read(output, None if mode is None else mode.changes.top_k)
            # The first of the given experts takes the largest weight, wherever the router has it.
            order_NK = own.weights.argsort(dim=-1, descending=True, stable=True)
            given_NK = self._assigned(router, own.experts.gather(-1, order_NK))
            output = router.contract.assigned(output, torch.empty_like(given_NK).scatter(-1, order_NK, given_NK))
        return output

    def _rows_of(self, batch: int) -> list[Interventions]:
        """R = 1 or `batch` rows: the beams of a text share its row."""
        if len(self.rows) in (1, batch):
            return list(self.rows)
        return [self.rows[index // (batch // len(self.rows))] for index in range(batch)]

    def _changes(self, router: Router) -> Changes:
        call = self.calls[router.stack]
        device = next(router.module.parameters()).device
        mask_BT, rows = call.mask.to(device), self._rows_of(len(call.mask))
        past = call.past.to(device) if self.growing else None
        ablated = ablated_experts(rows, router.name, router.num_experts, mask_BT, past)
        if ablated is not None:
            ablated = ablated.expand(*mask_BT.shape, -1).flatten(0, 1)
        forced = forced_experts(rows, router.name, mask_BT, past)
        self.forced.pop(router.name, None)
        if forced is not None:
            forced = self.forced[router.name] = forced.flatten()
        numbers = {row.numbers.get(router.name, row.numbers.get("")) for row in rows}
        return Changes(ablated, forced, numbers.pop() if len(numbers) == 1 else None)

    def _assigned(self, router: Router, own_NK: Tensor) -> Tensor:
        """(N, K) the experts that `choices` assign, the router's own where they assign none."""
        call = self.calls[router.stack]
        experts_BTK = own_NK.unflatten(0, call.mask.shape).clone()
        choices = own_NK.shape[-1]
        for index, row in enumerate(self._rows_of(len(call.mask)) * (len(call.mask) if len(self.rows) == 1 else 1)):
            given = row.choices.get(router.name)
            if not given:
                continue
            real_T = call.mask[index].nonzero().flatten()
            wide = [one if isinstance(one, tuple) else (one,) for one in given]
            if any(len(one) != choices for one in wide):
                raise ValueError(f"`choices` must name {choices} experts for each token, as many as the model chooses")
            first = int(call.past[index])
            if not self.growing and len(wide) != len(real_T):
                raise ValueError(f"{len(wide)} choices are given: the text has {len(real_T)} tokens")
            meant = wide[first : first + len(real_T)]
            experts_BTK[index, real_T[: len(meant)]] = torch.tensor(meant, device=own_NK.device).view(-1, choices)
        return experts_BTK.flatten(0, 1)


def call_of(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Call:
    """The tokens of a call of a stack, from its arguments. Raises ValueError for a call without tokens."""
    given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
    given = given | given.get("kwargs", {})
    ids, embeddings, mask = (given.get(name) for name in ("input_ids", "inputs_embeds", "attention_mask"))
    source = ids if ids is not None else embeddings
    if source is None:
        raise ValueError("The model was called without tokens.")
    batch, tokens = source.shape[:2]
    if isinstance(mask, Tensor) and mask.dim() == 2 and mask.shape[1] >= tokens:
        real = mask.to(source.device, torch.bool)
        return Call(real[:, mask.shape[1] - tokens :], real[:, : mask.shape[1] - tokens].sum(dim=1))
    cache = given.get("past_key_values", given.get("cache"))
    past = 0 if cache is None else int(cache.get_seq_length())
    real = torch.ones(batch, tokens, dtype=torch.bool, device=source.device)
    return Call(real, torch.full((batch,), past, device=source.device))
