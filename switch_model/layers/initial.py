"""Initial standard deviations other than the default fan_in^-½.

transformers initialises modules one by one, without knowing their role, so a module that needs another value carries
it; models/pretrained.py applies it.
"""

from torch import nn

from switch_model.config import SwitchConfig

# Of token embeddings. Not T5's 1.0: Adam moves a weight by about the learning rate whatever its size, so that the
# embeddings of rare words would stay close to a large random start.
EMBEDDING_STD = 0.02


def start_with(module: nn.Module, std: float, mean: list[list[float]] | None = None) -> None:
    """Set the standard deviation, and optionally the mean (of the weight's shape), of a module's initial weight."""
    vars(module).update(initial_std=std, initial_mean=mean)


def residual_scale(config: SwitchConfig) -> float:
    """Factor on the initial weights of each residual branch's last layer, so that the sum over depth starts at the size
    of one branch (GPT-2, section 2.3)."""
    return (2 * config.num_layers) ** -0.5


def query_std(config: SwitchConfig) -> float:
    """Standard deviation of query weights: includes the 1/√K by which T5 does not scale its scores."""
    return (config.d_model * config.d_kv) ** -0.5
