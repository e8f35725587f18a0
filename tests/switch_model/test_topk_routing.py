"""Records of several experts for each token, and their metrics, by hand."""

import json
import math
from dataclasses import replace

import pytest
import torch

from switch_model import Interventions
from switch_model.analysis.coactivation import coactivation, weight_flow, weight_mass
from switch_model.analysis.statistics import LayerTotals, shuffled_flow
from switch_model.routing import Routing, sequence_balance
from switch_model.topk_routing import TopKRouting, record_of_dict


@pytest.fixture
def record() -> TopKRouting:
    """Three real tokens and a padded one, in four experts of which two are chosen; expert 3 is never."""
    return TopKRouting(
        name="decoder.3",
        experts=torch.tensor([[[0, 1], [1, 0], [2, 0], [3, 3]]]),
        weights=torch.tensor([[[0.75, 0.25], [0.5, 0.5], [1.0, 0.0], [9.0, 9.0]]]),
        mask=torch.tensor([[True, True, True, False]]),
        num_experts=4,
        logits=torch.tensor([[[2.0, 1.0, 0.0, -math.inf]] * 4]),
    )


def test_weight_flows_from_each_expert_to_each_of_the_next(record):
    # Token by token: 3/4 and 1/4 to halves; halves to 3/4 and 1/4; one expert to itself.
    there = replace(record, experts=record.experts[:, [1, 0, 2, 3]], weights=record.weights[:, [1, 0, 2, 3]])
    flow = weight_flow(record, there)
    assert flow[:2, :2].flatten().tolist() == pytest.approx([0.75, 0.5, 0.5, 0.25]) and flow[2, 2] == 1
    assert float(flow.sum()) == 3 and 0 <= shuffled_flow(record, there)[0] <= 1


def test_numbers_of_a_record_by_hand(record):
    # The last real token's second choice has no weight: an ablated expert where only one was left.
    assert record.choices.tolist() == [2, 2, 1, 0]
    assert record.load.tolist() == pytest.approx([2 / 6, 2 / 6, 1 / 6, 0])
    assert record.expert[0, :3].tolist() == [0, 1, 2] and record.gate[0, :3].tolist() == [0.75, 0.5, 1.0]
    assert record.probs[0, :3].tolist() == [[0.75, 0.25, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0]]
    assert record.importance.tolist() == pytest.approx([1.25 / 3, 0.75 / 3, 1 / 3, 0])
    assert weight_mass(record).tolist() == pytest.approx([1.25 / 3, 0.75 / 3, 1 / 3, 0])
    of_first = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)
    assert record.token_entropy[0].tolist() == pytest.approx([of_first, 1.0, 0.0, 0.0])
    assert float(sequence_balance(record)) == pytest.approx(4 * float((record.load * record.importance).sum()))
    assert not record.dropped.any() and record.slot[0].tolist() == [0, 0, 0, -1]


def test_pairs_of_experts_beside_chance(record):
    found = coactivation(record)
    assert found.counts.tolist() == [[0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    # Tokens of the experts: 2, 2, 1, 0. Products of pairs: 4, 2, 2, both ways; four pairs are there.
    assert found.expected[0].tolist() == pytest.approx([0, 4 / 4, 2 / 4, 0])
    assert found.strongest(1) == [(0, 1)] and float(found.lift[0, 1]) > 0 > float(found.lift[0, 2])


def test_sums_over_batches_are_those_of_all_tokens(record):
    totals = LayerTotals.of(record)
    totals += LayerTotals.of(record)
    found = totals.summary()
    assert found["tokens"] == 6 and found["choices"] == 2
    assert found["load"] == pytest.approx(record.load.tolist(), abs=1e-5)
    assert found["weight_mass"] == pytest.approx(weight_mass(record).tolist(), abs=1e-5)
    assert found["coactivation"][0] == {"experts": [0, 1], "tokens": 4, "expected": 2.0}
    assert found["load_cv_chance"] == pytest.approx(math.sqrt(2 / 12)) and found["drop_rate"] == 0


def test_a_record_survives_json_and_one_without_logits_too(record):
    for one in (record, TopKRouting(record.name, record.experts, record.weights, record.mask, 4)):
        again = record_of_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
        assert again.to_dict() == one.to_dict() and isinstance(again, TopKRouting)
        assert torch.equal(again.example(0).experts, record.experts[:, :3])
    with pytest.raises(ValueError, match="beyond its 4"):
        record_of_dict(record.to_dict() | {"experts": [[[0, 4]] * 4]})
    with pytest.raises(ValueError, match="fit together"):
        record_of_dict(record.to_dict() | {"mask": [[True]]})


def test_a_record_of_one_choice_has_the_same_fields(record):
    one = Routing(
        name="encoder.0",
        logits=torch.tensor([[[0.0, 0.0], [0.0, 0.0]]]),
        expert=torch.tensor([[1, 1]]),
        slot=torch.tensor([[0, 1]]),
        mask=torch.tensor([[True, True]]),
        capacity=torch.tensor([1]),
    )
    assert one.experts.tolist() == [[[1], [1]]] and one.weights.tolist() == [[[0.5], [0.0]]]
    assert isinstance(record_of_dict(one.to_dict()), Routing) and coactivation(one).counts.sum() == 0
    assert weight_mass(one).tolist() == [0.0, 1.0]


def test_another_number_of_experts_is_checked():
    assert Interventions(top_k={"decoder.3": 1}).numbers == {"decoder.3": 1}
    for wrong in (0, -1, True, 1.5, {"decoder.3": 0}):
        with pytest.raises(ValueError, match="top_k"):
            Interventions(top_k=wrong)
    with pytest.raises(ValueError, match=r"no sparse layer 'decoder\.9'"):
        Interventions(top_k={"decoder.9": 1}).check_layers(["decoder.3"])
    with pytest.raises(ValueError, match="one expert"):
        Interventions(top_k=2).check_one_choice()
