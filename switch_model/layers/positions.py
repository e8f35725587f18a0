"""Absolute positions: sinusoids or learned vectors, added to the embeddings; rotations of queries and keys.

Legend: B batch, T tokens, D d_model, H heads, K d_kv. Relative positions are attention.RelativePositionBias.
"""

import math

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.initial import EMBEDDING_STD, start_with
from switch_model.tracing import is_traced


class Sinusoids(nn.Module):
    """sin and cos of the position at wavelengths from 2π to 20,000π (1706.03762, section 3.5), scaled to the RMS of an
    initial embedding."""

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
    """One learned vector for each of `max_positions` positions."""

    def __init__(self, config: SwitchConfig):
        super().__init__()
        self.table = nn.Embedding(config.max_positions, config.d_model)
        start_with(self.table, EMBEDDING_STD)

    def forward(self, positions: Tensor) -> Tensor:
        """(B, T) positions from 0 -> (B, T, D). Raises ValueError for a position beyond the table."""
        rows = self.table.num_embeddings
        if not is_traced() and positions.numel() and int(positions.max()) >= rows:
            raise ValueError(
                f"The text has {int(positions.max()) + 1} tokens, but the model has {rows} learned positions: "
                "shorten it, or train with a larger max_positions."
            )
        return self.table(positions)


# cos and sin of every angle, (B, 1, T, K) each.
Rotation = tuple[Tensor, Tensor]


def rotation(positions: Tensor, config: SwitchConfig) -> Rotation:
    """Of (B, T) positions from 0: pair i of a head's numbers, i and i + K/2, turns by position · theta^(-2i / K)
    (2104.09864, eq. 15). Attention then depends on the distance of two tokens alone."""
    index_P = torch.arange(0, config.d_kv, 2, device=positions.device).float()
    rate_P = config.rope_theta ** -(index_P / config.d_kv)
    angle_B1TK = (positions.unsqueeze(-1).float() * rate_P).repeat(1, 1, 2).unsqueeze(1)
    return angle_B1TK.cos(), angle_B1TK.sin()


def rotated(states: Tensor, by: Rotation) -> Tensor:
    """(B, H, T, K) queries or keys, turned."""
    cos, sin = (part.to(states.dtype) for part in by)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat([-second, first], dim=-1) * sin


def absolute_positions(config: SwitchConfig) -> Sinusoids | LearnedPositions | None:
    """The module of positions that are added to the embeddings; None where attention encodes them."""
    if config.position in ("relative", "rotary"):
        return None
    return Sinusoids(config) if config.position == "sinusoidal" else LearnedPositions(config)
