"""The rules of routing, against tables written by hand."""

import json
import math

import pytest
import torch

from switch_model import Interventions, Routing, SwitchConfig
from switch_model.analysis.statistics import RoutingTotals
from switch_model.layers import dispatch, experts
from switch_model.layers.router import Top1Router, slots_per_expert
from switch_model.routing import UNLIMITED, load_balancing_loss, router_z_loss
from switch_model.sparse_mlp import SparseMLP

SHAPE = dict(vocab_size=10, d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=1)


def config(**settings) -> SwitchConfig:
    return SwitchConfig(**SHAPE | dict(num_experts=4, min_expert_capacity=1, eval_capacity_factor=1.0) | settings)


def route(tokens: str, strengths: list[float] | None = None, interventions=None, **settings) -> Routing:
    """Rows of digits, one token each: the digit is the expert that its hidden state points at, "." is padding."""
    rows = tokens.split("|")
    router = Top1Router(config(**settings), "encoder.0").eval()
    with torch.no_grad():
        router.classifier.weight.copy_(torch.eye(4, 16))
    hidden = torch.zeros(len(rows), len(rows[0]), 16)
    mask = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    for b, row in enumerate(rows):
        for t, token in enumerate(row):
            if token != ".":
                hidden[b, t, int(token)] = strengths[t] if strengths else 5.0
                mask[b, t] = True
    return router(hidden, mask, interventions)


def record(logits: list[list[float]], mask: list[bool] | None = None) -> Routing:
    logits_BTE = torch.tensor([logits])
    mask_BT = torch.tensor([mask or [True] * len(logits)])
    expert_BT = logits_BTE.argmax(-1)
    return Routing("encoder.0", logits_BTE, expert_BT, torch.zeros_like(expert_BT), mask_BT, torch.tensor([UNLIMITED]))


TABLES = [
    # tokens, settings, slots, dropped (1 = dropped), capacities
    ("00010020", {}, [[0, 1, 2, 0, 3, 4, 0, 5]], [[0, 0, 1, 0, 1, 1, 0, 1]], [2]),
    ("00010020", dict(eval_capacity_factor=None), [[0, 1, 2, 0, 3, 4, 0, 5]], [[0] * 8], [UNLIMITED]),
    ("00010020", dict(expert_capacity=3), [[0, 1, 2, 0, 3, 4, 0, 5]], [[0, 0, 0, 0, 1, 1, 0, 1]], [3]),
    ("00010020", dict(min_expert_capacity=4), [[0, 1, 2, 0, 3, 4, 0, 5]], [[0, 0, 0, 0, 0, 1, 0, 1]], [4]),
    # Padding left and right takes no slot and no capacity; each row counts for itself.
    ("..0001|0001..", {}, [[-1, -1, 0, 1, 2, 0], [0, 1, 2, 0, -1, -1]], [[0, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 0]], [1, 1]),
    # Over the batch: eight tokens share two slots an expert, first come first served through the rows.
    ("..0001|0001..", dict(capacity_group="batch"), [[-1, -1, 0, 1, 2, 0], [3, 4, 5, 1, -1, -1]], [[0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0]], [2, 2]),
    # A row of nothing but padding.
    ("0000|....", {}, [[0, 1, 2, 3], [-1] * 4], [[0, 1, 1, 1], [0] * 4], [1, 1]),
]  # fmt: skip


@pytest.mark.parametrize("tokens, settings, slots, dropped, capacities", TABLES)
def test_tables_by_hand(tokens, settings, slots, dropped, capacities):
    routing = route(tokens, **settings)
    for b, row in enumerate(tokens.split("|")):
        for t, token in enumerate(row):
            assert token == "." or routing.expert[b, t] == int(token)
    assert routing.slot.tolist() == slots
    assert routing.dropped.int().tolist() == dropped
    assert routing.capacity.tolist() == capacities
    assert torch.equal(routing.kept | routing.dropped, routing.mask)
    assert not (routing.kept & routing.dropped).any()


def test_probability_priority_serves_the_surest_tokens_first():
    routing = route("00010", strengths=[1.0, 3.0, 2.0, 1.0, 3.0], router_priority="probability", expert_capacity=2)
    # Equal gates keep their order: token 1 before token 4.
    assert routing.slot.tolist() == [[3, 0, 2, 0, 1]]
    assert routing.dropped.tolist() == [[True, False, True, False, False]]


@pytest.mark.parametrize("by_numpy", [True, False], ids=["numpy", "tensors"])
def test_positions_in_buffers_and_by_expert(by_numpy, monkeypatch):
    monkeypatch.setattr(dispatch, "_by_numpy", lambda tensor: by_numpy)
    expert = torch.tensor([[2, 0, 2, 2, 0, 3], [0, 0, 1, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
    positions = dispatch.assign_positions(expert, mask, 4)
    assert positions.position.tolist() == [[0, 0, 1, -1, 1, 0], [0, 1, 0, 2, 3, -1]]
    assert positions.count.tolist() == [[2, 4], [0, 1], [2, 0], [1, 0]]
    kept = mask & (positions.position < 2)
    order, position, lengths = dispatch.permute_tokens(expert.flatten(), kept.flatten(), positions)
    assert (order.tolist(), lengths) == ([1, 4, 6, 7, 8, 0, 2, 5], [4, 1, 2, 1])
    assert position.tolist() == [5, 0, 6, 8, 1, 7, 2, 3, 4, 8, 8, 8]


@pytest.mark.parametrize(
    "tokens, factor, experts, least, expected",
    [
        (64, 1.0, 8, 0, 8),
        (65, 1.0, 8, 0, 9),
        (50, 1.1, 5, 0, 11),  # 11.000000000000002 in floating point
        (45, 2.2, 3, 0, 33),  # 33.00000000000001
        (7, 1.25, 4, 0, 3),
        (7, 1.25, 4, 4, 4),
        (0, 1.0, 4, 4, 4),
        (9, None, 4, 4, UNLIMITED),
        (9, math.inf, 4, 4, UNLIMITED),
    ],
)
def test_capacity(tokens, factor, experts, least, expected):
    settings = config(num_experts=experts, min_expert_capacity=least)
    assert slots_per_expert(torch.tensor([tokens]), factor, settings).tolist() == [expected]


def test_training_and_evaluation_have_their_own_factor():
    layer = SparseMLP(config(capacity_factor=1.0, eval_capacity_factor=2.0))
    hidden, mask = torch.randn(1, 8, 16), torch.ones(1, 8, dtype=torch.bool)
    assert layer.train()(hidden, mask)[1].capacity.tolist() == [2]
    assert layer.eval()(hidden, mask)[1].capacity.tolist() == [4]


def test_losses_by_hand():
    even = record([[0.0, 0.0], [0.0, 0.0]])
    # Undecided probabilities are 1/2 whatever the choice.
    assert load_balancing_loss(even).item() == pytest.approx(1.0)
    assert router_z_loss(even).item() == pytest.approx(math.log(2) ** 2)
    collapsed = record([[50.0, 0.0, 0.0, 0.0]] * 3)
    assert load_balancing_loss(collapsed).item() == pytest.approx(4.0)
    assert router_z_loss(collapsed).item() == pytest.approx(2500.0)
    # f = (2/3, 1/3); P from softmax([ln 3, 0]) = (3/4, 1/4) twice and (1/4, 3/4) once.
    uneven = record([[math.log(3), 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
    assert load_balancing_loss(uneven).item() == pytest.approx(2 * (2 / 3 * 7 / 12 + 1 / 3 * 5 / 12))


def test_padding_counts_in_no_statistic():
    padded = record([[math.log(3), 0.0], [0.0, math.log(3)], [9.0, -9.0]], mask=[True, True, False])
    alone = record([[math.log(3), 0.0], [0.0, math.log(3)]])
    for measure in (load_balancing_loss, router_z_loss, lambda r: r.entropy, lambda r: r.load, lambda r: r.importance):
        torch.testing.assert_close(measure(padded), measure(alone))
    totals = RoutingTotals()
    totals.add((padded,))
    assert totals.summary()[0]["tokens"] == 2


def test_totals_over_batches_agree_with_the_losses():
    torch.manual_seed(0)
    layer = SparseMLP(config(), "encoder.0").eval()
    hidden, mask = torch.randn(3, 11, 16), torch.rand(3, 11) > 0.2
    with torch.no_grad():
        whole = layer(hidden, mask)[1]
        totals = RoutingTotals()
        for b in range(3):
            totals.add((layer(hidden[b : b + 1], mask[b : b + 1])[1],))
    measured = totals.summary()[0]
    assert measured["balance_loss"] == pytest.approx(load_balancing_loss(whole).item(), rel=1e-5)
    assert measured["z_loss"] == pytest.approx(router_z_loss(whole).item(), rel=1e-5)
    assert measured["token_entropy"] == pytest.approx(whole.entropy.item(), rel=1e-5)
    assert measured["drop_rate"] == pytest.approx((whole.dropped.sum() / whole.mask.sum()).item())
    assert measured["load_cv"] == pytest.approx((whole.load.std(correction=0) / whole.load.mean()).item(), rel=1e-4)


def test_record_survives_json_and_example_strips_padding():
    routing = route("..0001|0001..", interventions=Interventions(ablate={("encoder.0", 2)}))
    again = Routing.from_dict(json.loads(json.dumps(routing.to_dict(), allow_nan=False)))
    for field in ("logits", "expert", "slot", "mask", "capacity"):
        assert torch.equal(getattr(again, field), getattr(routing, field)), field
    left, right = routing.examples()
    assert left.mask.all() and left.expert.tolist() == right.expert.tolist() == [[0, 0, 0, 1]]
    with pytest.raises(ValueError, match="lacks slot"):
        Routing.from_dict({key: value for key, value in routing.to_dict().items() if key != "slot"})


def test_dropped_tokens_and_padding_come_out_as_zero():
    torch.manual_seed(0)
    layer = SparseMLP(config(eval_capacity_factor=0.5)).eval()
    mask = torch.ones(2, 16, dtype=torch.bool)
    mask[1, 9:] = False
    output, routing = layer(torch.randn(2, 16, 16), mask)
    assert routing.dropped.any()
    assert (output[~routing.kept] == 0).all()
    assert (output[routing.kept].abs().sum(-1) > 0).all()


def test_a_kept_token_gets_its_own_expert_times_its_gate():
    torch.manual_seed(0)
    layer = SparseMLP(config(eval_capacity_factor=None)).eval()
    hidden = torch.randn(1, 5, 16)
    output, routing = layer(hidden, torch.ones(1, 5, dtype=torch.bool))
    for t in range(5):
        expert = routing.expert[0, t]
        wi, wo = layer.experts.wi[expert], layer.experts.wo[expert]
        by_hand = routing.gate[0, t] * (wo @ (wi @ hidden[0, t]).relu())
        torch.testing.assert_close(output[0, t], by_hand)


@pytest.mark.parametrize("noise", ["switch_dropout", "router_jitter_noise", "router_noise_eps"])
def test_noise_moves_the_router_in_training_only_and_never_the_experts(noise):
    torch.manual_seed(0)
    layer = SparseMLP(config(num_experts=1, capacity_factor=None, **{noise: 0.5}, expert_dropout=0.0))
    hidden, mask = torch.randn(1, 6, 16), torch.ones(1, 6, dtype=torch.bool)
    kept = hidden.clone()
    noisy_output, noisy = layer.train()(hidden, mask)
    clean_output, clean = layer.eval()(hidden, mask)
    assert torch.equal(hidden, kept)
    assert not torch.equal(noisy.logits, clean.logits)
    # With one expert the gate is 1 whatever the noise: what the expert saw is what came out.
    assert torch.equal(noisy_output, clean_output)


def test_gradient_reaches_router_and_experts():
    torch.manual_seed(0)
    layer = SparseMLP(config(capacity_factor=1.0)).train()
    output, routing = layer(torch.randn(2, 12, 16), torch.ones(2, 12, dtype=torch.bool))
    output.square().sum().backward()
    assert layer.router.classifier.weight.grad.abs().sum() > 0
    chosen = routing.expert[routing.kept].unique()
    assert (layer.experts.wi.grad[chosen].abs().sum((1, 2)) > 0).all()
    layer.zero_grad()
    load_balancing_loss(layer(torch.randn(2, 12, 16), torch.ones(2, 12, dtype=torch.bool))[1]).backward()
    assert layer.router.classifier.weight.grad.abs().sum() > 0


def test_expert_dropout_sits_between_activation_and_wo():
    torch.manual_seed(0)
    layer = SparseMLP(config(num_experts=1, capacity_factor=None, expert_dropout=0.5)).train()
    hidden, mask = torch.randn(1, 6, 16), torch.ones(1, 6, dtype=torch.bool)
    with torch.no_grad():
        # With equal rows of wo all 16 outputs are one sum of hidden units, whichever of them were dropped.
        layer.experts.wo.copy_(layer.experts.wo[:, :1].expand(-1, 16, -1))
        first, second = layer(hidden, mask)[0], layer(hidden, mask)[0]
    torch.testing.assert_close(first, first[..., :1].expand_as(first))
    assert not torch.equal(first, second)


def test_relu_experts_drop_out_as_step_by_step():
    """The quick way through ReLU, dropout and wo, both ways, against one operation after the other."""
    found = []
    for quick in (True, False):
        torch.manual_seed(0)
        layer = SparseMLP(config(capacity_factor=None, expert_dropout=0.25)).train()
        layer.experts.is_relu = quick
        hidden = torch.randn(2, 12, 16, requires_grad=True)
        output, _ = layer(hidden, torch.rand(2, 12) > 0.2)
        output.square().sum().backward()
        found.append([output.detach(), hidden.grad, *(weight.grad for weight in layer.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("activation", ["relu", "gated-gelu"])
def test_every_way_to_dispatch_gives_the_same(activation, monkeypatch):
    """One product per expert, with gradient and without, padded, grouped, exported, and as a compiler sees it."""
    torch.manual_seed(0)
    layer = SparseMLP(config(eval_capacity_factor=0.5, dense_act_fn=activation)).eval()
    hidden, mask = torch.randn(2, 12, 16, requires_grad=True), torch.rand(2, 12) > 0.2
    direction = torch.randn(2, 12, 16)

    def results(run):
        output, routing = run(hidden, mask)
        assert routing.dropped.any()
        (output * direction).sum().backward()
        gradients = [weight.grad.clone() for weight in (hidden, *layer.parameters())]
        hidden.grad = None
        layer.zero_grad()
        with torch.no_grad():
            return [output.detach(), run(hidden, mask)[0], *gradients]

    monkeypatch.setattr(experts, "PADDED_TOKENS", 1_000)
    padded, compiled = results(layer), results(torch.compile(layer, fullgraph=True, backend="aot_eager"))
    monkeypatch.setattr(experts, "PADDED_TOKENS", 0)
    expected = results(layer)
    torch.testing.assert_close(expected[0], expected[1])
    with monkeypatch.context() as patch:
        patch.setattr(experts, "is_exported", lambda: True)
        exported = results(layer)
    monkeypatch.setattr(type(layer.experts), "computes_in_groups", lambda self, hidden: True)
    for found in [padded, compiled, exported, results(layer)]:
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, other)


def test_router_stays_in_float32():
    layer = SparseMLP(config()).bfloat16().eval()
    mask = torch.ones(1, 6, dtype=torch.bool)
    hidden = torch.randn(1, 6, 16, dtype=torch.bfloat16)
    output, routing = layer(hidden, mask)
    assert routing.logits.dtype == torch.float32 and output.dtype == torch.bfloat16
    torch.testing.assert_close(routing.logits, hidden.float() @ layer.router.classifier.weight.float().T)
    with torch.autocast("cpu", torch.bfloat16):
        output, routing = SparseMLP(config()).eval()(torch.randn(1, 6, 16), mask)
    assert routing.logits.dtype == torch.float32 and output.dtype == torch.float32


# Interventions


def test_an_ablated_expert_is_never_chosen_and_the_rest_is_renormalised():
    plain = route("0123")
    cut = route("0123", interventions=Interventions(ablate={("encoder.0", 1)}))
    assert (cut.expert != 1).all() and (cut.probs[..., 1] == 0).all()
    torch.testing.assert_close(cut.probs.sum(-1), torch.ones(1, 4))
    rest = plain.probs[..., [0, 2, 3]]
    torch.testing.assert_close(cut.probs[..., [0, 2, 3]], rest / rest.sum(-1, keepdim=True))
    assert cut.entropy.isfinite() and load_balancing_loss(cut).isfinite() and router_z_loss(cut).isfinite()
    other_layer = route("0123", interventions=Interventions(ablate={("encoder.7", 1)}))
    assert torch.equal(other_layer.expert, plain.expert)


def test_a_token_alone_loses_an_expert_wherever_padding_puts_it():
    rows = [Interventions(ablate_at={("encoder.0", 1): {1}}), Interventions(ablate={("encoder.0", 1)})]
    own, whole = route("..0123|..0123", interventions=rows), route("..0123|..0123", interventions=rows[1])
    assert own.expert[0, [2, 4, 5]].tolist() == [0, 2, 3] and torch.equal(own.logits[1], whole.logits[1])
    assert own.expert[0, 3] == whole.expert[0, 3] != 1 and own.gate[0, 3] == whole.gate[0, 3]
    with pytest.raises(ValueError, match="has 4 tokens"):
        route("..0123", interventions=Interventions(ablate_at={("encoder.0", 4): {1}}))


def test_with_all_experts_ablated_the_residual_alone_is_left():
    torch.manual_seed(0)
    layer = SparseMLP(config(), "encoder.0").eval()
    none = Interventions(ablate={("encoder.0", expert) for expert in range(4)})
    output, routing = layer(torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool), none)
    assert (output == 0).all() and routing.dropped.all() and routing.load.tolist() == [0.0] * 4
    assert load_balancing_loss(routing).isfinite() and router_z_loss(routing).isfinite() and routing.entropy.isfinite()


def test_a_forced_token_takes_the_expert_with_that_experts_own_probability():
    plain = route("..0123")
    # Token 1 of the text, wherever padding puts it.
    forced = route("..0123", interventions=Interventions(force={("encoder.0", 1): 3}))
    assert forced.expert[0, 2:].tolist() == [0, 3, 2, 3]
    assert forced.gate[0, 3] == plain.probs[0, 3, 3]
    assert forced.slot[0, 2:].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="has 4 tokens"):
        route("..0123", interventions=Interventions(force={("encoder.0", 4): 3}))


def test_given_choices_send_each_token_elsewhere_and_leave_it_its_gate():
    strengths = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    plain = route("..0123|0123..", strengths)
    rows = [Interventions(choices={"encoder.0": own}) for own in ([3, 1, 0, 2], [0, 0, 2, 3])]
    given = route("..0123|0123..", strengths, interventions=rows)
    assert given.expert[given.mask].tolist() == [3, 1, 0, 2, 0, 0, 2, 3]
    torch.testing.assert_close(given.gate[given.mask], plain.gate[plain.mask])
    assert given.slot[given.mask].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    with pytest.raises(ValueError, match="3 choices are given"):
        route("..0123", interventions=Interventions(choices={"encoder.0": [0, 1, 2]}))


@pytest.mark.parametrize(
    "wrong",
    [dict(force={("encoder.0", -1): 2}), dict(force={("encoder.0", "0"): 2}), dict(capacity_factor=0), dict(capacity_factor=True),
     dict(capacity_group="row"), dict(ablate={("encoder.0", 2)}, force={("encoder.0", 1): 2}),
     dict(choices={"encoder.0": [-1]}), dict(ablate={("encoder.0", 2)}, choices={"encoder.0": [2]}),
     dict(force={("encoder.0", 1): 2}, choices={"encoder.0": [2]})],
)  # fmt: skip
def test_interventions_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Interventions(**wrong)


@pytest.mark.parametrize("wrong", [dict(ablate={("encoder.0", 99)}), dict(force={("encoder.0", 1): 99})])
def test_a_layer_alone_refuses_experts_that_it_has_not(wrong):
    with pytest.raises(ValueError, match="experts are 0 to 3"):
        route("0123", interventions=Interventions(**wrong))


def test_one_row_of_interventions_per_sequence():
    rows = [
        Interventions(),
        Interventions(capacity_factor=math.inf),
        Interventions(capacity_factor=0.5),
        Interventions(ablate={("encoder.0", 0)}),
    ]
    routing = route("00000000|00000000|00000000|00000000", interventions=rows, capacity_group="batch")
    assert routing.capacity.tolist() == [2, UNLIMITED, 1, 2]
    assert routing.dropped.sum(1).tolist() == [6, 0, 7, 6]
    assert (routing.expert[3] != 0).all()
    with pytest.raises(ValueError, match="4 interventions were given for 1 sequences"):
        route("0123", interventions=rows)


def test_capacity_group_can_be_changed_for_one_pass():
    alone = route("0000|0000")
    shared = route("0000|0000", interventions=Interventions(capacity_group="batch"))
    assert alone.dropped.sum(1).tolist() == [3, 3] and shared.dropped.sum(1).tolist() == [2, 4]
