"""A classifier that reads its experts alone: votes that add up, nothing beside the experts, losses that teach it."""

import pytest
import torch

from switch_model import Interventions, Predictor, SwitchConfig, SwitchForSequenceClassification, load_checkpoint
from switch_model.analysis import RoutingTotals
from switch_model.routing import sequence_balance_loss
from tests.ui_support import save_tiny_checkpoint

SHAPE = dict(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_experts=4, num_labels=3)


def voting(**settings) -> SwitchForSequenceClassification:
    torch.manual_seed(0)
    return SwitchForSequenceClassification(SwitchConfig(**SHAPE | dict(readout="experts") | settings)).eval()


@pytest.mark.parametrize("settings", [{}, dict(pooling="attention", cls_token=True, expert_residual=0.0)])
def test_votes_and_bias_are_the_logits_and_padding_has_none(settings):
    model = voting(eval_capacity_factor=0.5, min_expert_capacity=1, **settings)
    torch.nn.init.normal_(model.classifier.bias)
    ids, mask = torch.randint(50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    output = model(ids, mask, output_routing=True)
    torch.testing.assert_close(output.votes.sum(1) + model.classifier.bias, output.logits)
    last = output.routing[-1]
    assert last.dropped.any() and (output.votes[~last.kept] == 0).all() and (output.votes[last.kept] != 0).any()
    assert model(ids, mask).votes is None


def test_a_prediction_carries_its_votes_and_a_saved_model_keeps_its_readout(tmp_path):
    folder = save_tiny_checkpoint(tmp_path / "tiny", readout="experts", expert_residual=0.25, balance="bias")
    model, tokenizer = load_checkpoint(folder, "cpu")
    short, long = Predictor(model, tokenizer).batch(["oil prices", "the champions won the last match of winter"])
    for prediction in (short, long):
        assert prediction.votes.shape == (len(prediction.tokens), len(prediction.scores))
        scores = (prediction.votes.sum(0) + model.classifier.bias).softmax(-1)
        assert scores.tolist() == pytest.approx(list(prediction.scores.values()), abs=1e-5)
    assert model.encoder.blocks[1].mlp.router.balance_bias.shape == (model.config.num_experts,)


@pytest.mark.parametrize("off", [0, 2])
def test_without_residual_a_layer_without_experts_leaves_the_bias_alone(off):
    model = voting(expert_residual=0.0)
    model.classifier.bias.data = torch.tensor([1.0, 2.0, 3.0])
    experts = Interventions(ablate={(f"encoder.{off}", expert) for expert in range(4)})
    logits = model(torch.randint(50, (2, 9)), interventions=experts).logits
    if off == 2:
        torch.testing.assert_close(logits, model.classifier.bias.expand(2, -1))
    else:  # All that is left of a token is nothing, and all tokens are the same.
        torch.testing.assert_close(logits[0], logits[1])


def test_a_sequence_that_keeps_to_one_expert_costs_what_an_even_batch_does_not():
    model = voting()
    record = model(torch.randint(50, (2, 8)), output_routing=True).routing[0]
    sure = torch.full((2, 8, 4), -50.0)
    sure[0, :, 1], sure[1, :, 2] = 50.0, 50.0
    apart = type(record)(record.name, sure, sure.argmax(-1), record.slot, record.mask, record.capacity)
    assert sequence_balance_loss(apart).item() == pytest.approx(4.0)
    totals = RoutingTotals()
    for row in range(2):
        totals.add((apart.example(row),))
    assert totals.summary()[0]["sequence_balance_loss"] == pytest.approx(4.0)
    assert totals.summary()[0]["balance_loss"] == pytest.approx(2.0)


def test_all_losses_add_up():
    model = voting(sequence_balance_coef=0.5, layer_loss_coef=2.0, dropout_rate=0.0, expert_dropout=0.0)
    model.train()
    model.dropout.rate = 0.0
    ids, labels = torch.randint(50, (3, 9)), torch.tensor([0, 1, 2])
    output = model(ids, labels=labels, output_routing=True)
    states = model._encode(ids, None, None, None, model._extras(None, None, {}))[0].expert_outputs
    of_layer = [
        torch.nn.functional.cross_entropy(model.classifier(state.mean(dim=1)), labels).item() for state in states
    ]
    config, per_text = model.config, sum(sequence_balance_loss(record).item() for record in output.routing) / 3
    added = config.router_aux_loss_coef * output.aux_loss.item() + config.router_z_loss_coef * output.z_loss.item()
    added += 0.5 * per_text + 2.0 * sum(of_layer[:-1]) / 2
    assert output.auxiliary_loss.item() == pytest.approx(added, rel=1e-4)
    assert output.loss.item() == pytest.approx(of_layer[-1] + added, rel=1e-4)


def test_a_bias_on_the_choice_moves_loads_and_no_gate():
    model = voting(balance="bias", balance_rate=0.5, eval_capacity_factor=None)
    ids = torch.randint(50, (4, 12))
    before = model(ids, output_routing=True, labels=torch.tensor([0, 1, 2, 0]))
    router, record = model.encoder.blocks[0].mlp.router, before.routing[0]
    for _ in range(3):
        model.rebalance({record.name: torch.tensor([40, 8, 0, 0])})
    assert router.balance_bias.tolist() == [-1.5, 1.5, 1.5, 1.5]
    after = model(ids, output_routing=True).routing[0]
    torch.testing.assert_close(after.logits, record.logits)
    assert torch.equal(after.expert, (record.logits + router.balance_bias).argmax(-1))
    torch.testing.assert_close(after.gate, after.probs.gather(-1, after.expert.unsqueeze(-1)).squeeze(-1))
    off = model(ids, interventions=Interventions(ablate={(record.name, 3)}), output_routing=True).routing[0]
    assert not (off.expert == 3).any()
    # The batch's balance loss is what the bias replaces.
    assert before.auxiliary_loss.item() == pytest.approx(model.config.router_z_loss_coef * before.z_loss.item())


@pytest.mark.parametrize(
    "wrong",
    [dict(pooling="max"), dict(classifier_head="mlp"), dict(encoder_sparse_step=0), dict(expert_residual=2.0)],
)
def test_a_readout_that_can_not_add_up_is_refused(wrong):
    with pytest.raises(ValueError, match="not allowed"):
        voting(**wrong)
