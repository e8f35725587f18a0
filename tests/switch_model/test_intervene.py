"""Changing the routing in the Explore tab: switches, capacity, force, steps back, what matters. Handlers only."""

import math

import gradio as gr
import pytest

from switch_model import Interventions
from switch_model.counterfactuals import importance
from switch_model.plots.routing import router_heat_map, stacked_places
from ui.cards.flow import draw_flow
from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.explore.batch_neighbours import among, asked_about, compare, forget
from ui.explore.details import look
from ui.explore.handlers import Explorer
from ui.views.changes import words_of_changes

TEXT = "Oil prices rose as traders worried about the team."


@pytest.fixture(scope="module")
def explorer(checkpoint):
    return Explorer(ModelShelf({"tiny": checkpoint}, "cpu"), SampleLibrary())


def test_changes_are_what_the_predictor_says_of_them_and_can_be_taken_back(explorer, predictor):
    view, *_ = explorer.route("tiny", TEXT, None)
    view, *_ = look(view, 2, 1)
    asked = {"kind": "change", "off": [[0, 3], [1, 0]], "capacity": 0.25}
    changed, card, _, _, grid, panel, *_ = explorer.intervene(view, asked)
    expected = predictor(TEXT, Interventions({("encoder.1", 3), ("encoder.3", 0)}, capacity_factor=0.25))
    assert changed.prediction.scores == pytest.approx(expected.scores) and changed.base is view.base
    assert (changed.token, changed.layer) == (2, 1) and "with your changes" in card
    for layer, now, was in zip(grid["layers"], expected.routing, view.base.routing, strict=True):
        moved_T = (now.expert != was.expert) | (now.dropped != was.dropped)
        assert [before is not None for before in layer["before"]] == moved_T[0].tolist()
    assert panel["layers"][0]["off"] == [0, 0, 0, 1] and len(panel["said"]) == 3 and panel["undo"]

    forced, *_ = explorer.intervene(changed, {"kind": "force", "expert": 2})
    assert forced.prediction.routing[1].expert[0, 2] == 2 and forced.changes.ablate == changed.changes.ablate
    back, *_ = explorer.intervene(forced, {"kind": "undo"})
    assert back.changes == changed.changes and back.past == changed.past
    plain, card, _, _, grid, *_ = explorer.intervene(forced, {"kind": "reset"})
    assert plain.prediction is view.base and "with your changes" not in card
    assert all(layer["before"] is None for layer in grid["layers"])


def test_a_sliding_capacity_is_one_step_back(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    for index, factor in enumerate((2.0, 1.5, 0.5, "none")):
        asked = {"kind": "change", "off": [], "capacity": factor, "sliding": index > 0}
        view, *_ = explorer.intervene(view, asked)
    assert math.isinf(view.changes.capacity_factor) and view.past == (Interventions(),)
    assert not any(record.dropped.any() for record in view.prediction.routing)
    # A second slide, and a click that calls itself one, are steps of their own.
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [], "capacity": 2.0, "sliding": False})
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [[0, 1]], "capacity": 2.0, "sliding": True})
    assert [past.capacity_factor for past in view.past] == [None, math.inf, 2.0]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"kind": "change", "off": [[9, 9], "x", [0], None, [0, -1], [True, 0.5]], "capacity": "much"},
        {"kind": "change", "off": None, "capacity": -1},
        {"kind": "force", "expert": 10**9},
        {"kind": "undo"},
    ],
)
def test_wishes_that_make_no_sense_change_nothing(explorer, asked):
    view, *_ = explorer.route("tiny", TEXT, None)
    assert explorer.intervene(view, asked)[0].changes == Interventions()
    assert explorer.intervene(None, asked)[0] is None


def test_what_matters_is_measured_on_what_is_shown(explorer, predictor):
    view, *_ = explorer.route("tiny", TEXT, None)
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [[0, 3]], "capacity": None})
    measured, _, _, _, grid, panel, *_ = explorer.intervene(view, {"kind": "measure"})
    changes = importance(predictor, TEXT, view.changes)[2]
    assert panel["layers"][1]["matters"] == [round(1000 * change) for change in changes[1].tolist()]
    assert len(grid["matters"]) == len(view.prediction.tokens) and measured.changes == view.changes
    # Other changes, other measures.
    assert explorer.intervene(measured, {"kind": "reset"})[0].importance is None


def test_what_if_card_has_a_row_for_every_expert_that_is_on(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    # It is an offer until a person chooses a token, or takes it up.
    assert "data-ask" in explorer.details.look_closer(view).elsewhere
    view, card = explorer.details.ask(view)
    assert card.count("data-expert=") == 4 and explorer.details.look_closer(view).elsewhere == card
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [[0, 3]], "capacity": None})
    card = explorer.details.look_closer(look(view, 0, 0).view).elsewhere
    assert card.count("data-expert=") == 3 and 'data-expert="3"' not in card
    assert "run by a sparse model" in explorer.details.look_closer(None).elsewhere


def test_a_layer_without_an_expert_left_is_said_in_words(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    everything = [[0, expert] for expert in range(4)]
    slots = explorer.intervene(view, {"kind": "none"}).panel["slots"]
    asked = {"kind": "change", "off": everything, "capacity": None}
    view, _, _, _, grid, panel, token, _ = explorer.intervene(view, asked)
    assert panel["slots"] == slots > 0  # Those of the layers that are left.
    assert grid["layers"][0]["capacity"] == 0 and "Every expert of this layer is off" in token
    assert "Every expert of layer 1 is off" in explorer.details.ask(view)[1]
    # Nothing is shown as chosen: no bar, no dot, one phrase.
    assert '<div class="bar' not in token and words_of_changes(view) == ["all experts of layer 1 off"]
    assert not router_heat_map(view.records[0], view.prediction.tokens)["data"][1]["x"]
    said, flow, _ = draw_flow(view, opened=True)
    assert "All experts of layer 1 are off" in said and not flow.data[0].link.source


def test_who_comes_later_in_a_batch_finds_fewer_slots(predictor):
    drops = [
        sum(int(record.dropped.sum()) for record in among(predictor, TEXT, [TEXT], own_first)[1].routing)
        for own_first in (True, False)
    ]
    assert drops[0] == 0 and drops[1] > 0


def test_an_answer_on_neighbours_goes_when_the_view_moves_on(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    asked = asked_about(view)
    assert forget(look(view, 1, 1)[0], asked) == (gr.skip(),) * 4 and forget(view, None)[::2] == ("", None)
    for moved in (
        explorer.route("tiny", "The team won.", None, view)[0],
        explorer.intervene(view, {"kind": "change", "off": [[0, 3]], "capacity": None})[0],
        None,
    ):
        assert forget(moved, asked)[::2] == ("", None)


def test_what_neighbours_can_do_is_said_of_the_capacity_that_applies(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    assert "lose its place" in forget(view, None).hint
    dropless, *_ = explorer.intervene(view, {"kind": "change", "off": [], "capacity": "none"})
    assert "nothing is dropped" in forget(dropless, None).hint and "lose" not in forget(dropless, None).hint
    assert " drop" not in compare(explorer.shelf, dropless, "The team won.", "after the others")[0]


def test_what_is_switched_off_stays_off_for_the_next_text(explorer, predictor):
    view, *_ = explorer.route("tiny", TEXT, None)
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [[0, 3]], "capacity": 0.5})
    view, *_ = explorer.intervene(view, {"kind": "force", "expert": 1})
    after, *_ = explorer.route("tiny", "The team won.", None, view)
    kept = Interventions(ablate={("encoder.1", 3)}, capacity_factor=0.5)
    assert after.changes == kept and after.prediction.scores == pytest.approx(predictor("The team won.", kept).scores)
    assert not explorer.intervene(after, {"kind": "undo"})[0].changed


@pytest.mark.parametrize("columns", [[[30, 1, 4], [5] * 7], [[1] * 64, [64]], [[3], [2, 1]]])
def test_the_experts_of_a_flow_lie_apart_and_within_the_figure(columns):
    height = 200
    places, gap = stacked_places(columns, height)
    scale = min((height - gap * (len(counts) - 1)) / sum(counts) for counts in columns)
    for counts in columns:
        ends = []
        for count in counts:
            centre = height * places.pop(0)
            assert centre - scale * count / 2 >= (ends[-1] + gap if ends else 0) - 0.5
            ends.append(centre + scale * count / 2)
        assert ends[-1] <= height + 0.5
