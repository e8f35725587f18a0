"""Sweeps: what is searched, which values are drawn, trials that fail, stop and go on, and the picture at the end."""

import contextlib
import csv
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import train.sweep.sweep
from tests.support.waits import PATIENCE, wait_until
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.runs.run import Run, RunError, list_runs
from train.sweep.plots import HIGHLIGHT, parallel_coordinates, slices, write_plots
from train.sweep.search_space import grid, parse_search
from train.sweep.study import Sweep, Trial
from train.sweep.sweep import read_sweep, sweep, sweep_table
from train.training.loop import train as train_here
from train.training.resuming import resume

ROOT = Path(__file__).parent.parent.parent
TOY = {"dataset": "toy", "num_samples": 96, "epochs": 1.0}


def toy(folder: Path, **more) -> Arguments:
    return Arguments.resolve(TOY | {"output_dir": str(folder)} | more)


@pytest.fixture
def begun(monkeypatch) -> list[str]:
    """Trials run in this process, which is quicker; the names of those that began."""
    names = []

    def start(arguments: Arguments, root: Path, name: str, max_runs: int = 1) -> Run:
        arguments.check()
        names.append(name)
        arguments.train.output_dir = str(root / name)
        # As in a process of its own: the run's state says it.
        with contextlib.suppress(FloatingPointError):
            train_here(arguments)
        return Run(root / name)

    def go_on_here(run: Run, max_runs: int = 1) -> None:
        names.append(f"{run.name} again")
        resume(run.folder)

    monkeypatch.setattr(train.sweep.sweep, "start", start)
    monkeypatch.setattr(train.sweep.sweep, "go_on", go_on_here)
    return names


# The search


def test_values_by_hand():
    texts = ["lr=1e-4..1e-2:log, num_experts=2|4|8", "dropout=0..0.5:6,d_ff=none|64,batch_size=8..32:log:3"]
    lr, experts, dropout, d_ff, batch = parse_search(texts, Arguments.resolve({}))
    assert (lr.low, lr.high, lr.log, lr.choices) == (1e-4, 1e-2, True, None)
    assert experts.choices == (2, 4, 8) and d_ff.choices == (None, 64) and batch.choices == (8, 16, 32)
    assert dropout.choices == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    flags, layers, capacity = parse_search(
        ["router_bias=true|false", "num_layers=1..3", "capacity_factor=1|inf"], Arguments.resolve({})
    )
    assert flags.choices == (True, False) and layers.values() == (1, 2, 3) and capacity.choices == (1.0, math.inf)
    assert grid([replace(layers, high=2), flags]) == [
        {"num_layers": 1, "router_bias": True},
        {"num_layers": 1, "router_bias": False},
        {"num_layers": 2, "router_bias": True},
        {"num_layers": 2, "router_bias": False},
    ]
    # A comma inside a value parts nothing.
    (tokenizer,) = parse_search(["tokenizer=a,b|c..d"], Arguments.resolve({}))
    assert tokenizer.choices == ("a,b", "c..d")


@pytest.mark.parametrize(
    ("search", "flags", "said"),
    [
        ("lr", {}, "write name=values"),
        ("learning_rate=1|2", {}, "no such argument"),
        ("num_experts=2|two", {}, "'two' is not allowed: it must be a whole number"),
        ("pooling=mean|avg", {}, "must be mean, first, max, mean\\+max"),
        ("lr=1e-2..1e-4", {}, "must be below the second"),
        ("lr=0..1:log", {}, "must start above 0"),
        ("lr=1e-4..1e-2:5:log", {}, "not valid"),
        ("dropout=0..2", {}, "--dropout 2.0 is not allowed"),
        ("lr=1e-3|1e-3", {}, "names a value twice"),
        ("lr=1e-3,lr=1e-2", {}, "names lr twice"),
        ("dataset=toy|imdb", {}, "can't be compared"),
        ("output_dir=a|b", {}, "can't be compared"),
        ("seed=0|1", {}, "the toy data set depends on it"),
        ("seed=0|1", {"dataset": "sst2", "num_samples": 100}, "also selects the rows"),
        ("aux_loss_coef=0|0.1", {"dataset": "imdb", "task": "mlm"}, "changes the validation loss itself"),
        ("num_experts=2|4", {"init_from": "some/model"}, "the initial model determines it"),
    ],
)
def test_a_search_that_can_not_be_is_refused_in_words(search, flags, said):
    with pytest.raises(ValueError, match=said):
        parse_search([search], Arguments.resolve(flags))


def test_a_grid_needs_an_end(tmp_path):
    with pytest.raises(ValueError, match=r"give the number of values, as in lr=1e-4\.\.1e-2:4"):
        sweep(toy(tmp_path / "s"), ["lr=1e-4..1e-2"], sampler="grid")
    with pytest.raises(ValueError, match="has 2,500 combinations"):
        sweep(toy(tmp_path / "s"), ["lr=1e-4..1e-2:50,dropout=0..0.5:50"], sampler="grid")
    assert not (tmp_path / "s").exists()


# Trials


def test_a_grid_with_a_trial_that_fails(tmp_path, begun, capsys):
    folder = tmp_path / "runs" / "my-sweep"
    command = ["sweep", "--num_samples", "96", "--epochs", "2", "--output_dir", str(folder), "--sampler", "grid"]
    command += ["--optimizer", "adamw", "--lr_schedule", "constant", "--grad_clip", "0"]
    assert main([*command, "--search", "lr=1e30|2e-3|1e-3", "--search", "num_experts=2|4"]) == 0
    assert begun == [f"trial-00{number}" for number in range(1, 7)]
    found = read_sweep(folder)
    assert [trial["values"]["lr"] for trial in found["trials"]] == [1e30, 1e30, 2e-3, 2e-3, 1e-3, 1e-3]
    assert [trial["state"] for trial in found["trials"]] == ["failed"] * 2 + ["finished"] * 4
    assert "The loss became" in found["trials"][0]["message"]
    # Compared by the best validation figure of each run.
    figures = {
        trial["number"]: max(line["accuracy"] for line in Run(folder / trial["run"]).metrics("eval"))
        for trial in found["trials"][2:]
    }
    best = max(figures, key=figures.get)
    assert {trial["number"]: trial["figure"] for trial in found["trials"][2:]} == figures
    assert found["best"]["number"] == best and found["best"]["figure"] == figures[best]
    values = found["trials"][best - 1]["values"]
    assert f"--lr {values['lr']}" in found["best"]["command"] and str(tmp_path) not in found["best"]["command"]

    output = capsys.readouterr().out
    assert "Trial 3 of 6: lr=0.002 num_experts=2" in output and "failed. The loss became" in output
    assert f"Best on validation: trial {best}" in output and f"Checkpoint: {folder}/trial-00{best}/best\n" in output
    table = output[output.index("trial  state") :].splitlines()
    assert table[1].split()[0] == str(best) and table[5].split()[:3] == ["1", "failed", "-"]
    with (folder / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and rows[2]["lr"] == "0.002" and rows[0]["accuracy"] == ""
    assert (folder / "parallel_coordinates.png").stat().st_size > 10_000
    page = (folder / "parallel_coordinates.html").read_text()
    assert len(page) > 3_000_000 and "<script src=" not in page
    assert {run.name for run in list_runs(tmp_path / "runs")} == set(begun)


def test_the_same_command_goes_on_and_draws_as_one_that_was_never_stopped(tmp_path, begun):
    search = ["lr=1e-4..1e-2:log,num_experts=2|4"]
    whole = sweep(toy(tmp_path / "whole"), search, trials=3)
    assert len({trial.values["lr"] for trial in whole.trials}) == 3
    folder = tmp_path / "parts"
    sweep(toy(folder), search, trials=2)
    # As a process that was killed leaves it, with and without a checkpoint.
    for name in ("trial-001", "trial-002"):
        path = folder / name / "state.json"
        gone = json.loads(path.read_text()) | {"name": "running", "ended": None, "pid": 2**22, "born": 0.0}
        path.write_text(json.dumps(gone))
    (folder / "trial-002" / "checkpoints").rename(tmp_path / "away")
    begun.clear()
    rest = sweep(toy(folder), search, trials=3)
    assert begun == ["trial-001 again", "trial-002", "trial-003"]
    assert [trial.values for trial in rest.trials] == [trial.values for trial in whole.trials]
    assert [trial.figure for trial in rest.trials] == [trial.figure for trial in whole.trials]
    begun.clear()
    assert len(sweep(toy(folder), search, trials=3).ranked()) == 3 and not begun

    for other in ({"search": ["lr=1e-4..1e-1:log"]}, {"sampler": "tpe"}, {"search_seed": 1}):
        with pytest.raises(RunError, match="contains a sweep with other"):
            sweep(toy(folder), **{"search": search, **other})
    with pytest.raises(RunError, match="with other arguments"):
        sweep(toy(folder, dropout=0.2), search)
    with pytest.raises(RunError, match="contains a run"):
        sweep(toy(folder / "trial-001"), search)


def carried_out(found, number: int, values: dict) -> tuple[Trial, bool]:
    """A trial without its training."""
    return Trial(number, values, None, "finished", values["num_layers"] / 10 - values["num_experts"] / 100), False


def test_a_sweep_does_not_go_on_with_other_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(train.sweep.sweep, "_carry_out", carried_out)
    monkeypatch.setattr(train.sweep.study.Sweep, "best_arguments", lambda self: self.arguments)
    file, search = tmp_path / "rows.csv", ["num_layers=1|2,num_experts=2|4"]
    rows = "text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40))
    file.write_text(rows + "one more,a\n")
    arguments = Arguments.resolve({"dataset": str(file), "output_dir": str(tmp_path / "s")})
    sweep(arguments, search, trials=1)
    file.write_text(rows + "another,a\n")
    with pytest.raises(RunError, match=r"rows\.csv has changed since the sweep in .* began"):
        sweep(arguments, search, trials=2)
    file.write_text(rows + "one more,a\n")
    assert len(sweep(arguments, search, trials=2).trials) == 2


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_draws_never_repeat_and_come_to_an_end(tmp_path, begun, monkeypatch, sampler, capsys):
    monkeypatch.setattr(train.sweep.sweep, "_carry_out", carried_out)
    monkeypatch.setattr(train.sweep.study.Sweep, "best_arguments", lambda self: self.arguments)
    found = sweep(toy(tmp_path / "s"), ["num_layers=1..4,num_experts=2|4"], sampler=sampler, trials=20)
    assert len({tuple(trial.values.values()) for trial in found.trials}) == len(found.trials) == 8
    assert "All 8 combinations have been tried." in capsys.readouterr().out
    assert found.best.values == {"num_layers": 4, "num_experts": 2}
    assert sweep_table(found).splitlines()[1].split()[-2:] == ["4", "2"]


def test_data_that_are_not_there_leave_no_folder(tmp_path, capsys):
    folder = str(tmp_path / "s")
    assert main(["sweep", "--dataset", "nowhere.csv", "--search", "lr=1e-3|1e-4", "--output_dir", folder]) == 2
    assert capsys.readouterr().err.startswith("error: ") and not (tmp_path / "s").exists()
    with pytest.raises(SystemExit):
        main(["sweep", "--search", "lr=1e-3|1e-4", "--max_runs", "2"])
    assert "--max_runs can't be used in a sweep" in capsys.readouterr().err


def test_ctrl_c_stops_the_trial_with_a_checkpoint_and_the_command_goes_on(tmp_path, begun, capsys):
    folder = tmp_path / "s"
    words = ["sweep", "--num_samples", "96", "--epochs", "30", "--eval_steps", "20", "--output_dir", str(folder)]
    words += ["--sampler", "grid", "--search", "lr=1e-3|2e-3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    run = Run(folder / "trial-001")
    wait_until(lambda: run.progress().get("step", 0) >= 3, process)
    assert run.state().pid != process.pid
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in output, output
    assert "Stopped at trial 1 of 2." in output and "Resume with: python -m train sweep --num_samples 96" in output
    assert run.state().name == "stopped" and run.last_checkpoint() is not None
    assert not (folder / "trial-002").exists()
    step = run.progress()["step"]

    assert main([*words, "--trials", "1"]) == 0 and begun == ["trial-001 again"]
    assert run.state().name == "finished" and run.progress()["step"] == 90 > step
    assert "Best on validation: trial 1." in capsys.readouterr().out


# The picture


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_plots_hold_the_finished_trials_and_tell_the_best(tmp_path, higher_is_better):
    search = ["lr=1e-4..1e-2:log", "pooling=mean|max|first", "router_bias=true|false", "eval_steps=none|10"]
    tried = [(1e-3, "max", 0.7), (1e-4, "mean", 0.9), (1e-2, "max", 0.8), (5e-3, "first", None)]
    trials = [
        Trial(
            number,
            {"lr": lr, "pooling": pooling, "router_bias": number % 2 == 0, "eval_steps": 10 if number == 1 else None},
            f"trial-{number:03}",
            "failed" if figure is None else "finished",
            figure,
        )
        for number, (lr, pooling, figure) in enumerate(tried, start=1)
    ]
    arguments = Arguments.resolve({"dataset": "imdb"})
    figure = "accuracy" if higher_is_better else "loss"
    dimensions = parse_search(search, arguments)
    found = Sweep(tmp_path, dimensions, "random", 0, arguments, figure, higher_is_better, trials=trials)
    (drawn,) = parallel_coordinates(found).data
    axes = {axis.label: axis for axis in drawn.dimensions}
    assert list(axes[f"validation {figure}"]["values"]) == [0.7, 0.9, 0.8] == list(drawn.line.color)
    pooling = axes["pooling"]
    assert [pooling.ticktext[at] for at in pooling["values"]] == ["max", "mean", "max"] and len(
        axes["eval_steps"].ticktext
    ) == 2
    # The scale's orange end is where the best is.
    assert drawn.line.colorscale[-1 if higher_is_better else 0][1] == HIGHLIGHT and not drawn.line.reversescale
    assert sorted(slices(found).data[0].customdata) == [1, 2, 3]
    write_plots(found, tmp_path)
    page = (tmp_path / "parallel_coordinates.html").read_text()
    best = "trial, 2, validation accuracy 90.0\u00a0%" if higher_is_better else "trial, 1, validation loss 0.7000"
    assert best in page and "3 trials compared" in page and "1 without a metric not shown" in page
    assert "<script src=" not in page and (tmp_path / "parallel_coordinates.png").stat().st_size > 10_000
