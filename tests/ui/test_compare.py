"""The Compare tab: alignment, agreement beside chance, and framed cells."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from switch_model.checkpoint import load_checkpoint, save_checkpoint
from switch_model.storage.archive import unzip
from tests.support.pages import save_tiny_checkpoint
from train.formatting import percent
from train.weights.pruned import without_experts
from ui.catalog.checkpoints import CheckpointShelf
from ui.catalog.models import ModelShelf
from ui.compare.checkpoints import Agreed, Agreement
from ui.compare.tab import aligned, compare
from ui.compare.traces import recorded
from ui.server.workspace import Workspace


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    first = save_tiny_checkpoint(folder / "first")
    return ModelShelf({"first": first, "six": save_tiny_checkpoint(folder / "six", num_experts=6)}, "cpu")


def test_shared_tokens_are_aligned_in_order():
    assert aligned(["Oil", "rose", "again"], ["the", "oil", "price", "rose"]) == [(0, 1), (1, 3)]
    assert aligned(["a"], ["b"]) == []


def test_a_text_beside_itself_agrees_and_another_is_framed_where_it_does_not(shelf):
    *_, said, first, second = compare(shelf, "first", "oil prices rose", "first", "")
    assert "(±0.0 points)" in said and said.count("100\u00a0%") == 2 and "3 and 3 tokens, of which 3" in said
    assert not any(any(layer["before"]) for layer in second["layers"]) and "otherwise" not in first
    one, two = (shelf.load("first").predictor(text) for text in ("oil prices rose", "the team won oil prices rose"))
    *_, second = compare(shelf, "first", "oil prices rose", "first", "the team won oil prices rose")
    for layer, here, there in zip(second["layers"], one.routing, two.routing, strict=True):
        for place in range(3):
            now = [int(there.expert[0, place + 3]), int(there.dropped[0, place + 3])]
            was = [int(here.expert[0, place]), int(here.dropped[0, place])]
            assert layer["before"][place + 3] == (None if now == was else was)
        assert layer["before"][:3] == [None] * 3


def test_models_of_other_shapes_are_shown_without_comparing_routes(shelf):
    *_, said, first, second = compare(shelf, "first", "oil prices rose", "six", "")
    assert "no common numbering" in said and "routed alike" not in said
    assert (first["experts"], second["experts"]) == (4, 6)
    assert "There is no model" in compare(shelf, "first", "oil", "gone", "")[0]
    assert "empty" in compare(shelf, "first", " ", "first", "")[0]


def test_two_models_on_many_texts_agree_beside_chance(shelf, tmp_path):
    (tmp_path / "some.csv").write_text("text\n" + "oil prices rose\nthe team won the winter alert\n" * 3)
    workspace = Workspace(tmp_path)
    handlers = Agreement(CheckpointShelf(shelf, workspace), workspace)
    *_, last = handlers.compare("first", "first", str(tmp_path / "some.csv"), 4)
    assert "4 texts" in last.said and "numbering" not in last.said and last.table.count("100\u00a0%") == 2
    assert len(last.positions["value"].data[0].y) == 2
    *_, last = handlers.compare("first", "gone", str(tmp_path / "some.csv"), 4)
    assert "There is no model" in last.said and not last.table


def test_a_smaller_model_compares_by_the_numbers_its_experts_had(shelf, tmp_path):
    rows = tmp_path / "some.csv"
    rows.write_text("text\n" + "oil prices rose\nthe team won the winter alert\n" * 3)
    model, tokenizer = load_checkpoint(shelf.folder("first"), "cpu")
    records = [shelf.load("first").predictor(text).routing[0] for text in rows.read_text().split("\n")[1:3]]
    loads = torch.cat([record.expert[record.mask] for record in records]).bincount(minlength=4) / sum(
        int(record.mask.sum()) for record in records
    )
    gone = next(expert for expert in range(3) if 0 < loads[expert] < 1)
    removed = {"encoder.1": [gone], "encoder.3": [0]}
    small = save_checkpoint(without_experts(model, removed), tokenizer, tmp_path / "small")
    (small / "pruning.json").write_text(json.dumps({"removed": removed}))
    (there := tmp_path / "there").mkdir()
    unzip(Path(shutil.make_archive(str(tmp_path / "packed"), "zip", small)), there)  # As an upload is.
    handlers = Agreement(
        CheckpointShelf(ModelShelf({"first": shelf.folder("first"), "small": there}, "cpu"), Workspace(tmp_path)),
        Workspace(tmp_path),
    )

    def compared() -> Agreed:
        return [*handlers.compare("small", "first", str(rows), 6)][-1]

    found = compared()
    assert percent(1 - float(loads[gone])) in found.table and f"layer 1: {gone}; layer 3: 0" in found.said
    *_, said, first, second = compare(handlers.shelf, "first", "the team won the winter alert", "small", "")
    assert f"layer 1: {gone}; layer 3: 0" in said and first["experts"] == second["experts"] == 4
    for place, expert in enumerate(first["layers"][0]["expert"]):
        now = second["layers"][0]["expert"][place]
        assert now != gone and (now == expert or expert == gone)
    for wrong in ({}, {"encoder.1": [9], "encoder.3": [0]}, {"encoder.1": 1}, {"encoder.1": [True]}):
        (there / "pruning.json").write_text(json.dumps({"removed": wrong}))
        assert "pruning.json" in compared().said and not compared().table
    (there / "pruning.json").unlink()
    assert "what prune made of it" in compared().said
    *_, said, _, _ = compare(handlers.shelf, "first", "oil prices", "small", "")
    assert "routes are not compared" in said and "routed alike" not in said


def test_a_trace_from_elsewhere_is_shown_and_a_broken_one_is_said_to_be(tmp_path):
    experts = np.array([[[5, 1], [3, 0]], [[2, 5], [0, 3]]])
    np.save(tmp_path / "one.npy", experts)
    np.save(tmp_path / "zeros.npy", np.zeros_like(experts))
    shown = recorded(str(tmp_path / "one.npy"), str(tmp_path / "one.npy"), 0, 0, 8, 0)
    assert shown.grid["matrix"]["k"] == 2 and shown.grid["experts"] == 8 and shown.grid["still"]
    assert "2 layers of 8 experts, 2 for each token" in shown.words and "100" in shown.agreement
    broken = recorded(str(tmp_path / "zeros.npy"), None, 0, 0, 0, 0)
    assert "every expert index is 0" in broken.words and broken.grid is None
