"""Do more experts reach a loss in fewer steps? Figures 1 and 4 of Switch Transformers (2101.03961), at a laptop's size.

Causal models that differ only in the number of their experts (1 is a dense MLP of the same work per token) are trained
on all English text of a data folder: same widths, tokenizer, stream, seed, order, steps, learning rate, and no drops.

python -m benchmarks.scaling_experts --data_dir folder/of/data      (or SWITCH_DATA_DIR)

Curves are kept in --output_dir: a stopped command continues, a repeated one only draws, and one with more --steps
trains the same models further, which the constant learning rate allows.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, set_seed

from benchmarks.scaling_results import Curve, publish, summary, table
from switch_model.checkpoint import CheckpointError
from switch_model.layers.allocator import keep_freed_memory
from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.cli.parser import as_path, positive
from train.data.errors import DataError
from train.data.packing import Blocks, packed, stream_texts
from train.data.source import DataSource, data_folder
from train.data.tokenizers import load_tokenizer, train_byte_tokenizer
from train.runs.process import StopRequest, recorded
from train.runs.run import Run, RunError
from train.tasks.registry import TASKS
from train.training.progress import ProgressCallback
from train.training.trainer import SwitchTrainer
from train.training.trainer_arguments import training_arguments
from train.training.weight_averaging import warmed_up_average

# Data set -> its column of English text; None = found by name.
TEXTS = {"imdb": None, "ag_news": None, "tiny_stories": None, "en_hi": "src"}
HELD_OUT_EVERY, TOKENIZER_TEXTS, VOCABULARY = 100, 20_000, 384
# In order of training: the most informative first.
EXPERTS = (1, 16, 64, 32, 8, 4, 2)
# The dense model and the best are trained with each, to measure the variance.
SEEDS = (0, 1, 2)
SIZE: dict[str, Any] = dict(
    task="clm",
    preset="none",
    seq_len=64,
    d_model=64,
    d_ff=64,
    num_layers=2,
    num_heads=4,
    # Attention prefers neighbours from the first step on, so that the MLPs' capacity is the limit.
    relative_attention_slope=1.0,
    capacity_factor=math.inf,
    capacity_factor_eval=math.inf,
    tie_word_embeddings=False,
    # Less than one epoch: no regularisation is needed.
    dropout=0.0,
    expert_dropout=0.0,
    switch_dropout=0.0,
    router_noise_eps=0.0,
    label_smoothing=0.0,
    aux_loss_coef=0.01,
    optimizer="adamw",
    batch_size=16,
    lr=1e-2,
    # Without decay, a curve can be read at any step, and be continued.
    lr_schedule="constant",
    warmup=100.0,
    ema_decay=0.99,
    eval_steps=100,
    eval_iters=8,
    logging_steps=100,
    save_total_limit=1,
    device="cpu",
)
STEPS = 2000
STEP_ROUNDS, STEPS_A_ROUND = 7, 4


def english_texts(data_dir: str | None) -> tuple[list[str], list[str]]:
    """(training texts, validation texts) of all data sets, each text once, shuffled. Raises DataError."""
    found: dict[str, None] = {}
    for name, column in TEXTS.items():
        found |= dict.fromkeys(stream_texts(DataSource(name, data_dir, column, split="train")))
    texts = list(found)
    mixed = [texts[index] for index in np.random.default_rng(0).permutation(len(texts))]
    held_out = mixed[::HELD_OUT_EVERY]
    del mixed[::HELD_OUT_EVERY]
    return mixed, held_out


@dataclass(frozen=True)
class Stream:
    """The data of all models: one tokenizer, training and validation blocks."""

    tokenizer: PreTrainedTokenizerFast
    train: Blocks
    validation: Blocks


def make_stream(folder: Path, data_dir: str | None, size: dict[str, Any]) -> Stream:
    """The texts as tokens, cached on disk. Raises DataError."""
    kept, texts = folder / "tokenizer", None
    if not kept.is_dir():
        texts = english_texts(data_dir)
        train_byte_tokenizer(texts[0][:TOKENIZER_TEXTS], VOCABULARY, size["seq_len"]).save_pretrained(kept)
    tokenizer = load_tokenizer(str(kept), size["seq_len"])

    def part(index: int) -> Iterator[str]:
        nonlocal texts
        texts = texts or english_texts(data_dir)
        yield from texts[index]

    what = {"english": list(TEXTS), "data_dir": str(Path(data_folder(data_dir) or "").resolve())}
    files, info = packed(what, tokenizer, {"train": part(0), "validation": part(1)})
    train, validation = (Blocks(files[name], info["dtype"], size["seq_len"]) for name in ("train", "validation"))
    # Some of every data set, and the same for all models.
    most = size["eval_iters"] * max(size["batch_size"], 64) * size["seq_len"]
    validation.tokens = validation.tokens[:most]
    return Stream(tokenizer, train, validation)


def arguments_of(size: dict[str, Any], experts: int, seed: int, folder: Path) -> Arguments:
    own = dict(
        dataset="english",
        num_experts=max(experts, 2),
        sparse_step=int(experts > 1),
        seed=seed,
        output_dir=str(folder / f"experts-{experts}-seed-{seed}"),
    )
    return Arguments.resolve(size | own)


def model_of(arguments: Arguments, tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    set_seed(arguments.train.seed)
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return TASKS["clm"].model_class(arguments.config(len(tokenizer), tokenizer.pad_token_id, [], *ends))


def train_curve(arguments: Arguments, stream: Stream) -> Run:
    """The finished run of these arguments: from disk, resumed, or trained from the start.

    Raises RunError when the folder has another run, and KeyboardInterrupt when it was asked to stop.
    """
    checkpoint = None
    if (folder := Run(arguments.train.output_dir)).arguments_path.exists():
        run = Run.open(folder.folder)
        if _settings(run.arguments()) != _settings(arguments):
            raise RunError(f"{run.folder} was trained with other settings: choose another --output_dir, or remove it.")
        if (state := run.state()).active:
            raise RunError(f"{run.folder} is {state.name} in process {state.pid}: wait for it, or stop it.")
        if max((record["step"] for record in run.metrics("eval")), default=0) >= arguments.train.total_iters:
            return run
        checkpoint = run.last_checkpoint()
        run.discard_incomplete()
        if checkpoint is None:
            run.discard_beginning()
        run.set_state("running")
    else:
        run = Run.create(arguments)
    with recorded(run):
        stopped = _train(run, arguments, stream, checkpoint)
        run.set_state("stopped" if stopped else "finished")
    if stopped:
        raise KeyboardInterrupt
    return run


def _settings(arguments: Arguments) -> dict[str, Any]:
    """The arguments that a curve depends on: all but its length."""
    return arguments.portable() | {"total_iters": None}


def _train(run: Run, arguments: Arguments, stream: Stream, checkpoint: Path | None) -> bool:
    """Train to the end, or until asked to stop; returns whether it was stopped."""
    task, settings, model = TASKS["clm"], arguments.train, model_of(arguments, stream.tokenizer)
    collator, stop = task.collator(stream.tokenizer, settings), StopRequest(run)
    with stop.noticed():
        progress = ProgressCallback(run, stop, max_minutes=None, resumed_from=checkpoint)
        trainer = SwitchTrainer(
            run=run,
            task=task,
            settings=settings,
            keep_best=lambda model, metrics: None,  # Only curves are needed.
            eval_collator=collator,
            progress=progress,
            resume_from=checkpoint,
            train_lengths=[arguments.data.seq_len] * len(stream.train),
            model=model,
            args=training_arguments(settings, task, run, "cpu", settings.total_iters, settings.logging_steps),
            train_dataset=stream.train,
            eval_dataset=stream.validation,
            data_collator=collator,
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return progress.stopped


def curve_of(run: Run, experts: int, seed: int, steps: int) -> Curve:
    """A run's validation cross-entropy per token in nats, up to a step, without the auxiliary losses."""
    evaluations = [record for record in run.metrics("eval") if record["step"] <= steps]
    points = [(record["step"], math.log(record["perplexity"])) for record in evaluations]
    return Curve(experts, seed, points, seconds=evaluations[-1]["seconds"])


class Stepper:
    """One model, trained a step at a time on the same batch, to measure the time of a step."""

    def __init__(self, arguments: Arguments, stream: Stream):
        settings = arguments.train
        self.model = model_of(arguments, stream.tokenizer).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), settings.lr, fused=True, weight_decay=0.0)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=warmed_up_average(settings.ema_decay)
        )
        rows = [stream.train[row]["input_ids"] for row in range(settings.batch_size)]
        self.ids_BT: Tensor = torch.from_numpy(np.stack(rows))

    def step(self) -> tuple[float, float]:
        """Processor seconds of a whole step, and of its part over all weights (clipping, optimizer, averaging)."""
        start = time.process_time()
        self.model(self.ids_BT, labels=self.ids_BT).loss.backward()
        middle = time.process_time()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model)
        end = time.process_time()
        return end - start, end - middle


def step_times(size: dict[str, Any], stream: Stream, folder: Path) -> dict[int, dict[str, float]]:
    """For each number of experts: the time of a step relative to the dense model's (median over rounds in which all
    take turns), its milliseconds (minimum), the milliseconds of the part over all weights, and the model's parameters.
    Cached on disk."""
    kept = folder / "step_times.json"
    if kept.is_file():
        return {int(experts): row for experts, row in json.loads(kept.read_text(encoding="utf-8")).items()}
    steppers = {experts: Stepper(arguments_of(size, experts, 0, folder), stream) for experts in sorted(EXPERTS)}
    rounds: dict[int, list[tuple[float, float]]] = {experts: [] for experts in steppers}
    for turn in range(STEP_ROUNDS + 1):
        for experts, stepper in steppers.items():
            own = [stepper.step() for _ in range(STEPS_A_ROUND)]
            if turn:  # The first one warms up.
                rounds[experts].append(min(own))
    found = {}
    for experts, stepper in steppers.items():
        total, active = stepper.model.parameter_counts()
        ratio = statistics.median(own / dense for (own, _), (dense, _) in zip(rounds[experts], rounds[1], strict=True))
        whole, over_weights = min(rounds[experts])
        found[experts] = {
            "ratio": round(ratio, 3),
            "milliseconds": round(1000 * whole, 1),
            "over_all_weights": round(1000 * over_weights, 1),
            "parameters": total,
            "active": active,
        }
    write_atomically(kept, json.dumps(found, indent=1) + "\n")
    return found


def setup_of(size: dict[str, Any], stream: Stream) -> dict[str, Any]:
    """The common settings of all models, for readers of the results."""
    shown = ("d_model", "d_ff", "num_layers", "num_heads", "seq_len", "lr", "ema_decay", "aux_loss_coef")
    return {name: size[name] for name in shown} | {
        "steps": size["total_iters"],
        "tokens_per_step": size["batch_size"] * size["seq_len"],
        "vocabulary": len(stream.tokenizer),
        "train_tokens": len(stream.train.tokens),
        "validation_tokens": len(stream.validation.tokens),
    }


def plan(curves: list[Curve]) -> tuple[int, int] | None:
    """(experts, seed) of the next curve: every number of experts once, then the dense and the best with other seeds."""
    have = {(curve.experts, curve.seed) for curve in curves}
    for experts in EXPERTS:
        if (experts, SEEDS[0]) not in have:
            return experts, SEEDS[0]
    sparse = [curve for curve in curves if curve.experts > 1 and curve.seed == SEEDS[0]]
    best = min(sparse, key=lambda curve: curve.final).experts
    for seed in SEEDS[1:]:
        for experts in (1, best):
            if (experts, seed) not in have:
                return experts, seed
    return None


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling_experts", allow_abbrev=False)
    parser.add_argument(
        "--data_dir", type=as_path, help="folder with <dataset>/train.parquet; none = SWITCH_DATA_DIR, then the hub"
    )
    parser.add_argument("--output_dir", type=as_path, default="runs/scaling_experts", help="where curves are kept")
    parser.add_argument("--steps", type=positive, default=STEPS, help="of each model (%(default)s)")
    options = parser.parse_args(argv)
    folder, size = Path(options.output_dir), SIZE | {"total_iters": options.steps}
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # So that a step's time is the processor's, and two cores may do two things.
    torch.set_flush_denormal(True)
    keep_freed_memory()
    try:
        stream = make_stream(folder, options.data_dir, size)
        setup = setup_of(size, stream)
        curves: list[Curve] = []
        while following := plan(curves):
            experts, seed = following
            print(f"{experts} experts, seed {seed} …", flush=True)
            run = train_curve(arguments_of(size, experts, seed, folder), stream)
            curves.append(curve_of(run, experts, seed, options.steps))
            if len(curves) < 2:  # Nothing to compare yet.
                continue
            results = summary(setup, curves, step_times(size, stream, folder))
            publish(results)
            print(table(results), flush=True)
    except (CheckpointError, DataError, RunError, ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped: the same command continues.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
