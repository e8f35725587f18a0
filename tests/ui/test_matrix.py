"""A model of transformers in the page: every choice of its routers is drawn, for who starts the app alone."""

import base64
import json
from types import SimpleNamespace

import numpy as np
import pytest

from switch_model import CheckpointError
from switch_model.adapters import families
from switch_model.traces.api_answers import traces_in
from tests.support.moe_models import CHOICES, EXPERTS, save_tiny, tiny
from train.formatting import signed
from ui.cards.of_view import closer_cards, summary
from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.components.routing_grid import view_grid
from ui.explore.detail_tabs import ATTRIBUTION
from ui.explore.handlers import Explorer
from ui.models.page import model_page
from ui.sharing.picture import draw_grid
from ui.sharing.records import read_record, record_of
from ui.sharing.report import report_html
from ui.views.view import view_of

pytestmark = pytest.mark.skipif(bool(families.too_old()), reason="The routers of older versions return other things.")
TEXT = "oil prices rose the team won"


@pytest.fixture(scope="module", params=["ForSequenceClassification", "ForCausalLM"])
def opened(request, tmp_path_factory):
    folder = save_tiny(tmp_path_factory.mktemp("mixtral"), tiny("mixtral", request.param))
    shelf = ModelShelf.find(str(folder), "cpu", folder / "none")
    loaded = shelf.load(shelf.default)
    return SimpleNamespace(folder=folder, shelf=shelf, loaded=loaded, view=view_of(loaded, shelf.default, TEXT))


def test_the_grid_has_every_choice_and_its_share(opened):
    value, records = view_grid(opened.view), opened.view.records
    shape = len(value["layers"]), len(value["tokens"]), value["matrix"]["k"]
    assert shape == (len(records), records[0].mask.shape[1], CHOICES) and value["experts"] == EXPERTS
    experts = np.frombuffer(base64.b64decode(value["matrix"]["experts"]), "<u2").reshape(shape)
    shares = np.frombuffer(base64.b64decode(value["matrix"]["weights"]), "u1").reshape(shape) / 255
    for layer, record in enumerate(records):
        assert (experts[layer] == record.experts[0].numpy()).all()
        weights = record.weights[0].numpy()
        assert shares[layer] == pytest.approx(weights / weights.sum(-1, keepdims=True), abs=0.003)


def test_cards_speak_of_several_experts(opened):
    token, _ = closer_cards(opened.view)
    record, place = opened.view.record, opened.view.token
    assert all(f"{expert} (" in token for expert in record.experts[0, place].tolist()) and "slot" not in token
    assert f"the {CHOICES} experts that the layer’s router chose" in summary(opened.view)
    page = model_page(opened.shelf, opened.shelf.default)
    assert "mixtral, a model of transformers" in page.facts and '"num_local_experts"' in page.config


def test_what_each_expert_writes_is_a_card_and_is_kept(opened):
    explorer = Explorer(opened.shelf, SampleLibrary())
    card = explorer.look_closer(opened.view, ATTRIBUTION).votes
    found = explorer.attribution(opened.view)
    assert "What each expert writes" in card and card.count('<th scope="row">') >= len(found.experts)
    assert signed(found.experts[0].values[0], 2 if max(map(abs, found.logits)) >= 1 else 3) in card
    kept = record_of(opened.view, "A", attribution=found)
    again = read_record(json.dumps(kept).encode())
    assert Explorer(opened.shelf, SampleLibrary()).attribution(again) == found
    assert "What each expert writes" in report_html(again, "A", attribution=found)
    kept["attribution"]["terms"][0]["values"][0] += 1
    with pytest.raises(ValueError, match="no record"):
        read_record(json.dumps(kept).encode())


def test_what_a_visitor_sends_is_never_opened_by_transformers(opened):
    with pytest.raises(CheckpointError):
        opened.shelf.add_private(opened.folder, "mine")


def test_an_expert_that_is_off_gets_no_token(opened):
    from switch_model import Interventions

    layer = opened.view.record.name
    changed = opened.view.with_changes(opened.loaded, Interventions(ablate=frozenset({(layer, 3)})))
    assert int(changed.record.choices[3]) == 0 and int(changed.record.choices.sum()) > 0


def test_pictures_reports_and_records_of_several_experts(opened):
    for kind, begins in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        assert draw_grid(opened.view, kind, "Mixtral").startswith(begins)
    assert "Mixtral" in report_html(opened.view, "Mixtral")
    raw = json.dumps(record_of(opened.view, "Mixtral")).encode()
    again = read_record(raw)
    for one, other in zip(again.records, opened.view.records, strict=True):
        assert (one.experts == other.experts).all() and one.name == other.name
    assert traces_in(json.loads(raw))[0].top_k == CHOICES
