"""One sparse layer against a dense MLP of the same work per token, and against transformers' own sparse layer.

python -m benchmarks.sparse_mlp      prints a table of time ratios; below 1 = faster than the dense MLP
"""

import torch
from transformers import SwitchTransformersConfig
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from benchmarks.timing import compare
from switch_model import SwitchConfig
from switch_model.layers import DenseMLP
from switch_model.sparse_mlp import Experts, SparseMLP

# (tokens, d_model, d_ff, experts, training?)
ROWS = [
    (4096, 256, 1024, 8, True),
    (4096, 256, 1024, 64, True),
    (4096, 128, 512, 8, True),
    (4096, 128, 512, 8, False),
    (64, 128, 512, 8, False),
]
SEQUENCE = 64


class GroupedExperts(Experts):
    """The other dispatch: one grouped product for all experts, on the CPU too."""

    def computes_in_groups(self, hidden):
        return True


def measure(tokens: int, d_model: int, d_ff: int, experts: int, training: bool) -> dict[str, float]:
    torch.manual_seed(0)
    rate = dict(dropout_rate=0.0, expert_dropout=0.0, capacity_factor=None, eval_capacity_factor=None)
    config = SwitchConfig(d_model=d_model, d_ff=d_ff, num_experts=experts, **rate)
    dense, ours, grouped = DenseMLP(config), SparseMLP(config), SparseMLP(config)
    grouped.experts = GroupedExperts(config)
    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(
            d_model=d_model, d_ff=d_ff, num_experts=experts, expert_capacity=tokens, router_jitter_noise=0.0
        )
    )
    hidden = torch.randn(tokens // SEQUENCE, SEQUENCE, d_model)
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool)
    direction = torch.randn_like(hidden)

    def contestant(layer, *more):
        layer.train(training)

        def run():
            with torch.set_grad_enabled(training):
                output = layer(hidden.requires_grad_(training), *more)
                output = output[0] if isinstance(output, tuple) else output
                if training:
                    output.backward(direction)
                    layer.zero_grad(set_to_none=True)

        return run

    return compare(
        {
            "dense": contestant(dense),
            "ours": contestant(ours, mask),
            "ours, grouped": contestant(grouped, mask),
            "transformers": contestant(theirs),
        },
        baseline="dense",
    )


def main() -> None:
    print("| tokens, d_model, d_ff, experts | | ours | ours, grouped product | transformers | dense MLP |")
    print("|---|---|---|---|---|---|")
    for *shape, training in ROWS:
        figures = measure(*shape, training)
        print(
            f"| {', '.join(map(str, shape))} | {'training' if training else 'inference'} "
            f"| {figures['ours']:.2f} | {figures['ours, grouped']:.2f} | {figures['transformers']:.2f} "
            f"| {figures['dense ms']:.2f} ms |",
            flush=True,
        )


if __name__ == "__main__":
    main()
