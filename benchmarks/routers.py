"""Time of a training step of a sparse MLP with each kind of router, over a dense MLP's with the same work per token.

python -m benchmarks.routers    about ten seconds; medians of rounds in which every layer runs once, so that other work
on the machine slows all of them
"""

import statistics
import time

import torch

from switch_model import SwitchConfig
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.sparse_mlp import SparseMLP

TEXTS, TOKENS, WIDTH, INNER, EXPERTS, ROUNDS = 32, 128, 128, 512, 8, 25
# Kind -> settings; a token goes through 512 hidden units in all.
KINDS = {
    "switch": dict(d_ff=INNER),
    "top-2": dict(router="topk", num_experts=2 * EXPERTS, d_ff=INNER // 2),
    "fine-grained": dict(
        router="topk", num_experts=4 * EXPERTS, num_experts_per_tok=3, num_shared_experts=1, d_ff=INNER // 4
    ),
    "sigmoid-bias": dict(router="sigmoid_bias", num_experts=2 * EXPERTS, d_ff=INNER // 2),
    "expert-choice": dict(router="expert_choice", num_experts=2 * EXPERTS, d_ff=INNER // 2),
}


def main() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(TEXTS, TOKENS, WIDTH, requires_grad=True)
    mask = torch.ones(TEXTS, TOKENS, dtype=torch.bool)
    plain = dict(d_model=WIDTH, num_experts=EXPERTS, capacity_factor=None, expert_dropout=0.0, dropout_rate=0.0)
    dense = DenseMLP(SwitchConfig(**plain, d_ff=INNER))
    steps = {"dense": lambda: dense(hidden)}
    for kind, settings in KINDS.items():
        layer = SparseMLP(SwitchConfig(**plain | settings))
        steps[kind] = lambda layer=layer: layer(hidden, mask)[0]
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(ROUNDS):
        for kind, step in steps.items():
            start = time.perf_counter()
            step().sum().backward()
            seconds[kind].append(time.perf_counter() - start)
    whole = statistics.median(seconds["dense"])
    for kind, own in seconds.items():
        print(f"{kind:<14}{statistics.median(own) / whole:.2f}")


if __name__ == "__main__":
    main()
