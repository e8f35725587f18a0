"""LoRA: adapters are trained, and a run leaves ordinary models, and adapters that peft loads."""

import json
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from switch_model import (
    Predictor,
    SwitchConfig,
    SwitchForCausalLM,
    SwitchForConditionalGeneration,
    SwitchForSequenceClassification,
    load_checkpoint,
)
from train.arguments import arguments as arguments_module
from train.arguments.arguments import Arguments
from train.arguments.groups import TrainArguments
from train.cli.main import main
from train.distributed.checks import check_several
from train.distributed.processes import Processes
from train.runs.run import Run
from train.training.parts.lora import add_adapters, merged_model
from train.weights.kept import predictions

TOY = ["--num_samples", "96", "--epochs", "2", "--optimizer", "adamw", "--lr", "0.01", "--eval_steps", "4"]
LORA = ["--lora_rank", "2", "--ema_decay", "0.9", "--save_total_limit", "5"]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "base"
    assert main([*TOY, "--num_experts", "4", "--output_dir", str(folder)]) == 0
    return Run(folder)


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    assert main([*TOY, *LORA, "--init_from", str(base.folder), "--output_dir", str(folder)]) == 0
    return Run(folder)


def test_attention_experts_and_head_move_and_all_else_stays_bit_for_bit(base, tuned):
    before, after = (load_checkpoint(run.best, "cpu")[0].state_dict() for run in (base, tuned))
    moved = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    blocks = [f"encoder.blocks.{layer}." for layer in (0, 1)]
    weights = [*(f"attention.{name}.weight" for name in "qkvo"), "mlp.experts.wi", "mlp.experts.wo"]
    head = {"classifier.weight", "classifier.bias"}
    assert moved == head | {block + weight for block in blocks for weight in weights}
    assert "LoRA of rank 2 on attention and experts" in tuned.log_path.read_text()


@pytest.mark.parametrize(
    ("model_class", "shape", "adapters"),
    [
        (SwitchForSequenceClassification, {"attention_experts": "projections", "attention_sparse_step": 2}, 12),
        (SwitchForSequenceClassification, {"attention_experts": "module"}, 12),
        (SwitchForCausalLM, {"router": "topk", "num_shared_experts": 1, "dense_act_fn": "gated-silu"}, 2 * 10),
        (SwitchForConditionalGeneration, {"encoder_sparse_step": 2}, 2 * 4 + 2 * 8 + 2 * 2),
    ],
)
def test_the_merged_model_computes_what_the_adapters_do(model_class, shape, adapters):
    torch.manual_seed(0)
    config = SwitchConfig(num_experts=3, num_layers=2, d_model=16, d_ff=32, num_heads=2, vocab_size=30, **shape)
    model = model_class(config).eval()
    add_adapters(model, TrainArguments(lora_rank=2), ())
    trained = {name: weight for name, weight in model.named_parameters() if ".lora_" in name}
    assert len(trained) == 2 * adapters
    for weight in trained.values():
        torch.nn.init.normal_(weight, std=0.3)
    inputs = {"input_ids": torch.arange(3, 27).view(2, 12)}
    inputs["labels"] = torch.tensor([0, 1]) if model.stacks == ("encoder",) else inputs["input_ids"]
    found = model(**inputs)
    found.loss.backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in trained.values())
    merged = merged_model(model)
    assert type(merged) is model_class and not [name for name, _ in merged.named_modules() if "lora" in name]
    torch.testing.assert_close(merged(**inputs).logits, found.logits, atol=1e-5, rtol=0)


def test_a_stopped_run_goes_on_as_one_that_was_never_stopped(base, tuned, tmp_path, stopping_at_saves):
    parts = Run(tmp_path / "parts")
    with stopping_at_saves():
        assert main([*TOY, *LORA, "--init_from", str(base.folder), "--output_dir", str(parts.folder)]) == 130
    assert main(["resume", str(parts.folder)]) == 0
    for name in ("model.safetensors", "averaged.safetensors", "adapters.safetensors"):
        whole, again = (load_file(run.last_checkpoint() / name) for run in (tuned, parts))
        assert all(torch.equal(whole[key], again[key]) for key in whole), name

    (parts.last_checkpoint() / "adapters.safetensors").unlink()
    assert "adapters.safetensors is missing" in parts.damaged_since(None)[parts.checkpoints / "checkpoint-6"]


def test_checkpoints_are_ordinary_models_for_the_drift_view(tuned):
    steps = dict(predictions(tuned, "alpha beta"))
    assert sorted(steps) == [4, 6] and steps[4].scores != steps[6].scores


def test_peft_loads_the_adapter_beside_the_initial_model(base, tuned):
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(load_checkpoint(base.best, "cpu")[0], str(tuned.adapter)).eval()
    best = Predictor.from_checkpoint(tuned.best, "cpu")
    temperature = json.loads((tuned.best / "training.json").read_text())["temperature"]
    ids = torch.arange(5, 25).view(2, 10)
    with torch.no_grad():
        expected, found = best.model(ids).logits, adapted(input_ids=ids).logits / temperature
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"init_from": None}, "0 without --init_from: beside random weights"),
        ({"train_only": "experts"}, "all with --lora_rank"),
        ({"compile": True}, "false with --lora_rank"),
        ({"lora_alpha": 0.0}, "above 0"),
    ],
)
def test_what_does_not_go_with_lora_is_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        Arguments.resolve({"init_from": "somewhere", "lora_rank": 4, **flags}).check()


@pytest.mark.parametrize("flag", [{"fsdp": True}, {"expert_parallel": 2}])
def test_divided_weights_have_no_adapters(flag):
    asked = {"optimizer": "adamw", "init_from": "somewhere", "lora_rank": 4}
    with pytest.raises(ValueError, match="take --lora_rank 0"):
        check_several(Processes(count=2), Arguments.resolve(asked | flag))


def test_without_peft_the_command_to_install_it_is_said(monkeypatch):
    monkeypatch.setattr(arguments_module, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    with pytest.raises(ValueError, match=r"pip install peft \(or this package's \[lora\] extra\)"):
        Arguments.resolve({"init_from": "somewhere", "lora_rank": 4}).check()


def test_a_dense_model_has_no_experts_to_adapt_and_nothing_is_left_behind(tmp_path, capsys):
    assert main([*TOY, "--sparse_step", "0", "--output_dir", str(tmp_path / "dense")]) == 0
    flags = ["--init_from", str(tmp_path / "dense"), "--output_dir", str(tmp_path / "tuned")]
    for asked in (["--lora_rank", "2", "--lora_on", "experts"], ["--train_only", "experts"]):
        assert main([*TOY, *flags, *asked]) == 2 and "of this model have no experts" in capsys.readouterr().err
        assert not (tmp_path / "tuned").exists()
