"""The sparse layer on a GPU: bfloat16, 16k tokens, d_model 1024, d_ff 4096, eager and compiled, against a dense MLP.

python -m benchmarks.gpu      aim: 0.85 of the dense MLP's rate, hence a time ratio of at most 1.18
"""

import sys

import torch

from benchmarks.report import Measurement, table
from benchmarks.sparse_mlp import SEQUENCE, contestant
from benchmarks.timing import compare
from switch_model import SwitchConfig
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.sparse_mlp import SparseMLP

TOKENS, D_MODEL, D_FF, AIM = 16_384, 1024, 4096, 1 / 0.85


def measure(experts: int, training: bool, compiled: bool) -> Measurement:
    torch.manual_seed(0)
    rate = dict(dropout_rate=0.0, expert_dropout=0.0, capacity_factor=None, eval_capacity_factor=None)
    config = SwitchConfig(d_model=D_MODEL, d_ff=D_FF, num_experts=experts, **rate)
    layers = [layer(config).to("cuda", torch.bfloat16) for layer in (DenseMLP, SparseMLP)]
    if compiled:
        layers = [torch.compile(layer, fullgraph=True) for layer in layers]
    dense, sparse = layers
    hidden = torch.randn(TOKENS // SEQUENCE, SEQUENCE, D_MODEL, device="cuda", dtype=torch.bfloat16)
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device="cuda")
    inputs = (hidden, torch.randn_like(hidden), training)
    ratios = compare(
        {"dense": contestant(dense, *inputs), "sparse": contestant(sparse, *inputs, mask)}, "dense", rounds=31
    )
    name = f"{'training' if training else 'inference'}, {experts} experts, {'compiled' if compiled else 'eager'}"
    note = f"dense MLP {ratios['dense ms']:.2f} ms"
    return Measurement(f"sparse layer / dense MLP: {name}", ratios["sparse"], None, AIM, note=note)


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu wants a CUDA device, and torch sees none here.")
    print(torch.cuda.get_device_name())
    cases = [(e, t, c) for e in (8, 64) for t in (True, False) for c in (False, True)]
    print(table([measure(*case) for case in cases]))


if __name__ == "__main__":
    main()
