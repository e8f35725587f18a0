"""The command line, with real processes of training on small data."""

import csv
import io
import json
import re

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from switch_model import CheckpointError, Predictor, Routing, SwitchConfig, load_checkpoint
from train.cli.main import main
from train.data.loading import load_split
from train.data.source import DataSource
from train.data.tokenizers import tokenize, train_tokenizer
from train.evaluation.metrics import calibration_error, classification_metrics
from train.formatting import percent
from train.runs.run import Run
from train.tasks.collators import RareTokenCollator, token_counts
from train.tasks.registry import TASKS, MaskingCollator
from train.weights.initial import read_initial, with_shape_of


def test_a_toy_run_learns_and_leaves_a_whole_folder(toy_run):
    evaluated = toy_run.metrics("eval")
    assert max(record["accuracy"] for record in evaluated) > 0.85  # Chance is 0.33.
    assert evaluated[-1]["loss"] < evaluated[0]["loss"]
    assert {path.name for path in toy_run.best.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json", "README.md",
    }  # fmt: skip
    for name in ("arguments.json", "training_curve.png", "training_curve.html"):
        assert (toy_run.folder / name).stat().st_size > 100, name
    # What is said in words, and nothing as the Trainer prints it.
    said = toy_run.log_path.read_text()
    assert re.search(r"^step \d+ of \d+ · loss \d\.\d{4} · accuracy .* · learning rate \S+ · 0:\d\d:\d\d$", said, re.M)
    assert re.search(r"^step \d+ of \d+ · validation: loss .* · macro-F1 \d\d\.\d\s% · ", said, re.M)
    assert "{" not in said
    line = toy_run.metrics("train")[0]
    assert {"loss", "accuracy", "learning_rate", "step", "epoch"} <= set(line)
    for layer in (line["routing"][0], evaluated[0]["routing"][1]):
        assert {"balance_loss", "z_loss", "load", "load_cv", "token_entropy", "load_entropy", "drop_rate"} <= set(layer)
        assert sum(layer["load"]) == pytest.approx(1.0, abs=1e-4)


def test_the_best_checkpoint_predicts(toy_run):
    text = load_split(DataSource("toy", split="test"))[0][0]
    prediction = Predictor.from_checkpoint(toy_run.folder)(text["text"])
    assert prediction.label in ("class 0", "class 1", "class 2") and not any(prediction.unknown)


def test_evaluate_prints_json(toy_run, capsys, tmp_path):
    command = ["evaluate", "--checkpoint", str(toy_run.folder), "--dataset", "toy", "--split", "test"]
    assert main([*command, "--output_dir", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["rows"] == 1000 and 0.8 < printed["accuracy"] <= 1 and 0.8 < printed["macro_f1"] <= 1
    assert [layer["layer"] for layer in printed["routing"]] == ["encoder.0", "encoder.1"]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == printed
    assert printed["reliance"]["rows"] == 256 and "its experts" in printed["reliance"]["in_words"][0]
    for name in ("confusion_matrix.png", "confusion_matrix.html", "label_distribution.png", "label_distribution.html"):
        assert (tmp_path / name).stat().st_size > 1000, name


def test_metrics_by_hand():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.3, 0.7, 0.0], [0.2, 0.8, 0.0]])
    metrics = classification_metrics([0, 1, 1, 1], probabilities, ["no", "yes", "never"])
    assert metrics["accuracy"] == 0.75 and metrics["confusion"] == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert metrics["label_distribution"] == {"no": 1, "yes": 3, "never": 0}
    assert metrics["prediction_distribution"] == {"no": 2, "yes": 2, "never": 0}
    assert metrics["per_class"][1] == {"label": "yes", "precision": 1.0, "recall": 2 / 3, "f1": 0.8, "support": 3}
    # Over the two classes that occur.
    assert metrics["macro_precision"] == 0.75 and metrics["macro_recall"] == pytest.approx(5 / 6)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    # Each row in a bin of its own: |1 - 0.9|, |0 - 0.6|, |1 - 0.7|, |1 - 0.8|, averaged.
    assert metrics["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4)
    assert calibration_error(np.array([True, False]), np.array([0.5, 0.5])) == 0  # Half right, half sure.


def test_evaluate_agrees_with_the_predictor(toy_run, capsys):
    command = ["evaluate", "--checkpoint", str(toy_run.folder), "--dataset", "toy", "--num_samples", "60"]
    assert main([*command, "--batch_size", "7"]) == 0
    rows = load_split(DataSource("toy", split="test"))[0].select(range(60))
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
    rows = load_split(DataSource("toy", split="test"))[0].select(range(3))
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
    text = load_split(DataSource("toy", split="test"))[0][0]["text"]
    path.write_text(f'id,text\n1,"{text}"\n2,\n', encoding="utf-8")
    assert main([*command, "--file", str(path), "--output", str(tmp_path / "out.csv")]) == 0
    first, second = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert first["id"] == "1" and first["text"] == text and first["predicted"].startswith("class ")
    assert sum(float(first[f"p(class {index})"]) for index in range(3)) == pytest.approx(1, abs=1e-3)
    assert second["predicted"] == ""
    before = path.read_text()
    assert main([*command, "--file", str(path), "--output", str(path), "--text_column", "words"]) == 2
    assert "no column 'words': it has 'id', 'text'" in capsys.readouterr().err and path.read_text() == before


def test_package_writes_half_precision_and_a_card_with_its_metrics(toy_run, tmp_path, capsys):
    assert (
        main(["package", "--run", str(toy_run.folder), "--output", str(tmp_path / "small"), "--machine", "2 cores"])
        == 0
    )
    metrics = json.loads(capsys.readouterr().out)
    weights = load_file(tmp_path / "small" / "model.safetensors")
    assert all(weight.dtype == torch.float16 for weight in weights.values())
    card = (tmp_path / "small" / "README.md").read_text()
    assert (
        f"**{percent(metrics['accuracy'])}**" in card and "--dataset toy --split test" in card and "on 2 cores" in card
    )
    assert json.loads((tmp_path / "small" / "training.json").read_text())["evaluation"] == metrics


@pytest.mark.parametrize("task", ["classification", "mlm"])
def test_stopped_and_resumed_gives_the_weights_of_an_uninterrupted_run(task, tmp_path, stopping_at_saves):
    flags = ["--num_samples", "96", "--epochs", "2", "--ema_decay", "0.9", "--token_dropout", "0.1", "--task", task]
    flags += ["--expert_residual", "0.5", "--residual_decay", "0.9"]
    flags += ["--eval_steps", "4"]  # 3 steps an epoch: stopped in the middle of the second.
    assert main([*flags, "--output_dir", str(tmp_path / "whole")]) == 0

    with stopping_at_saves():
        assert main([*flags, "--output_dir", str(tmp_path / "parts")]) == 130
    assert len(Run(tmp_path / "parts").metrics("eval")) == 1
    assert main(["resume", str(tmp_path / "parts")]) == 0

    for name in ("model.safetensors", "averaged.safetensors"):
        whole, parts = (load_file(tmp_path / run / "checkpoints" / "checkpoint-6" / name) for run in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole), name
    for kept in ("loss", "accuracy", "routing"):
        whole, parts = (Run(tmp_path / run).metrics("eval")[-1][kept] for run in ("whole", "parts"))
        assert whole == parts


def test_a_short_run_is_seen_from_its_first_step(toy_run):
    assert [record["step"] for record in toy_run.metrics("train")] == list(range(1, 97))


def test_masked_tokens_follow_from_seed_epoch_and_row_alone():
    tokenizer = train_tokenizer(["a b c d e f g h"], 60, 64, whole_words=True)
    words = tokenizer(" ".join("abcdefgh"[n % 8] for n in range(64)))["input_ids"]
    rows = [{"input_ids": [tokenizer.sep_token_id, *words], "row": index} for index in range(200)]
    collator = MaskingCollator(tokenizer, probability=0.2, seed=3)
    together, alone = collator(rows), collator(rows[7:8])
    for key in ("input_ids", "labels"):
        assert torch.equal(together[key][7], alone[key][0])
    chosen = together["labels"] != -100
    ids = torch.tensor([row["input_ids"] for row in rows])
    assert torch.equal(together["labels"][chosen], ids[chosen]) and not chosen[:, 0].any()  # Never a separator.
    assert torch.equal(together["input_ids"][~chosen], ids[~chosen])
    assert chosen[:, 1:].float().mean() == pytest.approx(0.2, abs=0.01)
    masked = together["input_ids"][chosen] == tokenizer.mask_token_id
    assert masked.float().mean() == pytest.approx(0.8 + 0.1 / len(tokenizer), abs=0.03)
    collator.epoch = 1
    assert not torch.equal(collator(rows)["labels"], together["labels"])


def test_rare_tokens_give_way_to_the_unknown_one_by_how_rare_they_are():
    tokenizer = train_tokenizer(["often seldom [SEP]"], 60, 64, whole_words=True)
    texts = ["often seldom [SEP]"] * 200 + ["often often often"] * 600  # 2,000 times often, 200 seldom.
    rows = list(tokenize(Dataset.from_dict({"text": texts, "label": [0] * 800}), tokenizer))
    collator = RareTokenCollator(
        tokenizer, token_counts(Dataset.from_list(rows), len(tokenizer)), strength=200.0, seed=3
    )
    together, alone = collator(rows), collator(rows[7:8])
    assert torch.equal(together["input_ids"][7], alone["input_ids"][0])
    unknown = together["input_ids"] == tokenizer.unk_token_id
    assert unknown[:200, 1].float().mean() == pytest.approx(200 / (200 + 200), abs=0.1)
    assert unknown[200:].float().mean() == pytest.approx(200 / (200 + 2000), abs=0.03)
    assert not unknown[:, 2][:200].any()  # Never a separator.
    collator.epoch = 1
    assert not torch.equal(collator(rows)["input_ids"], together["input_ids"])
    # Something is always left of a text.
    collator.rate[:] = 1.0
    assert torch.equal(collator(rows[:1])["input_ids"][0], torch.tensor(rows[0]["input_ids"]))


def test_a_classifier_starts_from_pretrained_weights(tmp_path, capsys):
    pretrained, tuned = str(tmp_path / "pretrained"), str(tmp_path / "tuned")
    small = ["--num_samples", "60", "--epochs", "1"]
    shape = ["--d_model", "32", "--num_experts", "3", "--bigram_buckets", "50"]
    assert main([*small, *shape, "--task", "mlm", "--output_dir", pretrained]) == 0
    # A learning rate of nearly nothing: what it starts with is what it ends with.
    assert main([*small, "--init_from", pretrained, "--lr", "1e-12", "--output_dir", tuned]) == 0
    before, after = (load_checkpoint(folder, "cpu")[0].state_dict() for folder in (pretrained, tuned))
    shared = [name for name in after if not name.startswith("classifier")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in shared) and len(shared) > 10
    capsys.readouterr()
    assert main([*small, "--init_from", pretrained, "--d_model", "64"]) == 2
    assert "--d_model 64 does not fit" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="predicts tokens, not classes"):
        Predictor.from_checkpoint(pretrained)


def test_a_classifier_does_not_tell_whether_an_output_layer_is_tied(toy_run):
    untied = SwitchConfig(tie_word_embeddings=False)
    begun = read_initial(str(toy_run.best), TASKS["mlm"])
    assert begun.config.tie_word_embeddings and not begun.of_tokens
    assert not with_shape_of(untied, begun.config, begun.of_tokens).tie_word_embeddings
    # A model of tokens does: its weights are of one or the other kind.
    assert with_shape_of(untied, SwitchConfig(tie_word_embeddings=True)).tie_word_embeddings


def test_a_state_dict_becomes_a_checkpoint(toy_run, tmp_path, capsys):
    model, _ = load_checkpoint(toy_run.folder, "cpu")
    weights = {f"module.{name}": weight for name, weight in model.state_dict().items()}
    for layer in range(2):  # As scripts with a list of experts save them.
        for name in ("wi", "wo"):
            experts = weights.pop(f"module.encoder.blocks.{layer}.mlp.experts.{name}")
            for index, weight in enumerate(experts):
                weights[f"module.encoder.blocks.{layer}.mlp.experts.expert_{index}.{name}.weight"] = weight
    torch.save({"model_state_dict": weights, "epoch": 3}, tmp_path / "old.pt")
    command = ["convert", str(tmp_path / "old.pt"), "--tokenizer", str(toy_run.best), "--output", str(tmp_path / "new")]
    assert main([*command, "--config", str(toy_run.arguments_path), "--labels", "class 0, class 1, class 2"]) == 0
    text = load_split(DataSource("toy", split="test"))[0][0]["text"]
    assert (
        Predictor.from_checkpoint(tmp_path / "new")(text).scores == Predictor.from_checkpoint(toy_run.best)(text).scores
    )

    class Opens:
        def __reduce__(self):
            return (print, ("this ran",))

    torch.save({"model_state_dict": Opens()}, tmp_path / "old.pt")
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr()
    assert "could run code" in said.err and "this ran" not in said.out


def test_predict_without_a_checkpoint_says_loudly_that_the_weights_are_random(capsys):
    assert main(["predict", "--dataset", "toy", "--num_samples", "3"]) == 0
    said = capsys.readouterr()
    assert "WEIGHTS ARE RANDOM" in said.err and said.out.count("\n") == 3
