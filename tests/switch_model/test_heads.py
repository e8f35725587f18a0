"""What holds for every head: padding, what follows, the cache, files, gradients, changes to the routing."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from switch_model import Interventions, SwitchConfig, SwitchForConditionalGeneration, SwitchForMaskedLM
from tests.support.heads import HEADS, has_decoder_over_encoder, make, padded, tokens

POSITIONS = ["relative", "sinusoidal", "learned"]
# A change to the routing at every place that heads and attention may have it.
CAUSAL = ["both", "conditional", "causal"]


def inputs_of(head: str, ids: torch.Tensor) -> dict:
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, :5]} if has_decoder_over_encoder(head) else {})


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8, torch.uint16])
@pytest.mark.parametrize("head", HEADS)
def test_whole_numbers_of_any_size_are_the_same_tokens(head, dtype):
    """Products in the hash of word pairs want 64 bits, embeddings and losses take two sizes only."""
    model = make(head, bigram_buckets=0 if head == "causal" else 3000, counted_rows=200)
    given = inputs_of(head, tokens(2, 7)) | {"attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    if head not in ("encoder", "both"):
        given["labels"] = {"classification": torch.tensor([1, 2]), "conditional": tokens(2, 5)}.get(head, tokens(2, 7))
    with torch.no_grad():
        expected, found = model(**given), model(**{name: value.to(dtype) for name, value in given.items()})
        for name in ("loss", "logits", "last_hidden_state"):
            if expected.get(name) is not None:
                assert torch.equal(found[name], expected[name])
        if head in ("conditional", "causal") and dtype != torch.uint16:  # transformers compares, torch can't.
            asked = dict(attention_mask=given["attention_mask"], max_new_tokens=3)
            written = [model.generate(given["input_ids"].to(kind), **asked) for kind in (torch.int64, dtype)]
            assert torch.equal(*written)
    with pytest.raises(ValueError, match=r"input_ids has dtype torch\.float32"):
        model(**given | {"input_ids": given["input_ids"].float()})


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("head", HEADS)
def test_alone_is_the_same_as_inside_a_padded_batch(head, side):
    long, short = tokens(1, 12), tokens(1, 7, seed=2)
    answer, short_answer = tokens(1, 9, seed=3), tokens(1, 4, seed=4)
    row, mask = padded(short, 12, side)
    batch = {"input_ids": torch.cat([long, row]), "attention_mask": torch.cat([torch.ones_like(long), mask])}
    alone = {"input_ids": short}
    if has_decoder_over_encoder(head):
        row, answer_mask = padded(short_answer, 9, side)
        batch["decoder_input_ids"] = torch.cat([answer, row])
        batch["decoder_attention_mask"] = torch.cat([torch.ones_like(answer), answer_mask])
        alone["decoder_input_ids"] = short_answer
        mask = answer_mask
    kinds = ["none", "projections"] + (["module"] if head != "causal" else [])
    for position in POSITIONS:
        for experts in kinds:
            for cls_token in (False, True) if head != "causal" else (False,):
                model = make(head, position=position, attention_experts=experts, cls_token=cls_token, block_size=8)
                with torch.no_grad():
                    together = model(**batch, output_routing=True)
                    own = model(**alone, output_routing=True)
                if head == "classification":
                    torch.testing.assert_close(together[0][1:], own[0], atol=1e-5, rtol=1e-4)
                else:
                    real = mask[0].bool()
                    if head == "encoder" and cls_token:  # It stands before the first token of the text.
                        real = together.routing[0].mask[1]
                    # Logits of about 5, whose last digits follow the processor: 1.7e-4 apart on one with AVX-512.
                    torch.testing.assert_close(together[0][1, real], own[0][0], atol=1e-3, rtol=1e-4)
                assert [record.name for record in own.routing] == list(model.config.sparse_layers)
                for padded_record, record in zip(together.routing, own.routing, strict=True):
                    found = padded_record.example(1)
                    assert torch.equal(found.expert, record.expert) and torch.equal(found.kept, record.kept)


@pytest.mark.parametrize("experts", ["none", "projections"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("head", CAUSAL)
def test_nothing_leaks_from_what_follows(head, training, experts):
    """With the capacity of training too: what follows must not decide whether a token finds room."""
    quiet = dict(dropout_rate=0.0, expert_dropout=0.0, capacity_factor=0.5, eval_capacity_factor=0.5, block_size=16)
    for settings in ({}, {"router_priority": "probability", "capacity_group": "batch"}, {"expert_capacity": 2}):
        model = make(head, attention_experts=experts, **quiet | settings).train(training)
        text, answer, other = tokens(2, 12), tokens(2, 14, seed=2), tokens(2, 14, seed=3)
        changed = torch.cat([answer[:, :6], other[:, 6:]], dim=1)
        outputs = []
        for ids in (answer, answer[:, :6], changed):
            inputs = {"input_ids": ids} if head == "causal" else {"input_ids": text, "decoder_input_ids": ids}
            with torch.no_grad():
                outputs.append(model(**inputs, output_routing=True))
        whole, prefix, changed = outputs
        assert any(record.dropped[:, :6].any() for record in whole.routing if record.name.startswith("decoder"))
        for other in (prefix, changed):
            torch.testing.assert_close(whole[0][:, :6], other[0][:, :6], atol=1e-5, rtol=1e-4)
            assert not torch.allclose(whole[0][:, 6:], changed[0][:, 6:], atol=1e-3)
            for one, two in zip(whole.routing, other.routing, strict=True):
                if one.name.startswith("decoder"):
                    assert torch.equal(one.kept[:, :6], two.kept[:, :6])


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("head", ["conditional", "causal"])
def test_cached_and_uncached_generation_write_the_same(head, position):
    ids, mask = tokens(2, 9), torch.ones(2, 9, dtype=torch.long)
    ids[0, :4], mask[0, :4] = 0, 0
    for settings in (
        {"attention_experts": "projections"},
        {"cls_token": head == "conditional", "embedding_norm": True},
        {"tie_word_embeddings": False, "share_embeddings": False},
    ):
        model = make(head, position=position, eval_capacity_factor=None, capacity_factor=None, **settings)
        for beams in (1, 3):
            wanted = dict(attention_mask=mask, max_new_tokens=8, num_beams=beams, do_sample=False, eos_token_id=49)
            cached, plain = (model.generate(ids, **wanted, use_cache=use) for use in (True, False))
            assert torch.equal(cached, plain)
        # And what was written alone: padding on the left moves nothing.
        wanted.pop("attention_mask")
        alone = model.generate(ids[:1, 4:], **wanted)
        written = cached[:1, 0 if head == "conditional" else 4 :][:, : alone.shape[1]]
        assert torch.equal(written[:, : alone.shape[1]], alone[:, : written.shape[1]])


def test_a_cache_drops_nothing_and_holds_what_the_encoder_said_once():
    model = make("conditional", expert_capacity=1)
    text, answer = tokens(2, 9), tokens(2, 6, seed=2)
    with torch.no_grad():
        memory = model.get_encoder()(text)
        first = model(encoder_outputs=memory, decoder_input_ids=answer[:, :4], use_cache=True, output_routing=True)
        keys = first.cache.cross_attention_cache.layers[2].keys
        # Other states of an encoder would be looked at were they not remembered.
        memory.last_hidden_state = torch.zeros_like(memory.last_hidden_state)
        cache = first.cache
        last = model(encoder_outputs=memory, decoder_input_ids=answer[:, 4:], cache=cache, output_routing=True)
        model.config.expert_capacity = None
        whole = make("conditional", eval_capacity_factor=None)
        whole.load_state_dict(model.state_dict())
        binding = make("conditional", expert_capacity=1).get_encoder()(text)
        expected = whole(encoder_outputs=binding, decoder_input_ids=answer).logits
    assert last.cache.cross_attention_cache.layers[2].keys is keys
    torch.testing.assert_close(torch.cat([first.logits, last.logits], 1), expected, atol=1e-5, rtol=1e-4)
    decoder = [record for record in first.routing if record.name.startswith("decoder")]
    assert not any(record.dropped.any() for record in decoder)
    with pytest.raises(ValueError, match="grows with the text"):
        model.generate(text, max_new_tokens=2, cache_implementation="static")


AUTO = {
    "encoder": AutoModel,
    "classification": AutoModelForSequenceClassification,
    "masked": AutoModelForMaskedLM,
    "both": AutoModel,
    "conditional": AutoModelForSeq2SeqLM,
    "causal": AutoModelForCausalLM,
}


@pytest.mark.parametrize("head", HEADS)
def test_saved_and_loaded_models_are_bit_equal(head, tmp_path):
    model = make(
        head,
        position="learned",
        tie_word_embeddings=False,
        share_embeddings=False,
        cls_token=head != "causal",
        classifier_head="mlp",
        attention_experts="projections",
    )
    model.save_pretrained(tmp_path)
    inputs = inputs_of(head, tokens(2, 9))
    with torch.no_grad():
        expected = model(**inputs)[0]
        for loader in (HEADS[head], AUTO[head]):
            again = loader.from_pretrained(tmp_path).eval()
            assert type(again) is HEADS[head] and torch.equal(again(**inputs)[0], expected)


def test_a_head_on_another_models_encoder_starts_whole(tmp_path):
    """transformers builds what a file lacks out of unwritten memory, and asks for its start by module."""
    make("conditional").save_pretrained(tmp_path)
    model = SwitchForMaskedLM.from_pretrained(tmp_path)
    assert not model.bias.any() and model.transform.weight.std() > 0


def test_a_bias_that_starts_by_distance_falls_on_both_sides_and_stays_as_it_was_saved(tmp_path):
    torch.manual_seed(0)
    model = SwitchForMaskedLM(SwitchConfig(vocab_size=50, relative_attention_slope=1.0, initializer_factor=1e-6))
    bias_HTS = model.encoder.position_bias(20, 20, torch.device("cpu"))[0]
    middle = bias_HTS[:, 9]
    assert (middle[:, 10:].diff() <= 1e-5).all() and (middle[:, :10].diff() >= -1e-5).all()
    torch.testing.assert_close(middle[:, 10], -torch.tensor([1.0, 0.5, 0.25, 0.125]), atol=1e-5, rtol=0.0)
    model.save_pretrained(tmp_path)
    loaded = SwitchForMaskedLM.from_pretrained(tmp_path).encoder.position_bias.relative_attention_bias.weight
    assert torch.equal(loaded, model.encoder.position_bias.relative_attention_bias.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_a_masked_model_is_resized_with_all_that_has_a_row_per_token(tied):
    model = make("masked", tie_word_embeddings=tied)
    ids = tokens(1, 6)
    before = model(ids).logits
    model.resize_token_embeddings(model.config.vocab_size + 3, mean_resizing=False)
    after = model(ids).logits
    assert after.shape[-1] == before.shape[-1] + 3
    torch.testing.assert_close(after[..., :-3], before)


@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("experts", ["none", "projections", "module"])
@pytest.mark.parametrize("head", HEADS)
def test_gradient_reaches_every_weight_and_every_router(head, experts, checkpointed):
    if experts == "module" and head == "causal":
        with pytest.raises(ValueError, match="not allowed in a decoder"):
            make(head, attention_experts=experts)
        return
    model = make(head, attention_experts=experts, router_bias=True, capacity_factor=None).train()
    if checkpointed:
        # By the name that transformers 5.20 has too. Reentrant would lose the routers' gradient.
        model.gradient_checkpointing_enable({"use_reentrant": True})
    output = model(**inputs_of(head, tokens(8, 9)), output_routing=True)
    (output[0].square().mean() + 0.1 * output.aux_loss + 0.1 * output.z_loss).backward()
    routers = [name for name, _ in model.named_parameters() if "router.classifier.weight" in name]
    assert len(routers) == len(model.config.sparse_layers)
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all(), name
        assert weight.grad.any() or "experts." in name, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head", HEADS)
def test_rows_of_padding_harm_nobody_in_half_precision(head, dtype):
    ids, mask = tokens(3, 9), torch.ones(3, 9, dtype=torch.long)
    mask[1, :5], mask[2] = 0, 0
    for training in (False, True):
        model = make(head, dropout_rate=0.1)
        for name, weight in model.named_parameters():
            torch.nn.init.normal_(weight, std=30.0 if "position_bias" in name else 0.05)
        model = model.to(dtype).train(training)
        with torch.no_grad():
            output = model(**inputs_of(head, ids), attention_mask=mask)
        assert output[0].isfinite().all()


def test_changes_to_the_routing_reach_generation_row_by_row():
    ids = tokens(2, 9)
    model = make("conditional", eval_capacity_factor=None)
    changes = Interventions(
        ablate={("decoder.1", expert) for expert in range(1, 4)} | {("encoder.0", 2)}, force={("decoder.2", 3): 2}
    )
    settings = dict(max_new_tokens=6, do_sample=False, eos_token_id=49)
    for beams in (1, 3):
        plain, changed, mixed = (
            model.generate(ids, **settings, num_beams=beams, interventions=rows)
            for rows in (None, changes, [Interventions(), changes])
        )
        assert torch.equal(mixed[0], plain[0]) and torch.equal(mixed[1], changed[1])
        assert not torch.equal(plain, changed)
    assert model.generate(
        ids, do_sample=True, num_return_sequences=2, max_new_tokens=2, interventions=[changes, changes]
    ).shape == (4, 3)
    # Token by token, as in one pass.
    with torch.no_grad():
        written = model.generate(ids, **settings, interventions=changes)
        whole = model(ids, decoder_input_ids=written[:, :-1], interventions=changes, output_routing=True)
    assert torch.equal(whole.logits.argmax(-1), written[:, 1:])
    records = {record.name: record for record in whole.routing}
    assert not records["decoder.1"].expert.any() and (records["decoder.2"].expert[:, 3] == 2).all()
    with pytest.raises(ValueError, match="no sparse layer 'decoder\\.7'"):
        model(
            encoder_outputs=model.get_encoder()(ids),
            decoder_input_ids=ids,
            interventions=Interventions(ablate={("decoder.7", 0)}),
        )


def test_labels_are_shifted_and_scored():
    text, labels = tokens(2, 9), tokens(2, 6, seed=2)
    labels[1, 4:] = -100
    model = make("conditional")
    output = model(text, labels=labels)
    start = torch.cat([torch.zeros(2, 1, dtype=torch.long), labels[:, :-1].clamp(min=0)], dim=1)
    mask = torch.ones_like(start)
    mask[1, 4:] = 0
    logits = model(text, decoder_input_ids=start, decoder_attention_mask=mask).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(output.loss, expected + 1e-2 * output.aux_loss + 1e-3 * output.z_loss)
    causal = make("causal")
    output = causal(text, labels=text)
    expected = torch.nn.functional.cross_entropy(causal(text).logits[:, :-1].flatten(0, 1), text[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected + 1e-2 * output.aux_loss + 1e-3 * output.z_loss)


def test_a_decoder_may_have_a_table_of_its_own():
    shared = make("conditional")
    apart = make("conditional", share_embeddings=False)
    missing = apart.load_state_dict(shared.state_dict(), strict=False).missing_keys
    assert missing == ["decoder_embedding.weight"] and isinstance(apart, SwitchForConditionalGeneration)
    inputs = inputs_of("conditional", tokens(2, 9))
    with torch.no_grad():
        assert not torch.allclose(apart(**inputs).logits, shared(**inputs).logits)
        apart.decoder_embedding.weight.copy_(shared.shared.weight)
        torch.testing.assert_close(apart(**inputs).logits, shared(**inputs).logits)


@pytest.mark.parametrize("head", HEADS)
def test_nothing_to_read_is_refused_in_words(head):
    # A classifier's empty text has a class, as it has one beside others.
    none = torch.ones(*((0, 2) if head == "classification" else (2, 0)), dtype=torch.long)
    with pytest.raises(ValueError, match="has no tokens"):
        make(head)(**inputs_of(head, none))
    if has_decoder_over_encoder(head):
        with pytest.raises(ValueError, match="has no tokens"):
            make(head)(tokens(2, 5), decoder_input_ids=none)


def test_auto_model_opens_the_stacks_that_a_checkpoint_has(tmp_path):
    for head, body in (("conditional", "both"), ("classification", "encoder"), ("masked", "encoder")):
        make(head).save_pretrained(tmp_path / head)
        opened, info = AutoModel.from_pretrained(tmp_path / head, output_loading_info=True)
        assert type(opened) is HEADS[body] and not info["missing_keys"]
    make("causal").save_pretrained(tmp_path / "causal")
    with pytest.raises(ValueError, match="AutoModelForCausalLM"):
        AutoModel.from_pretrained(tmp_path / "causal")
    with pytest.raises(ValueError, match="attends to an encoder"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "conditional")


def test_an_output_layer_of_its_own_is_trained_where_it_is_asked_for():
    tied, apart = make("masked"), make("masked", tie_word_embeddings=False)
    assert apart.num_parameters() - tied.num_parameters() == apart.lm_head.weight.numel()
    apart(tokens(2, 5), labels=tokens(2, 5)).loss.backward()
    assert apart.lm_head.weight.grad.any()


@pytest.mark.parametrize("head", ["encoder", "conditional", "causal"])
def test_vectors_of_another_precision_are_taken(head):
    model = make(head)
    inputs = inputs_of(head, tokens(2, 9))
    vectors = model.shared(inputs.pop("input_ids")).detach()
    with torch.no_grad():
        one, other = (model(inputs_embeds=given, **inputs)[0] for given in (vectors, vectors.double()))
    assert torch.equal(one, other)
