"""Pooling: hidden states of tokens -> one vector per text.

Legend: B batch, T tokens, D d_model.
Try it: pool(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool), "mean+max").shape
"""

import torch
from torch import Tensor


def first_real(mask_BT: Tensor) -> Tensor:
    """(B,) index of the first real token; not 0 with left padding."""
    return mask_BT.long().argmax(dim=1)


def pool(hidden: Tensor, mask: Tensor, how: str) -> Tensor:
    """(B, T, D) -> (B, D), or (B, 2 D) for "mean+max", over real tokens; zeros for a row without any."""
    if how == "first":
        first_B = first_real(mask)
        chosen_BD = hidden[torch.arange(hidden.shape[0], device=hidden.device), first_B]
        return chosen_BD * mask.any(dim=1, keepdim=True)
    parts = []
    if "mean" in how:
        mask_BT1 = mask.unsqueeze(-1)
        parts.append((hidden * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1))
    if "max" in how:
        lowest = torch.finfo(hidden.dtype).min
        best_BD = hidden.masked_fill(~mask.unsqueeze(-1), lowest).amax(dim=1)
        parts.append(best_BD * mask.any(dim=1, keepdim=True))
    return torch.cat(parts, dim=-1)
