"""A convolution over neighbouring tokens before the first block of an encoder.

Legend: B batch, T tokens, D d_model, W conv_width. Filters over word vectors as in Kim (1408.5882, eq. 2), with a
residual. Try it: TokenConvolution(SwitchConfig(conv_width=3))(torch.ones(1, 9, 128), torch.ones(1, 9).bool())
"""

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig


class TokenConvolution(nn.Module):
    """Adds to each token a linear map and ReLU of the W tokens around it; padding counts as zeros.

    Why: attention with a flat initial position bias must first learn which key is the neighbour, and on a few thousand
    short texts a model memorises them before that (docs/experiments.md).
    """

    def __init__(self, config: SwitchConfig):
        super().__init__()
        self.width = config.conv_width
        # A linear layer rather than nn.Conv1d: quantizers, adapters and exporters of linear layers then handle it.
        self.filters = nn.Linear(self.width * config.d_model, config.d_model)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and a (B, T) bool mask -> (B, T, D)."""
        tokens, reach = hidden.shape[1], self.width // 2
        padded_BSD = nn.functional.pad(hidden * mask.unsqueeze(-1), (0, 0, reach, reach))
        windows_BTWD = torch.cat([padded_BSD[:, start : start + tokens] for start in range(self.width)], dim=-1)
        return hidden + nn.functional.relu(self.filters(windows_BTWD))
