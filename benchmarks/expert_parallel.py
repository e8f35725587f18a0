"""Memory of one process of several: the experts of each layer spread over them, or all weights (FSDP2). Training steps
with AdamW.

python -m benchmarks.expert_parallel      prints a table for 1, 2 and 4 processes on this machine; two minutes
"""

import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.optim import AdamW

from benchmarks.memory import peak
from switch_model import SwitchConfig, SwitchForSequenceClassification
from switch_model.layers.expert_parallel import ExpertGroup
from train.distributed.sharded import ShardedWeights

COUNTS = (1, 2, 4)
LAYERS, EXPERTS, SEQUENCES, LENGTH, STEPS = 8, 16, 8, 64, 3


def in_process(rank: int, count: int, fsdp: bool, meeting: str, results) -> None:
    """Train a few steps in process `rank` of `count`, and put the peak of its memory beyond the bare process, in bytes,
    into `results`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    torch.manual_seed(0)
    config = SwitchConfig(
        vocab_size=1000,
        d_model=128,
        d_ff=512,
        num_layers=LAYERS,
        num_experts=EXPERTS,
        capacity_factor=1.0,
        num_labels=4,
    )
    before = peak()
    model = SwitchForSequenceClassification(config).train()
    if fsdp:
        ShardedWeights(model)
    elif count > 1:
        model.spread_experts(ExpertGroup.of_launch(count))
    optimizer = AdamW(model.parameters(), lr=1e-3, fused=True)
    torch.manual_seed(rank)
    for _ in range(STEPS):
        ids, labels = torch.randint(1000, (SEQUENCES, LENGTH)), torch.randint(4, (SEQUENCES,))
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    results.put(peak() - before)
    dist.destroy_process_group()


def measure(count: int, fsdp: bool) -> int:
    """The largest peak of `count` processes."""
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(in_process, (count, fsdp, f"{folder}/meeting", results), count)
    return max(results.get() for _ in range(count))


def main() -> None:
    print(f"{LAYERS} layers of {EXPERTS} experts, d_model 128, d_ff 512, {SEQUENCES * LENGTH} tokens in each process.")
    print("Peak memory beyond the bare process, the largest of all:\n")
    print("| processes | experts spread | all weights divided (FSDP2) |\n|---|---|---|")
    for count in COUNTS:
        spread = measure(count, fsdp=False)
        words = "" if count == 1 else f"{measure(count, fsdp=True) / 1e6:.0f} MB"
        print(f"| {count} | {spread / 1e6:.0f} MB | {words} |", flush=True)


if __name__ == "__main__":
    main()
