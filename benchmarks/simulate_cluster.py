"""Switch Transformers on many devices, on paper: parameters, work, traffic, memory and time of a training step.

python -m benchmarks.simulate_cluster paper       sizes and work of the paper's models beside its own table
python -m benchmarks.simulate_cluster measure     times of layers on this machine, as times.json
python -m benchmarks.simulate_cluster check       the time of a real training step here beside the simulated one
python -m benchmarks.simulate_cluster step        memory, traffic and step time: 8 to 2,048 experts, 1 to 512 devices
python -m benchmarks.simulate_cluster drops       what a capacity and uneven experts cost, from simulated choices
Every command takes --help. Devices are described by their peak rate, bandwidth and memory, which are arguments.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.sparse_mlp import contestant
from benchmarks.timing import compare
from switch_model import SwitchConfig, SwitchForConditionalGeneration
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.sparse_mlp import SparseMLP

# T5's pretraining: tokens of a text, and of its target.
SOURCE, TARGET = 512, 114
VOCABULARY = 32_128
# Weight and gradient, and AdamW's two averages, in float32.
STATE_BYTES = 16


@dataclass(frozen=True)
class Shape:
    """An encoder-decoder's sizes. `layers` of each stack; every `every`-th one's MLP is sparse."""

    name: str
    d_model: int
    d_ff: int
    d_kv: int
    heads: int
    layers: int
    gated: bool
    experts: int
    every: int

    @property
    def inner(self) -> int:
        """Width of all attention heads."""
        return self.d_kv * self.heads

    @property
    def mlp(self) -> int:
        """Weights of one MLP."""
        return (3 if self.gated else 2) * self.d_model * self.d_ff

    @property
    def sparse(self) -> int:
        """Sparse layers of each stack."""
        return self.layers // self.every


@dataclass(frozen=True)
class Work:
    """Floating-point operations of a forward pass over one text and its target, a multiplication and an addition each.

    Attributes:
        weights: products with the weights of attention and one MLP per layer, each for its own stack's tokens.
        crossing: products with cross-attention's keys and values, which the decoder makes of the encoder's tokens.
        scores: attention scores and their weighted sums.
        logits: the output layer over tokens.
        routers: the routers' products.
    """

    weights: int
    crossing: int
    scores: int
    logits: int
    routers: int

    @property
    def all(self) -> int:
        return self.weights + self.crossing + self.scores + self.logits + self.routers


@dataclass(frozen=True)
class Device:
    """Peak rate in operations a second, share of it that is reached, bytes a second to other devices; and the time of a
    sparse layer over a dense MLP's, by the number of experts on the device (none = 1)."""

    peak: float
    efficiency: float
    bandwidth: float
    sparse: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Device":
        """As `measure` found it, or else as the arguments say."""
        if not options.times:
            return cls(options.peak, options.efficiency, options.bandwidth)
        found = json.loads(Path(options.times).read_text())
        return cls(found["rate"], found["efficiency"], options.bandwidth, found["sparse"])

    def overhead(self, experts: float) -> float:
        """Of the measured numbers of experts, the nearest one's."""
        if not self.sparse:
            return 1.0
        return self.sparse[min(self.sparse, key=lambda count: abs(math.log(int(count) / max(experts, 1))))]


@dataclass(frozen=True)
class Step:
    """A training step on one device: seconds of computing, of exchanging tokens, of averaging gradients; bytes of
    state; and bytes that a token sends in the step."""

    compute: float
    exchange: float
    gradients: float
    state: float
    bytes_per_token: float

    @property
    def seconds(self) -> float:
        return self.compute + self.exchange + self.gradients


# Table 9 of 2101.03961: sizes, parameters, and FLOPs/seq.
PAPER = [
    (Shape("Switch-Base", 768, 2048, 64, 12, 12, True, 128, 2), 7e9, 124e9),
    (Shape("Switch-Large", 1024, 2816, 64, 16, 24, True, 128, 2), 26e9, 425e9),
    (Shape("Switch-XXL", 4096, 10_240, 64, 64, 24, True, 64, 2), 395e9, 6.3e12),
    (Shape("Switch-C", 2080, 6144, 64, 32, 15, False, 2048, 1), 1571e9, 890e9),
]


def model_of(shape: Shape) -> SwitchForConditionalGeneration:
    """This package's model of that shape, without dropout and drops."""
    config = SwitchConfig(
        vocab_size=VOCABULARY,
        d_model=shape.d_model,
        d_ff=shape.d_ff,
        d_kv=shape.d_kv,
        num_heads=shape.heads,
        num_layers=shape.layers,
        num_decoder_layers=shape.layers,
        num_experts=shape.experts,
        encoder_sparse_step=shape.every,
        decoder_sparse_step=shape.every,
        dense_act_fn="gated-gelu" if shape.gated else "relu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        expert_dropout=0.0,
        switch_dropout=0.0,
        capacity_factor=None,
        eval_capacity_factor=None,
    )
    return SwitchForConditionalGeneration(config)


@cache
def parameters(shape: Shape) -> tuple[int, int]:
    """(all parameters, those of experts) of this package's model, made without memory for its weights."""
    with torch.device("meta"):
        model = model_of(shape)
    experts = sum(weight.numel() for name, weight in model.named_parameters() if ".experts." in name)
    return model.num_parameters(), experts


def work(shape: Shape, source: int = SOURCE, target: int = TARGET) -> Work:
    """The work of one text: a token goes through one MLP in every layer, sparse or not."""
    attention = 4 * shape.d_model * shape.inner
    encoder = source * (attention + shape.mlp)
    # Cross-attention's queries and outputs; its keys and values count as if made of the target's tokens.
    decoder = target * (2 * attention + shape.mlp)
    per_score = 4 * shape.inner * shape.layers
    return Work(
        weights=2 * shape.layers * (encoder + decoder),
        crossing=2 * shape.layers * (source - target) * attention // 2,
        scores=per_score * (source**2 + target**2 + source * target),
        logits=2 * target * shape.d_model * VOCABULARY,
        routers=2 * shape.sparse * (source + target) * shape.d_model * shape.experts,
    )


def step(shape: Shape, devices: int, texts: int, device: Device, full: float, bytes_each: int = 2) -> Step:
    """One training step with `texts` texts on each device, and the experts of a layer spread over all devices; with
    more devices than experts, each expert is on several. Nothing overlaps.

    Args:
        full: what the busiest device computes and sends in a sparse layer, as a multiple of its even share: a capacity
            factor with padded buffers, or the imbalance without a capacity.
        bytes_each: bytes of a number that is exchanged.
    """
    total, experts = parameters(shape)
    tokens, holders = texts * (SOURCE + TARGET), min(devices, shape.experts)
    # Forward, and twice as much backward.
    overhead = device.overhead(shape.experts / holders)
    more = 2 * shape.sparse * tokens * shape.mlp * (full * overhead - 1)
    compute = 3 * (texts * work(shape).all + more) / (device.peak * device.efficiency)
    # There and back, forward and backward. An even share of the tokens stays.
    sent = 4 * shape.sparse * shape.d_model * bytes_each * full * (holders - 1) / holders
    # Each expert's copies, and all other weights, which are on every device.
    averaged = (total - experts) * (devices > 1) + experts / holders * (devices > holders)
    ring = 2 * averaged * bytes_each * (devices - 1) / devices
    return Step(
        compute=compute,
        exchange=tokens * sent / device.bandwidth,
        gradients=ring / device.bandwidth,
        state=STATE_BYTES * (total - experts + experts / holders),
        bytes_per_token=sent,
    )


def choices(tokens: int, experts: int, devices: int, variation: float, seed: int = 0) -> np.ndarray:
    """(devices, experts) tokens that each device sends to each expert, when the experts' shares have this coefficient
    of variation (`load_cv` of a run's metrics). Shares are drawn from a symmetric Dirichlet distribution."""
    random = np.random.default_rng(seed)
    if variation > 0 and experts > 1:
        # Of a Dirichlet's share the squared variation is (E − 1) / (E α + 1).
        alpha = max(((experts - 1) / variation**2 - 1) / experts, 1e-3)
        shares = random.dirichlet(np.full(experts, alpha))
    else:
        shares = np.full(experts, 1 / experts)
    return random.multinomial(tokens, shares, size=devices)


def dropped(count: np.ndarray, factor: float) -> float:
    """Share of tokens dropped when each device gives every expert ceil(n · factor / E) slots (eq. 3)."""
    slots = math.ceil(count[0].sum() * factor / count.shape[1] - 1e-6)
    return float(np.maximum(count - slots, 0).sum() / count.sum())


def imbalance(count: np.ndarray) -> float:
    """Tokens of the busiest device over the mean, when experts lie in equal blocks on as many devices."""
    holders = math.gcd(*count.shape)
    received = count.sum(axis=0).reshape(holders, -1).sum(axis=1)
    return float(received.max() / received.mean())


def measured(tokens: int, d_model: int, d_ff: int, experts: Sequence[int], where: str = "cpu") -> dict:
    """Training times on this machine: the rate of one large matrix product, a dense MLP's rate over that, and the time
    of a sparse layer over the dense MLP's."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens // 64, 64, d_model, device=where)
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=where)
    left, right = torch.randn(tokens, d_model, device=where), torch.randn(d_model, d_ff, device=where)
    rates = dict(d_model=d_model, d_ff=d_ff, expert_dropout=0.0, switch_dropout=0.0, capacity_factor=None)
    inputs = (hidden, torch.randn_like(hidden), True)
    layers = {
        str(count): contestant(SparseMLP(SwitchConfig(num_experts=count, **rates)).to(where), *inputs, mask)
        for count in experts
    }
    dense = contestant(DenseMLP(SwitchConfig(**rates)).to(where), *inputs)
    found = compare({"dense": dense, "product": lambda: left @ right, **layers}, "dense")
    seconds = found["product"] * found["dense ms"] / 1000
    return {
        "sizes": {"tokens": tokens, "d_model": d_model, "d_ff": d_ff},
        "rate": round(2 * tokens * d_model * d_ff / seconds),
        # The MLP's forward and backward are six such products.
        "efficiency": round(6 * found["product"], 3),
        "sparse": {count: round(found[count], 2) for count in layers},
    }


def real_step(shape: Shape, texts: int, repeats: int = 5) -> float:
    """Median seconds of forward and backward passes over a batch on this machine's CPU."""
    model = model_of(shape).train()
    ids, labels = (torch.randint(1, VOCABULARY, (texts, length)) for length in (SOURCE, TARGET))
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model(input_ids=ids, labels=labels).loss.backward()
        times.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return statistics.median(times[1:])


def paper_table(options: argparse.Namespace) -> str:
    lines = [
        "| model | parameters | paper | FLOPs per text: weights | + cross keys, scores, logits | + routers | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape, size, flops in [
        *PAPER,
        (replace(PAPER[2][0], name="Switch-XXL, 128 experts", experts=128), *PAPER[2][1:]),
    ]:
        found = work(shape)
        cells = [found.weights, found.all - found.routers, found.all, flops]
        shown = " | ".join(f"{cell / 1e9:,.0f} B" for cell in cells)
        lines.append(f"| {shape.name} | {parameters(shape)[0] / 1e9:,.1f} B | {size / 1e9:,.0f} B | {shown} |")
    return "\n".join(lines)


def step_table(options: argparse.Namespace) -> str:
    base = next(shape for shape, *_ in PAPER if shape.name.lower() == f"switch-{options.model}")
    device = Device.of(options)
    lines = [
        "| experts | devices | state | sent by a token | step | computing | exchange | gradients | texts a second |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for experts in options.experts:
        shape = replace(base, experts=experts)
        for devices in options.devices:
            found = step(shape, devices, options.texts, device, options.full)
            parts = (found.compute, found.exchange, found.gradients)
            shares = " | ".join(f"{part / found.seconds:.0%}" for part in parts)
            fits = "" if found.state <= options.memory else " (too much)"
            cells = (
                f"{experts:,}",
                str(devices),
                f"{found.state / 1e9:,.1f} GB{fits}",
                f"{found.bytes_per_token / 1e3:,.0f} kB",
                f"{1000 * found.seconds:,.0f} ms",
                shares,
                f"{devices * options.texts / found.seconds:,.0f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def check_table(options: argparse.Namespace) -> str:
    lines = ["| layers | experts | real step | simulated |", "|---|---|---|---|"]
    for layers in (2, 4):
        for experts in (8, 64):
            shape = Shape("", 256, 1024, 64, 4, layers, False, experts, 2)
            real = real_step(shape, options.texts)
            simulated = step(shape, 1, options.texts, Device.of(options), full=1.0).seconds
            lines.append(f"| {layers} + {layers} | {experts} | {1000 * real:,.0f} ms | {1000 * simulated:,.0f} ms |")
    return "\n".join(lines)


def drops_table(options: argparse.Namespace) -> str:
    factors = options.factors
    lines = [
        f"| load variation | busiest device / mean | {' | '.join(f'dropped at {factor:g}' for factor in factors)} |",
        f"|---|---|{'---|' * len(factors)}",
    ]
    for variation in options.variations:
        count = choices(options.tokens, options.experts, options.devices, variation)
        shares = " | ".join(f"{dropped(count, factor):.1%}" for factor in factors)
        lines.append(f"| {variation:g} | {imbalance(count):.2f} | {shares} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulate_cluster", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("paper")
    own = commands.add_parser("measure")
    own.add_argument("--tokens", type=int, default=2048)
    own.add_argument("--d_model", type=int, default=256)
    own.add_argument("--d_ff", type=int, default=1024)
    own.add_argument("--experts", type=int, nargs="+", default=[8, 64])
    own.add_argument("--device", default="cpu", help="cpu or cuda")
    own.add_argument("--output", default="times.json")
    real = commands.add_parser("check")
    real.add_argument("--times", default="times.json", help="file of `measure`")
    real.add_argument("--texts", type=int, default=4)
    real.set_defaults(bandwidth=math.inf)
    one = commands.add_parser("step")
    one.add_argument("--model", choices=["base", "large", "xxl", "c"], default="base")
    one.add_argument("--experts", type=int, nargs="+", default=[8, 64, 512, 2048])
    one.add_argument("--devices", type=int, nargs="+", default=[1, 8, 64, 512])
    one.add_argument("--texts", type=int, default=32, help="texts of each device in a step")
    one.add_argument("--full", type=float, default=1.25, help="capacity factor, or the imbalance without a capacity")
    one.add_argument("--peak", type=float, default=990e12, help="operations a second of a device")
    one.add_argument("--efficiency", type=float, default=0.4, help="share of the peak that is reached")
    one.add_argument("--times", help="file of `measure`, instead of peak and efficiency")
    one.add_argument("--bandwidth", type=float, default=50e9, help="bytes a second from a device to others")
    one.add_argument("--memory", type=float, default=80e9, help="bytes of a device")
    many = commands.add_parser("drops")
    many.add_argument("--experts", type=int, default=64)
    many.add_argument("--devices", type=int, default=64)
    many.add_argument("--tokens", type=int, default=16_384, help="tokens of each device")
    many.add_argument("--variations", type=float, nargs="+", default=[0, 0.1, 0.25, 0.5, 1.0])
    many.add_argument("--factors", type=float, nargs="+", default=[1.0, 1.25, 1.5, 2.0])
    options = parser.parse_args(argv)
    if options.command == "measure":
        found = measured(options.tokens, options.d_model, options.d_ff, options.experts, options.device)
        Path(options.output).write_text(json.dumps(found, indent=2) + "\n")
        print(json.dumps(found, indent=2))
    else:
        tables = {"paper": paper_table, "check": check_table, "step": step_table, "drops": drops_table}
        print(tables[options.command](options))


if __name__ == "__main__":
    main()
