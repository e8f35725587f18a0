"""The lesson of the Train tab: the toy without a balance loss, at a size at which routing then collapses."""

import re
import shutil

from switch_model import SwitchForSequenceClassification
from train.arguments.arguments import Arguments
from train.evaluation.class_told import kept_class_told
from train.formatting import percent
from train.training.loop import train
from ui.server.workspace import Workspace
from ui.training.lesson_words import cost_of_load, verdict
from ui.training.live_run import LiveRun
from ui.training.partners import TWO, may_have, on_edge, unbalanced
from ui.training.run_summary import lines_of


def test_without_the_balance_loss_the_toy_of_the_lesson_collapses(tmp_path):
    lesson, loads, runs = on_edge(Arguments.resolve({})), {}, {}
    for name, arguments in {"with": lesson, "without": unbalanced(lesson)}.items():
        arguments.train.output_dir = str(tmp_path / name)
        runs[name] = train(arguments).metrics()
        last = lines_of(runs[name], "eval")[-1]
        loads[name] = [sorted(layer["load"]) for layer in last["routing"]]
    for idle_to_busiest in loads["without"]:
        assert idle_to_busiest[3] < 0.01 and sum(idle_to_busiest[-2:]) > 0.85
    for idle_to_busiest in loads["with"]:
        assert idle_to_busiest[0] > 0.02 and idle_to_busiest[-1] < 0.35
    # The balance loss is no part of an evaluation's: with it, the balanced run would have 0.5 more.
    losses = [float(loss) for loss in re.findall(r" (\d\.\d{3})", verdict(runs["without"], runs["with"]))]
    assert len(losses) == 2 and abs(losses[0] - losses[1]) < 0.3


def test_what_uneven_loads_cost_by_hand():
    said = cost_of_load([0.5, 0.3, 0.2, 0.0])
    assert "3 of 4 experts" in said and "30.0\u00a0% of the tokens" in said and "2.0 times" in said
    even = cost_of_load([0.25] * 4)
    assert " 0\u00a0% of the tokens" in even and "4 experts" not in even  # Said already where all are in use.


def test_the_lesson_of_a_toy_that_stays_even_anyway_is_another_pair_of_runs(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr("train.runs.process._spawn", lambda *given: None)  # Two trainings, seen above.
    shutil.copytree(toy_run.folder, tmp_path / "toy")
    live = LiveRun(workspace := Workspace(tmp_path))
    wrong, picker = live.start_lesson("toy")
    assert not wrong and picker["value"] == "toy-on-edge-no-balance"
    pair = [workspace.run(name).arguments() for name in ("toy-on-edge", "toy-on-edge-no-balance")]
    assert [arguments.model.num_experts for arguments in pair] == [8, 8]
    assert [arguments.model.aux_loss_coef for arguments in pair] == [0.5, 0.0]
    assert set(live._partners("toy-on-edge-no-balance")) == {"toy-on-edge", "toy-on-edge-no-balance"}


def test_a_run_with_two_experts_for_each_token_does_the_same_work_and_stands_beside_it(toy_run, tmp_path, monkeypatch):
    monkeypatch.setattr("train.runs.process._spawn", lambda *given: None)
    shutil.copytree(toy_run.folder, tmp_path / "toy")
    live = LiveRun(workspace := Workspace(tmp_path))
    wrong, picker = live.start_two("toy")
    assert not wrong and picker["value"] == "toy-top-2"
    models = []
    for name in ("toy", "toy-top-2"):
        arguments = workspace.run(name).arguments()
        models.append(SwitchForSequenceClassification(arguments.config(500, 0, ["a", "b"])))
    (_, one), (_, two) = (model.parameter_counts() for model in models)
    routers = models[0].config.num_experts * models[0].config.d_model * models[0].config.num_layers
    assert two - one == routers and models[1].config.num_experts_per_tok == 2  # Twice as many experts to choose from.
    # With metrics of its own it is drawn beside the first run; of a run that has several there is no such partner.
    shutil.copy(tmp_path / "toy" / "metrics.jsonl", tmp_path / "toy-top-2" / "metrics.jsonl")
    drawn = live.draw("toy-top-2", None)
    assert "two experts for each token" in drawn.lesson_words and "Load with one" in drawn.with_words
    # Figures of both, beside each other: what the run's experts tell of the class is measured, and once.
    table = live.figures_of_two("toy-top-2")
    told = kept_class_told(workspace.run("toy"))
    assert 0.01 < told < 1 and percent(told) in table and "0 of " in table
    monkeypatch.setattr("train.evaluation.class_told.class_told", None)
    assert live.figures_of_two("toy") == table == live.draw("toy", None).figures
    assert drawn.without.layout.coloraxis.cmax == drawn.with_it.layout.coloraxis.cmax
    assert not may_have(workspace.run("toy-top-2"), TWO) and may_have(workspace.run("toy"), TWO)
