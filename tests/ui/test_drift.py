"""Drift: a text under every checkpoint that a run keeps; early beside late in Compare."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from switch_model import CheckpointError, Predictor, Routing
from switch_model.analysis.statistics import routed_alike, saturation
from switch_model.plots.drift import saturation_curves, score_curves
from switch_model.routing import UNLIMITED
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data.toy import make_toy
from train.runs.run import Run
from train.runs.trainer_files import AVERAGE_FILE
from train.weights.kept import go_to, open_run, predictions, spread
from ui.catalog.checkpoints import CheckpointShelf, key_of
from ui.catalog.models import ModelShelf
from ui.compare.drift import Asked, Drift, show
from ui.compare.tab import compare
from ui.server.limits import VisitorLimits
from ui.server.workspace import Workspace

TEXT = make_toy(num_samples=1)[0]["text"][0]
STEPS = [2, 4, 6, 7]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    """Seven steps with a checkpoint at every second one, all kept, and an average of the weights."""
    folder = tmp_path_factory.mktemp("drift") / "mine"
    flags = {"d_model": 16, "num_heads": 2, "num_experts": 4, "num_samples": 64, "batch_size": 8, "lr": 0.05}
    flags |= {"max_steps": 7, "eval_steps": 2, "save_total_limit": "none", "ema_decay": 0.5, "output_dir": folder}
    assert main([word for name, value in flags.items() for word in (f"--{name}", str(value))]) == 0
    return Run(folder)


@pytest.fixture
def workspace(trained, tmp_path) -> Workspace:
    """A copy, to break."""
    shutil.copytree(trained.folder, tmp_path / "mine")
    return Workspace(tmp_path)


def record(experts: list[int], mask: list[bool]) -> Routing:
    expert_BT, mask_BT = torch.tensor([experts]), torch.tensor([mask])
    logits_BTE = torch.nn.functional.one_hot(expert_BT, 3).float()
    return Routing("encoder.0", logits_BTE, expert_BT, expert_BT * 0, mask_BT, torch.tensor([UNLIMITED]))


def test_saturation_by_hand():
    # Loads ½ ¼ ¼ and ¼ ½ ¼: chance gives ⅛ + ⅛ + 1/16.
    assert routed_alike(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2]), 3) == (0.75, 0.3125)
    real = [True, True, False]
    assert saturation([record([0, 1, 2], real)], [record([0, 2, 0], real)]) == [(0.5, 0.25)]
    with pytest.raises(ValueError, match="same tokens"):
        routed_alike(torch.tensor([0]), torch.tensor([0, 1]), 2)


def test_a_run_keeps_as_many_checkpoints_as_it_was_told(trained):
    assert list(trained.kept_checkpoints()) == STEPS and trained.last_checkpoint().name == "checkpoint-7"
    assert trained.arguments().train.save_total_limit is None
    with pytest.raises(ValueError, match="--save_total_limit 0"):
        Arguments.resolve({"save_total_limit": 0}).check()
    strangers = [VisitorLimits(checkpoints=6).apply(Arguments.resolve({"save_total_limit": n})) for n in (None, 99, 3)]
    assert [arguments.train.save_total_limit for arguments in strangers] == [6, 6, 3]


def test_a_checkpoint_opens_as_what_the_run_would_have_kept(trained, tmp_path):
    found = dict(predictions(trained, TEXT))
    assert list(found) == STEPS
    # Whichever was the best one is also among them, average and all.
    best = Predictor.from_checkpoint(trained.best, "cpu")(TEXT).scores
    assert best in [prediction.scores for prediction in found.values()]
    assert len({tuple(prediction.scores.values()) for prediction in found.values()}) == 4
    # Without the average, the weights themselves: another model.
    bare = shutil.copytree(trained.kept_checkpoints()[4], tmp_path / "checkpoint-4")
    (bare / AVERAGE_FILE).unlink()
    predictor = open_run(trained, "cpu")
    go_to(predictor, bare)
    assert predictor(TEXT).scores != found[4].scores
    (bare / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError):
        go_to(predictor, bare)


def test_what_goes_while_it_is_read_is_passed_over(workspace):
    run = workspace.run("mine")
    reading = predictions(run, TEXT)
    assert next(reading)[0] == 2
    shutil.rmtree(run.kept_checkpoints()[4])
    assert [step for step, _ in reading] == [6, 7]


def test_the_page_follows_a_text_from_the_first_checkpoint_to_the_last(workspace):
    drift = Drift(workspace, "cpu")
    picker, note, *_ = drift.refresh(None)
    assert picker["choices"] == [("mine (4 checkpoints)", "mine")] and picker["value"] == "mine" and not note
    assert drift.first_text("mine", "") and not drift.first_text("mine", "a text of their own")
    assert not Drift(replace(workspace, limits=VisitorLimits()), "cpu").first_text("mine", "")
    asked = Asked()
    found = drift.fill("mine", "", asked)
    assert found == drift.first_text("mine", "") and asked.begun
    assert drift.fill("gone", found, asked) == "" and drift.fill("mine", "my own", asked) == "my own"
    *waiting, (said, trail) = drift.route("mine", "", TEXT)
    assert all(words and one is None for words, one in waiting) and "step 2 to 7" in said
    visible, slider, saturated, classes, shown, *_ = show(trail)
    assert (slider["minimum"], slider["maximum"], slider["step"], slider["value"]) == (2, 7, 1, 2)
    assert [one["step"] for one in shown] == STEPS and visible["visible"]
    first, last = trail.predictions[0], trail.predictions[-1]
    for layer, here, there in zip(shown[0]["grid"]["layers"], first.routing, last.routing, strict=True):
        differs = ((here.expert != there.expert) | (here.dropped != there.dropped))[0].tolist()
        assert [route is not None for route in layer["before"]] == differs
    assert all(line.y[-1] == 100 for line in saturated.data if line.showlegend) and len(saturated.data) == 4
    assert classes.data[0].y[0] == round(100 * first.scores["class 0"], 2)


def test_a_fine_tuned_run_is_followed_from_its_initial_model(workspace):
    run = workspace.run("mine")
    arguments = json.loads(run.arguments_path.read_text()) | {"init_from": str(run.best)}
    run.arguments_path.write_text(json.dumps(arguments))
    *_, (said, trail) = Drift(workspace, "cpu").route("mine", TEXT)
    assert trail.steps == [0, *STEPS] and "4 checkpoints and the initial model" in said
    assert trail.predictions[0].scores == Predictor.from_checkpoint(run.best, "cpu")(TEXT).scores
    on_a_public_page = Drift(replace(workspace, limits=VisitorLimits()), "cpu")
    assert list(on_a_public_page.route("mine", TEXT))[-1][1].steps == STEPS


def test_runs_without_much_to_see_say_how_to_get_more(workspace, tmp_path):
    run = workspace.run("mine")
    for step in STEPS[:-1]:
        shutil.rmtree(run.kept_checkpoints()[step])
    drift = Drift(workspace, "cpu")
    assert "Checkpoints kept" in drift.refresh(None)[1]
    *_, (said, trail) = drift.route("mine", TEXT)
    assert trail is None and "one checkpoint, of step 7" in said and "Checkpoints kept" in said
    assert show(None)[0]["visible"] is False
    for name, text, words in (("mine", " ", "empty"), ("../mine", TEXT, "no run"), (None, TEXT, "Choose a run")):
        assert words in list(drift.route(name, text))[-1][0]
    empty = Drift(Workspace(tmp_path / "nothing"), "cpu")
    _, said, *asked, recorded = empty.refresh(None)
    assert "No run has a checkpoint" in said and recorded["visible"] and not any(one["visible"] for one in asked)


def test_an_early_and_a_late_checkpoint_can_be_compared(workspace):
    shelf = CheckpointShelf(ModelShelf({}, "cpu"), workspace)
    assert [title for title, _ in shelf.choices()] == ["mine, step 2", "mine, step 7"]
    early, late = (key for _, key in shelf.choices())
    *_, said, first, _ = compare(shelf, early, TEXT, late, "")
    assert "routed alike" in said and "no common numbering" not in said and first["experts"] == 4
    assert shelf.load(early).predictor(TEXT).scores == dict(predictions(workspace.run("mine"), TEXT, [2]))[2].scores
    for key in (key_of("mine", 3), key_of("gone", 2), key_of("../mine", 2)):
        assert 'class="message"' in compare(shelf, key, TEXT, late, "")[0]


def test_many_checkpoints_are_thinned_out_evenly_and_many_classes_to_the_likely_ones():
    assert spread(list(range(0, 1000, 10)), 3) == [0, 500, 990] and spread([1, 2], 50) == [1, 2]
    scores = [{f"class {index}": index / 100 for index in range(20)}] * 2
    assert [line.name for line in score_curves([1, 2], scores).data] == [f"class {index}" for index in range(12, 20)]
    one = replace(record([0, 1], [True, True]))
    assert len(saturation_curves([1, 2], [[one], [one]]).data) == 2
