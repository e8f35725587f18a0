"""Kinds of routers from their flag to a checkpoint and its measures, and compared at equal work."""

import csv
import json

import pytest

from switch_model import Predictor, SwitchConfig, load_checkpoint
from switch_model.topk_routing import TopKRouting, record_of_dict
from tests.support.small_model import SMALL
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.release.card import router_in_words
from train.runs.signals import INTERRUPTED
from train.sweep.routers import KINDS, arguments_of


@pytest.mark.parametrize("kind", ["sigmoid_bias", "expert_choice"])
def test_a_router_is_trained_measured_and_analysed(kind, own_file, tmp_path, capsys):
    asked = ["--dataset", str(own_file), *SMALL, "--num_experts", "4", "--validation_size", "0.2", "--max_steps", "4"]
    run = tmp_path / "run"
    assert main([*asked, "--router", kind, "--num_shared_experts", "1", "--output_dir", str(run)]) == 0
    best = str(run / "best")
    record = Predictor.from_checkpoint(best)("one two three").routing[0]
    assert isinstance(record, TopKRouting) and record_of_dict(record.to_dict()).to_dict() == record.to_dict()
    if kind == "sigmoid_bias":  # Four steps moved it.
        model, _ = load_checkpoint(best)
        assert any(buffer.abs().sum() > 0 for name, buffer in model.named_buffers() if "balance_bias" in name)
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", best, "--dataset", str(own_file), "--reliance", "4"]) == 0
    layer = json.loads(capsys.readouterr().out)["routing"][0]
    assert sum(layer["load"]) == pytest.approx(1, abs=1e-4)
    if kind == "expert_choice":
        assert layer["load_cv"] == pytest.approx(0, abs=1e-6) and layer["balance_loss"] == pytest.approx(1, abs=1e-3)
    assert (
        main(["analyze", "--checkpoint", best, "--dataset", str(own_file), "--output", str(tmp_path / "report")]) == 0
    )


def test_several_experts_are_never_full_unless_a_capacity_is_asked_for():
    given = {"dataset": "toy", "router": "topk", "num_experts": 4}
    config = Arguments.resolve(given).config(1000, 0, ["a", "b"])
    assert config.capacity_factor is None and config.eval_capacity_factor is None
    assert "capacity" not in Arguments.resolve(given).command()
    asked = Arguments.resolve(given | {"capacity_factor": 1.0})
    assert asked.model.capacity_factor == 1.0 and "--capacity_factor 1.0" in asked.command()
    finer = Arguments.resolve(given | {"expert_granularity": 4, "d_ff": 64, "top_k": 8}).config(1000, 0, ["a", "b"])
    assert (finer.num_experts, finer.expert_width, finer.d_ff) == (16, 16, 64)
    with pytest.raises(ValueError, match=r"--top_k 9 is not allowed"):
        Arguments.resolve(given | {"top_k": 9}).check()


@pytest.mark.parametrize(
    "idle",
    ["--top_k 2", "--router sigmoid_bias --balance loss", "--router expert_choice --balance none", "--lora_alpha 4"],
)
def test_a_flag_that_would_change_nothing_is_refused(idle, capsys):
    assert main(idle.split()) == 2 and "changes nothing with" in capsys.readouterr().err


def test_kinds_have_the_same_active_parameters_but_for_their_routers(tmp_path):
    base = Arguments.resolve({"dataset": "toy", "num_experts": 4, "d_model": 32, "d_ff": 64})
    for kind in KINDS:
        config = arguments_of(base, kind, 0, tmp_path).config(1000, 0, ["a", "b"])
        own = config.active_experts + config.num_shared_experts
        assert (own * config.expert_width if config.sparse_layers else config.d_ff) == 64, kind


def test_a_comparison_goes_on_where_it_ended_and_keeps_what_it_has(own_file, tmp_path, capsys, stopping_at_saves):
    folder = tmp_path / "compared"
    asked = ["--dataset", str(own_file), *SMALL, "--num_experts", "2", "--validation_size", "0.2", "--max_steps", "2"]
    asked = ["compare-routers", *asked, "--kinds", "dense,top-2", "--seeds", "3", "--output_dir", str(folder)]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "router" in printed and "top-2 " in printed and (folder / "routers.png").stat().st_size > 1000
    rows = list(csv.DictReader((folder / "routers.csv").open()))
    assert [row["kind"] for row in rows] == ["dense", "top-2"] and rows[0]["load_cv"] == "" and rows[1]["reliance"]
    before = (folder / "top-2-3/metrics.jsonl").stat().st_mtime_ns
    assert main(asked) == 0 and (folder / "top-2-3/metrics.jsonl").stat().st_mtime_ns == before
    assert main([*asked, "--lr", "0.5"]) == 2 and "other arguments" in capsys.readouterr().err
    more = [*asked, "--kinds", "switch,switch"]
    with stopping_at_saves():
        assert main(more) == INTERRUPTED
    assert main(more) == 0
    assert [row["kind"] for row in csv.DictReader((folder / "routers.csv").open())] == ["dense", "top-2", "switch"]
    with pytest.raises(SystemExit):
        main(["compare-routers", "--kinds", "best"])
    assert "it must be of dense, switch" in capsys.readouterr().err


def test_a_card_says_how_tokens_get_their_experts():
    assert router_in_words(SwitchConfig()) == "top-1 mixture of experts"
    two = SwitchConfig(router="topk", num_shared_experts=1)
    assert router_in_words(two) == "top-2 mixture of experts with 1 shared expert"
