"""Which device a model trains or answers on."""

import torch


def pick_device(wanted: str | None) -> str:
    """cpu or cuda. Raises ValueError when the device is not there."""
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise ValueError(f"--device {wanted} is not allowed: it must be cpu or cuda.")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has no CUDA device that torch can use.")
    return wanted
