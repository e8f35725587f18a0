"""Routers with several experts for each token, by hand: who chooses whom, with which weights, and who is left out."""

import math

import pytest
import torch

from switch_model import Interventions, SwitchConfig
from switch_model.layers.routers.kinds import router_of
from switch_model.routing import load_balancing_loss, sequence_balance_loss
from switch_model.sparse_mlp import SparseMLP

SHAPE = dict(d_model=4, d_ff=8, num_experts=4, num_experts_per_tok=2, eval_capacity_factor=None, min_expert_capacity=0)


def routed(logits, mask=None, interventions=None, causal=False, bias=None, training=False, past=None, **settings):
    """The record of tokens with these logits (B, T, 4)."""
    router = router_of(SwitchConfig(**SHAPE | settings), "encoder.0", causal).train(training)
    with torch.no_grad():
        router.classifier.weight.copy_(torch.eye(4))
        if bias is not None:
            router.balance_bias.copy_(torch.tensor(bias))
    logits = torch.tensor(logits, dtype=torch.float32)
    mask = torch.ones(logits.shape[:2], dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    return router(logits, mask, interventions, past)


def logs(*rows):
    """One text of tokens with these probabilities."""
    return [[[math.log(one) for one in row] for row in rows]]


def close(tensor, values):
    torch.testing.assert_close(tensor.detach(), torch.tensor(values), atol=1e-5, rtol=0)


ONE = logs((0.4, 0.3, 0.2, 0.1))


def test_weights_of_softmax_with_and_without_their_sum():
    close(routed(ONE, router="topk").weights[0, 0], [4 / 7, 3 / 7])
    close(routed(ONE, router="topk", norm_topk_prob=False).weights[0, 0], [0.4, 0.3])
    assert routed(ONE, router="topk", num_experts_per_tok=3).experts[0, 0].tolist() == [0, 1, 2]
    close(routed(ONE, router="topk", routed_scaling_factor=2.5).weights.sum(), 2.5)


def test_the_bias_decides_the_choice_and_not_the_weights():
    # Sigmoids: 0.5, 0.73, 0.27, 0.5. With the bias: 0.5, 0.73, 0.97, 0.5.
    record = routed([[[0.0, 1.0, -1.0, 0.0]]], router="sigmoid_bias", bias=[0.0, 0.0, 0.7, 0.0])
    own = torch.sigmoid(torch.tensor([1.0, -1.0]))
    assert record.experts[0, 0].tolist() == [1, 2]  # The larger weight first.
    close(record.weights[0, 0], (own / own.sum()).tolist())
    close(record.router_probs.sum(-1), [[1.0]])


def test_a_step_of_the_bias_raises_those_with_few_tokens():
    router = router_of(SwitchConfig(**SHAPE, router="sigmoid_bias", balance_rate=0.01))
    router.rebalance(torch.tensor([8, 4, 4, 0]))
    close(router.balance_bias, [-0.01, 0.0, 0.0, 0.01])
    layer = SparseMLP(SwitchConfig(**SHAPE, router="topk", balance="loss"))
    assert layer.router.balance_bias is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    # Groups are experts 0, 1 and 2, 3. By the best expert the second wins, by the sum of the best two the first.
    [("topk", [2, 3]), ("sigmoid_bias", [0, 1])],
)
def test_groups_are_chosen_before_their_experts(kind, expected):
    record = routed([[[1.0, 0.9, 1.1, -3.0]]], router=kind, expert_groups=2, top_groups=1)
    assert record.experts[0, 0].tolist() == expected
    free = routed([[[1.0, 0.9, 1.1, -3.0]]], router=kind, expert_groups=2, top_groups=2)
    assert free.experts[0, 0].tolist() == [2, 0]
    # An ablated expert takes nothing from the others of its group, and a forced one opens its own.
    off = Interventions(ablate={("encoder.0", expected[1])})
    raised = [one + 3.0 * (expert == expected[0]) for expert, one in enumerate((1.0, 0.9, 1.1, -3.0))]
    record = routed([[raised]], interventions=off, router=kind, expert_groups=2, top_groups=1)
    assert record.weights[0, 0].tolist() == [1.0, 0.0]
    other = Interventions(force={("encoder.0", 0): 3 - expected[0]})
    assert (
        routed([[[1.0, 0.9, 1.1, -3.0]]], interventions=other, router=kind, expert_groups=2, top_groups=1).experts[
            0, 0, 0
        ]
        == 3 - expected[0]
    )


# Three tokens that all prefer expert 0, then 1, 2 and 3.
ALIKE = logs((0.4, 0.3, 0.2, 0.1), (0.5, 0.1, 0.3, 0.1), (0.6, 0.1, 0.1, 0.2))


def test_first_choices_take_slots_before_second_ones():
    # Capacity: 3 tokens · 2 choices · 2/3 / 4 experts = 1 slot.
    full = dict(router="topk", eval_capacity_factor=2 / 3)
    record = routed(ALIKE, **full)
    assert record.experts[0].tolist() == [[0, 1], [0, 2], [0, 3]] and record.limit.tolist() == [1]
    assert record.slots[0].tolist() == [[0, 0], [1, 0], [2, 0]]
    close(record.weights[0], [[4 / 7, 3 / 7], [0.0, 3 / 8], [0.0, 2 / 8]])
    assert record.choices.tolist() == [3, 1, 1, 1] and not record.dropped.any()
    surest = routed(ALIKE, router_priority="probability", **full)
    assert surest.slots[0, :, 0].tolist() == [2, 1, 0]


def test_a_token_whose_experts_are_all_full_is_dropped():
    twice = [[[2.0, 1.0, 0.0, 0.0]] * 3]
    record = routed(twice, router="topk", eval_capacity_factor=2 / 3)
    assert record.dropped[0].tolist() == [False, True, True] and record.kept.sum() == 1
    # In a causal stack a token's second choice goes before the next token's first: later tokens change nothing.
    swapped = [[[2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0]]]
    settings = dict(router="topk", eval_capacity_factor=1.0, block_size=2)
    assert routed(swapped, **settings).slots[0].tolist() == [[0, 1], [0, 1]]
    causal = routed(swapped, causal=True, **settings)
    assert causal.slots[0].tolist() == [[0, 0], [1, 1]] and causal.dropped[0].tolist() == [False, True]
    with_cache = routed(swapped, causal=True, past=torch.tensor([5]), **settings)
    assert not with_cache.dropped.any()


CHOSEN = logs((0.7, 0.1, 0.12, 0.08), (0.6, 0.2, 0.1, 0.1), (0.12, 0.3, 0.5, 0.08), (0.08, 0.18, 0.34, 0.4))


def test_every_expert_takes_its_best_tokens():
    # 4 tokens · 1 expert each / 4 experts: one token for each expert. None takes the second, expert 1 and 2 the third.
    record = routed(CHOSEN, router="expert_choice", num_experts_per_tok=1)
    assert record.choices.tolist() == [1, 1, 1, 1] and record.limit.tolist() == [1]
    close(record.probs[0].gt(0).sum(-1).float(), [1.0, 0.0, 2.0, 1.0])
    assert record.experts[0, 2, :2].tolist() == [2, 1] and record.dropped[0].tolist() == [False, True, False, False]
    close(record.weights[0, 2], [0.5, 0.3, 0.0, 0.0])
    close(record.load, [0.25] * 4)
    assert float(load_balancing_loss(record).detach()) == pytest.approx(1.0)
    # Another factor: twice as many. Padding is never taken.
    more = routed(
        CHOSEN, router="expert_choice", num_experts_per_tok=1, interventions=Interventions(capacity_factor=2.0)
    )
    assert more.choices.tolist() == [2, 2, 2, 2]
    padded = routed([CHOSEN[0] + [[9.0] * 4]], [[True] * 4 + [False]], router="expert_choice", num_experts_per_tok=1)
    assert torch.equal(padded.weights[:, :4], record.weights) and padded.limit.tolist() == [1]
    forced = Interventions(force={("encoder.0", 1): 3})
    assert routed(CHOSEN, router="expert_choice", num_experts_per_tok=1, interventions=forced).experts[0, 1, 0] == 3


def test_experts_of_a_batch_choose_among_all_its_tokens():
    two = [CHOSEN[0][:2], CHOSEN[0][2:]]
    own = routed(two, router="expert_choice", num_experts_per_tok=2)
    shared = routed(two, router="expert_choice", num_experts_per_tok=2, capacity_group="batch")
    assert own.limit.tolist() == [1, 1] and shared.limit.tolist() == [2, 2]
    assert own.choices.tolist() == shared.choices.tolist() == [2, 2, 2, 2]
    assert own.used.sum(-1).tolist() == [[2, 2], [3, 1]] and shared.used.sum(-1).tolist() == [[1, 3], [2, 2]]


@pytest.mark.parametrize("kind", ["topk", "sigmoid_bias", "expert_choice"])
def test_alone_is_as_in_a_padded_batch_and_gradient_reaches_the_router(kind):
    torch.manual_seed(0)
    layer = SparseMLP(SwitchConfig(**SHAPE | dict(d_model=8), router=kind, num_shared_experts=1), "encoder.0").eval()
    hidden, mask = torch.randn(2, 6, 8), torch.ones(2, 6)
    mask[1, :2] = 0
    output, record = layer(hidden, mask)
    alone, _ = layer(hidden[1:, 2:], mask[1:, 2:])
    torch.testing.assert_close(output[1:, 2:], alone)
    assert not output[1, :2].any() and sequence_balance_loss(record).isfinite()
    output.square().sum().backward()
    for weight in (layer.router.classifier.weight, layer.experts.wi, layer.shared_experts.wo.weight):
        assert weight.grad.abs().sum() > 0
    off = Interventions(ablate={("encoder.0", expert) for expert in range(4)})
    left, record = layer(hidden, mask, off)
    torch.testing.assert_close(left[0], layer.shared_experts(hidden[0]))
    assert not record.used.any() and not record.dropped.any()


def test_another_number_of_experts_row_by_row():
    rows = [Interventions(top_k=1), Interventions(top_k=3)]
    record = routed([ONE[0], ONE[0]], router="topk", interventions=rows)
    close(record.weights[:, 0], [[1.0, 0.0, 0.0], [4 / 9, 3 / 9, 2 / 9]])
    given = Interventions(choices={"encoder.0": [(3, 2)]})
    record = routed(ONE, router="topk", interventions=given)
    assert record.experts[0, 0].tolist() == [3, 2]
    close(record.weights[0, 0], [4 / 7, 3 / 7])  # Of the router's own choice.
    with pytest.raises(ValueError, match="must name 2 experts"):
        routed(ONE, router="topk", interventions=Interventions(choices={"encoder.0": [3]}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(router="expert_choice", is_decoder=True), "later ones too"),
        (dict(router="topk", num_experts_per_tok=9), "num_experts=8"),
        (dict(router="topk", num_experts_per_tok=1), "learn nothing"),
        (dict(router="topk", readout="experts"), "one expert for each token"),
        (dict(router="topk", expert_groups=3), "equal groups"),
        (dict(router="topk", expert_groups=4, num_experts_per_tok=3), "hold num_experts_per_tok=3"),
        (dict(num_shared_experts=1), 'router="topk"'),
        (dict(router="expert_choice", balance="bias"), "equally many"),
    ],
)
def test_what_a_router_cannot_have_is_refused_in_words(settings, words):
    with pytest.raises(ValueError, match=words):
        SwitchConfig(**settings)
