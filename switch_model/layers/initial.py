"""What weights start with, where that is not fan_in^-½ as for every other weight.

transformers initialises modules one by one, without knowing their role, so that a module that needs another size says
so itself; models/pretrained.py applies it.
"""

from torch import nn

from switch_model.config import SwitchConfig

# Standard deviation of token embeddings at the start. Not T5's 1.0: Adam moves a weight by about the learning rate
# whatever its size, so that rare words could not leave a large random start.
EMBEDDING_STD = 0.02


def start_with(module: nn.Module, std: float, mean: list[list[float]] | None = None) -> None:
    """Let a module's weight start with this standard deviation, and with a mean for each of its numbers."""
    vars(module).update(initial_std=std, initial_mean=mean)


def residual_scale(config: SwitchConfig) -> float:
    """What the last weight of every branch starts smaller by, so that the sum over depth starts at the size of one
    branch (GPT-2, section 2.3)."""
    return (2 * config.num_layers) ** -0.5


def query_std(config: SwitchConfig) -> float:
    """Standard deviation of query weights: with the 1/√K that T5's scores lack."""
    return (config.d_model * config.d_kv) ** -0.5
