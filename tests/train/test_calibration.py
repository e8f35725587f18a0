"""A temperature, fitted on rows held out: as sure as it is right, once, and the same answers as before."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from switch_model import SwitchConfig, SwitchForSequenceClassification, load_checkpoint, save_checkpoint
from switch_model.analysis.typical_texts import TYPICAL
from switch_model.checkpoint import checkpoint_folder, read_training
from train.cli.main import main
from train.data.loading import load_training_data
from train.data.source import DataSource
from train.data.tokenizers import tokenize
from train.evaluation.calibration import CALIBRATION, TEMPERATURE, class_logits, fit_temperature
from train.evaluation.classification import evaluate
from train.runs.run import Run
from train.training.trainer import SwitchTrainer
from train.weights.kept import put_weights


def test_a_temperature_undoes_what_made_logits_too_sure_and_no_rows_make_certain():
    torch.manual_seed(0)
    logits = torch.randn(4000, 3)
    labels = torch.multinomial(logits.softmax(-1), 1).squeeze(1)
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert fit_temperature(logits / 3, labels) == pytest.approx(1 / 3, rel=0.05)
    # All of 50 rows right: the least loss would be none. One row of a class nobody knows makes it 98 % or so.
    right = torch.tensor([[2.0, 0.0]]).repeat(50, 1)
    confidence = (right / fit_temperature(right, torch.zeros(50).long())).softmax(-1)[0, 0]
    assert 0.97 < confidence < 0.995


def test_a_run_ends_calibrated_and_its_checkpoints_do_not(toy_run):
    training, (model, tokenizer) = read_training(toy_run.best), load_checkpoint(toy_run.best, "cpu")
    features = tokenize(load_training_data(toy_run.arguments().selection).validation, tokenizer)
    after, labels = class_logits(model, features, tokenizer.pad_token_id)
    put_weights(model, toy_run.kept_checkpoints()[training["validation"]["step"]])
    before, _ = class_logits(model, features, tokenizer.pad_token_id)
    temperature, noted = training[TEMPERATURE], training[CALIBRATION]
    assert temperature != 1 and noted["rows"] == len(features)
    torch.testing.assert_close(after, before / temperature)
    assert torch.equal(after.argmax(-1), before.argmax(-1))
    assert float(cross_entropy(after, labels)) == pytest.approx(noted["loss_after"], abs=1e-5)
    assert noted["loss_after"] < noted["loss_before"] == pytest.approx(float(cross_entropy(before, labels)), abs=1e-5)


def reliance(found: dict) -> list[float]:
    """Accuracy as it is and under every change to the experts."""
    told = found["reliance"]
    changes = [told["as_it_is"], told["all_off"], told["busiest_off"], told["shuffled"]]
    changes += [
        effect for layer in told["layers"] for effect in (layer["off"], layer["shuffled"], *layer["experts_off"])
    ]
    return [found["accuracy"], *(effect["accuracy"]["value"] for effect in changes)]


def test_a_run_of_before_is_calibrated_when_packaged_or_when_asked_for_once(toy_run, tmp_path, capsys):
    """Neither accuracy nor what the model relies on changes."""
    run = Run(shutil.copytree(toy_run.folder, tmp_path / "run"))
    training = read_training(run.best)
    temperature = training.pop(TEMPERATURE)
    del training[CALIBRATION]
    typical = training.pop(TYPICAL)
    model, tokenizer = load_checkpoint(run.best, "cpu")
    model.fold_temperature(1 / temperature)
    save_checkpoint(model, tokenizer, run.best, training=training)
    before = evaluate(str(run.best), DataSource("toy"))
    assert main(["package", "--run", str(run.folder), "--output", str(tmp_path / "small")]) == 0
    assert main(["calibrate", "--checkpoint", str(run.folder), "--dataset", "toy"]) == 0
    after = evaluate(str(run.best), DataSource("toy"))
    assert reliance(after) == reliance(before) and after["calibration_error"] < before["calibration_error"]
    capsys.readouterr()
    for again in (run.folder, tmp_path / "small"):
        noted = read_training(again)
        assert noted[TEMPERATURE] == pytest.approx(temperature, rel=1e-3) and noted[TYPICAL] == typical
        assert f"divided by {noted[TEMPERATURE]:.3f}" in (checkpoint_folder(again) / "README.md").read_text()
        assert main(["calibrate", "--checkpoint", str(again), "--dataset", "toy"]) == 2
        assert "calibrated already" in capsys.readouterr().err


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_calibrated_checkpoint_gets_the_bounds_of_its_training_texts_and_changes_in_nothing_else(
    toy_run, tmp_path, elsewhere
):
    folder = Path(shutil.copytree(toy_run.best, tmp_path / "own"))
    before, path = {file.name: file.read_bytes() for file in folder.iterdir()}, folder / "training.json"
    training = json.loads(before["training.json"])
    path.write_text(json.dumps({key: value for key, value in training.items() if key != TYPICAL}))
    output = tmp_path / "new" if elsewhere else folder
    flags = ["--output", str(output)] if elsewhere else []
    assert main(["calibrate", "--checkpoint", str(folder), "--dataset", "toy", *flags]) == 0
    after = {file.name: file.read_bytes() for file in output.iterdir()}
    assert json.loads(after.pop("training.json")) == training and training[TYPICAL]["tokens"] > 1
    del before["training.json"]
    assert after == before


def test_a_run_that_is_stopped_and_resumed_is_calibrated_once(tmp_path, monkeypatch):
    """Nothing is learned, so that the first checkpoint stays the best, which was calibrated when the run stopped."""
    flags = ["--num_samples", "96", "--d_model", "16", "--epochs", "3", "--optimizer", "adamw", "--lr", "1e-12"]
    whole, stopped = Run(tmp_path / "whole"), Run(tmp_path / "stopped")
    assert main([*flags, "--output_dir", str(whole.folder)]) == 0
    saved = SwitchTrainer._save_checkpoint

    def save_and_ask_for_a_stop(self, *args):
        saved(self, *args)
        self.run.stop_path.touch()

    with monkeypatch.context() as patch:
        patch.setattr(SwitchTrainer, "_save_checkpoint", save_and_ask_for_a_stop)
        assert main([*flags, "--output_dir", str(stopped.folder)]) == 0
    assert stopped.state().name == "stopped" and TEMPERATURE in read_training(stopped.best)
    assert main(["resume", str(stopped.folder)]) == 0
    assert read_training(stopped.best)[TEMPERATURE] == read_training(whole.best)[TEMPERATURE] != 1
    assert (stopped.best / "model.safetensors").read_bytes() == (whole.best / "model.safetensors").read_bytes()


def test_votes_add_up_to_the_calibrated_logits():
    torch.manual_seed(0)
    config = SwitchConfig(vocab_size=50, d_model=32, d_kv=8, num_experts=4, num_labels=3, readout="experts")
    model = SwitchForSequenceClassification(config).eval()
    torch.nn.init.normal_(model.classifier.bias)
    ids = torch.randint(50, (2, 9))
    before = model(ids).logits
    model.fold_temperature(0.5)
    output = model(ids, output_routing=True)
    torch.testing.assert_close(output.logits, 2 * before)
    torch.testing.assert_close(output.votes.sum(1) + model.classifier.bias, output.logits)
