"""A classifier that reads its experts alone: votes that add up, nothing beside the experts, losses that teach it; the
same votes on the page, in files and on the command line."""

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
import torch

from switch_model import (
    Interventions,
    Predictor,
    SwitchConfig,
    SwitchForSequenceClassification,
    load_checkpoint,
    save_checkpoint,
)
from switch_model.analysis.statistics import RoutingTotals
from switch_model.routing import sequence_balance_loss
from tests.support.pages import save_tiny_checkpoint
from train.cli.main import main
from ui.cards.importance import attribution
from ui.cards.votes import votes_card
from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.explore.api import Endpoints
from ui.explore.detail_tabs import ATTRIBUTION
from ui.explore.handlers import Explorer
from ui.explore.share_bar import keep
from ui.sharing.records import read_record, record_of
from ui.sharing.routing_csv import routing_csv

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


# ---- shown ----------------------------------------------------------------------------------------------------------

TEXT = "oil oil oil prices rose <b> as traders worried about the team, oil oil oil"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", readout="experts")
    model, tokenizer = load_checkpoint(folder, "cpu")
    # As if it had learned something: numbers that a person sees.
    model.classifier.weight.data *= 40
    model.classifier.bias.data = torch.tensor([0.5, -0.25, 0.125, 0.0])
    return save_checkpoint(model, tokenizer, folder)


@pytest.fixture(scope="module")
def explorer(checkpoint, saved):
    return Explorer(ModelShelf({"tiny": saved, "residual": checkpoint}, "cpu"), SampleLibrary())


def numbers(row: str) -> list[float]:
    return [
        float(sign.replace("−", "-").replace("±", "") + value) for sign, value in re.findall(r">([+−±])([\d.]+)<", row)
    ]


def test_a_card_adds_up_to_the_logits_and_follows_changes(explorer):
    view = explorer.route("tiny", TEXT, None)[0]
    dropped = view.prediction.voters.dropped.sum()
    assert dropped > 0 and f"{dropped} token" in votes_card(view)
    changed = explorer.intervene(view, {"kind": "change", "off": [[1, 0], [1, 1]], "capacity": 0.5})[0]
    for shown in (view, changed):
        card = explorer.details.look_closer(shown).votes
        rows = [numbers(row) for row in card.split("<tr")[2:]]
        logits = rows[-2] if shown.changed else rows[-1]
        parts = rows[:-2] if shown.changed else rows[:-1]
        likeliest = sorted(shown.prediction.logits.tolist(), reverse=True)
        assert logits == pytest.approx(likeliest, abs=0.006) and (not shown.changed or rows[-1] != logits)
        assert [sum(column) for column in zip(*parts, strict=True)] == pytest.approx(logits, abs=0.03)
        for expert, row in zip(re.findall(r'cell chip x\d+" data-expert="(\d+)"', card), parts, strict=False):
            own = shown.prediction.voters.expert[0] == int(expert)
            assert row == pytest.approx(sorted_as(shown, shown.prediction.votes[own].sum(0)), abs=0.006)
    everything = {"kind": "change", "off": [[1, expert] for expert in range(4)], "capacity": None}
    assert "the bias alone is left" in explorer.details.look_closer(explorer.intervene(view, everything).view).votes


def sorted_as(view, values):
    order = sorted(range(4), key=lambda c: -list(view.prediction.scores.values())[c])
    return [float(values[c]) for c in order]


def test_below_each_word_stands_its_vote(explorer):
    view, *_, grid, _, _, _ = explorer.route("tiny", TEXT, None)
    first, record = grid["votes"]["classes"][0], view.prediction.voters
    label = list(view.prediction.scores).index(view.prediction.label)
    assert first["name"] == view.prediction.label and grid["votes"]["layer"] == 1
    assert [vote is None for vote in first["votes"]] == record.dropped[0].tolist()
    shown = [vote or 0.0 for vote in first["votes"]]
    assert shown == pytest.approx(view.prediction.votes[:, label].tolist(), abs=1e-5)


def test_a_residual_model_says_what_its_experts_write(explorer):
    view, *_, grid, _, _, _ = explorer.route("residual", TEXT, None)
    card = explorer.details.look_closer(view, ATTRIBUTION).votes
    assert "What each expert writes" in card and "data-measure" in card and grid["votes"] is None
    card = explorer.details.look_closer(explorer.intervene(view, {"kind": "measure"}).view).votes
    assert "data-measure" not in card and card.count("<th>layer") == len(view.records)


def test_records_reports_and_tables_keep_the_votes(explorer):
    view = explorer.route("tiny", TEXT, None)[0]
    view = explorer.intervene(view, {"kind": "change", "off": [[1, 0]], "capacity": None})[0]
    again = read_record(json.dumps(record_of(view, "Tiny")).encode())
    assert votes_card(again) == votes_card(view).removesuffix(attribution(view)) and votes_card(again).count("<td") > 8
    assert torch.equal(again.prediction.votes, view.prediction.votes)
    report = Path(keep(explorer, view, "html")).read_text(encoding="utf-8")
    assert votes_card(view, still=True) in report and report.count('class="grid-vote') == len(view.prediction.tokens)
    rows = list(csv.DictReader(io.StringIO(routing_csv(view))))
    for column, label in enumerate(view.prediction.scores):
        said = sum(float(row[f"vote({label})"] or 0) for row in rows)
        assert said == pytest.approx(float(view.prediction.votes[:, column].sum()), abs=1e-4)
    for spoil in (
        {"votes": view.prediction.votes.tolist()[1:]},
        {"bias": [0.0]},
        {"votes": None},
        {"bias": [math.nan] * 4},
    ):
        record = record_of(view, "Tiny")
        record["prediction"] |= spoil
        with pytest.raises(ValueError, match="not a record of this page"):
            read_record(json.dumps(record).encode())


def test_trace_and_predict_tell_the_votes(explorer, saved, tmp_path, capsys):
    trace = Endpoints(explorer.shelf).trace(TEXT)[1]
    prediction = explorer.shelf.load("tiny").predictor(TEXT)
    logits = torch.tensor(trace["votes"]).sum(0) + torch.tensor(trace["bias"])
    assert trace["classes"] == list(prediction.scores)
    torch.testing.assert_close(logits.softmax(-1), torch.tensor(list(prediction.scores.values())))
    assert "votes" not in Endpoints(explorer.shelf).trace(TEXT)[0]
    asked = ["predict", "--checkpoint", str(saved), TEXT, "--trace"]
    assert main([*asked, "--trace_file", str(tmp_path / "trace.json")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    votes = [line[-1] for line in lines[: len(prediction.tokens)]]
    assert votes.count("none") == int(prediction.voters.dropped.sum())
    bias, logit = (float(line[-1]) for line in lines[len(prediction.tokens) :][:2])
    assert logit == pytest.approx(float(prediction.logits.max()), abs=1e-4)
    assert sum(float(vote) for vote in votes if vote != "none") + bias == pytest.approx(logit, abs=3e-3)
    kept = json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))[0]
    assert kept["votes"] == prediction.votes.tolist() and kept["bias"] == prediction.bias.tolist()
