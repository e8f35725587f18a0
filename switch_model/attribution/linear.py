"""The steps between residual stream and logits, as the linear maps that they are once their scales are held fixed.

Legend: P places of a text, K parts, D d_model, V outputs (tokens of the vocabulary, or classes).
A norm divides by a number of its own for each token, and gelu(z) is z times a number: both frozen as of the true pass,
what follows is linear, so that the parts of a sum can be told apart (as in 2312.04782, "direct logit attribution").
Try it: frozen_norm(nn.RMSNorm(8), x, nn.RMSNorm(8)(x))(parts)
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# (P, K, D) parts of a residual stream -> (P, K, D') their parts of what follows.
LinearMap = Callable[[Tensor], Tensor]


class NotSeparable(ValueError):
    """A model's sums can't be taken apart; the message ends a sentence that begins with "since"."""


def agree(found: Tensor, expected: Tensor, dtype: torch.dtype, of: Tensor | None = None) -> bool:
    """Whether two computations in `dtype` gave the same: but for a thousandth of `of` (`expected`) and rounding."""
    error = (found - expected).norm()
    allowed = 1e-3 * (expected if of is None else of).norm() + 4 * torch.finfo(dtype).eps * expected.norm()
    return bool(error <= allowed) and bool(torch.isfinite(error))


def factors(
    target: Tensor, parts: Sequence[Tensor], dtype: torch.dtype, of: Tensor | None = None
) -> list[float] | None:
    """What to multiply each part by, so that their sum is the target: 1 where that does, else found by least squares.
    None where nothing does. All of one shape; `of` as in `agree`."""
    if agree(torch.stack(list(parts)).sum(0), target, dtype, of):
        return [1.0] * len(parts)
    matrix = torch.stack([part.flatten() for part in parts], dim=-1).double()
    if not bool(torch.isfinite(matrix).all()):
        return None
    found = torch.linalg.lstsq(matrix, target.double().flatten().unsqueeze(-1), driver="gelsd").solution.flatten()
    return found.tolist() if agree((matrix @ found).view_as(target).float(), target, dtype, of) else None


class FrozenNorm:
    """A norm with the scale that it had at each of P places: linear, but for a constant (D,)."""

    def __init__(self, scale_PD: Tensor, centred: bool, constant_D: Tensor):
        self.scale, self.centred, self.constant = scale_PD, centred, constant_D

    def __call__(self, states: Tensor) -> Tensor:
        if self.centred:
            states = states - states.mean(-1, keepdim=True)
        return states * self.scale.unsqueeze(1)


def frozen_norm(norm: nn.Module, entered: Tensor, left: Tensor) -> FrozenNorm:
    """A norm that turned `entered` into `left`, (P, D) each. Its weights are read off its answers, as families store
    them differently. Raises NotSeparable for what is neither an RMSNorm nor a LayerNorm."""
    dtype = next((weight.dtype for weight in norm.parameters()), entered.dtype)
    probe = torch.ones(3, entered.shape[-1], device=entered.device, dtype=dtype)
    probe[1, 1::2], probe[2] = -1, 0
    ones_D, sides_D, constant_D = norm(probe).float().unbind(0)
    weight_D = (sides_D - constant_D) * probe[1].float()
    centred = bool((ones_D - constant_D).abs().max() < 0.01 * weight_D.abs().max())
    shape_PD = (entered - entered.mean(-1, keepdim=True) if centred else entered) * weight_D
    scale_P1 = ((left - constant_D) * shape_PD).sum(-1, keepdim=True) / (shape_PD**2).sum(-1, keepdim=True)
    frozen = FrozenNorm(scale_P1 * weight_D, centred, constant_D)
    if not agree(frozen(entered.unsqueeze(1)).squeeze(1) + constant_D, left, dtype):
        raise NotSeparable(f"its {type(norm).__name__} is neither an RMSNorm nor a LayerNorm")
    return frozen


def gelu_gate(inside: Tensor) -> Tensor:
    """gelu(z) / z."""
    return 0.5 * (1 + torch.erf(inside / math.sqrt(2)))
