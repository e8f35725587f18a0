"""The tab “How it works” shows the numbers of the very token that is looked at."""

import pytest

from switch_model.routing import load_balancing_loss, router_z_loss, sequence_balance_loss
from tests.support.pages import save_tiny_checkpoint
from train.formatting import percent, signed
from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.components.routing_film import film_value
from ui.explore.details import look
from ui.explore.handlers import Explorer
from ui.how_it_works.scaling import loss_plot, read_scaling, scaling_html, speed_up_plot
from ui.how_it_works.tab import parameters_html, steps_html


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    return Explorer(ModelShelf({"tiny": folder}, "cpu"), SampleLibrary())


def test_votes_and_both_balances_have_the_tokens_own_numbers(tmp_path):
    folder = save_tiny_checkpoint(tmp_path / "votes", readout="experts", balance="bias", expert_residual=0.25)
    explorer = Explorer(ModelShelf({"tiny": folder}, "cpu"), SampleLibrary())
    loaded = explorer.shelf.load("tiny")
    record = loaded.predictor("oil prices rose").routing[1]
    away = int(record.logits[0, 0].argmin())
    loaded.predictor.model.encoder.blocks[3].mlp.router.balance_bias[away] += 100  # All tokens go there.
    view = look(explorer.route("tiny", "oil prices rose", None)[0], 0, 1)[0]
    prediction, record = view.prediction, view.prediction.voters
    said = steps_html(view, loaded.config)
    other = int((record.logits[0].argmax(-1) != away).sum())
    assert other > 0 and f"<b>{other}</b> of 3 tokens go elsewhere" in said and "each expert’s bias is added" in said
    label = list(prediction.scores).index(prediction.label)
    assert signed(float(prediction.votes[0, label]), 3) in said and signed(float(prediction.logits[label]), 3) in said
    assert "0.25 · <i>x</i>" in said and f"<b>{float(sequence_balance_loss(record)):.2f}</b>" in said


def test_every_number_is_the_tokens_own(explorer):
    config = explorer.shelf.load("tiny").predictor.model.config
    view, *_ = explorer.route("tiny", "oil prices rose <b> as oil traders worried about oil oil oil", None)
    record = view.prediction.routing[1]
    dropped = record.dropped[0].nonzero().flatten().tolist()
    assert dropped, "the tiny model is made to drop tokens"
    kept = record.kept[0].nonzero().flatten().tolist()
    for token in (dropped[0], kept[0]):
        said = steps_html(look(view, token, 1)[0], config)
        expert = int(record.expert[0, token])
        assert f"expert {expert} alone" in said and signed(float(record.logits[0, token, expert]), 2) in said
        assert f"position {int(record.slot[0, token]) + 1} in its expert’s buffer: " in said
        assert ("beyond the last one: it is dropped" in said) == (token in dropped)
        assert f"= {int(record.capacity)} tokens of this text at most" in said
        assert f"{float(load_balancing_loss(record)):.2f}" in said and f"{float(router_z_loss(record)):.2f}" in said
        assert "<b></b>" not in said
    forced, *_ = explorer.intervene(look(view, 0, 1)[0], {"kind": "force", "expert": 3})
    assert "You sent it to expert 3" in steps_html(forced, config)
    assert "num_experts</th><td>4" in parameters_html(config)
    assert "Run a text" in steps_html(None, None)


def test_what_more_experts_bring_is_told_from_the_bundled_results(tmp_path):
    results = read_scaling()
    dense, *sparse = results["rows"]
    best = min((row for row in sparse if row["share_of_steps"]), key=lambda row: row["share_of_steps"])
    said = scaling_html(results)
    assert f"{best['experts']} experts" in said and percent(best["share_of_steps"]) in said
    assert f"{dense['loss']:.3f}" in said and f"{best['speed_up_in_time']:.2f}" in said
    drawn = [line.name for line in loss_plot(results).data]
    assert drawn == ["dense", *(f"{row['experts']} experts" for row in sparse)]
    in_steps, in_time = speed_up_plot(results).data
    assert in_steps.y[0] == in_time.y[0] == 1 and max(in_steps.y) == best["speed_up_in_steps"]
    # Without its file the page has no such card.
    assert read_scaling(tmp_path / "none.json") is None and scaling_html(None) == ""


def test_the_film_has_every_tokens_own_choice_and_its_likeliest_experts(explorer):
    loaded = explorer.shelf.load("tiny")
    view, *_ = explorer.route("tiny", "oil prices rose as oil traders worried about oil oil oil", None)
    forced, *_ = explorer.intervene(look(view, 0, 1)[0], {"kind": "force", "expert": 3})
    value = film_value(forced, loaded.config)
    record, layer = forced.prediction.routing[1], value["layers"][1]
    assert layer["expert"] == record.expert[0].tolist() and layer["capacity"] == int(record.capacity)
    assert sum(layer["dropped"]) == int(record.dropped.sum()) > 0
    for token, likeliest in enumerate(layer["likeliest"]):
        shares = [share for _, share in likeliest]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 1000) < 1
        assert layer["expert"][token] in [expert for expert, _ in likeliest]
    assert value["answer"].startswith(f"Prediction: {forced.answer.label} ")
    off, *_ = explorer.intervene(view, {"kind": "change", "off": [[1, 2]]})
    assert [layer["off"] for layer in film_value(off, loaded.config)["layers"]] == [[], [2]]
    assert film_value(None, None) is None
