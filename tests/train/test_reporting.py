"""Runs reported to TensorBoard and to Weights & Biases (offline): what was written is read back from their files."""

import json
import struct
import sys

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from tests.support.waits import PATIENCE
from train.arguments import arguments
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.runs.run import Run, RunError
from train.training.loop import train
from train.training.reporting import routing_metrics
from train.training.resuming import resume

SHORT = ["--num_samples", "96", "--epochs", "4", "--logging_steps", "2"]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Weights & Biases keeps to the test's own folder."""
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in (
        "WANDB_PROJECT",
        "WANDB_NAME",
        "WANDB_ENTITY",
        "WANDB_DIR",
        "WANDB_API_KEY",
        "TENSORBOARD_LOGGING_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_X_SERVICE_WAIT", "WANDB_INIT_TIMEOUT"):  # For its own process.
        monkeypatch.setenv(name, str(PATIENCE))
    wandb.teardown()  # It remembers the test before.


def wandb_records(run: Run) -> list[list]:
    """All records of each offline session, the earlier session first."""
    wandb.teardown()  # Its own process writes the file, and is done when it has ended.
    sessions = []
    for path in sorted((run.folder / "wandb").glob("offline-run-*/*.wandb")):
        # LevelDB's log format after 7 bytes of W&B's own: blocks of 32 KiB, chunks of (checksum, length, kind).
        data, at, whole, records = path.read_bytes(), 7, b"", []
        while at + 7 <= len(data):
            left = 32768 - at % 32768
            if left < 7:
                at += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, at)
            whole += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):  # Whole, or the last part.
                records.append(wandb_internal_pb2.Record.FromString(whole))
                whole = b""
        sessions.append(records)
    return sessions


def history(records: list) -> list[dict]:
    found = []
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items})
    return found


def test_both_get_the_metrics_of_the_metrics_file(tmp_path, offline):
    run = Run(tmp_path / "my run")
    command = [*SHORT, "--output_dir", str(run.folder), "--report_to", "tensorboard, wandb", "--wandb_project", "toys"]
    assert main(command) == 0
    measured = [line["routing"][1]["drop_rate"] for line in run.metrics("train")]
    accuracies = [line["accuracy"] for line in run.metrics("eval")]
    assert len(measured) == 6 and len(accuracies) == 4

    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"histograms": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("routing/encoder.1/drop_rate")] == [2, 4, 6, 8, 10, 12]
    assert [event.value for event in events.Scalars("routing/encoder.1/drop_rate")] == pytest.approx(measured)
    assert [event.value for event in events.Scalars("eval/accuracy")] == pytest.approx(accuracies)
    assert len(events.Scalars("eval_routing/encoder.0/load_cv")) == 4
    first = run.metrics("train")[0]["routing"][0]
    histogram = events.Histograms("routing/encoder.0/load")[0].histogram_value
    assert histogram.bucket_limit == [0.5, 1.5]
    assert [count / first["tokens"] for count in histogram.bucket] == pytest.approx(first["load"], abs=1e-4)

    (records,) = wandb_records(run)
    kinds = {record.WhichOneof("record_type"): record for record in records}
    assert kinds["run"].run.project == "toys" and kinds["run"].run.display_name == "my run"
    assert "exit" in kinds and kinds["exit"].exit.exit_code == 0
    lines = history(records)
    reported = {line["train/global_step"]: line for line in lines if "routing/encoder.1/drop_rate" in line}
    assert [line["routing/encoder.1/drop_rate"] for line in reported.values()] == pytest.approx(measured)
    assert reported[2]["routing/encoder.0/load/bins"] == [-0.5, 0.5, 1.5]
    assert [line["eval/accuracy"] for line in lines if "eval/accuracy" in line] == pytest.approx(accuracies)
    settings = {item.key: json.loads(item.value_json) for item in kinds["run"].run.config.update}
    assert settings["num_experts"] == 2 and "output_dir" not in settings
    artifacts = {
        record.artifact.name: {entry.path for entry in record.artifact.manifest.contents}
        for record in records
        if record.WhichOneof("record_type") == "artifact"
    }
    assert artifacts["my-run-best"] == {path.name for path in run.best.iterdir()}
    assert artifacts["my-run-history"] == {"metrics.jsonl", "arguments.json"}


def test_a_resumed_run_goes_on_where_it_was_reported(tmp_path, offline, stopping_at_saves):
    given = {"dataset": "toy", "num_samples": 96, "epochs": 4.0, "logging_steps": 1, "eval_steps": 6, "max_steps": 9}
    values = given | {"output_dir": str(tmp_path / "run"), "report_to": "wandb,tensorboard", "run_name": "a name"}
    with stopping_at_saves(), pytest.raises(KeyboardInterrupt):
        train(Arguments.resolve(values))
    run = resume(tmp_path / "run")
    first, second = wandb_records(run)
    ids = {record.run.run_id for record in first + second if record.WhichOneof("record_type") == "run"}
    names = {record.run.display_name for record in first + second if record.WhichOneof("record_type") == "run"}
    assert ids == {(run.folder / "wandb_id").read_text().strip()} and names == {"a name"}
    steps = [
        [line["train/global_step"] for line in history(records) if "train/loss" in line] for records in (first, second)
    ]
    assert steps == [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_nothing_is_reported_unasked(toy_run):
    assert not (toy_run.folder / "tensorboard").exists() and not (toy_run.folder / "wandb").exists()


def test_what_can_not_be_reported_to_is_said_before_anything_is_trained(tmp_path, offline, monkeypatch, capsys):
    def refusal(report_to: str) -> str:
        folder = tmp_path / "run"
        assert main([*SHORT, "--output_dir", str(folder), "--report_to", report_to]) == 2
        error = capsys.readouterr().err
        assert not folder.exists() and error.startswith("error: ") and len(error.splitlines()) == 1
        return error

    assert "must be none, tensorboard, wandb, or both, comma-separated" in refusal("mlflow")
    assert "mlflow" in refusal("tensorboard,mlflow")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert "wandb login" in refusal("wandb")  # Nobody is logged in here.
    # A folder that W&B left in the working directory is not the package.
    (tmp_path / "wandb").mkdir(exist_ok=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb")
    assert "pip install wandb" in refusal("wandb")
    assert arguments.REPORTERS == ("tensorboard", "wandb")


def test_a_failed_run_ends_as_failed(tmp_path, offline, monkeypatch):
    import train.training.loop

    def fail(*args):
        raise RunError("no picture today")

    monkeypatch.setattr(train.training.loop, "write_curves", fail)
    values = {
        "dataset": "toy",
        "num_samples": 96,
        "epochs": 1.0,
        "output_dir": str(tmp_path / "run"),
        "report_to": "wandb",
    }
    with pytest.raises(RunError, match="no picture today"):
        train.training.loop.train(Arguments.resolve(values))
    (records,) = wandb_records(Run(tmp_path / "run"))
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [1]


def test_metrics_of_a_line_by_hand():
    layer = {"layer": "encoder.3", "tokens": 8, "load": [0.25, 0.75], "balance_loss": 1.1, "z_loss": 2.0}
    layer |= {"sequence_balance_loss": 1.4, "drop_rate": 0.5, "load_cv": 0.5, "load_entropy": 0.8, "token_entropy": 0.7}
    scalars, loads = routing_metrics({"kind": "eval", "step": 3, "accuracy": 0.5, "routing": [layer]})
    assert loads == {"eval_routing/encoder.3/load": [2, 6]}
    assert scalars["eval_routing/encoder.3/drop_rate"] == 0.5 and len(scalars) == 7
    assert routing_metrics({"kind": "end", "step": 3, "train_runtime": 1.0}) == ({}, {})
