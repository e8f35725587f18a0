"""The losses on a batch's routing: balance loss, z-loss, balance loss per sequence, and their weighted sum.

Legend: E experts, L sparse layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from switch_model.config import SwitchConfig
from switch_model.routing import Routing, load_balancing_loss, router_z_loss, sequence_balance_loss


@dataclass(frozen=True)
class RoutingLosses:
    """Scalars, means over the sparse layers: balance loss, z-loss, and the weighted sum of all losses."""

    balance: Tensor | None = None
    z: Tensor | None = None
    weighted: Tensor | None = None


def routing_losses(
    records: tuple[Routing, ...],
    config: SwitchConfig,
    loads: Sequence[Tensor] | None = None,
    of_tokens: Tensor | None = None,
    of_sequences: Tensor | None = None,
) -> RoutingLosses:
    """The losses on a batch's routing, or a share of them.

    Args:
        records: one per sparse layer, L in all.
        loads: where the records are a part of a larger batch, the (E,) load of the whole one in each layer.
        of_tokens, of_sequences: (L,) the part's share of the whole batch's tokens, and sequences, in each layer; None =
            1. The losses of all parts then add up to those of the whole batch.
    """
    own = [None] * len(records) if loads is None else loads
    balance = [load_balancing_loss(record, load) for record, load in zip(records, own, strict=True)]
    aux_loss = _mean_over_layers(balance, of_tokens)
    z_loss = _mean_over_layers([router_z_loss(record) for record in records], of_tokens)
    weighted = config.router_z_loss_coef * z_loss
    if config.balances_by_loss:
        weighted = weighted + config.router_aux_loss_coef * aux_loss
    if config.sequence_balance_coef:
        each = _mean_over_layers([sequence_balance_loss(record) for record in records], of_sequences)
        weighted = weighted + config.sequence_balance_coef * each
    return RoutingLosses(aux_loss, z_loss, weighted)


def _mean_over_layers(losses: Sequence[Tensor], shares: Tensor | None) -> Tensor:
    """Per layer, so that a balanced layer can't hide a collapsed one."""
    losses_L = torch.stack(list(losses))
    return (losses_L if shares is None else losses_L * shares).mean()
