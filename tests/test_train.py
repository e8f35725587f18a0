"""The command line, with real processes of training on small data."""

import csv
import io
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from switch_model import Predictor, Routing
from train.arguments import Arguments, DataArguments, ModelArguments, TrainArguments
from train.cli import main
from train.data import DATASETS, DataError, load_split, load_training_data
from train.runs import Run
from train.tokenizer import load_tokenizer, train_tokenizer


def test_a_toy_run_learns_and_leaves_a_whole_folder(toy_run):
    evaluated = toy_run.metrics("eval")
    assert max(record["accuracy"] for record in evaluated) > 0.85  # Chance is 0.33.
    assert evaluated[-1]["loss"] < evaluated[0]["loss"]
    assert {path.name for path in toy_run.best.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json", "README.md",
    }  # fmt: skip
    for name in ("arguments.json", "training_curve.png", "training_curve.html"):
        assert (toy_run.folder / name).stat().st_size > 100, name
    line = toy_run.metrics("train")[0]
    assert {"loss", "accuracy", "learning_rate", "step", "epoch"} <= set(line)
    for layer in (line["routing"][0], evaluated[0]["routing"][1]):
        assert {"balance_loss", "z_loss", "load", "load_cv", "token_entropy", "load_entropy", "drop_rate"} <= set(layer)
        assert sum(layer["load"]) == pytest.approx(1.0, abs=1e-4)


def test_the_best_checkpoint_predicts(toy_run):
    text = load_split("toy", "test")[0][0]
    prediction = Predictor.from_checkpoint(toy_run.folder)(text["text"])
    assert prediction.label in ("class 0", "class 1", "class 2") and not any(prediction.unknown)


def test_evaluate_prints_json(toy_run, capsys, tmp_path):
    command = ["evaluate", "--checkpoint", str(toy_run.folder), "--dataset", "toy", "--split", "test"]
    assert main([*command, "--output_dir", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == 1000 and 0.8 < printed["accuracy"] <= 1 and 0.8 < printed["macro_f1"] <= 1
    assert [layer["layer"] for layer in printed["routing"]] == ["encoder.0", "encoder.1"]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == printed


def test_evaluate_agrees_with_the_predictor(toy_run, capsys):
    command = ["evaluate", "--checkpoint", str(toy_run.folder), "--dataset", "toy", "--num_samples", "60"]
    assert main([*command, "--batch_size", "7"]) == 0
    rows = load_split("toy", "test")[0].select(range(60))
    predictions = Predictor.from_checkpoint(toy_run.folder).batch(rows["text"])
    right = sum(p.label == f"class {label}" for p, label in zip(predictions, rows["label"], strict=True))
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(right / 60)


def test_toy_data_are_measured_in_the_shape_they_were_trained_in(tmp_path, capsys):
    shape = ["--num_classes", "5", "--vocab_size", "200", "--num_samples", "1500", "--seq_len", "20"]
    assert main([*shape, "--epochs", "3", "--output_dir", str(tmp_path / "five")]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(tmp_path / "five"), "--dataset", "toy"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] > 0.8  # Chance is 0.2.


def test_predict_reads_arguments_standard_input_and_data_sets(toy_run, capsys, monkeypatch, tmp_path):
    rows = load_split("toy", "test")[0].select(range(3))
    command = ["predict", "--checkpoint", str(toy_run.folder)]
    expected = [p.label for p in Predictor.from_checkpoint(toy_run.folder).batch(list(rows["text"]))]

    assert main([*command, *rows["text"], "--trace", "--trace_file", str(tmp_path / "trace.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" 0.")[0] for line in lines if "\t" in line] == expected
    assert sum(line.startswith("token ") and "encoder.1" in line for line in lines) == 3
    traced = json.loads((tmp_path / "trace.json").read_text())
    assert [item["label"] for item in traced] == expected
    assert Routing.from_dict(traced[0]["routing"][1]).name == "encoder.1"

    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([rows[0]["text"], "", rows[1]["text"]])))
    assert main([*command, "--batch_size", "2"]) == 0
    said = [line.split(" 0.")[0] for line in capsys.readouterr().out.splitlines()]
    assert said == [expected[0], "no text\t", expected[1]]

    assert main([*command, "--dataset", "toy", "--num_samples", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [f"class {label}" for label in rows["label"]]
    assert [line.split("\t")[1].split(" 0.")[0] for line in lines] == expected


def test_predict_adds_columns_to_a_csv_and_spares_it_when_something_is_wrong(toy_run, capsys, tmp_path):
    path, command = tmp_path / "in.csv", ["predict", "--checkpoint", str(toy_run.folder)]
    text = load_split("toy", "test")[0][0]["text"]
    path.write_text(f'id,text\n1,"{text}"\n2,\n', encoding="utf-8")
    assert main([*command, "--file", str(path), "--output", str(tmp_path / "out.csv")]) == 0
    first, second = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert first["id"] == "1" and first["text"] == text and first["predicted"].startswith("class ")
    assert sum(float(first[f"p(class {index})"]) for index in range(3)) == pytest.approx(1, abs=1e-3)
    assert second["predicted"] == ""
    before = path.read_text()
    assert main([*command, "--file", str(path), "--output", str(path), "--text_column", "words"]) == 2
    assert "--text_column" in capsys.readouterr().err and path.read_text() == before


def test_package_writes_half_precision_and_a_card_with_its_figures(toy_run, tmp_path, capsys):
    assert (
        main(["package", "--run", str(toy_run.folder), "--output", str(tmp_path / "small"), "--machine", "2 cores"])
        == 0
    )
    figures = json.loads(capsys.readouterr().out)
    weights = load_file(tmp_path / "small" / "model.safetensors")
    assert all(weight.dtype == torch.float16 for weight in weights.values())
    card = (tmp_path / "small" / "README.md").read_text()
    assert f"**{figures['accuracy']:.2%}**" in card and "--dataset toy --split test" in card and "on 2 cores" in card
    assert json.loads((tmp_path / "small" / "training.json").read_text())["evaluation"] == figures


def test_stopped_and_resumed_gives_the_weights_of_an_uninterrupted_run(tmp_path, monkeypatch):
    flags = ["--num_samples", "96", "--epochs", "2", "--ema_decay", "0.9", "--token_dropout", "0.1"]
    assert main([*flags, "--output_dir", str(tmp_path / "whole")]) == 0

    from train.trainer import SwitchTrainer

    saved = SwitchTrainer._save_checkpoint

    def save_then_stop(self, *args):
        saved(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SwitchTrainer, "_save_checkpoint", save_then_stop)
        assert main([*flags, "--output_dir", str(tmp_path / "parts")]) == 130
    assert len(Run(tmp_path / "parts").metrics("eval")) == 1
    assert main(["resume", str(tmp_path / "parts")]) == 0

    for name in ("model.safetensors", "averaged.safetensors"):
        whole, parts = (load_file(tmp_path / run / "checkpoints" / "checkpoint-6" / name) for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    for kept in ("loss", "accuracy", "routing"):
        whole, parts = (Run(tmp_path / run).metrics("eval")[-1][kept] for run in ("whole", "parts"))
        assert whole == parts


def test_a_users_file_trains_and_evaluates(tmp_path, capsys):
    toy, names = load_split("toy", "train")
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Message", "Topic"])
        writer.writerows((row["text"], names[row["label"]]) for row in toy.select(range(400)))
        writer.writerow(["", "class 0"])
    run = tmp_path / "run"
    assert main(["--dataset", str(path), "--vocab_size", "600", "--epochs", "1", "--output_dir", str(run)]) == 0
    assert json.loads((run / "best" / "config.json").read_text())["id2label"] == {
        "0": "class 0", "1": "class 1", "2": "class 2",
    }  # fmt: skip
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(run), "--dataset", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 400  # The row without a text is left out.
    assert main(["package", "--run", str(run), "--output", str(tmp_path / "small")]) == 0
    card = (tmp_path / "small" / "README.md").read_text()
    assert "--dataset mine.csv" in card and str(tmp_path) + "/mine.csv" not in card and "were trained on" in card


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_every_kind_of_file_is_read(tmp_path, ending):
    table = pd.DataFrame({"text": ["a b", "c\td", 'e "f"'], "label": [10, 9, 10]})
    path = tmp_path / f"rows.{ending}"
    writers = {
        "tsv": lambda: table.to_csv(path, sep="\t", index=False),
        "jsonl": lambda: table.to_json(path, orient="records", lines=True),
        "parquet": lambda: table.to_parquet(path),
    }
    writers[ending]()
    rows, names = load_split(str(path), "train")
    assert rows["text"] == table.text.tolist()
    assert names == ["9", "10"] and rows["label"] == [1, 0, 1]


def test_local_folder_in_the_layout_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "imdb").mkdir()
    table = pd.DataFrame(
        {"text": [f"good {i}" for i in range(30)] + [f"bad {i}" for i in range(30)], "label": [1] * 30 + [0] * 30}
    )
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / "imdb" / f"{split}.parquet")
    monkeypatch.setenv("SWITCH_DATA_DIR", str(tmp_path))
    data = load_training_data("imdb", validation_size=0.2)
    assert data.labels == ["neg", "pos"] and len(data.train) == 48 and len(data.validation) == 12
    assert sum(data.validation["label"]) == 6  # Both classes, though the rows are sorted.
    with pytest.raises(DataError, match="no split 'test'"):
        load_split("imdb", "test")
    # Any other folder works the same way; its class names may lie beside it.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "labels.json").write_text('{"names": ["no", "yes"]}')
    table.to_parquet(tmp_path / "mine" / "train.parquet")
    rows, names = load_split("mine")
    assert names == ["no", "yes"] and rows[0] == {"text": "good 0", "label": 1}
    # A validation split of its own is used as it is, where there is a test split to report on.
    table[:10].to_parquet(tmp_path / "mine" / "validation.parquet")
    table.to_parquet(tmp_path / "mine" / "test.parquet")
    assert len(load_training_data("mine").validation) == 10 and len(load_training_data("mine").train) == 60
    with pytest.raises(DataError, match="--data_dir"):
        load_split("sst2", "validation")


def test_the_hub_is_read_through_datasets(tmp_path, monkeypatch):
    """The real loading code on a folder in the hub's layout, as datasets accepts it in place of a hub id."""
    (tmp_path / "sst2").mkdir()
    table = pd.DataFrame({"sentence": ["fine", "poor", ""], "label": [1, 0, 0], "idx": [0, 1, 2]})
    table.to_parquet(tmp_path / "sst2" / "validation-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: sst2\n  data_files:\n  - split: validation\n    path: sst2/validation-*\n---\n"
    )
    monkeypatch.setitem(DATASETS, "sst2", replace(DATASETS["sst2"], hub_id=str(tmp_path)))
    rows, names = load_split("sst2", "validation")
    assert (
        names == ["negative", "positive"] and list(rows["text"]) == ["fine", "poor"] and list(rows["label"]) == [1, 0]
    )
    with pytest.raises(DataError, match="could not be loaded from the Hugging Face Hub"):
        load_split("ag_news", "test")


def test_a_tokenizer_by_name(tmp_path):
    train_tokenizer(["a few words", "and a few more"], 60, 16).save_pretrained(tmp_path / "words")
    assert load_tokenizer(str(tmp_path / "words"), 8).tokenize("few words") == ["few", "words"]
    with pytest.raises(DataError, match="no tokenizer"):
        load_tokenizer("nobody/nothing", 8)


WRONG = {
    "unknown flag": (["--num_expert", "4"], "--num_expert"),
    "abbreviated flag": (["--epoch", "1"], "--epoch"),
    "no number": (["--epochs", "many"], "invalid float value"),
    "bad choice": (["--optimizer", "sgd"], "invalid choice"),
    "bad value": (["--num_experts", "0"], "num_experts=0"),
    "bad range": (["--ema_decay", "1"], "--ema_decay"),
    "no step left": (["--warmup", "1e9"], "--warmup"),
    "no tokenizer": (["--tokenizer", "nowhere/at/all"], "no tokenizer"),
    "no such data": (["--dataset", "mnist"], "no data set"),
    "no such file": (["--dataset", "rows.csv"], "no file"),
    "no such split": (["evaluate", "--checkpoint", "x", "--dataset", "toy", "--split", "dev"], "no checkpoint"),
    "no such run": (["resume", "nowhere"], "holds no run"),
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


def test_a_second_run_does_not_overwrite_the_first(toy_run, capsys):
    assert main(["--output_dir", str(toy_run.folder)]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    (tmp_path / "one.csv").write_text("text,label\nx,1\ny,1\n")
    for name, words in [
        ("broken.parquet", "can't be read"),
        ("columns.csv", "Which column"),
        ("one.csv", "one class only"),
    ]:
        with pytest.raises(DataError, match=words):
            load_training_data(str(tmp_path / name))


def test_arguments_survive_their_file():
    arguments = Arguments(DataArguments(), ModelArguments(capacity_factor=float("inf")), TrainArguments(lr=1e-3))
    again = Arguments.from_dict(json.loads(json.dumps(arguments.to_dict(), allow_nan=False)))
    assert again == arguments
    assert again.command() == "python -m train --capacity_factor inf --lr 0.001"
    assert again.config(10, 0, ["a", "b"]).capacity_factor is None
