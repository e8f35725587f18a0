"""What recording costs: a forward pass of a model of transformers with its routing recorded, against the library's own.

python -m benchmarks.adapters      a minute or two, with a random model of 512 tokens, 16 layers, 64 experts, k = 8
"""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import OlmoeConfig, OlmoeForCausalLM, TrainerControl, TrainerState, TrainingArguments

from benchmarks.report import Measurement, table
from benchmarks.timing import compare
from switch_model import Interventions
from switch_model.adapters.model import AdaptedCausalLM, adapt
from switch_model.monitor import RoutingMonitor

TOKENS, LAYERS, EXPERTS, CHOICES, ROUNDS = 512, 16, 64, 8, 11
AIM = 1.1


class NoTokenizer:
    """A model of token ids needs no tokenizer."""

    model_max_length = TOKENS


def make() -> tuple[AdaptedCausalLM, torch.Tensor]:
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=128,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_experts=EXPERTS,
        num_experts_per_tok=CHOICES,
        max_position_embeddings=TOKENS,
    )
    return adapt(OlmoeForCausalLM(config), NoTokenizer()), torch.randint(1000, (1, TOKENS))


@torch.inference_mode()
def peak(recorded: bool) -> int:
    """Peak memory in bytes of passes in this process, with or without records."""
    model, ids = make()
    for _ in range(3):
        if recorded:
            model(ids, output_routing=True)
        else:
            model.library(ids, use_cache=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def peak_of_a_process(recorded: bool) -> int:
    code = f"import json; from benchmarks.adapters import peak; print(json.dumps(peak({recorded})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def monitored() -> Measurement:
    """A training step of the same model whose routing RoutingMonitor writes, against one that is not watched."""
    state, control = TrainerState(max_steps=1000), TrainerControl()

    def trained(after: Callable[[], None]) -> tuple[Any, Callable[[], None]]:
        # A model each: hooks stay on for the whole training.
        model, ids = make()
        library = model.library.train()
        optimizer = torch.optim.AdamW(library.parameters())

        def step() -> None:
            library(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            after()

        return library, step

    with TemporaryDirectory() as folder:
        arguments, monitor = TrainingArguments(folder, report_to=[], use_cpu=True), RoutingMonitor(folder)

        def note_routing() -> None:
            monitor.on_step_end(arguments, state, control)
            monitor.on_log(arguments, state, control, logs={"loss": 1.0})

        _, step = trained(lambda: None)
        library, watched_step = trained(note_routing)
        monitor.on_train_begin(arguments, state, control, model=library)
        ratios = compare({"a step": step, "a step, watched": watched_step}, "a step", rounds=ROUNDS)
        monitor.on_train_end(arguments, state, control)
    note = f"a step {ratios['a step ms']:.0f} ms; a line of metrics at every step, which no training writes"
    return Measurement(
        "a training step with RoutingMonitor / without", ratios["a step, watched"], 1.03, 1.03, note=note
    )


def measurements() -> list[Measurement]:
    found = recorded_passes()
    found.append(monitored())
    bare, recorded = peak_of_a_process(False), peak_of_a_process(True)
    note = f"{(recorded - bare) / 2**20:+.1f} MiB of {bare / 2**20:,.0f}"
    return [*found, Measurement("peak memory with records / without", recorded / bare, AIM, AIM, note=note)]


@torch.inference_mode()
def recorded_passes() -> list[Measurement]:
    model, ids = make()
    layer = model.config.sparse_layers[3]
    contestants = {
        "the library's pass": lambda: model.library(ids, use_cache=False),
        "with records": lambda: model(ids, output_routing=True),
        "with records and an expert off": lambda: model(ids, None, Interventions(ablate={(layer, 3)}), True),
    }
    ratios = compare(contestants, "the library's pass", rounds=ROUNDS)
    plain = ratios.pop("the library's pass ms")
    size = f"{TOKENS} tokens, {LAYERS} layers, {EXPERTS} experts, k = {CHOICES}"
    return [
        Measurement(f"{what} / the library's pass, {size}", ratio, AIM, AIM, note=f"the library's {plain:.0f} ms")
        for what, ratio in ratios.items()
    ]


if __name__ == "__main__":
    print(table(measurements()))
