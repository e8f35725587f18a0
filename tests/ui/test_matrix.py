"""A model of transformers in the page: every choice of its routers is drawn, for who starts the app alone."""

import base64
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from switch_model import CheckpointError, Interventions
from switch_model.adapters import families
from switch_model.traces.api_answers import traces_in
from tests.support.moe_models import CHOICES, EXPERTS, save_tiny, tiny
from train.formatting import signed
from ui.cards.of_view import closer_cards, summary
from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.components.expert_panel import changes_from_panel, panel_value
from ui.components.routing_film import film_value
from ui.explore.detail_tabs import ATTRIBUTION, FLOW, LAYER
from ui.explore.handlers import Explorer
from ui.models.page import model_page
from ui.sharing.link import changes_from_json, changes_to_json, link_of, read_link
from ui.sharing.picture import draw_grid
from ui.sharing.records import read_record, record_of
from ui.sharing.report import report_html
from ui.views.changes import words_of_changes
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
    value, records = opened.view.grid(), opened.view.records
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
    card = explorer.details.look_closer(opened.view, ATTRIBUTION).votes
    found = explorer.details.attribution(opened.view)
    assert "What each expert writes" in card and card.count('<th scope="row">') >= len(found.experts)
    assert signed(found.experts[0].values[0], 2 if max(map(abs, found.logits)) >= 1 else 3) in card
    kept = record_of(opened.view, "A", attribution=found)
    again = read_record(json.dumps(kept).encode())
    assert Explorer(opened.shelf, SampleLibrary()).details.attribution(again) == found
    assert "What each expert writes" in report_html(again, "A", attribution=found)
    kept["attribution"]["terms"][0]["values"][0] += 1
    with pytest.raises(ValueError, match="not a record"):
        read_record(json.dumps(kept).encode())


def test_another_number_of_experts_is_asked_for_kept_and_taken_back(opened):
    explorer = Explorer(opened.shelf, SampleLibrary())
    panel = panel_value(opened.view, opened.loaded.config)
    assert panel["choices"] == {"own": CHOICES, "at": CHOICES, "most": EXPERTS}
    config, view = opened.loaded.config, opened.view
    wish = {"kind": "change", "off": [], "capacity": None}
    for number, meant in ((1, 1), (CHOICES, None), (0, None), (EXPERTS + 1, None), (True, None), ("3", None)):
        assert changes_from_panel(view, view.changes, config, wish | {"top_k": number}).top_k == meant
    one = changes_from_panel(view, view.changes, config, wish | {"top_k": 1})
    assert changes_from_panel(view, one, config, wish | {"off": [[0, 3]]}).top_k == 1  # Other switches leave it.
    changed = view.with_changes(opened.loaded, one)
    assert {record.experts.shape[-1] for record in changed.records} == {1} and changed.undone(opened.loaded).records
    assert words_of_changes(changed) == ["1 expert for each token"]
    assert (
        read_link(link_of(changed)).changes == one == read_record(json.dumps(record_of(changed, "A")).encode()).changes
    )
    assert "top_k" not in json.loads(json.dumps(record_of(view, "A")))
    layer = config.sparse_layers[1]
    by_layer = changes_from_json(changes_to_json(Interventions(top_k={layer: 1})))
    assert by_layer == Interventions(top_k={layer: 1})
    with pytest.raises(ValueError):
        changes_from_json({"top_k": 3})
    assert explorer.details.draw(changed, FLOW, None).sankey


def test_pairs_and_flow_of_several_experts_are_drawn(opened):
    explorer = Explorer(opened.shelf, SampleLibrary())
    closer, drawn = explorer.details.look_closer(opened.view, LAYER), explorer.details.draw(opened.view, FLOW, None)
    assert "Pairs of experts" in closer.pairs_words and json.loads(closer.pairs.plot)["data"][0]["z"]
    assert "how a token’s weight is split here tells" in drawn.flow_words and drawn.sankey and drawn.matrix


def test_what_a_visitor_sends_is_never_opened_by_transformers(opened):
    with pytest.raises(CheckpointError):
        opened.shelf.add_private(opened.folder, "mine")


def test_an_expert_that_is_off_gets_no_token(opened):
    from switch_model import Interventions

    layer = opened.view.record.name
    changed = opened.view.with_changes(opened.loaded, Interventions(ablate=frozenset({(layer, 3)})))
    assert int(changed.record.choices[3]) == 0 and int(changed.record.choices.sum()) > 0


def test_the_film_has_every_choice_and_its_weight(opened):
    layers, record = opened.loaded.config.sparse_layers, opened.view.record
    view = opened.view.with_changes(
        opened.loaded, Interventions(ablate={(layers[0], 3)}, force={(layers[1], 2): 5}, top_k={layers[2]: 1})
    )
    shared = dataclasses.replace(opened.loaded.config, shared_experts=("model.layers.1.mlp.shared_experts",))
    film = film_value(view, shared)
    shape = len(layers), record.mask.shape[1], film["choices"]
    experts, weights = (np.frombuffer(base64.b64decode(one), "<u2").reshape(shape) for one in film["packed"].values())
    assert [layer["off"] for layer in film["layers"]] == [[3], [], []]
    assert [layer["forced"] for layer in film["layers"]] == [[], [2], []]
    assert [layer["shared"] for layer in film["layers"]] == [False, True, False]
    assert experts[1, 2, 0] == 5 and film["choices"] == CHOICES and not weights[2, :, 1].any()
    for layer, routing in enumerate(view.trace.routing):
        width = routing.experts.shape[-1]
        assert (experts[layer, :, :width] == routing.experts[0].numpy()).all()
        assert weights[layer, :, :width] / 1000 == pytest.approx(routing.weights[0].numpy(), abs=6e-4)
    saved = film_value(read_record(json.dumps(record_of(view, "A")).encode()), None)
    assert saved["packed"] == film["packed"] and saved["layers"][0]["off"] == [3]


def test_pictures_reports_and_records_of_several_experts(opened):
    for kind, begins in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        assert draw_grid(opened.view, kind, "Mixtral").startswith(begins)
    assert "Mixtral" in report_html(opened.view, "Mixtral")
    raw = json.dumps(record_of(opened.view, "Mixtral")).encode()
    again = read_record(raw)
    for one, other in zip(again.records, opened.view.records, strict=True):
        assert (one.experts == other.experts).all() and one.name == other.name
    assert traces_in(json.loads(raw))[0].top_k == CHOICES
