"""The loss of the global batch, from each process's share of it.

DistributedDataParallel averages the processes' gradients. That gives the gradient of one process with the whole batch
only if each share's loss is its part of the whole: means over tokens weigh shares by their tokens, and the balance loss
E · Σ fᵢPᵢ needs the load f of the whole batch.
Legend: E experts, L sparse layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from switch_model.config import SwitchConfig
from switch_model.models.routing_losses import routing_losses
from switch_model.routing import Routing
from train.distributed.processes import Processes


@dataclass(frozen=True)
class Counts:
    """What a batch has, as tensors, so that they can be summed over processes.

    Attributes:
        predictions: number of rows with a class, or of labelled tokens.
        tokens: number of tokens that the model reads and writes.
        not_finite: number of losses that are not finite.
        choices: (L, E) tokens that chose each expert.
        real: (L,) tokens that each layer routes.
        sequences: (L,) sequences with at least one of them.
    """

    predictions: Tensor
    tokens: Tensor
    not_finite: Tensor
    choices: Tensor
    real: Tensor
    sequences: Tensor

    @classmethod
    def of(cls, loss: Tensor, records: tuple[Routing, ...], predictions: int, tokens: Tensor) -> "Counts":
        device = loss.device
        none = torch.zeros(0, device=device)
        return cls(
            torch.tensor(predictions, device=device),
            tokens,
            ~torch.isfinite(loss.detach()),
            torch.stack([record.choices for record in records]) if records else none,
            torch.stack([record.mask.sum() for record in records]) if records else none,
            torch.stack([record.mask.any(dim=1).sum() for record in records]) if records else none,
        )

    def of_nothing(self) -> "Counts":
        """Zeros: of a process whose rows another one has too."""
        return Counts(*(torch.zeros_like(part) for part in vars(self).values()))

    def total(self, processes: Processes) -> "Counts":
        """The counts of the global batch, in one exchange. In double precision, which is exact for counts."""
        parts = list(vars(self).values())
        flat = processes.total(torch.cat([part.double().flatten() for part in parts]))
        pieces = flat.split([part.numel() for part in parts])
        return Counts(*(piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)))


def loss_of_share(
    loss: Tensor,
    records: tuple[Routing, ...],
    config: SwitchConfig,
    own: Counts,
    whole: Counts,
    processes: int,
) -> Tensor:
    """This process's part of the global batch's loss, times the number of processes, by which the average of the
    gradients divides.

    Args:
        loss: of this process's rows alone.
        own, whole: what its rows have, and those of all processes.
    """
    of_predictions = (own.predictions / whole.predictions.clamp(min=1)).float()
    if not records:
        return loss * of_predictions * processes
    alone = routing_losses(records, config).weighted
    of_whole = routing_losses(
        records,
        config,
        loads=(whole.choices / whole.choices.sum(dim=-1, keepdim=True).clamp(min=1)).float(),
        of_tokens=(own.real / whole.real.clamp(min=1)).float(),
        of_sequences=(own.sequences / whole.sequences.clamp(min=1)).float(),
    ).weighted
    return processes * ((loss - alone) * of_predictions + of_whole)
