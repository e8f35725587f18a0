"""The dense MLP of a T5 block and the activation it shares with the experts.

Legend: B batch, T tokens, D d_model, F d_ff. T5 (1910.10683) section 2.1, gated variant: 2002.05202.
RMSNorm is torch's own.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.dropout import Dropout
from switch_model.layers.initial import residual_scale, start_with


def activation(dense_act_fn: str) -> Callable[[Tensor], Tensor]:
    """The non-linearity inside an MLP: exact GELU for "gelu", its tanh form for "gated-gelu", as in transformers; SiLU
    for "gated-silu" (SwiGLU).

    ReLU is in place.
    """
    if dense_act_fn == "relu":
        return torch.relu_
    if dense_act_fn == "gated-silu":
        return nn.functional.silu
    return partial(nn.functional.gelu, approximate="tanh" if "gated" in dense_act_fn else "none")


class DenseMLP(nn.Module):
    """(B, T, D) -> (B, T, D) through F hidden units (`width`; None = d_ff), without biases."""

    def __init__(self, config: SwitchConfig, width: int | None = None):
        super().__init__()
        width = config.d_ff if width is None else width
        self.gated = config.dense_act_fn.startswith("gated")
        if self.gated:
            self.wi_0 = nn.Linear(config.d_model, width, bias=False)
            self.wi_1 = nn.Linear(config.d_model, width, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, width, bias=False)
        self.wo = nn.Linear(width, config.d_model, bias=False)
        start_with(self.wo, width**-0.5 * residual_scale(config))
        self.activation = activation(config.dense_act_fn)
        self.dropout = Dropout(config.dropout_rate)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = (
            self.activation(self.wi_0(hidden)) * self.wi_1(hidden) if self.gated else self.activation(self.wi(hidden))
        )
        return self.wo(self.dropout(inner))
