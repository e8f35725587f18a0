"""Where a token stands, as a vector added to its embedding: sinusoids, or learned vectors.

Legend: B batch, T tokens, D d_model. The other way, a bias on attention scores, is attention.RelativePositionBias.
"""

import math

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.initial import EMBEDDING_STD, start_with
from switch_model.tracing import is_traced


class Sinusoids(nn.Module):
    """sin and cos of the position at wavelengths from 2π to 20,000π (1706.03762, section 3.5), as large as an embedding
    is at the start."""

    def __init__(self, config: SwitchConfig):
        super().__init__()
        self.width = config.d_model

    def forward(self, positions: Tensor) -> Tensor:
        """(B, T) positions from 0 -> (B, T, D)."""
        index_D = torch.arange(self.width, device=positions.device)
        rate_D = torch.exp(-math.log(10_000.0) * (index_D // 2 * 2) / self.width)
        angle_BTD = positions.unsqueeze(-1) * rate_D
        # Their mean square is one half.
        return torch.where(index_D % 2 == 0, angle_BTD.sin(), angle_BTD.cos()) * (EMBEDDING_STD * math.sqrt(2.0))


class LearnedPositions(nn.Module):
    """One vector for each of `max_positions` places."""

    def __init__(self, config: SwitchConfig):
        super().__init__()
        self.table = nn.Embedding(config.max_positions, config.d_model)
        start_with(self.table, EMBEDDING_STD)

    def forward(self, positions: Tensor) -> Tensor:
        """(B, T) positions from 0 -> (B, T, D). Raises ValueError beyond the last place."""
        places = self.table.num_embeddings
        if not is_traced() and positions.numel() and int(positions.max()) >= places:
            raise ValueError(
                f"The text has {int(positions.max()) + 1} tokens, but the model knows {places} learned positions: "
                "shorten it, or train with a larger max_positions."
            )
        return self.table(positions)


def absolute_positions(config: SwitchConfig) -> Sinusoids | LearnedPositions | None:
    """What a stack adds to its embeddings; None where positions are relative."""
    if config.position == "relative":
        return None
    return Sinusoids(config) if config.position == "sinusoidal" else LearnedPositions(config)
