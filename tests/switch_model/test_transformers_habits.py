"""What transformers' own suites ask of every model, and what libraries around it do with one: states and attentions,
files in shards, devices, generation, labels, Trainer, quantizers and adapters."""

import inspect
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import disk_offload
from torch import nn
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
    pipeline,
)
from transformers.cache_utils import DynamicCache

from switch_model import CheckpointError, Predictor, SwitchForSequenceClassification
from tests.support.heads import HEADS, has_decoder_over_encoder, make, padded, tokens

WRITERS = ["conditional", "causal"]
GREEDY = dict(max_new_tokens=6, min_new_tokens=6, do_sample=False)
TINY_RUN = dict(max_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to="none", disable_tqdm=True)


def inputs(head: str, ids: torch.Tensor, **others) -> dict:
    return {"input_ids": ids, **({"decoder_input_ids": ids[:, :5]} if has_decoder_over_encoder(head) else {}), **others}


@pytest.mark.parametrize("experts", ["none", "projections"])
@pytest.mark.parametrize("head", HEADS)
def test_states_and_attentions_are_given_where_they_are_asked_for(head, experts):
    model, ids = make(head, attention_experts=experts), tokens(2, 9)
    given = inputs(head, ids)
    plain = model(**given)
    output = model(**given, output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(output[0], plain[0], atol=1e-3, rtol=1e-4)
    mine = "decoder_" if has_decoder_over_encoder(head) else ""
    states, weights = output[f"{mine}hidden_states"], output[f"{mine}attentions"]
    blocks, length = (3, 5) if mine else (3, 9) if head == "causal" else (2, 9)
    assert len(states) == blocks + 1 and len(weights) == blocks if head != "causal" else len(states) == len(weights) + 1
    for one in weights:
        assert one.shape == (2, 4, length, length)
        torch.testing.assert_close(one.sum(-1), torch.ones(2, 4, length))
        assert not (one.triu(1).any() and (mine or head == "causal"))  # A decoder looks back.
    if mine:
        assert output.cross_attentions[0].shape == (2, 4, 5, 9) and len(output.encoder_hidden_states) == 3
        # What the encoder gave before is handed on as it is.
        encoded = model.get_encoder()(ids, output_hidden_states=True, output_attentions=True)
        again = model(encoder_outputs=encoded, decoder_input_ids=ids[:, :5])
        for name in ("hidden_states", "attentions"):
            assert all(map(torch.equal, again[f"encoder_{name}"], encoded[name]))
    # The last states are what the head reads; gradient reaches all of them; a tuple holds the same.
    last = getattr(plain, "last_hidden_state", None)
    assert last is None or torch.equal(states[-1], output.last_hidden_state)
    for tensor in (states[0], weights[0]):
        tensor.retain_grad()
    output[0].sum().backward()
    assert states[0].grad.any() and weights[0].grad.any()
    assert len(model(**given, return_dict=False, output_hidden_states=True)) == len(plain.to_tuple()) + 1 + bool(mine)
    model.config.output_hidden_states = True
    assert model(**given)[f"{mine}hidden_states"] is not None


@pytest.mark.parametrize("head", HEADS)
def test_what_libraries_hand_on_is_taken_and_a_misspelt_keyword_is_not(head):
    model, given = make(head), inputs(head, tokens(1, 6))
    assert next(iter(inspect.signature(model.forward).parameters)) == "input_ids"
    handed_on = dict(output_attentions=None, token_type_ids=torch.zeros(1, 6), tokenizer=object(), inputs_embeds=None)
    assert torch.equal(model(**given, **handed_on)[0], model(**given)[0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'output_routin'"):
        model(**given, output_routin=True)


@pytest.mark.parametrize("head", HEADS)
def test_files_in_shards_in_half_precision_and_on_a_device_map(head, tmp_path):
    model, given = make(head), inputs(head, tokens(2, 9))
    wanted = model(**given)[0]
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("model-*-of-*.safetensors"))) > 2
    for place in ({"": "cpu"}, "auto"):
        found = type(model).from_pretrained(tmp_path / "shards", device_map=place).eval()
        torch.testing.assert_close(found(**given)[0], wanted, atol=1e-4, rtol=1e-4)
    # Weights that lie on the disk come back for the call of their module alone.
    disk_offload(found, tmp_path / "offload", execution_device="cpu")
    torch.testing.assert_close(found(**given)[0], wanted, atol=1e-4, rtol=1e-4)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    assert type(model).from_pretrained(tmp_path / "half").dtype == torch.bfloat16
    assert type(model).from_pretrained(tmp_path / "half", dtype=torch.float32)(**given)[0].isfinite().all()
    with torch.device("meta"):
        assert HEADS[head](model.config).device.type == "meta"


@pytest.mark.parametrize("head", WRITERS)
def test_generation_as_the_librarys_suite_has_it(head):
    model, ids = make(head, eval_capacity_factor=None), tokens(2, 9)
    written = model.generate(ids, **GREEDY)
    assert torch.equal(model.generate(ids, **GREEDY, use_cache=False), written)
    assert torch.equal(model.generate(ids, **GREEDY, return_dict_in_generate=True).sequences, written)
    for beams in (1, 2):
        asked = dict(return_dict_in_generate=True, output_hidden_states=True, output_attentions=True)
        output = model.generate(ids, **GREEDY, num_beams=beams, **asked)
        mine = "decoder_" if head == "conditional" else ""
        assert len(output[f"{mine}hidden_states"]) == len(output[f"{mine}attentions"]) == 6
    # Drafts by another model, and copies out of the text, change nothing but the time.
    one = ids[:1]
    for draft in ({"assistant_model": make(head, initializer_factor=2.0)}, {"prompt_lookup_num_tokens": 3}):
        assert torch.equal(model.generate(one, **GREEDY, **draft), written[:1])
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, **GREEDY)[:, -6:], written[:, -6:])
    row, mask = padded(one, 14, "left")
    assert torch.equal(model.generate(row, attention_mask=mask, **GREEDY)[:, -6:], written[:1, -6:])
    with pytest.raises(ValueError, match="interventionz"):
        model.generate(ids, **GREEDY, interventionz=1)


def test_a_text_is_gone_on_with_from_its_cache():
    model, ids = make("causal", eval_capacity_factor=None), tokens(2, 9)
    whole = model.generate(ids, max_new_tokens=9, min_new_tokens=9, do_sample=False)
    for name in ("cache", "past_key_values"):  # Of transformers since 5.24, and before.
        cache = model(ids[:, :5], use_cache=True).cache
        output = model(ids[:, 5:], **{name: cache}, attention_mask=torch.ones_like(ids))
        torch.testing.assert_close(output.logits[:, -1], model(ids).logits[:, -1], atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="two names of one argument"):
        model(ids, cache=cache, past_key_values=model(ids, use_cache=True).cache)
    # As peft hands its prefix beside the empty cache of `generate`.
    prefix = model(ids[:, :5], use_cache=True).cache
    output = model(ids[:, 5:], cache=DynamicCache(), past_key_values=prefix, attention_mask=torch.ones_like(ids))
    torch.testing.assert_close(output.logits[:, -1], model(ids).logits[:, -1], atol=1e-3, rtol=1e-4)
    before, settings = whole[:, :-3], dict(max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(before, attention_mask=torch.ones_like(before), **settings), whole)


def test_each_problem_has_its_loss():
    """Against torch's own losses; what the routing adds is the same for all."""
    ids = tokens(4, 9)
    whole = torch.tensor([0, 2, 1, 0])
    several, number = nn.functional.one_hot(whole, 3).float(), torch.tensor([0.5, -1.0, 2.0, 0.0])
    cases = [
        ("single_label_classification", 3, whole, nn.functional.cross_entropy),
        ("multi_label_classification", 3, several, nn.functional.binary_cross_entropy_with_logits),
        ("regression", 3, several, nn.functional.mse_loss),
        ("regression", 1, number, lambda logits, labels: nn.functional.mse_loss(logits[:, 0], labels)),
        (None, 3, whole, nn.functional.cross_entropy),
        (None, 3, several, nn.functional.binary_cross_entropy_with_logits),
        (None, 1, number, lambda logits, labels: nn.functional.mse_loss(logits[:, 0], labels)),
    ]
    for problem, outputs, labels, loss in cases:
        model = make("classification", num_labels=outputs, problem_type=problem)
        output = model(ids, labels=labels)
        routing = 1e-2 * output.aux_loss + 1e-3 * output.z_loss
        torch.testing.assert_close(output.loss, loss(output.logits, labels) + routing)
    with pytest.raises(ValueError, match=r"Labels of shape \(4,\) do not fit a multi label"):
        make("classification", problem_type="multi_label_classification")(ids, labels=whole)


def test_a_new_head_is_one_argument(tmp_path):
    make("classification", labels=["a", "b", "c"], num_labels=3).save_pretrained(tmp_path)
    model = SwitchForSequenceClassification.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert model.config.labels == [f"LABEL_{index}" for index in range(7)]
    model(tokens(2, 9), labels=torch.tensor([6, 0])).loss.backward()


def test_word_pairs_ask_for_the_ids():
    model, ids = make("classification", bigram_buckets=64), tokens(2, 9)
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model(ids, inputs_embeds=embeds).logits, model(ids).logits)
    with pytest.raises(ValueError, match="give input_ids beside inputs_embeds"):
        model(inputs_embeds=embeds)


def test_the_router_is_a_linear_layer_like_any_other():
    """A hook sees it called; what stands in its place, as adapters and quantizers have it, routes."""
    model, ids = make("classification"), tokens(2, 9)
    router = model.encoder.blocks[1].mlp.router
    before = model(ids, output_routing=True).routing[-1].logits
    calls = []
    handle = router.classifier.register_forward_hook(lambda module, given, output: calls.append(output.dtype))
    model(ids)
    assert calls == [torch.float32]
    handle.remove()

    class Adapted(nn.Module):
        def __init__(self, linear: nn.Linear):
            super().__init__()
            self.linear = linear

        def forward(self, hidden):
            return self.linear(hidden) + torch.arange(4.0)

    router.classifier = Adapted(router.classifier)
    after = model(ids, output_routing=True).routing[-1].logits
    torch.testing.assert_close(after, before + torch.arange(4.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(make("classification"), {nn.Linear}, dtype=torch.qint8)
    assert small(ids).logits.isfinite().all()


class Rows(torch.utils.data.Dataset):
    def __init__(self, head: str):
        self.head, self.ids = head, tokens(16, 9)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict:
        ids = self.ids[index]
        return {"input_ids": ids, "labels": int(ids[0]) % 3 if self.head == "classification" else ids}


@pytest.mark.parametrize(
    "head, settings",
    [
        ("classification", dict(bf16=True)),
        ("classification", dict(gradient_checkpointing=True, label_smoothing_factor=0.1)),
        ("masked", dict(optim="adafactor", neftune_noise_alpha=5.0)),
        (
            "causal",
            dict(load_best_model_at_end=True, save_strategy="steps", eval_strategy="steps", save_steps=1, eval_steps=1),
        ),
    ],
)
def test_trainer_trains_in_its_own_ways(head, settings, tmp_path):
    model = make(head).half() if "bf16" in settings else make(head)  # As a file in half precision opens.
    trainer = Trainer(
        model,
        TrainingArguments(tmp_path, **TINY_RUN, **({"save_strategy": "no"} | settings)),
        train_dataset=Rows(head),
        eval_dataset=Rows(head),
    )
    assert trainer.train().training_loss > 0
    assert trainer.evaluate()["eval_loss"] > 0
    assert len(trainer.predict(Rows(head)).predictions) in (16, 16 * 9)


def test_gathering_gradients_equals_a_larger_batch():
    def trained(batch: int, steps: int) -> torch.Tensor:
        model = make("classification", dropout_rate=0.0, expert_dropout=0.0, classifier_dropout=0.0)
        with tempfile.TemporaryDirectory() as folder:
            own = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=steps, max_steps=1)
            own |= dict(optim="sgd", max_grad_norm=0.0, learning_rate=1.0, save_strategy="no")
            Trainer(model, TrainingArguments(folder, **TINY_RUN | own), train_dataset=Rows("classification")).train()
        return model.classifier.weight

    torch.testing.assert_close(trained(4, 2), trained(8, 1))


def test_a_translator_trains_under_label_smoothing_with_the_librarys_collator(tmp_path):
    from switch_model import load_checkpoint
    from tests.support.pages import save_tiny_checkpoint

    _, tokenizer = load_checkpoint(save_tiny_checkpoint(tmp_path / "tiny"), "cpu")
    model = make("conditional")
    arguments = Seq2SeqTrainingArguments(tmp_path, **TINY_RUN, label_smoothing_factor=0.1, predict_with_generate=True)
    rows = [{"input_ids": row["input_ids"].tolist(), "labels": row["labels"].tolist()} for row in Rows("conditional")]
    trainer = Seq2SeqTrainer(
        model, arguments, DataCollatorForSeq2Seq(tokenizer, model), train_dataset=rows, eval_dataset=rows
    )
    assert trainer.train().training_loss > 0
    assert len(trainer.predict(rows, max_new_tokens=6).predictions) == 16


def test_an_empty_text_ends_no_list_and_is_what_it_is_inside_a_batch(checkpoint):
    ask = pipeline("text-classification", checkpoint, device="cpu", top_k=None)
    alone, together = (ask(["oil prices", "", "   "], batch_size=size) for size in (1, 3))
    for one, other in zip(alone, together, strict=True):
        assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
        assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other])


def test_predictor_reads_shards_and_says_what_kind_of_classes_it_knows(checkpoint, tmp_path):
    whole = Predictor.from_checkpoint(checkpoint, "cpu")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(checkpoint) / name).read_bytes())
    whole.model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists()
    text = "the cat sat"
    assert Predictor.from_checkpoint(tmp_path, "cpu")(text).scores == pytest.approx(whole(text).scores, abs=1e-5)
    (next(iter(sorted(tmp_path.glob("model-*"))))).unlink()
    with pytest.raises(CheckpointError, match="lacks model-00001-of-"):
        Predictor.from_checkpoint(tmp_path, "cpu")
    whole.model.config.problem_type = "multi_label_classification"
    whole.model.save_pretrained(tmp_path)
    several = Predictor.from_checkpoint(tmp_path, "cpu")(text).scores
    logits = whole.model(torch.tensor([whole.token_ids(text)])).logits[0]
    assert list(several.values()) == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)
    whole.model.config.problem_type = "regression"
    whole.model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="predicts a number"):
        Predictor.from_checkpoint(tmp_path, "cpu")
