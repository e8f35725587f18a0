"""Which experts a model can do without: scores by hand, and a smaller model that is the larger one with experts off."""

import json

import numpy as np
import pytest
import torch

from switch_model import Interventions, SwitchConfig, SwitchForSequenceClassification
from switch_model.analysis.pruning import Worth, expert_worths, plan, predicted_loss
from switch_model.analysis.scoring import batches_of
from switch_model.checkpoint import read_training
from switch_model.traces.trace import RoutingTrace, TraceError
from train.analysis.numbering import with_common_numbers
from train.cli.main import main
from train.weights.pruned import without_experts

ROWS = [{"input_ids": [5, 6, 7, 9], "labels": 0}, {"input_ids": [8, 9, 4], "labels": 1}] * 6


@pytest.fixture(
    params=[{}, {"router": "topk", "num_experts_per_tok": 2, "num_shared_experts": 1}], ids=["top-1", "top-2"]
)
def model(request):
    torch.manual_seed(0)
    shape = dict(vocab_size=12, d_model=16, d_ff=32, num_heads=2, d_kv=8, num_layers=2, num_experts=4)
    return SwitchForSequenceClassification(SwitchConfig(**shape, eval_capacity_factor=None, **request.param)).eval()


@torch.no_grad()
def test_scores_are_those_of_plain_loops(model):
    worths = expert_worths(model, batches_of(model, ROWS))
    states = []
    mlp = model.encoder.blocks[1].mlp
    hook = mlp.register_forward_pre_hook(lambda _, given: states.append((given[0], given[1])))
    for row in ROWS:
        model(torch.tensor([row["input_ids"]]))
    hook.remove()
    norms = {expert: [] for expert in range(4)}
    several = model.config.router == "topk"
    choices = 2 if several else 1
    for hidden, _ in states:
        for token in hidden[0]:
            gates = (mlp.router.classifier.weight @ token).softmax(-1)
            best = gates.topk(choices)
            for expert, gate in zip(
                best.indices.tolist(), best.values / (best.values.sum() if several else 1), strict=True
            ):
                inner = (mlp.experts.wi[expert] @ token).relu()
                norms[expert].append(float((gate * (mlp.experts.wo[expert] @ inner)).norm()))
    for expert, worth in enumerate(worths["encoder.1"]):
        own = norms[expert]
        assert worth.load == pytest.approx(len(own) / (42 * choices))
        assert worth.reap == pytest.approx(sum(own) / len(own) if own else 0.0, rel=1e-4)


@torch.no_grad()
def test_without_experts_is_the_model_with_them_off(model):
    removed = {"encoder.0": [0, 3], "encoder.1": [1, 2]}
    smaller = without_experts(model, removed)
    ids = torch.randint(1, 12, (5, 9))
    off = Interventions(ablate={(layer, expert) for layer, experts in removed.items() for expert in experts})
    torch.testing.assert_close(smaller(ids).logits, model(ids, interventions=off).logits)
    assert smaller.config.num_experts == 2 and model.config.num_experts == 4
    with pytest.raises(ValueError, match="same number"):
        without_experts(model, {"encoder.0": [0], "encoder.1": [1, 2]})


def test_the_plan_removes_the_lowest_of_each_layer_and_adds_up_their_effects():
    worths = {
        "encoder.0": [Worth(0.5, 1.0, 0.1), Worth(0.2, 3.0, 0.4), Worth(0.3, 2.0, -0.1)],
        "encoder.1": [Worth(0.4, 1.0, 0.2), Worth(0.4, 1.0, 0.3), Worth(0.2, 1.0, 0.0)],
    }
    assert plan(worths, 1, "reap") == {"encoder.0": [0, 2], "encoder.1": [1, 2]}
    assert plan(worths, 2, "load") == {"encoder.0": [1], "encoder.1": [2]}
    assert predicted_loss(worths, plan(worths, 2, "effect")) == pytest.approx(-0.1 + 0.0)
    for keep in (0, 3):
        with pytest.raises(ValueError, match="can be kept"):
            plan(worths, keep, "reap")


def test_the_command_writes_a_smaller_checkpoint_that_opens(toy_run, tmp_path, capsys):
    flags = ["prune", "--checkpoint", str(toy_run.folder), "--dataset", "toy", "--rows", "40"]
    assert main([*flags, "--keep", "1", "--by", "load", "--output", str(tmp_path / "small")]) == 0
    said = capsys.readouterr().out
    assert "random" in said and "pruning.json" in said
    small = str(tmp_path / "small")
    assert main(["predict", "--checkpoint", small, "alpha"]) == 0
    told, before = read_training(small), read_training(toy_run.best)  # Of the rows held out, not of the metrics.
    assert told == {name: before[name] for name in ("arguments", "rows", "fingerprint")}
    for wrong, words in ((["--keep", "2"], "can be kept"), (["--output", "x"], "needs --keep")):
        try:
            status = main([*flags, *wrong])
        except SystemExit as ended:
            status = ended.code
        assert status == 2 and words in capsys.readouterr().err


def test_experts_keep_their_numbers_when_a_smaller_model_is_compared(toy_run, tmp_path, capsys):
    small, report = tmp_path / "small", tmp_path / "report"
    few = ["--checkpoint", str(toy_run.folder), "--dataset", "toy"]
    assert main(["prune", *few, "--rows", "40", "--keep", "1", "--by", "load", "--output", str(small)]) == 0
    asked = ["analyze", *few, "--num_samples", "20", "--importance", "0", "--compare_with", str(small)]
    assert main([*asked, "--output", str(report)]) == 0
    assert "the same as with small" in capsys.readouterr().out
    measures = json.loads((report / "measures.json").read_text())
    removed = json.loads((small / "pruning.json").read_text())["removed"]
    for layer, agreed in zip(measures["layers"], measures["agreement"], strict=True):
        (gone,) = removed[agreed["layer"]]
        assert agreed["same_first"] == pytest.approx(layer["load"][1 - gone], abs=1e-3)
    (small / "pruning.json").unlink()
    assert main([*asked, "--output", str(report)]) == 2 and "of one shape" in capsys.readouterr().err


def test_two_models_are_compared_by_the_numbers_that_their_experts_have_in_common():
    text = np.zeros(2, np.int64)
    whole, small = (
        RoutingTrace(("encoder.0",), np.array([[[0], [1]]], np.int32), None, experts, text, np.arange(2))
        for experts in (4, 2)
    )
    one, other = {"encoder.0": [0, 2]}, {"encoder.0": [1, 2]}

    def numbers(first, of_first, second, of_second):
        traces = with_common_numbers(first, of_first, second, of_second)
        return [trace.experts.ravel().tolist() for trace in traces[:2]]

    assert numbers(whole, {}, small, one) == [[0, 1], [1, 3]] and numbers(small, one, small, other) == [[1, 3], [0, 3]]
    # What was trained on from the smaller model has its numbers, and no word of a larger one.
    assert numbers(small, one, small, {}) == [[0, 1], [0, 1]]
    with pytest.raises(TraceError, match="of one shape"):
        numbers(whole, {}, small, {})
