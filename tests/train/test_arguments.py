"""Arguments of a run: flags, presets, config files, the steps that follow from them, and errors."""

import json

import pytest
import torch
from safetensors.torch import load_file

from train.arguments.arguments import Arguments
from train.arguments.groups import DataArguments, ModelArguments, TrainArguments
from train.arguments.steps import logging_interval, planned_steps
from train.cli.main import main
from train.cli.parser import read_flags
from train.runs.run import Run


def test_help_says_what_each_kind_of_switch_does(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "classifier, translation, causal LM, masked LM or span corruption" in said
    assert "switch --tie_word_embeddings off" in said and "switch --embedding_norm off" in said


WRONG = {
    "unknown flag": (["--num_expert", "4"], "--num_expert"),
    "abbreviated flag": (["--epoch", "1"], "--epoch"),
    "no number": (["--epochs", "many"], "it must be a number"),
    "bad choice": (["--optimizer", "sgd"], "it must be adafactor, adamw"),
    "bad value": (["--num_experts", "0"], "--num_experts 0"),
    "another name": (["--dropout", "1.5"], "--dropout 1.5"),
    "no capacity": (["--capacity_factor", "0"], "or inf"),
    "not writable": (["predict", "x", "--trace_file", "/proc/nowhere/x"], "/proc/nowhere/x"),
    "text of classes": (["predict", "x", "--save_text", "y"], "--save_text can't be used"),
    "bad range": (["--ema_decay", "1"], "--ema_decay"),
    "no step left": (["--warmup", "1e9"], "--warmup"),
    "no tokenizer": (["--tokenizer", "nowhere/at/all"], "no tokenizer"),
    "no such data": (["--dataset", "mnist"], "not a data set"),
    "no such file": (["--dataset", "rows.csv"], "no file"),
    "no such split": (["evaluate", "--checkpoint", "x", "--dataset", "toy", "--split", "dev"], "no checkpoint"),
    "no such run": (["resume", "nowhere"], "is not a run"),
    "no checkpoint": (["evaluate", "--dataset", "toy"], "--checkpoint"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_words(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, words = WRONG[case]
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr().err
    assert status == 2 and words in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_arguments_survive_their_file():
    arguments = Arguments(DataArguments(), ModelArguments(capacity_factor=float("inf")), TrainArguments(lr=1e-3))
    again = Arguments.from_dict(json.loads(json.dumps(arguments.to_dict(), allow_nan=False)))
    assert again == arguments
    assert again.command() == "python -m train --capacity_factor inf --lr 0.001"
    assert again.config(10, 0, ["a", "b"]).capacity_factor is None


def test_config_file_presets_and_flags_give_way_in_that_order(toy_run, tmp_path, capsys):
    assert Arguments.resolve({"dataset": "my.csv"}).data.seq_len == 128 and Arguments.resolve({}).data.seq_len == 16
    chosen = Arguments.resolve({"dataset": "sst2", "preset": "base", "num_layers": 1})
    assert chosen.model.num_layers == 1 and chosen.model.num_experts == 8 and chosen.data.seq_len == 64
    assert chosen.command() == "python -m train --dataset sst2 --preset base --num_layers 1"

    # A run's own file, and a part of one; the flag wins.
    file = tmp_path / "part.yaml"
    file.write_text("num_samples: 60\nlr: 2e-3\nepochs: 1\nseed: 1\n")
    assert main(["--config", str(file), "--seed", "2", "--output_dir", str(tmp_path / "run")]) == 0
    first = Run.open(tmp_path / "run").arguments()
    assert (first.data.num_samples, first.train.lr, first.train.seed) == (60, 2e-3, 2)
    assert main(["--config", str(tmp_path / "run" / "arguments.json"), "--output_dir", str(tmp_path / "again")]) == 0
    second = Run.open(tmp_path / "again").arguments()
    second.train.output_dir = first.train.output_dir
    assert second == first
    weights = [load_file(tmp_path / name / "best" / "model.safetensors") for name in ("run", "again")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    # A null in the file wins over the preset, as a flag's "none" does, and a preset given as a flag over the file.
    file.write_text("lr: null\npreset: tiny\noptimizer: adafactor\nnum_samples: 60\nepochs: 1\n")
    assert main(["--config", str(file), "--lr", "none", "--compile", "false", "--output_dir", str(tmp_path / "c")]) == 0
    third = Run.open(tmp_path / "c").arguments()
    assert third.train.lr is None and third.model.d_model == 32 and third.train.compile is False
    command = ["--config", str(tmp_path / "c" / "arguments.json"), "--preset", "small", "--num_samples", "60"]
    assert main([*command, "--epochs", "0.1", "--output_dir", str(tmp_path / "d")]) == 0
    assert Run.open(tmp_path / "d").arguments().model.d_model == 128

    file.write_text("- 1")
    assert main(["--config", str(file)]) == 2 and "must hold arguments" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 8.0}, (80, None)),
        ({"epochs": 8.0, "min_steps": 600}, (600, "min_steps")),
        ({"epochs": 300.0, "min_steps": 600, "max_steps": 2400}, (2400, "max_steps")),
        ({"epochs": 8.0, "min_steps": 600, "max_steps": 4}, (4, "max_steps")),
        ({"epochs": 8.0, "min_steps": 600, "total_iters": 7}, (7, "total_iters")),
    ],
)
def test_epochs_give_the_steps_within_what_is_asked_for(settings, expected):
    assert planned_steps(TrainArguments(**settings), updates_per_epoch=10) == expected


@pytest.mark.parametrize(
    ("settings", "steps", "per_epoch", "expected"),
    [
        ({}, 96, 32, 1),  # The toy.
        ({}, 30, 10, 1),
        ({}, 2400, 700, 35),  # 48 would not fall on the evaluations.
        ({"eval_steps": 200}, 2400, 700, 40),
        ({}, 100_000, 1000, 50),
        ({}, 1000, 997, 20),  # A prime is met by no interval: 1 would be far too many lines.
        ({"logging_steps": 7}, 100_000, 1000, 7),
    ],
)
def test_a_run_has_fifty_lines_of_training_and_some_at_its_evaluations(settings, steps, per_epoch, expected):
    assert logging_interval(TrainArguments(**settings), steps, per_epoch) == expected


def test_epochs_asked_for_are_not_exceeded():
    assert Arguments.resolve({"dataset": "my.csv"}).train.min_steps == 600
    assert Arguments.resolve({"dataset": "my.csv", "epochs": 1.0}).train.min_steps == 0
    assert read_flags(["--dataset", "my.csv", "--epochs", "1", "--preset", "small"], "")[0].train.min_steps == 0
