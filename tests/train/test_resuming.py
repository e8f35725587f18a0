"""A stopped run goes on with the rows, the arguments and the whole checkpoint that it had, or says what differs."""

import json
import os
import shutil
import signal

import pytest

from switch_model import load_checkpoint
from tests.support.small_model import SMALL
from tests.support.waits import wait_until
from train.cli.main import main
from train.release import sagemaker_entry
from train.runs.run import Run
from train.training.trainer import SwitchTrainer

CHANGES = {
    "60 rows were added": lambda rows: rows + [f"a new text {number},class 1" for number in range(60)],
    "7 rows are gone": lambda rows: rows[:40] + rows[47:],
    "its rows are in another order": lambda rows: rows[::-1],
    "5 rows have another class": lambda rows: (
        [row[:-1] + ("1" if row[-1] != "1" else "2") for row in rows[:5]] + rows[5:]
    ),
    "there is a new class (other)": lambda rows: [*rows, "a text,other", "one more,other"],
    "a class is gone (class 2)": lambda rows: [row for row in rows if row[-1] != "2"],
    "none of its rows is left": lambda rows: [f"x{row}" for row in rows],
}


@pytest.fixture(scope="module")
def stopped_run(own_file, tmp_path_factory) -> Run:
    """A run over a file of its own, stopped behind its first checkpoint."""
    folder = tmp_path_factory.mktemp("stopped")
    file = shutil.copy(own_file, folder / "rows.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwitchTrainer, "_save_checkpoint", save_then_stop)
        asked = ["--dataset", str(file), *SMALL, "--validation_size", "0.2", "--epochs", "3", "--eval_steps", "2"]
        assert main([*asked, "--output_dir", str(folder / "run")]) == 130
    return Run(folder / "run")


def save_then_stop(self, *args, saved=SwitchTrainer._save_checkpoint):
    saved(self, *args)
    raise KeyboardInterrupt


@pytest.mark.parametrize("said", CHANGES)
def test_a_run_does_not_go_on_with_other_rows(stopped_run, own_file, said, capsys):
    file = stopped_run.folder.with_name("rows.csv")
    header, *rows = own_file.read_text().splitlines()
    file.write_text("\n".join([header, *CHANGES[said](rows)]) + "\n")
    assert main(["resume", str(stopped_run.folder)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and said in printed and printed.count("\n") == 1
    assert stopped_run.last_checkpoint().name == "checkpoint-2"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_experts", 7, "num_experts was 4 and is 7. Restore it"),
        ("optimizer", "adafactor", "optimizer was adamw and is adafactor"),
        ("tokenizer", "gpt2", "tokenizer was none and is gpt2"),
        ("seed", 5, "seed was 0 and is 5"),
    ],
)
def test_a_run_does_not_go_on_with_other_arguments(stopped_run, name, value, said, capsys):
    whole = stopped_run.arguments_path.read_text()
    stopped_run.arguments_path.write_text(json.dumps(json.loads(whole) | {name: value}))
    try:
        assert main(["resume", str(stopped_run.folder)]) == 2
        assert said in capsys.readouterr().err
    finally:
        stopped_run.arguments_path.write_text(whole)


def test_a_run_goes_on_with_its_rows_wherever_they_lie(stopped_run, own_file, tmp_path, capsys):
    run = Run(shutil.copytree(stopped_run.folder, tmp_path / "run"))
    values = json.loads(run.arguments_path.read_text())
    moved = {"dataset": str(own_file), "output_dir": str(run.folder), "max_steps": 3}
    run.arguments_path.write_text(json.dumps(values | moved))
    assert main(["resume", str(run.folder)]) == 0 and run.state().name == "finished"
    assert run.last_checkpoint().name == "checkpoint-3"


@pytest.mark.parametrize(
    ("name", "torn"),
    [
        ("model.safetensors", False),
        ("averaged.safetensors", True),
        ("averaged.safetensors", None),
        ("optimizer.pt", True),
        ("config.json", False),
    ],
)
def test_a_run_goes_on_from_the_newest_whole_checkpoint(run_of_two_saves, tmp_path, name, torn, capsys):
    run = Run(shutil.copytree(run_of_two_saves.folder, tmp_path / "run"))
    damaged = run.last_checkpoint() / name
    if torn is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2 if torn else 0])
    assert main(["resume", str(run.folder)]) == 0
    said = f"checkpoint-4 is damaged ({name}"
    assert said in capsys.readouterr().out and said in run.log_path.read_text()
    assert run.state().name == "finished" and run.last_checkpoint().name == "checkpoint-5"


def test_a_run_without_a_whole_checkpoint_says_what_is_damaged(run_of_two_saves, tmp_path, capsys):
    run = Run(shutil.copytree(run_of_two_saves.folder, tmp_path / "run"))
    for folder in run.kept_checkpoints().values():
        (folder / "optimizer.pt").write_bytes(b"")
    assert not run.can_resume() and main(["resume", str(run.folder)]) == 2
    said = capsys.readouterr().err
    assert "checkpoint-4 is damaged (optimizer.pt is empty or incomplete), and there is no other" in said
    assert "start again. The command:" in said and len(run.kept_checkpoints()) == 2


@pytest.fixture(scope="module")
def run_of_two_saves(tmp_path_factory) -> Run:
    """Stopped at step 4 of 5, with two checkpoints and an average of the weights."""
    folder = tmp_path_factory.mktemp("saves") / "run"

    def stop_at_the_second(self, *args, saved=SwitchTrainer._save_checkpoint):
        saved(self, *args)
        if self.state.global_step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwitchTrainer, "_save_checkpoint", stop_at_the_second)
        asked = [*SMALL, "--num_samples", "64", "--max_steps", "5", "--eval_steps", "2", "--ema_decay", "0.5"]
        assert main([*asked, "--output_dir", str(folder)]) == 130
    return Run(folder)


def test_a_run_that_lost_its_rows_does_not_go_on_with_others(stopped_run, own_file, tmp_path, capsys):
    run, file = Run(shutil.copytree(stopped_run.folder, tmp_path / "run")), tmp_path / "rows.csv"
    file.write_text(own_file.read_text() + "a new text,class 1\n")
    values = json.loads(run.arguments_path.read_text())
    run.arguments_path.write_text(json.dumps(values | {"dataset": str(file), "max_steps": 3}))
    run.rows_path.write_bytes(b"")
    assert main(["resume", str(run.folder)]) == 2 and "has changed since" in capsys.readouterr().err
    shutil.copy(own_file, file)
    assert main(["resume", str(run.folder)]) == 0


@pytest.mark.parametrize("task", ["mlm", "clm", "translation"])
def test_rows_of_every_kind_are_known_again(task, own_file, tmp_path, stopping_at_saves, capsys):
    rows = own_file.read_text().splitlines()[1:]
    pairs = [row.split(",")[0] + "," + row.split(",")[0].upper() for row in rows]
    file, folder = tmp_path / "pairs.csv", tmp_path / "run"
    file.write_text("\n".join(["text,target", *pairs]) + "\n")
    asked = ["--dataset", str(file), *SMALL, "--task", task, "--validation_size", "0.2", "--eval_steps", "1"]
    asked += ["--seq_len", "64"] if task == "translation" else []
    with stopping_at_saves():
        assert main([*asked, "--output_dir", str(folder)]) == 130
    file.write_text("\n".join(["text,target", *pairs[::-1], "one more,ONE MORE"]) + "\n")
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 2 and "1 row was added" in capsys.readouterr().err
    assert main(["evaluate", "--checkpoint", str(folder), "--dataset", str(file), "--split", "validation"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert (metrics["rows"], metrics["trained_rows"], metrics["trained_on"]) == (18, 0, "none")
    assert main(["evaluate", "--checkpoint", str(folder), "--dataset", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["trained_rows"] == 72


def test_a_finished_run_stays_as_it_is_and_gets_back_a_best_checkpoint_that_is_gone(own_run, tmp_path, capsys):
    run = Run(shutil.copytree(own_run.folder, tmp_path / "copy"))
    before = [path.read_bytes() for path in (run.state_path, run.metrics_path, run.progress_path)]
    weights = (run.best / "model.safetensors").read_bytes()
    assert main(["resume", str(run.folder)]) == 0
    assert f"is finished. To train further: python -m train --init_from {run.folder}" in capsys.readouterr().out
    shutil.rmtree(run.best)
    assert main(["resume", str(run.folder)]) == 0
    assert "best/ was missing" in capsys.readouterr().out and (run.best / "model.safetensors").read_bytes() == weights
    assert before == [path.read_bytes() for path in (run.state_path, run.metrics_path, run.progress_path)]


def test_sigterm_reaches_the_training_of_a_sagemaker_job_which_then_resumes_and_leaves_a_model_to_deploy(
    own_file, tmp_path
):
    hyperparameters = dict(zip((flag.removeprefix("--") for flag in SMALL[::2]), SMALL[1::2], strict=True))
    hyperparameters |= {"validation_size": 0.2, "epochs": "30", "eval_steps": 99, "sagemaker_program": "train.py"}
    channel, target = tmp_path / "training", tmp_path / "model"
    channel.mkdir()
    shutil.copy(own_file, channel)
    given = {"SM_CHANNEL_TRAINING": str(channel), "SM_HPS": json.dumps(hyperparameters), "SM_MODEL_DIR": str(target)}
    run = Run(tmp_path / "checkpoints" / "run")
    job = os.fork()
    if job == 0:
        status = 1
        try:
            status = sagemaker_entry.main(given, run.folder.parent)
        finally:
            os._exit(status)
    wait_until(lambda: run.state().name == "running" or os.waitpid(job, os.WNOHANG)[0])
    os.kill(job, signal.SIGTERM)
    os.waitpid(job, 0)
    assert run.state().name == "stopped"
    run.set_state("running")  # As a machine that is gone leaves it.
    assert sagemaker_entry.main(given, run.folder.parent) == 0
    assert run.state().name == "finished"
    assert (target / "code/inference.py").is_file() and not (target / "model.tar.gz").exists()
    assert load_checkpoint(target)[0].config.num_experts == 4
