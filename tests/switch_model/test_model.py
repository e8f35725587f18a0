"""The classifier as a whole: padding, pooling, losses, noise, configuration."""

import pytest
import torch

from switch_model import (
    Interventions,
    SwitchConfig,
    SwitchForCausalLM,
    SwitchForMaskedLM,
    SwitchForSequenceClassification,
)
from switch_model.layers.attention import RelativePositionBias
from switch_model.layers.convolution import TokenConvolution
from switch_model.layers.dropout import dropout
from switch_model.layers.hashed_bigrams import HashedBigrams
from switch_model.routing import load_balancing_loss, router_z_loss

SHAPE = dict(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_heads=4, num_layers=2, num_experts=4, num_labels=3)


def make(**settings) -> SwitchForSequenceClassification:
    torch.manual_seed(0)
    return SwitchForSequenceClassification(SwitchConfig(**SHAPE | settings)).eval()


@pytest.mark.parametrize("pooling", ["mean", "first", "max", "mean+max"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_alone_is_the_same_text_inside_a_padded_batch(pooling, side):
    model = make(pooling=pooling, min_expert_capacity=1, eval_capacity_factor=1.0, bigram_buckets=40, conv_width=5)
    torch.nn.init.normal_(model.bigrams.table.weight)
    long, short = torch.randint(50, (1, 12)), torch.randint(50, (1, 7))
    padding, real = torch.zeros(1, 5, dtype=torch.long), torch.ones(1, 7, dtype=torch.long)
    parts = (padding, short) if side == "left" else (short, padding)
    masks = (padding, real) if side == "left" else (real, padding)
    ids = torch.cat([long, torch.cat(parts, 1)])
    mask = torch.cat([torch.ones(1, 12, dtype=torch.long), torch.cat(masks, 1)])
    with torch.no_grad():
        together = model(ids, mask, output_routing=True)
        alone = model(short, output_routing=True)
        first = model(long)
    torch.testing.assert_close(together.logits, torch.cat([first.logits, alone.logits]))
    for padded, own in zip(together.routing, alone.routing, strict=True):
        assert torch.equal(padded.example(1).expert, own.expert)
        assert torch.equal(padded.example(1).slot, own.slot)
        assert torch.equal(padded.example(1).capacity, own.capacity)


def test_a_row_of_padding_harms_nobody():
    model = make()
    ids = torch.randint(50, (2, 6))
    mask = torch.tensor([[1] * 6, [0] * 6])
    output = model(ids, mask, labels=torch.tensor([0, 1]), output_routing=True)
    assert output.logits.isfinite().all() and output.loss.isfinite()
    torch.testing.assert_close(output.logits[:1], model(ids[:1]).logits)


def test_records_are_named_by_block_and_absent_unless_asked_for():
    model = make(num_layers=4, encoder_sparse_step=2)
    ids = torch.randint(50, (1, 5))
    assert model(ids).routing is None
    assert [record.name for record in model(ids, output_routing=True).routing] == ["encoder.1", "encoder.3"]
    dense = make(encoder_sparse_step=0)(ids, output_routing=True, labels=torch.tensor([1]))
    assert dense.routing == () and dense.aux_loss is None and dense.loss.isfinite()


def test_loss_is_cross_entropy_plus_the_mean_over_layers_of_both_losses():
    model = make(router_aux_loss_coef=0.5, router_z_loss_coef=0.25)
    ids, labels = torch.randint(50, (3, 9)), torch.tensor([0, 1, 2])
    output = model(ids, labels=labels, output_routing=True)
    aux = sum(load_balancing_loss(record) for record in output.routing) / 2
    z = sum(router_z_loss(record) for record in output.routing) / 2
    torch.testing.assert_close(output.aux_loss, aux)
    torch.testing.assert_close(output.z_loss, z)
    expected = torch.nn.functional.cross_entropy(output.logits, labels) + 0.5 * aux + 0.25 * z
    torch.testing.assert_close(output.loss, expected)


def test_word_pairs_are_hashed_in_order_and_within_the_text():
    pairs = HashedBigrams(SwitchConfig(**SHAPE, bigram_buckets=10_000))
    torch.nn.init.normal_(pairs.table.weight)
    ids, mask = torch.tensor([[3, 4, 3, 4, 3], [9, 3, 4, 9, 9]]), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 0] = mask[1, 3] = False
    found = pairs(ids, mask)
    assert torch.equal(found[0, 1], found[0, 3]) and torch.equal(found[0, 1], found[1, 2])
    assert not torch.equal(found[0, 1], found[0, 2])  # 3 4 is not 4 3.
    # Nothing before the first token, nor before one that follows padding.
    assert not found[0, 0].any() and not found[1, 0].any() and not found[1, 1].any() and not found[1, 4].any()
    torch.manual_seed(0)
    buckets = HashedBigrams(SwitchConfig(**SHAPE, bigram_buckets=64)).bucket(torch.randint(8000, (1, 64_000)))
    assert torch.bincount(buckets.flatten(), minlength=64).min() > 800  # 1000 each, give or take.


def test_a_convolution_adds_its_filters_over_real_neighbours():
    torch.manual_seed(0)
    layer = TokenConvolution(SwitchConfig(**SHAPE, conv_width=3))
    hidden, mask = torch.randn(2, 6, 32), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 2] = mask[1, 5] = False
    kernel = layer.filters.weight.unflatten(1, (3, 32)).transpose(1, 2)
    with torch.no_grad():
        found = layer(hidden, mask)
        seen = (hidden * mask.unsqueeze(-1)).transpose(1, 2)
        oracle = torch.nn.functional.conv1d(seen, kernel, layer.filters.bias, padding=1).transpose(1, 2)
    torch.testing.assert_close(found, hidden + oracle.relu())


def test_a_convolution_is_refused_where_tokens_may_not_look_ahead():
    with pytest.raises(ValueError, match="conv_width=3 is not allowed in a decoder"):
        SwitchForCausalLM(SwitchConfig(**SHAPE, conv_width=3))


def test_dropout_drops_its_share_and_makes_up_for_it():
    torch.manual_seed(0)
    values = torch.randn(200, 500).abs().add(1).requires_grad_()
    output = dropout(values, 0.3, training=True)
    kept = output != 0
    assert kept.float().mean() == pytest.approx(0.7, abs=0.005)
    assert kept.float().mean(0).std() == pytest.approx((0.7 * 0.3 / 200) ** 0.5, rel=0.15)  # Every place by itself.
    torch.testing.assert_close(output[kept], values[kept] / 0.7)
    output.sum().backward()
    torch.testing.assert_close(values.grad, kept / 0.7)
    assert dropout(values, 0.3, training=False) is values and dropout(values, 0.0, training=True) is values


def test_masked_tokens_are_scored_against_the_embedding_table():
    torch.manual_seed(0)
    model = SwitchForMaskedLM(SwitchConfig(**SHAPE)).eval()
    ids, labels = torch.randint(50, (2, 9)), torch.full((2, 9), -100)
    labels[0, 3], labels[1, 5] = 7, 11
    everywhere, asked = model(ids).logits, model(ids, labels=labels, output_routing=True)
    assert everywhere.shape == (2, 9, 50)
    torch.testing.assert_close(asked.logits, torch.stack([everywhere[0, 3], everywhere[1, 5]]))
    cross_entropy = torch.nn.functional.cross_entropy(asked.logits, torch.tensor([7, 11]))
    auxiliary = 1e-2 * asked.aux_loss + 1e-3 * asked.z_loss
    torch.testing.assert_close(asked.loss, cross_entropy + auxiliary)
    asked.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_every_weight_gets_gradient():
    model = make(dense_act_fn="gated-gelu", router_bias=True).train()
    output = model(torch.randint(50, (4, 12)), labels=torch.tensor([0, 1, 2, 0]))
    output.loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_weights_start_at_the_size_their_role_asks_for():
    """transformers passes over modules without own weights: a rule that it never calls leaves torch's defaults."""
    model = make(vocab_size=2000, d_model=128, d_kv=32, d_ff=256)
    attention, mlp = model.encoder.blocks[0].attention, model.encoder.blocks[0].mlp
    for weight, std in [
        (model.shared.weight, 0.02),
        (attention.q.weight, (128 * 32) ** -0.5),
        (attention.k.weight, 128**-0.5),
        (mlp.router.classifier.weight, 128**-0.5),
        (mlp.experts.wi, 128**-0.5),
        (mlp.experts.wo, 256**-0.5 / 4**0.5),
        (attention.o.weight, 128**-0.5 / 4**0.5),
    ]:
        assert weight.std().item() == pytest.approx(std, rel=0.15)


def test_evaluation_is_deterministic_and_training_is_not():
    model = make(dropout_rate=0.1, token_dropout=0.3, router_noise_eps=0.1)
    ids = torch.randint(50, (2, 9))
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_token_dropout_hides_tokens_but_never_a_whole_text():
    model = make(token_dropout=0.9).train()
    mask = torch.ones(64, 3, dtype=torch.long)
    records = model(torch.randint(50, (64, 3)), mask, output_routing=True).routing
    assert records[0].mask.sum() < mask.sum() and records[0].mask.any(dim=1).all()


def test_token_dropout_leaves_short_texts_whole():
    model = make(token_dropout=0.5, token_dropout_from=9).train()
    mask = torch.ones(64, 10, dtype=torch.long)
    mask[:32, 8:] = 0
    seen = model(torch.randint(50, (64, 10)), mask, output_routing=True).routing[0].mask
    assert torch.equal(seen[:32], mask[:32].bool()) and seen[32:].float().mean() == pytest.approx(0.5, abs=0.1)


def test_bfloat16_autocast_stays_close():
    model = make()
    ids = torch.randint(50, (2, 9))
    with torch.no_grad():
        exact = model(ids).logits
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(ids).logits.float()
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0.1)


def test_one_batched_pass_answers_many_questions():
    model = make()
    ids = torch.randint(50, (1, 9))
    rows = [Interventions(), Interventions(ablate={("encoder.1", 2)}), Interventions(force={("encoder.0", 3): 1})]
    with torch.no_grad():
        together = model(ids.expand(3, -1), interventions=rows).logits
        one_by_one = torch.cat([model(ids, interventions=row).logits for row in rows])
        plain = model(ids).logits
    torch.testing.assert_close(together, one_by_one)
    torch.testing.assert_close(together[:1], plain)
    assert not torch.equal(together[1], plain[0])


@pytest.mark.parametrize(
    "wrong, words",
    [
        (Interventions(ablate={("encoder.9", 0)}), "no sparse layer 'encoder.9'"),
        (Interventions(ablate={("encoder.0", 4)}), "experts are 0 to 3"),
        (Interventions(force={("encoder.0", 40): 1}), "has 5 tokens"),
    ],
)
def test_interventions_that_do_not_fit_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        make()(torch.randint(50, (1, 5)), interventions=wrong)


def test_position_buckets_follow_t5():
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    for buckets, longest in [(32, 128), (8, 9), (8, 40), (16, 64), (64, 300)]:
        config = SwitchConfig(**SHAPE, relative_attention_num_buckets=buckets, relative_attention_max_distance=longest)
        for bidirectional in (True, False):
            bias = RelativePositionBias(config, bidirectional)
            expected = T5Attention._relative_position_bucket(distance, bidirectional, buckets, longest)
            assert torch.equal(bias._bucket(distance), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(num_experts=0),
        dict(num_experts=True),
        dict(d_model=12.5),
        dict(dropout_rate=1.0),
        dict(capacity_factor=float("nan")),
        dict(capacity_factor=-1.0),
        dict(expert_capacity=0),
        dict(pooling="average"),
        dict(router_bias=1),
        dict(relative_attention_num_buckets=7),
        dict(capacity_group="row"),
    ],
)
def test_a_bad_value_is_refused_with_field_value_and_what_is_allowed(wrong):
    ((field, value),) = wrong.items()
    with pytest.raises(ValueError) as error:
        SwitchConfig(**wrong)
    assert f"{field}={value!r}" in str(error.value) and "must be" in str(error.value)


@pytest.mark.parametrize(
    "wrong", [dict(labels=[]), dict(labels="ab"), dict(labels=["a", "a"]), dict(id2label={0: "a", 2: "b"}),
              dict(num_labels=0), dict(num_labels="3"), dict(labels=["a", "b"], num_labels=3)]
)  # fmt: skip
def test_class_names_must_be_whole_and_differ(wrong):
    with pytest.raises(ValueError, match="is not allowed"):
        SwitchConfig(**wrong)


def test_a_misspelt_field_is_refused_with_the_right_one():
    with pytest.raises(ValueError, match="Did you mean num_experts"):
        SwitchConfig(num_expert=4)
