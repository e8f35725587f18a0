"""Two small classifiers of AG News from their random start on, with and without a balance loss: which expert each token
of ten sentences goes to, at 50 checkpoints. "How it works" plays what this records.

python -m benchmarks.record_training --data_dir folder/of/data      (or SWITCH_DATA_DIR; a minute on an idle core)

The file, ui/how_it_works/recorded_training.json, is one JSON object:
  version        1
  model          dataset, classes (names), layers (names), experts (how many in each layer), parameters, settings
  sentences      ten of {"text", "class", "tokens": [as they read in the text, …]}
  steps          50 numbers of optimizer steps, 0 first (the random start), dense at the beginning
  tracks         two of {
    "name"         "balanced" or "unbalanced"
    "aux_loss_coef"  the weight of the balance loss: the one thing in which the tracks differ
    "loss", "accuracy"  50 numbers each: mean cross-entropy and share of right texts, of rows that are not trained on
    "load"         [checkpoint][layer][expert]: share of the tokens of those rows
    "told"         [checkpoint][layer]: mutual information of a token's expert with its text's class, normalised
                   (0 = nothing, 1 = all), of those rows
    "experts"      [checkpoint][layer][sentence]: a string with one digit for each token, its expert
    "gates"        [checkpoint][layer][sentence]: a list with one whole number for each token, its gate in hundredths
  }

Without the balance loss, two of eight experts have 92 and 100 % of the tokens by step 22 (by layer); later some come
back, and the busiest one keeps twice what it has in the balanced track.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import disable_progress_bars
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader
from transformers import TrainerCallback, set_seed

from switch_model import Predictor
from switch_model.analysis.statistics import shared_information
from switch_model.layers.allocator import keep_freed_memory
from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.cli.parser import as_path
from train.data.errors import DataError
from train.data.source import data_folder
from train.runs.process import StopRequest
from train.runs.run import Run
from train.tasks.registry import TASKS
from train.tasks.rows import make_rows, make_tokenizer
from train.training.progress import ProgressCallback
from train.training.trainer import SwitchTrainer
from train.training.trainer_arguments import training_arguments

OUTPUT = Path(__file__).parent.parent / "ui" / "how_it_works" / "recorded_training.json"
CHECKPOINTS, DIGITS = 50, 3
# Rows, not trained on, that loads and losses are told of.
MEASURED = 128
# Small experts, no token dropped, and a learning rate so high that without a balance loss routing collapses.
SETTINGS: dict[str, Any] = dict(
    dataset="ag_news",
    preset="none",
    num_samples=6000,
    vocab_size=4000,
    seq_len=48,
    d_model=32,
    d_ff=32,
    num_layers=2,
    num_heads=4,
    num_experts=8,
    capacity_factor="inf",
    capacity_factor_eval="inf",
    router_bias=True,
    z_loss_coef=0.0,
    switch_dropout=0.0,
    optimizer="adamw",
    lr=0.05,
    lr_schedule="constant",
    warmup=0.0,
    batch_size=32,
    total_iters=220,
    eval_iters=1,
)
TRACKS = {"balanced": 0.2, "unbalanced": 0.0}
# Written for this file, none of them a row of the data set.
SENTENCES = (
    ("World", "Soldiers closed the border while ministers argued about a ceasefire."),
    ("World", "Voters queued for hours as the president called for calm after the riots."),
    ("World", "The court freed two reporters whom the police had arrested in the capital."),
    ("Sports", "Their striker scored twice and the champions won the cup final."),
    ("Sports", "The coach rested her best players before the season's last game."),
    ("Business", "Shares fell as oil prices rose and the bank cut its profit forecast."),
    ("Business", "The airline will sell its loss-making hotels to pay back a loan."),
    ("Sci/Tech", "A new version of the software protects computers from an internet worm."),
    ("Sci/Tech", "Scientists saw ice near the pole of Mars through the probe's camera."),
    ("Sci/Tech", "The phone maker put a faster chip and a music player into its handset."),
)


def checkpoints(steps: int, count: int = CHECKPOINTS) -> list[int]:
    """`count` different steps from 0 to the last, with distances that grow."""
    for points in range(count - 1, 10 * count):
        found = np.unique(np.geomspace(1, steps, points).round().astype(int))
        if len(found) >= count - 1:
            return [0, *map(int, found[-(count - 1) :])]
    raise ValueError(f"{steps} steps are too few for {count} checkpoints.")


class Recorder(TrainerCallback):
    """Notes what the model makes of the sentences and of the measured rows, at the steps asked for."""

    def __init__(self, predictor: Predictor, measured: list[dict[str, torch.Tensor]], steps: list[int]):
        self.predictor, self.measured, self.steps = predictor, measured, set(steps)
        self.track: dict[str, list] = {name: [] for name in ("loss", "accuracy", "load", "told", "experts", "gates")}

    def on_train_begin(self, args, state, control, **kwargs):
        self._record()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in self.steps:
            self._record()

    @torch.inference_mode()
    def _record(self) -> None:
        model, track = self.predictor.model, self.track
        model.eval()
        predictions = self.predictor.batch([text for _, text in SENTENCES])
        layers = range(len(predictions[0].routing))
        records = [[prediction.routing[layer] for prediction in predictions] for layer in layers]
        track["experts"].append([["".join(map(str, one.expert[0].tolist())) for one in layer] for layer in records])
        track["gates"].append([[(100 * one.gate[0]).round().int().tolist() for one in layer] for layer in records])
        losses, right, counts_LCE = [], [], 0
        for batch in self.measured:
            output = model(**{key: batch[key] for key in ("input_ids", "attention_mask")}, output_routing=True)
            losses.append(cross_entropy(output.logits, batch["labels"], reduction="none"))
            right.append(output.logits.argmax(-1) == batch["labels"])
            counts_LCE = counts_LCE + torch.stack([_by_class(record, batch["labels"]) for record in output.routing])
        track["loss"].append(_rounded(torch.cat(losses).mean()))
        track["accuracy"].append(_rounded(torch.cat(right).float().mean()))
        loads_LE = counts_LCE.sum(1) / counts_LCE.sum((1, 2)).unsqueeze(-1)
        track["load"].append([[_rounded(share) for share in load_E] for load_E in loads_LE])
        track["told"].append([_rounded(shared_information(counts_CE.T)) for counts_CE in counts_LCE])
        model.train()


def _by_class(record, labels_B: torch.Tensor) -> torch.Tensor:
    """(C, E) tokens of the texts of each class that chose each expert."""
    chosen_BTE = one_hot(record.expert, record.num_experts) * record.mask.unsqueeze(-1)
    return one_hot(labels_B, len({label for label, _ in SENTENCES})).T @ chosen_BTE.sum(dim=1)


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)


def record_track(settings: dict[str, Any], steps: list[int]) -> tuple[dict[str, list], Predictor]:
    """Train once; what was recorded, and the model with its tokenizer."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = Arguments.resolve(settings | {"output_dir": str(Path(scratch) / "run")})
        arguments.check()
        task, train = TASKS[arguments.train.task], arguments.train
        data = task.read(arguments.selection)
        set_seed(train.seed)
        tokenizer = make_tokenizer(arguments, data)
        rows = make_rows(arguments, data, tokenizer)
        model = task.model_class(arguments.config(len(tokenizer), tokenizer.pad_token_id, data.labels))
        collator, run = task.collator(tokenizer, train), Run.create(arguments)
        # Every n-th: they lie sorted by length.
        few = rows.validation.select(range(0, len(rows.validation), max(len(rows.validation) // MEASURED, 1)))
        columns = few.select_columns(["input_ids", "labels"])
        recorder = Recorder(Predictor(model, tokenizer), list(DataLoader(columns, 64, collate_fn=collator)), steps)
        trainer = SwitchTrainer(
            run=run,
            task=task,
            settings=train,
            keep_best=lambda model, metrics: None,  # The record is all that is wanted.
            eval_collator=collator,
            progress=ProgressCallback(run, StopRequest(run), max_minutes=None, resumed_from=None),
            callbacks=[recorder],
            train_lengths=rows.lengths,
            model=model.train(),
            args=training_arguments(train, task, run, "cpu", train.total_iters, logging_steps=50),
            train_dataset=rows.train,
            eval_dataset=rows.validation,
            data_collator=collator,
            compute_metrics=task.metrics,
        )
        trainer.train()
    return recorder.track, recorder.predictor


def record(settings: dict[str, Any]) -> dict[str, Any]:
    """Train both tracks: the object that the file holds."""
    steps, tracks = checkpoints(settings["total_iters"]), []
    for name, coefficient in TRACKS.items():
        track, predictor = record_track(settings | {"aux_loss_coef": coefficient}, steps)
        tracks.append({"name": name, "aux_loss_coef": coefficient} | track)
    config = predictor.model.config
    sentences = [
        {"text": text, "class": label, "tokens": prediction.tokens}
        for (label, text), prediction in zip(SENTENCES, predictor.batch([text for _, text in SENTENCES]), strict=True)
    ]
    model = {
        "dataset": settings["dataset"],
        "classes": config.labels,
        "layers": [record.name for record in predictor(SENTENCES[0][1]).routing],
        "experts": config.num_experts,
        "parameters": predictor.model.parameter_counts()[0],
        "settings": settings | {"data_dir": None},
    }
    return {"version": 1, "model": model, "sentences": sentences, "steps": steps, "tracks": tracks}


def table(recorded: dict[str, Any]) -> str:
    """Some checkpoints of both tracks, for whoever records."""
    lines = []
    for track in recorded["tracks"]:
        lines.append(f"{track['name']}: step · loss · accuracy · by layer: busiest expert's share, mutual information")
        for index in range(0, len(recorded["steps"]), 7):
            layers = zip(track["load"][index], track["told"][index], strict=True)
            shown = " · ".join(f"{max(load):.2f}, {told:.3f}" for load, told in layers)
            lines.append(
                f"{recorded['steps'][index]:5} · {track['loss'][index]:.3f} · {track['accuracy'][index]:.3f} · {shown}"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_training", allow_abbrev=False)
    parser.add_argument("--data_dir", type=as_path, help="folder of data sets; none = SWITCH_DATA_DIR")
    parser.add_argument("--output", type=as_path, default=str(OUTPUT), help="file to write")
    options = parser.parse_args(argv)
    transformers.logging.set_verbosity_error()
    disable_progress_bars()
    keep_freed_memory()
    try:
        recorded = record(SETTINGS | {"data_dir": data_folder(options.data_dir)})
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_atomically(Path(options.output), json.dumps(recorded, ensure_ascii=False, separators=(",", ":")) + "\n")
    print(table(recorded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
