"""Whether a call is being traced into a graph, which must then hold for other texts than the example.

While tracing, no tensor value may be read into Python, no library but torch may touch a tensor, and lengths must be
`tensor.shape[0]`: `len(tensor)` would become a constant.
"""

import torch


def is_traced() -> bool:
    """By torch.compile, torch.export or torch.jit.trace."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_exported() -> bool:
    """By torch.export or torch.jit.trace: the graph leaves Python, and must not contain custom operators."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()
