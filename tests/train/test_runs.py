"""Runs as real processes: stopped by signals, killed in a save, on a full disk, in a queue."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.support.waits import PATIENCE, wait_until
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.runs.history import run_table, summaries
from train.runs.process import go_on, start, wait_for_turn
from train.runs.run import Run, RunError
from train.training.resuming import resume

ROOT = Path(__file__).parent.parent.parent
FLAGS = {"dataset": "toy", "num_samples": 96, "epochs": 30.0, "ema_decay": 0.9, "eval_steps": 20, "logging_steps": 5}


def command_line(folder: Path, **more) -> list[str]:
    return [word for key, value in (FLAGS | more).items() for word in (f"--{key}", str(value))] + [
        "--output_dir",
        str(folder),
    ]


def in_process(*words: str, code: str = "") -> subprocess.Popen:
    """python -m train with `code` run before, in its own process."""
    program = f"import sys; from train.cli.main import main\n{code}\nsys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, torch.Tensor]:
    """The last weights of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main(command_line(folder)) == 0
    return last_weights(Run(folder))


def last_weights(run: Run) -> dict[str, torch.Tensor]:
    checkpoint = run.last_checkpoint()
    assert checkpoint.name == "checkpoint-90"
    return load_file(checkpoint / "model.safetensors") | {
        f"average {name}": weight for name, weight in load_file(checkpoint / "averaged.safetensors").items()
    }


def assert_goes_on_to(run: Run, whole: dict[str, torch.Tensor]) -> None:
    assert main(["resume", str(run.folder)]) == 0
    assert run.state().name == "finished"
    weights = last_weights(run)
    assert weights.keys() == whole.keys() and all(torch.equal(weights[name], whole[name]) for name in whole)
    assert [record["step"] for record in run.metrics("eval")] == [20, 40, 60, 80, 90]
    seconds = [record["seconds"] for record in run.metrics("train")]
    assert seconds == sorted(seconds)


def test_sigterm_saves_and_the_resumed_run_ends_with_the_same_weights(tmp_path, whole):
    run = Run(tmp_path / "run")
    process = in_process(*command_line(run.folder))
    wait_until(lambda: run.progress().get("step", 0) >= 3, process)
    assert run.state().name == "running" and run.state().pid == process.pid
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "python -m train resume" in output, output
    state = run.state()
    assert state.name == "stopped" and "with a checkpoint" in state.message
    assert run.last_checkpoint() is not None and (run.best / "model.safetensors").is_file()
    assert "Stopping after this step" in run.log_path.read_text() and not run.stop_path.exists()
    assert_goes_on_to(run, whole)


def test_killed_in_the_middle_of_a_save_the_previous_checkpoint_is_whole(tmp_path, whole):
    code = """
import os, signal
from transformers import Trainer
def die(self, folder):
    if self.state.global_step == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, folder)
save, Trainer._save_optimizer_and_scheduler = Trainer._save_optimizer_and_scheduler, die
"""
    run = Run(tmp_path / "run")
    process = in_process(*command_line(run.folder), code=code)
    assert process.wait() == -signal.SIGKILL
    state = run.state()
    # With the last lines of its log.
    assert state.name == "failed" and "ended unexpectedly" in state.message and "validation: loss" in state.message
    assert (run.checkpoints / "checkpoint-40" / "model.safetensors").is_file()
    assert run.last_checkpoint().name == "checkpoint-20"
    assert_goes_on_to(run, whole)


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_stops_the_run_with_a_word_and_nothing_is_corrupt(tmp_path, whole, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=14m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    run = Run(disk / "run")
    try:
        assert main(command_line(run.folder)) == 2
        said = capsys.readouterr().err
        assert "error: The disk is full." in said and "Traceback" not in said
        state = run.state()
        assert state.name == "stopped" and "The disk is full" in state.message
        last = run.last_checkpoint()
        assert last is not None and last.name in state.message
        assert all((path / "trainer_state.json").is_file() for path in run.checkpoints.iterdir())
        assert subprocess.run(["mount", "-o", "remount,size=60m", str(disk)]).returncode == 0
        assert_goes_on_to(run, whole)
    finally:
        subprocess.run(["umount", str(disk)])


def test_two_runs_queue_and_outlive_who_started_them(tmp_path):
    # By a process that is gone a moment later, as an app that gets killed is.
    child = os.fork()
    if child == 0:
        try:
            start(Arguments.resolve(FLAGS | {"epochs": 9999.0}), tmp_path, "first")
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    first, third = Run.open(tmp_path / "first"), Run(tmp_path / "third")
    wait_until(lambda: first.metrics("eval"))
    process = psutil.Process(first.state().pid)  # Held meanwhile, so that the others have the processor.
    process.suspend()
    try:
        second = start(Arguments.resolve({"dataset": "toy", "num_samples": 96, "epochs": 1.0}), tmp_path, "second")

        def stop_in_the_queue():
            wait_until(lambda: third.state().name == "queued")
            third.request_stop()

        with ThreadPoolExecutor(1) as visitor:
            asked = visitor.submit(stop_in_the_queue)
            words = ["--dataset", "toy", "--num_samples", "96", "--epochs", "1", "--max_runs", "1"]
            assert main([*words, "--output_dir", str(third.folder)]) == 0
            asked.result()
        assert third.state().name == "stopped" and not third.best.exists()
        assert first.state().name == "running" and second.state().name == "queued"
        first.request_stop()
    finally:
        process.resume()
    wait_until(lambda: second.state().name == "finished")
    one, two = first.state(), second.state()
    assert one.name == "stopped" and one.ended <= two.started and one.pid not in (two.pid, os.getpid())
    rows = {row["name"]: row for row in summaries(tmp_path)}
    assert rows["first"]["best"] > 0.3 and rows["third"]["best"] is None
    assert "first" in run_table(list(rows.values()))
    # One that was stopped before its first step begins, in its own folder; one that has finished is done.
    resume(third.folder)
    assert third.state().name == "finished"
    assert "starts from the beginning" in third.log_tail() and third.metrics() and third.best.exists()
    shutil.rmtree(third.checkpoints)
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        go_on(third)
    whole = third.log_tail()
    resume(third.folder)
    assert third.log_tail() == whole
    assert third.best.exists()


def process_of(run):
    """The child process of a run that has not yet said which it is."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # Another run's child, which ends at this moment.
            if run.name in " ".join(child.cmdline()):
                return child
    raise AssertionError(f"no process trains {run.name}")


def test_a_stop_before_the_first_step_is_no_failure(tmp_path, monkeypatch):
    # While the process imports: it has not said anything yet.
    run = start(Arguments.resolve({"dataset": "toy"}), tmp_path, "importing")
    process_of(run).terminate()
    wait_until(lambda: not run.state().active)
    assert (
        run.state().name == "stopped" and "from the beginning" in run.state().message and "Trace" not in run.log_tail()
    )

    # While it reads its data: by a signal, and through its folder.
    def signalled(arguments, processes):
        os.kill(os.getpid(), signal.SIGTERM)

    def asked(arguments, processes):
        Run(tmp_path / "asked").request_stop()

    for reading in (signalled, asked):
        monkeypatch.setattr("train.training.loop.prepare", reading)
        folder = tmp_path / reading.__name__
        words = ["--dataset", "toy", "--max_runs", "9", "--output_dir", str(folder)]
        assert main(words) == (130 if reading is signalled else 0)
        assert Run(folder).state().name == "stopped" and "from the beginning" in Run(folder).state().message
        assert not Run(folder).stop_path.exists()


def test_a_run_that_can_not_start_says_why(tmp_path):
    (tmp_path / "one.csv").write_text("text,label\na,x\nb,x\n")
    run = start(Arguments.resolve({"dataset": str(tmp_path / "one.csv")}), tmp_path / "runs", "one")
    wait_until(lambda: not run.state().active)
    state = run.state()
    assert state.name == "failed" and "only one class" in state.message
    wait_until(lambda: "error: " in run.log_tail())  # The log's last words follow the state.
    assert "Traceback" not in run.log_tail()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("state.json", "", "it is empty"),
        ("state.json", '[{"name": "running"}]', "not such a file"),
        ("state.json", '{"name": "running", "pid": "me"}', "how the run ended is unknown"),
        ("progress.json", '{"step": "five", "seconds": null', ""),
        ("progress.json", "[]", ""),
        ("metrics.jsonl", '[1]\n{"kind": "eval", "step": 3, "accuracy": "high"}\n{"kind": "eval", "ste', ""),
        ("arguments.json", "", "it is empty"),
        ("arguments.json", '{"task": "chess"}', "task is 'chess'"),
        ("arguments.json", '{"epochs": "many"}', "epochs is 'many'"),
        ("arguments.json", '{"dataset": "to', "it is damaged"),
    ],
)
def test_whatever_stands_in_a_runs_files_is_said_and_ends_no_reader(toy_run, tmp_path, capsys, name, text, said):
    run = Run(shutil.copytree(toy_run.folder, tmp_path / "runs" / "toy"))
    (run.folder / name).write_text(text)
    assert main(["runs", str(run.folder.parent)]) == 0
    listed = capsys.readouterr()
    assert listed.out.splitlines()[1].startswith("toy ")
    row = summaries(run.folder.parent)[0]
    assert said.lower() in row["message"].lower()
    # What can't be gone on with says so; the rest had finished, and is not trained a step further.
    weights = (run.best / "model.safetensors").read_bytes()
    assert main(["resume", str(run.folder)]) == (2 if name == "arguments.json" else 0)
    printed = capsys.readouterr()
    assert ("is finished" in printed.out) != (name == "arguments.json") and "Traceback" not in printed.err
    assert (run.best / "model.safetensors").read_bytes() == weights
    assert main(["--output_dir", str(run.folder)]) == 2  # Nor is what it learned written over.
    assert (run.best / "model.safetensors").read_bytes() == weights


def test_a_folder_in_which_a_run_never_began_takes_the_next_one(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "arguments.json").touch()
    assert main(["resume", str(folder)]) == 2
    assert "it is empty. Nothing was trained there: start it again" in capsys.readouterr().err
    together = threading.Barrier(4)

    def begin(seed: int) -> Run | RunError:
        arguments = Arguments.resolve({"dataset": "toy", "seed": seed, "output_dir": str(folder)})
        together.wait()
        try:
            return Run.create(arguments)
        except RunError as error:
            return error

    with ThreadPoolExecutor(4) as threads:
        begun = list(threads.map(begin, range(4)))
    (only,) = (seed for seed, run in enumerate(begun) if isinstance(run, Run))
    assert Run(folder).arguments().train.seed == only


def test_a_line_of_metrics_behind_a_torn_one_is_read(tmp_path):
    run = Run(tmp_path)
    run.metrics_path.write_text('{"kind": "train", "st')
    run.append_metrics({"kind": "train", "step": 1})
    run.append_metrics({"kind": "train", "step": 2})
    assert [record["step"] for record in run.metrics()] == [1, 2]


def test_a_folder_in_use_is_not_taken(toy_run, tmp_path, capsys):
    assert main(["--output_dir", str(toy_run.folder)]) == 2
    assert "already contains a run" in capsys.readouterr().err
    assert main(["stop", str(toy_run.folder)]) == 2
    assert "state is finished" in capsys.readouterr().err
    assert main(["runs", str(toy_run.folder.parent)]) == 0
    assert "toy   finished  toy" in capsys.readouterr().out


def test_runs_that_begin_at_one_moment_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("train.runs.run.RUNS", tmp_path / "runs")
    monkeypatch.setattr("train.runs.run.time.strftime", lambda form: "now")
    together = threading.Barrier(8)

    def begin(seed: int, output_dir: Path | None) -> Run | RunError:
        arguments = Arguments.resolve({"dataset": "toy", "seed": seed, "output_dir": output_dir and str(output_dir)})
        together.wait()
        try:
            return Run.create(arguments)
        except RunError as error:
            return error

    with ThreadPoolExecutor(8) as threads:
        begun = list(threads.map(lambda seed: begin(seed, None), range(8)))
        asked = list(threads.map(lambda seed: begin(seed, tmp_path / "one"), range(8)))
    assert {run.name for run in begun} == {"toy-now", *(f"toy-now-{number}" for number in range(2, 9))}
    assert [run.arguments().train.seed for run in begun] == list(range(8))
    # A folder that was named is one run's alone.
    (only,) = (seed for seed, run in enumerate(asked) if isinstance(run, Run))
    assert Run(tmp_path / "one").arguments().train.seed == only


def test_waiting_alone_is_no_waiting(tmp_path):
    run = Run.create(Arguments.resolve({"dataset": "toy", "output_dir": str(tmp_path / "run")}), state="queued")
    assert wait_for_turn(run, 1) and run.state().name == "running"
