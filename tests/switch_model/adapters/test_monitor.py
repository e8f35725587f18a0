"""Anyone's training watched: what a Trainer's model routed, and what is wrong with its balance loss."""

import json

import pytest
import torch
from datasets import Dataset

from switch_model.adapters import families

pytestmark = pytest.mark.skipif(bool(families.too_old()), reason="The routers of older versions return other things.")
TOKENS = 12


def rows(count: int = 16) -> Dataset:
    ids = torch.randint(0, 99, (count, TOKENS), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids, "attention_mask": [[1] * TOKENS] * count})


def tiny_olmoe(**settings):
    from transformers import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model = OlmoeForCausalLM(OlmoeConfig(vocab_size=99, **shape, **experts, **ends, **settings))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return model


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """(the folder, the model's loads counted by a hook of the test's own) of a run of four steps of two batches."""
    from transformers import Trainer, TrainingArguments

    from switch_model.monitor import RoutingMonitor

    folder, model, counted = tmp_path_factory.mktemp("runs") / "olmoe", tiny_olmoe(), torch.zeros(8)
    arguments = TrainingArguments(
        str(folder), max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=2, logging_steps=4,
        eval_strategy="steps", eval_steps=4, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        gradient_checkpointing=True,
    )  # fmt: skip

    def count(module, args, output):
        if torch.is_grad_enabled():
            counted.add_(torch.bincount(output[2].flatten(), minlength=8))

    trainer = Trainer(
        model, arguments, train_dataset=rows(), eval_dataset=rows(4), callbacks=[RoutingMonitor(folder, data="mine")]
    )
    model.model.layers[1].mlp.gate.register_forward_hook(count)
    trainer.train()
    return folder, counted, model


def test_a_monitor_writes_what_the_routers_returned(watched):
    folder, counted, model = watched
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "eval", "end"]
    train, evaluated = lines[0]["routing"][1], lines[1]["routing"][1]
    assert train["layer"] == "decoder.1" and train["tokens"] == 4 * 2 * 2 * TOKENS and evaluated["tokens"] == 4 * TOKENS
    assert train["load"] == pytest.approx((counted / counted.sum()).tolist(), abs=1e-5)
    assert train["dead_experts"] == sum(share < 0.01 / 8 for share in train["load"])
    assert lines[0]["loss"] > 0 and lines[1]["perplexity"] > 1
    # Its hooks are gone; the one left is the test's.
    gates = [layer.mlp.gate for layer in model.model.layers]
    assert [len(gate._forward_hooks) for gate in gates] == [0, 1] and not gates[0]._forward_pre_hooks


def test_a_watched_run_is_listed_and_can_only_be_looked_at(watched):
    from train.runs.history import summaries
    from train.runs.run import list_runs

    folder, _, _ = watched
    (run,) = list_runs(folder.parent)
    assert run.watched and run.state().name == "finished" and not run.can_resume()
    (row,) = summaries(folder.parent)
    assert row["dataset"] == "mine" and row["step"] == 4 and "loss" in row["best_words"]


def test_keys_for_dashboards_stay_few():
    from switch_model.monitor import MAX_KEYS, routing_keys

    layer = {"load": [0.9, 0.1, 0.0], "load_cv": 1.0, "load_entropy": 0.5, "token_entropy": 0.5, "drop_rate": 0.0}
    keys = routing_keys([layer | {"layer": f"decoder.{n}"} for n in range(60)], "routing")
    assert len(keys) <= MAX_KEYS and keys["routing/dead_experts_max"] == 1
    assert routing_keys([layer | {"layer": "decoder.0"}], "routing")["routing/decoder.0/dead_experts"] == 1


def balance(logits, experts, k, mask, *, twice=False, padding=False, pooled=False):
    """The loss by hand, with the mistakes asked for."""
    shares, chances = [], []
    for one in logits:
        probs = one.softmax(-1)
        probs = probs.softmax(-1) if twice else probs
        real = torch.ones(len(one), dtype=torch.bool) if padding or mask is None else mask.flatten().bool()
        chosen = one.topk(k).indices[real]
        shares.append(torch.bincount(chosen.flatten(), minlength=experts) / chosen.numel())
        chances.append(probs[real].mean(0))
    f, p = torch.stack(shares), torch.stack(chances)
    return experts * ((f.mean(0) * p.mean(0)).sum() if pooled else (f * p).sum(-1).mean())


MISTAKES = {
    "none": ({}, {}, []),
    "twice": ({"twice": True}, {}, ["Double softmax"]),
    "padding": ({"padding": True}, {}, ["Padding is counted"]),
    "pooled": ({"pooled": True}, {}, ["All layers are pooled"]),
    "two": ({"pooled": True, "padding": True}, {}, ["Padding is counted", "All layers are pooled"]),
    "off": ({}, {"output_router_logits": False}, ["Switched off without a word"]),
    "coefficient": ({}, {"router_aux_loss_coef": 0.0}, ["Its coefficient is 0"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_an_audit_names_each_mistake_and_no_other(name, monkeypatch):
    from transformers.models.olmoe import modeling_olmoe

    from switch_model.adapters.audit import audit_balance

    wrong, settings, said = MISTAKES[name]

    def theirs(logits, experts, k, mask):
        return balance(logits, experts, k, mask, **wrong)

    monkeypatch.setattr(modeling_olmoe, "load_balancing_loss_func", theirs)
    found = audit_balance(tiny_olmoe(**{"output_router_logits": True} | settings))
    assert [one.partition(":")[0].rstrip(".") for one in found.mistakes] == said
    assert (abs(found.own - found.expected) < 1e-5) == (not wrong)


def test_the_librarys_own_loss_pools_its_layers():
    from switch_model.adapters.audit import audit_balance

    found = audit_balance(tiny_olmoe(output_router_logits=True))
    assert [one.split(":")[0] for one in found.mistakes] == ["All layers are pooled"]
