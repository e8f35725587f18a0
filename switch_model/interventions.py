"""Interventions: changes to the routing of one forward pass, applied inside the router before it chooses.

Legend: B batch, T tokens, E experts, R rows of interventions (1, or one per sequence).
Try it: predictor(text, interventions=Interventions(ablate={("encoder.1", 3)}))
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Integral
from typing import get_args

import torch
from torch import Tensor

from switch_model.config_rules import CapacityGroup
from switch_model.tracing import is_traced


def _counts(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


def _frozen(choice: int | Sequence[int]) -> int | tuple[int, ...]:
    return tuple(choice) if isinstance(choice, Sequence) else choice


def _flat(choices: Iterable[int | Sequence[int]]) -> Iterable[int]:
    return (expert for one in choices for expert in (one if isinstance(one, tuple) else (one,)))


@dataclass(frozen=True)
class Interventions:
    """Changes to the routing of one forward pass.

    Args:
        ablate: {(layer name, expert)} that can't be chosen; the other experts' probabilities are renormalised.
        ablate_at: {(layer name, token index): experts} that this one token can't choose.
        force: {(layer name, token index): expert}; tokens are counted from 0 without padding. The gate is that expert's
            own probability.
        choices: {layer name: expert of each token}, one per token of the text, or K where a layer has K choices. Each
            token keeps the gate of the router's own choice: in a `Routing`, the logits of the two experts are swapped.
        capacity_factor: overrides the model's; None = unchanged, math.inf = dropless.
        capacity_group: "sequence" or "batch", overrides the model's; None = unchanged.
        top_k: number of experts for each token, in all layers or {layer name: number}; only for models with several.
            None = unchanged.

    Raises:
        ValueError: for a bad factor, group or number, a token sent to an ablated expert, or a layer both in `force` and
            in `choices`.
    """

    ablate: Set[tuple[str, int]] = frozenset()
    force: Mapping[tuple[str, int], int] = field(default_factory=dict)
    capacity_factor: float | None = None
    capacity_group: str | None = None
    choices: Mapping[str, Sequence[int] | Sequence[Sequence[int]]] = field(default_factory=dict)
    top_k: int | Mapping[str, int] | None = None
    ablate_at: Mapping[tuple[str, int], Set[int]] = field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "ablate", frozenset(self.ablate))
        object.__setattr__(self, "ablate_at", {place: frozenset(own) for place, own in self.ablate_at.items()})
        object.__setattr__(self, "force", dict(self.force))
        object.__setattr__(self, "choices", {layer: tuple(map(_frozen, own)) for layer, own in self.choices.items()})
        if isinstance(self.top_k, Mapping):
            object.__setattr__(self, "top_k", dict(self.top_k))
        for layer, number in self.numbers.items():
            if not _counts(number) or number == 0:
                where = f" of {layer}" if layer else ""
                raise ValueError(f"top_k={number!r}{where} is not allowed: it must be a whole number from 1, or None.")
        named = [*self.experts, *self.force, *self.ablate_at]
        if not all(isinstance(layer, str) and _counts(number) for layer, number in named):
            raise ValueError("Interventions name layers as text, experts and tokens as whole numbers from 0.")
        factor = self.capacity_factor
        if factor is not None and not (isinstance(factor, (int, float)) and factor is not True and factor > 0):
            raise ValueError(f"capacity_factor={self.capacity_factor!r} is not allowed: it must be above 0, or None.")
        groups = get_args(CapacityGroup)
        if self.capacity_group not in (None, *groups):
            raise ValueError(
                f"capacity_group={self.capacity_group!r} is not allowed: it must be one of {groups}, or None."
            )
        for (layer, token), expert in self.force.items():
            if (layer, expert) in self.ablate or expert in self.ablate_at.get((layer, token), ()):
                raise ValueError(f"Token {token} is forced to expert {expert} of {layer}, which is ablated.")
            if layer in self.choices:
                raise ValueError(f"{layer} is both in `force` and in `choices`: name it in one of the two.")
        for layer, expert in self.ablate:
            if expert in _flat(self.choices.get(layer, ())):
                raise ValueError(f"Tokens are assigned to expert {expert} of {layer}, which is ablated.")

    @property
    def numbers(self) -> dict[str, int]:
        """`top_k` by layer; "" = all layers."""
        if isinstance(self.top_k, Mapping):
            return dict(self.top_k)
        return {} if self.top_k is None else {"": self.top_k}

    @property
    def experts(self) -> set[tuple[str, int]]:
        """Every (layer, expert) that is named."""
        forced = ((layer, expert) for (layer, _), expert in self.force.items())
        assigned = ((layer, expert) for layer, own in self.choices.items() for expert in set(_flat(own)))
        off = ((layer, expert) for (layer, _), own in self.ablate_at.items() for expert in own)
        return {*self.ablate, *forced, *assigned, *off}

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ValueError for a layer that is not among `layers`."""
        for layer in {*(layer for layer, _ in self.experts), *self.choices, *filter(None, self.numbers)}:
            if layer not in layers:
                raise ValueError(f"The model has no sparse layer {layer!r}: it has {', '.join(layers) or 'none'}.")

    def check_one_choice(self) -> None:
        """Raise ValueError for changes that only a model with several experts for each token can follow."""
        if any(number != 1 for number in self.numbers.values()):
            raise ValueError(f"top_k={self.top_k!r} is not allowed: a Switch model sends each token to one expert.")
        if any(isinstance(one, tuple) for own in self.choices.values() for one in own):
            raise ValueError("`choices` name several experts for a token: a Switch model sends each token to one.")

    def check_number_of_choices(self, own: int, num_experts: int, any_number: bool) -> None:
        """Raise ValueError for another number of choices than a model can follow.

        Args:
            own: K of its records.
            num_experts: E.
            any_number: whether another number can be asked for.
        """
        if own == 1 and not any_number:
            self.check_one_choice()
            return
        for number in self.numbers.values():
            if number > num_experts:
                raise ValueError(f"top_k={number} is not allowed: a layer has {num_experts} experts.")
            if not any_number and number != own:
                raise ValueError(f"top_k={number} is not allowed: with expert choice, experts choose their tokens.")

    def check_experts(self, num_experts: int) -> None:
        """Raise ValueError for an expert number of `num_experts` or above."""
        for layer, expert in self.experts:
            if expert >= num_experts:
                raise ValueError(f"{layer} has no expert {expert}: its experts are 0 to {num_experts - 1}.")


# What `forward` takes: nothing, one for all sequences, or one per sequence.
AnyInterventions = Interventions | Sequence[Interventions] | None


def rows_of(interventions: AnyInterventions, batch: int) -> list[Interventions]:
    """One row for all sequences, or one per sequence. Raises ValueError when the number of rows does not fit."""
    if interventions is None:
        return []
    if isinstance(interventions, Interventions):
        return [interventions]
    rows = list(interventions)
    if len(rows) != batch:
        raise ValueError(f"{len(rows)} interventions were given for {batch} sequences: give one, or one per sequence.")
    return rows


def ablated_experts(
    rows: Sequence[Interventions], layer: str, num_experts: int, mask: Tensor, past_tokens: Tensor | None = None
) -> Tensor | None:
    """(R, 1, E) bool, or (B, T, E) where single tokens differ: True where an expert of `layer` is ablated; None when
    none is. `mask` and `past_tokens` as in `forced_experts`; raises ValueError as it does."""
    off = [[(layer, expert) in row.ablate for expert in range(num_experts)] for row in rows]
    alone = [
        (index, token, expert)
        for index, row in enumerate(rows)
        for (name, token), own in row.ablate_at.items()
        if name == layer
        for expert in own
    ]
    off_R1E = torch.tensor(off, device=mask.device).unsqueeze(1) if alone or any(map(any, off)) else None
    if off_R1E is None or not alone:
        return off_R1E
    batch, tokens = mask.shape
    # One row is for all sequences.
    named = alone if len(rows) > 1 else [(index, *one[1:]) for index in range(batch) for one in alone]
    row_M, token_M, expert_M = torch.tensor(named, device=mask.device).unbind(1)
    if past_tokens is not None:
        token_M = token_M - past_tokens[row_M]
    # Where each token of a sequence, counted without padding, stands in it; -1 beyond its last one.
    where_BT = torch.full(mask.shape, -1, device=mask.device)
    index_N, position_N = mask.nonzero().unbind(1)
    where_BT[index_N, (mask.cumsum(dim=1) - 1)[mask]] = position_N
    position_M = where_BT[row_M, token_M.clamp(0, tokens - 1)]
    there_M = (token_M >= 0) & (token_M < tokens) & (position_M >= 0)
    if past_tokens is None and not is_traced() and not bool(there_M.all()):
        first = int((~there_M).nonzero()[0])
        raise ValueError(
            f"Token {int(token_M[first])} can't lose an expert: the text has {int(mask[row_M[first]].sum())} tokens."
        )
    off_BTE = off_R1E.repeat(batch // len(rows), tokens, 1)
    off_BTE[row_M[there_M], position_M[there_M], expert_M[there_M]] = True
    return off_BTE


def forced_experts(
    rows: Sequence[Interventions], layer: str, mask: Tensor, past_tokens: Tensor | None = None
) -> Tensor | None:
    """(B, T) int64 expert that each token is forced to, -1 = not forced; None when no token is.

    Args:
        mask: (B, T) bool, True = a real token.
        past_tokens: (B,) number of tokens of each sequence in the cache, before these; more may follow.

    Raises:
        ValueError: when a token index lies beyond a sequence's last token.
    """
    forced = [{token: expert for (name, token), expert in row.force.items() if name == layer} for row in rows]
    if not any(forced):
        return None
    if is_traced():
        return _forced_when_traced(forced, mask, past_tokens)
    batch = mask.shape[0]
    forced_BT = torch.full(mask.shape, -1, dtype=torch.int64, device=mask.device)
    for index in range(batch):
        positions = mask[index].nonzero().flatten()
        first = 0 if past_tokens is None else int(past_tokens[index])
        for token, expert in forced[index if len(forced) > 1 else 0].items():
            token -= first
            if past_tokens is not None and not 0 <= token < len(positions):
                continue  # It is in the cache, or not generated yet.
            if token >= len(positions):
                raise ValueError(f"Token {token} can't be forced: the text has {len(positions)} tokens.")
            forced_BT[index, positions[token]] = expert
    return forced_BT


def assigned_experts(
    rows: Sequence[Interventions], layer: str, own: Tensor, mask: Tensor, past_tokens: Tensor | None = None
) -> Tensor | None:
    """(B, T) int64 expert that `choices` assign to each token, its `own` (B, T) elsewhere; None without `choices`.

    `mask` and `past_tokens` as in `forced_experts`. Raises ValueError when a text has not as many tokens as choices.
    """
    if not any(row.choices.get(layer) for row in rows):
        return None
    assigned = [torch.tensor(row.choices.get(layer, ()), dtype=torch.int64, device=own.device) for row in rows]
    place_BT = mask.cumsum(dim=1) - 1
    if past_tokens is not None:
        place_BT = place_BT + past_tokens.unsqueeze(1)
    elif not is_traced():
        tokens_B = mask.sum(dim=1).tolist()
        for index, tokens in enumerate(tokens_B):
            row = rows[index if len(rows) > 1 else 0]
            if row.choices.get(layer) and len(row.choices[layer]) != tokens:
                number = len(row.choices[layer])
                raise ValueError(f"{number} choices are given in {layer}: the text has {tokens} tokens.")
    table_RM = torch.nn.utils.rnn.pad_sequence(assigned, batch_first=True).expand(len(mask), -1)
    length_B1 = torch.tensor([len(own_M) for own_M in assigned], device=own.device).expand(len(mask)).unsqueeze(1)
    meant_BT = mask & (place_BT < length_B1)
    return torch.where(meant_BT, table_RM.gather(1, place_BT.clamp(0, table_RM.shape[1] - 1)), own)


def assigned_choices(
    rows: Sequence[Interventions], layer: str, own: Tensor, mask: Tensor, past_tokens: Tensor | None = None
) -> Tensor | None:
    """`assigned_experts` where a token has K experts: (B, T, K), from `own` (B, T, K); None without `choices`. Raises
    ValueError as it does, and where a token is not given K."""
    if not any(row.choices.get(layer) for row in rows):
        return None
    choices, assigned_BTK = own.shape[-1], own.clone()
    for index, real_T in enumerate(mask):
        given = rows[index if len(rows) > 1 else 0].choices.get(layer)
        if not given:
            continue
        wide = [one if isinstance(one, tuple) else (one,) for one in given]
        if any(len(one) != choices for one in wide):
            raise ValueError(f"`choices` of {layer} must name {choices} experts for each token, as the model chooses.")
        place_M = real_T.nonzero().flatten()
        if past_tokens is None and len(wide) != len(place_M):
            raise ValueError(f"{len(wide)} choices are given in {layer}: the text has {len(place_M)} tokens.")
        first = 0 if past_tokens is None else int(past_tokens[index])
        meant = wide[first : first + len(place_M)]
        if meant:
            assigned_BTK[index, place_M[: len(meant)]] = torch.tensor(meant, device=own.device)
    return assigned_BTK


def swap_logits(logits: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """(B, T, E) logits, with the logits of two experts `one` and `other` (B, T) of each token swapped."""
    one_BT1, other_BT1 = one.unsqueeze(-1), other.unsqueeze(-1)
    of_one_BT1, of_other_BT1 = logits.gather(-1, one_BT1), logits.gather(-1, other_BT1)
    return logits.scatter(-1, one_BT1, of_other_BT1).scatter(-1, other_BT1, of_one_BT1)


def _forced_when_traced(forced: Sequence[Mapping[int, int]], mask: Tensor, past_tokens: Tensor | None) -> Tensor:
    """`forced_experts` for a traced graph, which can't raise: a token index beyond the text forces nothing."""
    place_BT = mask.cumsum(dim=1) - 1
    if past_tokens is not None:
        place_BT = place_BT + past_tokens.unsqueeze(1)
    row_B1 = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1)
    forced_BT = torch.full_like(place_BT, -1)
    for index, own in enumerate(forced):
        for token, expert in own.items():
            meant_BT = mask & (place_BT == token)
            if len(forced) > 1:
                meant_BT = meant_BT & (row_B1 == index)
            forced_BT = torch.where(meant_BT, expert, forced_BT)
    return forced_BT
