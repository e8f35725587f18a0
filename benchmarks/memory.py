"""Peak memory of training, and how time and memory grow with tokens, experts and layers. Each point in its own process.

python -m benchmarks.memory      prints the table, and draws benchmarks/scaling.png
"""

import json
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.report import Measurement, table
from switch_model import SwitchConfig, SwitchForSequenceClassification

SEQUENCE = 64
PICTURE = Path(__file__).parent / "scaling.png"
START = dict(tokens=2048, experts=8, layers=2)
GROWTH = {
    "tokens": [64, 256, 640, 2048, 6400, 20_480, 65_536],
    "experts": [1, 4, 16, 64, 256],
    "layers": [1, 2, 4, 8],
}


def point(tokens: int, experts: int, layers: int, sparse: bool = True, d_model: int = 128, steps: int = 5) -> dict:
    """Median seconds of a training step with AdamW, and the process's peak memory in bytes. Runs in this process."""
    torch.manual_seed(0)
    config = SwitchConfig(
        vocab_size=1000,
        d_model=d_model,
        d_ff=4 * d_model,
        num_layers=layers,
        num_experts=experts,
        encoder_sparse_step=int(sparse),
        capacity_factor=None,
        num_labels=4,
    )
    model = SwitchForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    ids, labels = torch.randint(1000, (tokens // SEQUENCE, SEQUENCE)), torch.randint(4, (tokens // SEQUENCE,))
    before = peak()
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        model(ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - start)
    experts_only = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    dense_part = experts_only // max(experts, 1)
    return {
        "seconds": statistics.median(times[1:]),
        "peak": peak(),
        "before": before,
        "extra_weights": experts_only - dense_part,
    }


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # What getrusage says begins, on Linux, with what the parent had when it forked.
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_process(**settings) -> dict:
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(settings)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measurements() -> list[Measurement]:
    size = dict(tokens=4096, experts=8, layers=4, d_model=256)
    sparse, dense = in_a_process(**size), in_a_process(**size, sparse=False)
    # Weights, gradients and AdamW's two averages, 4 bytes each.
    allowed = dense["peak"] + 4 * 4 * sparse["extra_weights"]
    note = f"{sparse['peak'] / 1e6:,.0f} MB; dense baseline {dense['peak'] / 1e6:,.0f} MB"
    found = [
        Measurement(
            "peak memory of training / dense baseline + its experts' state",
            sparse["peak"] / allowed,
            1.15,
            1.05,
            note=note,
        )
    ]
    curves = {name: [in_a_process(**START | {name: value}) for value in values] for name, values in GROWTH.items()}
    draw(curves)
    by_tokens = dict(zip(GROWTH["tokens"], curves["tokens"], strict=True))
    for few, many in ((640, 6400), (2048, 20_480)):
        ratio = by_tokens[many]["seconds"] / by_tokens[few]["seconds"]
        found.append(Measurement(f"time of a step, {many:,} tokens / {few:,} tokens", ratio, 10.5, 10.5))
    return found


def draw(curves: dict[str, list[dict]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(11, 5.6), constrained_layout=True, sharey="row")
    for column, (name, points) in enumerate(curves.items()):
        values = GROWTH[name]
        rows = ([p["seconds"] for p in points], [(p["peak"] - p["before"]) / 1e6 for p in points])
        for axis, own, label in zip(axes[:, column], rows, ("seconds a step", "MB beyond the model"), strict=True):
            axis.loglog(values, own, "o-", color="#0072b2")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.set_xticks(values, [f"{value:,}" for value in values], rotation=30, fontsize=8)
            axis.minorticks_off()
            axis.grid(alpha=0.25)
            axis.set_xlabel(name)
            if column == 0:
                axis.set_ylabel(label)
    fixed = ", ".join(f"{value:,} {name}" for name, value in START.items())
    figure.suptitle(
        f"A training step of the classifier (d_model 128, d_ff 512; where not varied: {fixed})", fontsize=10
    )
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(point(**json.loads(sys.argv[1]))))
    else:
        print(table(measurements()))
