"""Our own models with several experts for each token in the page: what its cards and How it works say of each kind."""

import json
import re

import pytest

from tests.support.pages import save_tiny_checkpoint
from train.arguments.arguments import Arguments
from ui.cards.of_view import closer_cards, summary
from ui.cards.routing import token_card
from ui.catalog.models import ModelShelf
from ui.components.routing_film import film_value
from ui.how_it_works.tab import steps_html
from ui.models.page import model_page
from ui.sharing.records import read_record, record_of
from ui.training.partners import dense, unbalanced
from ui.views.view import view_of

TEXT = "oil prices rose as the team won about winter"


def opened(folder, **settings):
    path = save_tiny_checkpoint(folder / "model", **settings)
    shelf = ModelShelf.find(str(path), "cpu", path / "none")
    loaded = shelf.load(shelf.default)
    return shelf, loaded, view_of(loaded, shelf.default, TEXT)


def words(html) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", str(html)))


@pytest.mark.parametrize("settings", [dict(router="topk", num_shared_experts=1), dict(router="expert_choice")])
def test_a_model_is_drawn_explained_and_kept(settings, tmp_path):
    shelf, loaded, view = opened(tmp_path, **settings | {"eval_capacity_factor": None})
    by_experts = settings["router"] == "expert_choice"
    assert ("experts that chose the token" if by_experts else "the 2 experts that") in summary(view)
    steps = words(steps_html(view, loaded.config))
    assert ("Experts choose here" in steps) == by_experts and ("shared experts" in steps) != by_experts
    page = words(model_page(shelf, shelf.default).facts)
    assert f"router {settings['router']}" in page and ("capacity" in page) != by_experts
    film = film_value(view, loaded.config)
    assert [layer["shared"] for layer in film["layers"]] == [not by_experts] * 2
    again = read_record(json.dumps(record_of(view, "A")).encode())
    assert closer_cards(again) == closer_cards(view)


def test_a_token_without_a_slot_is_said_to_have_none(tmp_path):
    _, loaded, view = opened(tmp_path, router="topk", eval_capacity_factor=0.4, min_expert_capacity=1)
    record = view.records[0]
    token = int(record.dropped[0].nonzero()[0])
    assert "Every expert that it chose was full" in token_card(view.trace, token, 0)
    assert "slots for this text" in words(steps_html(view, loaded.config))


def test_partners_of_a_run_do_the_same_work_or_have_nothing_that_balances():
    finer = {"expert_granularity": 4, "top_k": 3, "num_shared_experts": 1, "d_ff": 64}
    arguments = Arguments.resolve({"dataset": "toy", "num_experts": 4, "router": "sigmoid_bias"} | finer)
    twin = dense(arguments)
    assert twin.model.d_ff == 64 and twin.config(1000, 0, ["a", "b"]).sparse_layers == ()
    assert unbalanced(arguments).model.balance_rate == 0.0
