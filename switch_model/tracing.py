"""Whether a call is being made into a graph, which must then hold for other texts than the one at hand.

Nothing may be read from a tensor into Python meanwhile, no library but torch may touch one, and lengths are asked for
as `tensor.shape[0]`: `len(tensor)` would be a number for good.
"""

import torch


def is_traced() -> bool:
    """By torch.compile, torch.export or torch.jit.trace."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_exported() -> bool:
    """By torch.export or torch.jit.trace: the graph leaves Python, and may hold no operator of our own."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
