"""Explore without a browser: handlers as plain functions, cards, samples, the shelf of models."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from switch_model import CheckpointError, Routing
from switch_model.grid.layer_names import layer_title
from switch_model.grid.palette import CELL_INK, MAX_COLOURS, contrast, expert_colour
from switch_model.grid.plain import grid_value
from switch_model.grid.tokens import joined_tokens
from switch_model.plots.routing import router_probabilities
from tests.support.pages import LABELS, MAX_TOKENS, save_tiny_checkpoint
from train.cli.main import main
from ui.cards.prediction import prediction_card
from ui.cards.routing import load_card, token_card
from ui.catalog.models import ModelShelf
from ui.catalog.samples import BUNDLED, DATASET_NAMES, Sample, SampleLibrary
from ui.components.sample_table import rows_html
from ui.explore.details import draw_probabilities, look
from ui.explore.handlers import Explorer
from ui.explore.samples import SamplePicker

TEXT = "Oil prices rose as oil traders worried about oil. The team won the final."
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> ${alert(3)} {{7*7}} `C:\\users\\new`"


@pytest.fixture
def explorer(checkpoint, tmp_path):
    return Explorer(ModelShelf({"tiny": checkpoint}, "cpu"), SampleLibrary(str(tmp_path)))


def test_grid_shows_what_the_records_say(explorer, predictor):
    view, card, notice, _, grid, *_ = explorer.route("tiny", TEXT, None)
    expected = predictor(TEXT)
    assert [layer["title"] for layer in grid["layers"]] == ["layer 1", "layer 3"]
    for layer, record in zip(grid["layers"], expected.routing, strict=True):
        assert layer["expert"] == record.expert[0].tolist()
        assert layer["slot"] == record.slot[0].tolist()
        assert [bool(value) for value in layer["dropped"]] == record.dropped[0].tolist()
        assert torch.allclose(torch.tensor(layer["gate"]) / 1000, record.gate[0], atol=1e-3)
        assert layer["capacity"] == int(record.capacity)
    assert any(map(any, (layer["dropped"] for layer in grid["layers"]))), "the tiny model is made to drop tokens"
    assert grid["tokens"] == expected.tokens
    assert notice == ""
    assert expected.label in card and f"{len(expected.tokens)} tokens" in card
    assert view.prediction.scores == expected.scores


def test_unlimited_capacity_is_no_number(tmp_path):
    folder = save_tiny_checkpoint(tmp_path / "dropless", eval_capacity_factor=None)
    view, *_, token, load = Explorer(ModelShelf({"dropless": folder}, "cpu"), SampleLibrary()).route(
        "dropless", TEXT, None
    )
    assert {layer["capacity"] for layer in grid_value(view.trace, (0, 0))["layers"]} == {None}
    assert "no limit" in token and "no capacity limit" in load


def test_pieces_of_a_word_belong_together(predictor):
    prediction = predictor("oils won, 東京")
    assert prediction.tokens == ["oil", "s", "won", ",", "東", "京"]
    assert joined_tokens(prediction.trace) == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("text", ["", "  \n\t ", None])
def test_empty_text_says_what_to_do(explorer, text):
    shown = explorer.route("tiny", text, None)
    assert shown.view is None and shown.grid is None
    assert "Type a text" in shown.answer


@pytest.mark.parametrize("text", ["😀 🎉😀", "שלום עולם", "مرحبا", "\ud800", "\x00 a", HOSTILE, "$ { \\ ` }"])
def test_odd_text_is_routed(explorer, text):
    shown = explorer.route("tiny", text, None)
    json.dumps(shown.grid, ensure_ascii=False).encode("utf-8")  # It can be sent.
    assert shown.view is not None and len(shown.grid["tokens"]) == len(shown.grid["layers"][0]["expert"])
    cards = shown.answer + shown.token + shown.load
    assert "<script" not in cards and "<img" not in cards


def test_ten_thousand_words_are_cut_and_said_so(explorer):
    view, card, *_ = explorer.route("tiny", "oil " * 10_000, None)
    assert len(view.prediction.tokens) == MAX_TOKENS
    assert f"first {MAX_TOKENS} tokens" in card


def test_the_news_model_says_that_a_greeting_is_unlike_its_texts_and_nothing_of_the_samples(tmp_path, capsys):
    shelf = ModelShelf.find(device="cpu")
    explorer = Explorer(shelf, SampleLibrary(str(tmp_path)))
    assert "unlike the model&#39;s training texts (2 tokens, where" in explorer.route("ag_news", "Hi", None).answer
    loaded = shelf.load("ag_news")
    texts = [sample.text for sample in SampleLibrary().rows(BUNDLED) if sample.label in loaded.labels]
    assert texts and not any(map(loaded.unlike, texts))
    assert main(["predict", "--checkpoint", str(shelf.folder("ag_news")), "Hi", texts[0]]) == 0
    said = capsys.readouterr()
    assert "unlike" not in said.out and said.err.count("unlike the model's training texts") == 1 and "“Hi”" in said.err


def test_true_label_counts_while_the_text_is_the_samples(explorer, predictor):
    label = predictor(TEXT).label
    wrong = next(name for name in LABELS if name != label)
    assert "✓" in explorer.route("tiny", TEXT, Sample(TEXT, label))[1]
    assert "✗" in explorer.route("tiny", TEXT, Sample(TEXT, wrong))[1]
    assert "true label" not in explorer.route("tiny", TEXT + " Oil.", Sample(TEXT, label))[1]
    assert "not a class" in explorer.route("tiny", TEXT, Sample(TEXT, "neg"))[1]


def test_class_names_are_escaped(predictor):
    prediction = predictor(TEXT)
    hostile = type(prediction)(**vars(prediction) | {"scores": {"<b>x": 1.0}, "label": "<b>x"})
    assert "<b>x" not in prediction_card(hostile, "<b>x")


def test_look_keeps_the_prediction_and_bounds_what_a_browser_sends(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    moved, token, load = look(view, 2, 1)
    assert (moved.token, moved.layer, moved.prediction) == (2, 1, view.prediction)
    assert "rose" in token and "layer 3" in token and "layer 3" in load
    far, *_ = look(view, 10**9, -5)
    assert (far.token, far.layer) == (len(view.prediction.tokens) - 1, 0)
    assert look(None, 0, 0) == (None, "", "")


def test_layer_stays_chosen_for_the_next_text(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    view, *_ = look(view, 0, 1)
    assert explorer.route("tiny", "The team won.", None, view)[0].layer == 1


def table_record() -> Routing:
    """Four tokens, two experts, two slots each: the third token for expert 0 is dropped."""
    probs = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]])
    return Routing(
        name="encoder.1",
        logits=probs.log(),
        expert=torch.tensor([[0, 0, 0, 1]]),
        slot=torch.tensor([[0, 1, 2, 0]]),
        mask=torch.ones(1, 4, dtype=torch.bool),
        capacity=torch.tensor([2]),
    )


def test_cards_of_a_routing_table_written_by_hand(predictor):
    prediction = predictor("oil prices rose as")
    prediction = replace(prediction, trace=replace(prediction.trace, routing=(table_record(),)))
    grid = grid_value(prediction.trace, (2, 0))
    assert grid["layers"] == [
        {
            "title": "layer 1",
            "label": "layer 1",
            "capacity": 2,
            "expert": [0, 0, 0, 1],
            "gate": [900, 800, 700, 600],
            "slot": [0, 1, 2, 0],
            "dropped": [0, 0, 1, 0],
            "before": None,
        }
    ]
    assert "slot 2 of 2." in token_card(prediction, 1, 0)
    assert "position 3, 2 slots. Dropped" in token_card(prediction, 2, 0)
    assert "1 drop in 1 layer" in prediction_card(prediction, None)
    load = load_card(prediction, 0)
    assert "expert 0: 3 of 4 tokens, 1 dropped" in load and "even share 2.0" in load and "capacity 2" in load


def test_heat_map_holds_the_probabilities():
    record = table_record()
    figure = router_probabilities(record, ["<b>oil", "prices", "rose", "as"], selected=2)
    assert torch.allclose(torch.tensor(figure.data[0].z), record.probs[0].T, atol=1e-3)
    assert list(figure.data[1].y) == [0, 0, 0, 1]
    assert figure.layout.xaxis.ticktext[0] == "&lt;b&gt;oil"
    assert figure.layout.paper_bgcolor == "rgba(0,0,0,0)"
    with pytest.raises(ValueError, match="2 tokens"):
        router_probabilities(record, ["oil", "prices"])
    # Hebrew reads from the right, and so does its picture, punctuation in front or not.
    hebrew = router_probabilities(record, ["«", "מחירי", "הנפט", "oil"])
    assert hebrew.layout.xaxis.range[0] > hebrew.layout.xaxis.range[1]
    assert figure.layout.xaxis.range[0] < figure.layout.xaxis.range[1]


def test_heat_map_waits_for_a_text(explorer):
    assert draw_probabilities(None)[1] is None
    view, *_ = explorer.route("tiny", TEXT, None)
    title, figure = draw_probabilities(view)
    assert "layer 1" in title and figure is not None


def test_layer_titles():
    names = ("encoder.3", "decoder.0", "encoder.1.attention")
    assert [layer_title(name) for name in names] == ["layer 3", "decoder layer 0", "layer 1 attention"]


def test_bundled_samples():
    rows = SampleLibrary().rows(BUNDLED)
    counts = dict.fromkeys([*LABELS, "positive", "negative"], 10) | {"pos": 3, "neg": 3}
    assert Counter(row.label for row in rows) == counts and len({row.text for row in rows}) == 66
    assert all((7 <= len(row.text.split()) <= 45) != (row.label in ("pos", "neg")) for row in rows)


def test_a_random_sample_suits_the_model():
    library = SampleLibrary()
    assert {library.draw(BUNDLED, labels=["positive", "negative"]).label for _ in range(40)} == {"positive", "negative"}
    # IMDB's names for the two: long reviews, which its model knows.
    drawn = [library.draw(BUNDLED, labels=["neg", "pos"]) for _ in range(40)] + [library.first_of(["neg", "pos"])]
    assert {row.label for row in drawn} == {"neg", "pos"} and all(len(row.text.split()) > 70 for row in drawn)
    assert library.draw(BUNDLED, labels=["ham", "spam"]).label  # No such text: any will do.


def test_the_list_begins_with_samples_that_suit_the_model():
    library = SampleLibrary()
    rows = library.search(BUNDLED, "", ["positive", "negative"]).rows
    assert len(rows) == 66 and {row.label for _, row in rows[:20]} == {"positive", "negative"}
    assert all(library.pick(BUNDLED, index) == row for index, row in rows)


def test_search_matches_text_and_label():
    library = SampleLibrary()
    assert library.search(BUNDLED, "").matching == 66
    assert {row.label for _, row in library.search(BUNDLED, "SPORTS").rows} == {"Sports"}
    found = library.search(BUNDLED, "oil norway")
    assert found.matching == 1 and library.pick(BUNDLED, found.rows[0][0]).label == "Business"
    assert "1 of 66 match" in rows_html(found)
    assert "No sample matches" in rows_html(library.search(BUNDLED, "zzzz"))


def test_samples_of_a_data_set_are_read_and_escaped(explorer, tmp_path):
    from datasets import Dataset

    (tmp_path / "sst2").mkdir()
    Dataset.from_dict({"text": ["a fine <b>film</b>", "dull"], "label": [1, 0]}).to_parquet(
        str(tmp_path / "sst2" / "validation.parquet")
    )
    table = SamplePicker(explorer).search_samples("tiny", "sst2", "fine")
    assert "1 of 2 match" in table and "positive" in table and "&lt;b&gt;film" in table
    closed, text, sample, *_ = SamplePicker(explorer).pick_sample("tiny", "sst2", None, 0)
    assert (closed["visible"], text, sample.label) == (False, "a fine <b>film</b>", "positive")


def test_unreachable_data_set_says_what_to_do(explorer):
    table = SamplePicker(explorer).search_samples("tiny", "imdb", "")
    assert 'role="alert"' in table and "imdb is not reachable: it is not in the folder of data sets." in table
    titles = {name: title for title, name in explorer.library.choices()}
    assert "not available here" in titles["imdb"] and [*titles].index("imdb") > [*titles].index("mini_news") == 1
    # Random still gives a text.
    assert SamplePicker(explorer).draw_sample("tiny", "imdb", "", None).text


def test_random_sample_is_another_one(explorer):
    text = ""
    for _ in range(6):
        drawn = SamplePicker(explorer).draw_sample("tiny", BUNDLED, text, None).text
        assert drawn != text
        text = drawn


def test_source_names_are_data_sets():
    from train.data.source import DATASETS

    assert set(DATASET_NAMES) <= set(DATASETS)


def test_shelf_lists_folders_and_the_checkpoint_first(tmp_path, checkpoint):
    for name in ("b", "ag_news"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "no_model").mkdir()
    shelf = ModelShelf.find(str(checkpoint), "cpu", tmp_path)
    assert shelf.choices() == [("tiny", "tiny"), ("AG News", "ag_news"), ("b", "b")]
    assert shelf.load("tiny") is shelf.load("tiny")
    assert shelf.load("tiny").caption.startswith("tiny · 2 sparse layers · 4 experts · ")


def test_broken_or_missing_model_is_a_message(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    explorer = Explorer(ModelShelf.find(None, "cpu", tmp_path), SampleLibrary())
    assert "lacks model.safetensors" in explorer.route("broken", TEXT, None)[1]
    assert explorer.caption("broken") == ""
    with pytest.raises(CheckpointError, match="no model 'other'"):
        explorer.shelf.load("other")
    empty = Explorer(ModelShelf({}), SampleLibrary())
    assert "python -m train" in empty.route(empty.shelf.default, TEXT, None)[1]


def test_cells_are_readable():
    colours = [expert_colour(expert) for expert in range(MAX_COLOURS)]
    assert min(contrast(colour, CELL_INK) for colour in colours) >= 4.5
    assert len(set(colours[:64])) == 64


def test_a_model_of_vectors_says_that_it_takes_no_texts(tmp_path):
    folder = save_tiny_checkpoint(tmp_path / "vectors", inputs_embeds_size=5)
    found = Explorer(ModelShelf({"vectors": folder}, "cpu"), SampleLibrary()).route("vectors", TEXT, None)
    assert found[0] is None and "takes vectors of numbers, not texts" in found[1]
