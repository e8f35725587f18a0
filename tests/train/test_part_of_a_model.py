"""A run that starts from another model's weights: experts from a dense MLP, and only a part of the weights trained."""

import json

import pytest
import torch

from switch_model import Predictor, load_checkpoint
from train.cli.main import main
from train.data.toy import make_toy
from train.runs.run import Run

SMALL = ["--num_samples", "200", "--epochs", "1", "--optimizer", "adamw", "--lr", "0.01", "--seq_len", "16"]
QUIET = ["--dropout", "0", "--expert_dropout", "0", "--switch_dropout", "0", "--router_noise_eps", "0"]


def trained(folder, *flags) -> Run:
    assert main([*SMALL, *QUIET, *flags, "--output_dir", str(folder)]) == 0
    return Run(folder)


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.best, "cpu")[0].state_dict()


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Run:
    return trained(tmp_path_factory.mktemp("runs") / "dense", "--sparse_step", "0", "--epochs", "3")


@pytest.fixture(scope="module")
def sparse(tmp_path_factory) -> Run:
    return trained(tmp_path_factory.mktemp("runs") / "sparse", "--num_experts", "4")


def test_an_upcycled_model_starts_where_the_dense_one_ended(dense, tmp_path):
    run = trained(tmp_path / "up", "--init_from", str(dense.folder), "--upcycle", "8", "--lr", "1e-12")
    before, after = weights_of(dense), weights_of(run)
    wi_EFD = after["encoder.blocks.1.mlp.experts.wi"]
    assert len(wi_EFD) == 8
    for expert_FD in wi_EFD:
        torch.testing.assert_close(expert_FD, before["encoder.blocks.1.mlp.wi.weight"], atol=1e-6, rtol=0)
    texts = make_toy(40, seed=9)[0]["text"]
    old, new = (Predictor.from_checkpoint(one.best, "cpu").batch(texts) for one in (dense, run))
    apart = [abs(one.scores[one.label] - other.scores[one.label]) for one, other in zip(old, new, strict=True)]
    assert sum(apart) / len(apart) < 0.05 and len({one.label for one in old}) > 1


def test_an_upcycled_model_needs_a_dense_start_and_a_sparse_layer(dense, sparse, capsys):
    for flags, words in (
        (["--init_from", str(sparse.folder), "--upcycle", "8"], "is for a dense model"),
        (["--init_from", str(dense.folder), "--upcycle", "8", "--sparse_step", "0"], "needs a sparse layer"),
        (["--upcycle", "8"], "0 without --init_from"),
    ):
        assert main(flags) == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, moves",
    [
        (["--train_only", "router"], lambda name: ".router." in name),
        (["--train_only", "experts"], lambda name: ".experts." in name),
        (["--freeze_router"], lambda name: ".router." not in name),
    ],
)
def test_what_is_left_out_keeps_its_weights_bit_for_bit(sparse, tmp_path, flags, moves):
    run = trained(tmp_path / "part", "--init_from", str(sparse.folder), *flags)
    before, after = weights_of(sparse), weights_of(run)
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    # A classifier's temperature is folded into its head when a run ends.
    moved -= {"classifier.weight", "classifier.bias"}
    assert moved and all(map(moves, moved))


def test_only_hot_experts_change(sparse, tmp_path):
    flags = ["--init_from", str(sparse.folder), "--train_only", "hot_experts", "--hot_share", "0.4"]
    run = trained(tmp_path / "hot", *flags)
    part = json.loads(run.trained_path.read_text())
    before, after = weights_of(sparse), weights_of(run)
    for layer, experts in part["experts"].items():
        assert 0 < len(experts) < 4
        for name in ("wi", "wo"):
            name = f"encoder.blocks.{layer.removeprefix('encoder.')}.mlp.experts.{name}"
            moved = [not torch.equal(old, new) for old, new in zip(before[name], after[name], strict=True)]
            assert [expert for expert in range(4) if moved[expert]] == experts
    assert main([*SMALL, *flags, "--weight_decay", "0.1"]) == 2
