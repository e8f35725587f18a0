"""What wants a GPU, in one go of at most fifteen minutes: layer, training, adapters, export.

python -m benchmarks.gpu                      all parts; or those named: python -m benchmarks.gpu layer training
python -m benchmarks.gpu --dry                on a CPU with small sizes, to see that all parts run; times mean nothing
Layer: bfloat16, 16k tokens, d_model 1024, d_ff 4096, eager and compiled, against a dense MLP; aim: 0.85 of its rate,
hence a time ratio of at most 1.18. A part that fails says why, and the others go on; exit status 1 then.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import adapters
from benchmarks.report import Measurement, table
from benchmarks.sparse_mlp import contestant
from benchmarks.timing import compare
from switch_model import Interventions, SwitchConfig
from switch_model.layers.dense_mlp import DenseMLP
from switch_model.sparse_mlp import SparseMLP
from train.cli.main import main as command_line
from train.runs.run import Run

AIM, MINUTES = 1 / 0.85, 15
TEXTS = ["a short text", "another one, somewhat longer than the first"]


@dataclass(frozen=True)
class Place:
    """Where the parts run, and how large: the issue's sizes, or a dry run's."""

    device: str = "cuda"
    tokens: int = 16_384
    sequence: int = 64
    d_model: int = 1024
    d_ff: int = 4096
    rounds: int = 31
    steps: int = 300
    width: int = 512

    @property
    def is_dry(self) -> bool:
        return self.device == "cpu"


DRY = Place("cpu", tokens=256, d_model=64, d_ff=128, rounds=2, steps=20, width=32)


def layer(place: Place, folder: Path) -> Iterator[str]:
    """The sparse layer's time over the dense MLP's."""
    cases = [
        (experts, training, compiled) for experts in (8, 64) for training in (True, False) for compiled in (False, True)
    ]
    for index, case in enumerate(cases):
        lines = table([_layer(place, *case)]).splitlines()
        yield "\n".join(lines if index == 0 else lines[-1:])


def _layer(place: Place, experts: int, training: bool, compiled: bool) -> Measurement:
    torch.manual_seed(0)
    rate = dict(dropout_rate=0.0, expert_dropout=0.0, capacity_factor=None, eval_capacity_factor=None)
    config = SwitchConfig(d_model=place.d_model, d_ff=place.d_ff, num_experts=experts, **rate)
    layers = [layer(config).to(place.device, torch.bfloat16) for layer in (DenseMLP, SparseMLP)]
    if compiled:
        layers = [torch.compile(layer, fullgraph=True) for layer in layers]
    dense, sparse = layers
    shape = (place.tokens // place.sequence, place.sequence, place.d_model)
    hidden = torch.randn(shape, device=place.device, dtype=torch.bfloat16)
    mask = torch.ones(hidden.shape[:2], dtype=torch.bool, device=place.device)
    inputs = (hidden, torch.randn_like(hidden), training)
    contestants = {"dense": contestant(dense, *inputs), "sparse": contestant(sparse, *inputs, mask)}
    ratios = compare(contestants, "dense", rounds=place.rounds)
    name = f"{'training' if training else 'inference'}, {experts} experts, {'compiled' if compiled else 'eager'}"
    note = f"dense MLP {ratios['dense ms']:.2f} ms"
    return Measurement(f"sparse layer / dense MLP: {name}", ratios["sparse"], None, AIM, note=note)


def training(place: Place, folder: Path) -> Iterator[str]:
    """Runs in bfloat16, compiled, and in float16: their losses are numbers, and fall."""
    for precision, compiled in (("bfloat16", True), ("float16", False)):
        if place.is_dry and precision == "float16":
            yield "float16: left out, a CPU's Trainer does not take it."
            continue
        compiled = compiled and not place.is_dry  # A CPU's compiler would take minutes.
        yield f"{precision}, compile {compiled}: {_trained(place, folder / precision, precision, compiled)}"


def _trained(place: Place, folder: Path, precision: str, compiled: bool) -> str:
    started = time.monotonic()
    flags = f"--dataset toy --device {place.device} --max_steps {place.steps} --eval_steps {place.steps // 2} "
    flags += f"--epochs 100 --num_experts 8 --d_model {place.width} --lr 1e-3 --optimizer adamw --logging_steps 5 "
    flags += f"--precision {precision} --compile {str(compiled).lower()} --output_dir {folder}"
    if command_line(flags.split()):
        raise RuntimeError("the run failed, as it says above")
    losses = [record["loss"] for record in Run(folder).metrics("train")]
    if not all(map(math.isfinite, losses)) or losses[-1] >= losses[0]:
        raise RuntimeError(f"the losses are {losses}")
    return f"loss {losses[0]:.3f} → {losses[-1]:.3f}, {place.steps} steps in {time.monotonic() - started:.0f} s"


@torch.inference_mode()
def adapted(place: Place, folder: Path) -> Iterator[str]:
    """A random OLMoE in bfloat16: the library's logits, an expert that is off, what recording costs."""
    model, ids = adapters.make()
    model.library.to(place.device, torch.bfloat16)
    ids = ids[:, : place.sequence].to(place.device)
    plain = model.library(ids, use_cache=False).logits
    if not torch.equal(model(ids, output_routing=True).logits, plain):
        raise RuntimeError("logits with records are not the library's")
    off = Interventions(ablate={(model.config.sparse_layers[3], 3)})
    if (model(ids, None, off, True).routing[3].experts == 3).any():
        raise RuntimeError("an expert that is off was chosen")
    passes = {
        "library": lambda: model.library(ids, use_cache=False),
        "recorded": lambda: model(ids, output_routing=True),
    }
    found = compare(passes, "library", rounds=place.rounds)
    yield table([Measurement("a pass with records / the library's pass", found["recorded"], None, adapters.AIM)])


def export(place: Place, folder: Path) -> Iterator[str]:
    """A trained model as ONNX and TensorRT: checked as it is written, then run by infer.py with each provider."""
    run, target = folder / "to_export", folder / "exported"
    _trained(place, run, "float32", False)
    if command_line(["export", "--checkpoint", str(run), "--format", "tensorrt", "--output", str(target)]):
        raise RuntimeError("the export failed, as it says above")
    expected = _inferred(target, "cpu")
    import onnxruntime

    for provider, name in (("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")):
        if name not in onnxruntime.get_available_providers():
            yield f"{provider}: left out, this onnxruntime has no {name}."
        elif _inferred(target, provider) != expected:
            raise RuntimeError(f"{provider} answers otherwise than the CPU")
        else:
            yield f"{provider}: the CPU's answers."


def _inferred(folder: Path, provider: str) -> list[str]:
    """The label of each text."""
    words = [sys.executable, str(folder / "infer.py"), *TEXTS, "--provider", provider]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line)["label"] for line in done.stdout.splitlines()]


PARTS: dict[str, Callable[[Place, Path], Iterator[str]]] = {
    "layer": layer,
    "training": training,
    "adapters": adapted,
    "export": export,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; none = all")
    parser.add_argument("--dry", action="store_true", help="on the CPU, with small sizes")
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    if not options.dry and not torch.cuda.is_available():
        sys.exit("benchmarks.gpu wants a CUDA device, and torch sees none here; --dry tries the parts on the CPU.")
    place = DRY if options.dry else Place()
    print("a dry run on the CPU" if options.dry else torch.cuda.get_device_name(), flush=True)
    started, failed = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.parts or PARTS:
            if time.monotonic() - started > 60 * MINUTES:
                print(f"{name}: left out, {MINUTES} minutes are over", flush=True)
                continue
            try:
                for line in PARTS[name](place, Path(folder)):
                    print(line, flush=True)
            except Exception as error:  # Whatever a library raises there: the other parts still tell something.
                failed.append(name)
                print(f"{name} failed: {type(error).__name__}: {error}", flush=True)
    print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all parts passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
