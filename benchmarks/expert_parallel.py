"""Memory of one process of several between which the experts of each layer are spread: training steps with AdamW.

python -m benchmarks.expert_parallel      prints a table for 1, 2 and 4 processes on this machine; about a minute
"""

import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch.optim import AdamW

from benchmarks.memory import peak
from switch_model import SwitchConfig, SwitchForSequenceClassification
from switch_model.layers.expert_parallel import ExpertGroup

COUNTS = (1, 2, 4)
EXPERTS, SEQUENCES, LENGTH, STEPS = 64, 8, 64, 3


def in_process(rank: int, count: int, meeting: str, results) -> None:
    """Train a few steps in process `rank` of `count`, and put (rank, bytes of expert weights, peak beyond the bare
    process) into `results`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    torch.manual_seed(0)
    config = SwitchConfig(
        vocab_size=1000, d_model=128, d_ff=512, num_layers=2, num_experts=EXPERTS, capacity_factor=1.0, num_labels=4
    )
    before = peak()
    model = SwitchForSequenceClassification(config).train()
    if count > 1:
        model.spread_experts(ExpertGroup.of_launch(count))
    optimizer = AdamW(model.parameters(), lr=1e-3, fused=True)
    torch.manual_seed(rank)
    for _ in range(STEPS):
        ids, labels = torch.randint(1000, (SEQUENCES, LENGTH)), torch.randint(4, (SEQUENCES,))
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    kept = sum(weight.nbytes for name, weight in model.named_parameters() if ".experts." in name)
    results.put((rank, kept, peak() - before))
    dist.destroy_process_group()


def measure(count: int) -> list[tuple[int, int]]:
    """(bytes of expert weights, peak bytes beyond the bare process) of each of `count` processes."""
    results = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(in_process, (count, f"{folder}/meeting", results), count)
    return [tuple(sizes) for _, *sizes in sorted(results.get() for _ in range(count))]


def main() -> None:
    print(f"2 layers of {EXPERTS} experts, d_model 128, d_ff 512, {SEQUENCES * LENGTH} tokens in each process\n")
    print("| processes | experts' weights in each | peak beyond the bare process, the largest |\n|---|---|---|")
    for count in COUNTS:
        sizes = measure(count)
        print(f"| {count} | {sizes[0][0] / 1e6:.1f} MB | {max(peak for _, peak in sizes) / 1e6:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
