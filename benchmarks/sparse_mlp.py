"""One sparse layer against a dense MLP of the same work per token, and against transformers' own sparse layer.

python -m benchmarks.sparse_mlp      prints a table of time ratios; below 1 = faster than the dense MLP
"""

import statistics
from dataclasses import dataclass

import torch
from transformers import SwitchTransformersConfig
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from benchmarks.report import Measurement, table
from benchmarks.timing import compare
from switch_model import SwitchConfig
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.sparse_mlp import SparseMLP

SEQUENCE = 64
BUILDS = 5


@dataclass(frozen=True)
class Row:
    """A size, and what the sparse layer's time over the dense MLP's, and transformers' over ours, should reach."""

    tokens: int
    d_model: int
    d_ff: int
    experts: int
    training: bool
    floor: float | None = None
    aim: float | None = None

    @property
    def name(self) -> str:
        kind = "training" if self.training else "inference"
        return f"{kind}, {self.tokens} tokens, {self.d_model}/{self.d_ff}, {self.experts} experts"


ROWS = [
    Row(4096, 256, 1024, 8, True, 1.2, 1.05),
    Row(4096, 256, 1024, 64, True, 1.9, 1.5),
    Row(4096, 128, 512, 8, True),
    Row(4096, 128, 512, 8, False, 1.2, 1.05),
    Row(64, 128, 512, 8, False, 3, 2),
]


def contestant(layer: torch.nn.Module, hidden: torch.Tensor, direction: torch.Tensor, training: bool, *more):
    """A function that runs `layer` once, and backward too when training."""
    layer.train(training)

    def run():
        with torch.set_grad_enabled(training):
            output = layer(hidden.requires_grad_(training), *more)
            output = output[0] if isinstance(output, tuple) else output
            if training:
                output.backward(direction)
                layer.zero_grad(set_to_none=True)

    return run


def measure(row: Row) -> dict[str, float]:
    """Time ratios of ours and transformers' layer to the dense MLP, dropless, and the dense MLP's milliseconds."""
    torch.manual_seed(0)
    rate = dict(dropout_rate=0.0, expert_dropout=0.0, capacity_factor=None, eval_capacity_factor=None)
    config = SwitchConfig(d_model=row.d_model, d_ff=row.d_ff, num_experts=row.experts, **rate)
    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(
            d_model=row.d_model,
            d_ff=row.d_ff,
            num_experts=row.experts,
            expert_capacity=row.tokens,
            router_jitter_noise=0.0,
            dropout_rate=0.0,
        )
    )
    hidden = torch.randn(row.tokens // SEQUENCE, SEQUENCE, row.d_model)
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool)
    inputs = (hidden, torch.randn_like(hidden), row.training)
    return compare(
        {
            "dense": contestant(DenseMLP(config), *inputs),
            "ours": contestant(SparseMLP(config), *inputs, mask),
            "transformers": contestant(theirs, *inputs),
        },
        baseline="dense",
    )


def measurements() -> list[Measurement]:
    found = []
    for row in ROWS:
        # The position of its tensors in memory changes a layer's time by several percent.
        builds = [measure(row) for _ in range(BUILDS)]
        ratios = {name: statistics.median(build[name] for build in builds) for name in builds[0]}
        note = f"dense MLP {ratios['dense ms']:.2f} ms"
        found.append(
            Measurement(f"sparse layer / dense MLP: {row.name}", ratios["ours"], row.floor, row.aim, note=note)
        )
        aim = 1.5 if row.training else 3.0 if row.tokens <= 64 else None
        times = ratios["transformers"] / ratios["ours"]
        found.append(Measurement(f"transformers' layer / ours: {row.name}", times, 1.0, aim, higher_is_better=True))
    return found


if __name__ == "__main__":
    print(table(measurements()))
