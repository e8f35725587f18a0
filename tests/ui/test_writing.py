"""Explore with models that write and models that fill blanks: handlers as plain functions."""

import csv
import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from switch_model import CheckpointError, Interventions
from switch_model.analysis.corpus import ENCODER_ALONE
from tests.support.pages import (
    running_app,
    save_tiny_checkpoint,
    save_tiny_mask_filler,
    save_tiny_storyteller,
    save_tiny_translator,
)
from train.evaluation.measured_rows import rows_of
from ui.analyse.atlas import measured
from ui.analyse.handlers import NO_SOURCES, Analyst, layer_view
from ui.cards.written import changed_words, writing_card
from ui.catalog.kinds import RESTORER, TRANSLATOR
from ui.catalog.models import ModelShelf
from ui.catalog.private_models import PrivateModels
from ui.catalog.samples import SampleLibrary
from ui.catalog.sandbox import examine
from ui.compare.tab import compare
from ui.explore.api import Endpoints
from ui.explore.details import look
from ui.explore.generation_settings import BEAMS, GREEDY, SAMPLE, decoding_of
from ui.explore.handlers import Explorer
from ui.explore.kind_layout import fitting_text
from ui.explore.samples import SamplePicker
from ui.explore.share_bar import keep, make_link
from ui.explore.streaming import Writing
from ui.models.page import model_page
from ui.server.workspace import Workspace
from ui.sharing.link import link_of
from ui.sharing.records import read_record
from ui.sharing.report import report_html
from ui.sharing.routing_csv import routing_csv

PROMPT = "Once upon a time"
HOSTILE = "<script>alert(1)</script> ${alert(3)} ___"
SETTINGS = (10, GREEDY, 1.0, 0, 1.0, 4, 0)
VISITOR = SimpleNamespace(session_hash="a")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    saves = {
        "classes": save_tiny_checkpoint,
        "hindi": save_tiny_translator,
        "stories": save_tiny_storyteller,
        "blanks": save_tiny_mask_filler,
    }
    return {name: save(folder / name) for name, save in saves.items()}


@pytest.fixture(scope="module")
def explorer(folders):
    return Explorer(ModelShelf(folders, "cpu"), SampleLibrary())


def written(explorer, model, text=PROMPT, view=None, settings=SETTINGS):
    """All that appears on the page while a text is written."""
    return list(Writing(explorer).write(model, text, view, *settings, VISITOR))


def test_the_text_appears_and_then_its_routes(explorer):
    for model, stacks in (("hindi", ["encoder", "decoder"]), ("stories", ["decoder"])):
        first, *_, last = written(explorer, model)
        assert "caret" in first.answer and first.stop["interactive"] is True
        view, card, grid, panel, token, load, stop = (
            getattr(last, name) for name in ("view", "answer", "grid", "panel", "token", "load", "stop")
        )
        assert view.answer.text == explorer.shelf.load(model).pipeline(PROMPT, max_new_tokens=10).text
        assert "10 tokens written" in card and stop["interactive"] is False
        assert (
            [trace.stack for trace in view.traces] == stacks == [title.split(":")[0].lower() for title in titles(grid)]
        )
        assert len(panel["layers"]) == len(grid["layers"]) == len(view.records)
        # Every token stands in the layers of its own stack alone.
        for layer, record in zip(grid["layers"], view.records, strict=True):
            there = [expert for expert in layer["expert"] if expert is not None]
            assert there == record.expert[0].tolist()
        assert "what might follow" in token and "decoder layer 0" in load
        json.dumps(grid)


def titles(grid):
    return [stack["title"] for stack in grid["stacks"]]


def test_look_counts_through_both_stacks(explorer):
    view = written(explorer, "hindi")[-1][0]
    reads, writes = (len(trace.tokens) for trace in view.traces)
    read, token, _ = look(view, 1, 1)
    assert (read.stack, read.token, read.layer) == (0, 1, 1) and "might follow" not in token
    wrote, token, _ = look(view, reads + 2, 3)
    assert (wrote.stack, wrote.token, wrote.layer) == (1, 2, 1) and wrote.place == (reads + 2, 3)
    _, share = view.answer.next_tokens[2][0]
    assert f"{share:.2f}" in token and "what might follow" in token
    far, *_ = look(view, 10**9, 10**9)
    assert (far.stack, far.token) == (1, writes - 1)


def test_a_click_while_a_text_is_written_is_where_its_view_looks(explorer):
    writing, view = Writing(explorer), written(explorer, "hindi")[-1][0]
    reads = len(view.traces[0].tokens)

    def click(token: int, layer: int) -> None:
        writing.look(view, token, layer, VISITOR)

    for text, kept in ((PROMPT, True), ("weather", False)):  # The other has no such token at that place.
        steps = writing.write("hindi", text, view, *SETTINGS, VISITOR)
        next(steps)
        click(1, 1)
        *_, last = steps
        assert ((last[0].stack, last[0].token, last[0].layer) == (0, 1, 1)) is kept
    steps = writing.rewrite(view, {"kind": "change", "off": [[4, 0]], "capacity": None}, VISITOR)
    next(steps)
    click(reads + 2, 3)
    *_, last = steps
    assert last[0].changed and last[0].place == (reads + 2, 3)


def test_experts_off_and_tokens_sent_elsewhere_write_another_text(explorer):
    view = written(explorer, "hindi")[-1][0]
    off = [[4, expert] for expert in range(4) if expert != 1]
    shown = explorer.intervene(view, {"kind": "change", "off": off, "capacity": None})
    changed, card, grid, panel = shown.view, shown.answer, shown.grid, shown.panel
    assert set(changed.records[4].expert[0].tolist()) == {1}
    assert "with your changes" in card and panel["layers"][4]["off"] == [1, 0, 1, 1]
    assert any(layer["before"] and any(layer["before"]) for layer in grid["layers"])
    assert explorer.intervene(changed, {"kind": "undo"})[0].answer is view.base
    # The next text is compared with what the model writes by itself.
    again = written(explorer, "hindi", "The weather is nice", changed)[-1][0]
    assert again.changes == changed.changes and again.base.text != "" and again.base is not again.answer
    place = view.answer.answer.written + 1
    here, *_ = look(view, len(view.answer.source.tokens) + place, 2)
    other = (int(here.trace.routing[0].expert[0, place]) + 1) % 4
    forced, *_ = explorer.intervene(here, {"kind": "force", "expert": other})
    assert int(forced.answer.answer.routing[0].expert[0, place]) == other
    assert "Let the router choose" in explorer.details.look_closer(forced).elsewhere
    assert explorer.intervene(forced, {"kind": "measure"})[0] == forced


def test_words_of_one_text_alone_are_marked():
    found = changed_words("She saw a red ball.\nIt was <b>big</b>.", "She saw a toy.\nIt was big.")
    for name, text in (("now", "She saw a red ball.\nIt was <b>big</b>."), ("before", "She saw a toy.\nIt was big.")):
        assert "".join(words for words, _ in found[name]) == text
    assert [words.strip() for words, new in found["now"] if new] == ["red ball.", "<b>big</b>."]
    assert [words.strip() for words, new in found["before"] if new] == ["toy.", "big."]
    assert changed_words("", "a b") == {"now": [], "before": [("a b", True)]}


def test_stop_ends_a_text_and_a_new_text_ends_the_one_before(explorer):
    writing = Writing(explorer)
    long = (200, *SETTINGS[1:])
    running = writing.write("stories", PROMPT, None, *long, VISITOR)
    next(running), next(running)
    writing.on_stop(VISITOR)
    assert list(running)[-1][0].answer.new_tokens < 200
    running = writing.write("stories", PROMPT, None, *long, VISITOR)
    next(running), next(running)
    assert list(writing.write("stories", "The weather", None, *SETTINGS, VISITOR))[-1][0].text == "The weather"
    assert not list(running), "it has nothing more to say"
    assert not writing._running


def test_a_change_writes_the_text_anew_in_steps(explorer):
    writing = Writing(explorer)
    view = written(explorer, "hindi")[-1][0]
    one, two = ({"kind": "change", "off": off, "capacity": None, "serial": 7} for off in ([[4, 0]], [[4, 0], [4, 1]]))
    first, *between, last = writing.rewrite(view, one, VISITOR)
    # The panel is answered at once, and the page keeps what it shows until the new text is whole.
    assert first.panel["layers"][4]["off"] == [1, 0, 0, 0] and first.panel["serial"] == 7 and first.view == gr.skip()
    assert between and all("caret" in step[1] for step in between)
    assert last[0].base is view.base and last[0].past == (Interventions(),) and "with your changes" in last[1]
    # A newer change goes on from the one on its way, and ends it.
    running = writing.rewrite(view, one, VISITOR)
    next(running)
    *_, last = writing.rewrite(view, two, VISITOR)
    assert not list(running) and len(last[0].past) == 2 and len(last[0].changes.ablate) == 2
    *_, back = writing.rewrite(last[0], {"kind": "reset"}, VISITOR)
    assert back[0].answer is view.base and not writing._running


def test_a_link_is_written_in_steps_too(explorer, changed):
    link = "#s=" + link_of(changed)
    _, *between, last = Writing(explorer).write("classes", "", None, *SETTINGS, VISITOR, link)
    assert between and "before" in between[-1][1]
    again = last[0]
    assert (again.model, again.text) == ("hindi", PROMPT)
    assert (again.answer.text, again.base.text) == (changed.answer.text, changed.base.text)
    assert (again.place, again.changes, again.decoding) == (changed.place, changed.changes, changed.decoding)


def test_settings_keep_within_what_the_page_allows():
    assert decoding_of(10**9, GREEDY, 1, 0, 1, 4, 0).max_new_tokens == 200
    assert decoding_of(5, BEAMS, 1, 0, 1, 10**6, 0).num_beams == 8
    drawn = decoding_of(5, SAMPLE, 0.7, 40, 0.9, 4, 3)
    assert (drawn.do_sample, drawn.temperature, drawn.top_k, drawn.top_p, drawn.seed) == (True, 0.7, 40, 0.9, 3)


def test_what_can_not_be_written_is_said(explorer):
    assert "Type the text" in written(explorer, "hindi", "  ")[-1][1]
    assert "temperature" in written(explorer, "stories", settings=(5, SAMPLE, 0, 0, 1.0, 4, 0))[-1][1]
    assert written(explorer, "stories", "")[-1][0].answer.new_tokens
    assert "There is no model" in written(explorer, "gone")[-1][1]


@pytest.mark.parametrize("model", ["hindi", "stories", "blanks"])
def test_hostile_text_is_escaped(explorer, model):
    shown = explorer.route(model, HOSTILE, None)
    view = shown.view
    cards = shown.answer + shown.notice + shown.token + shown.load
    assert view is not None and "<script" not in cards + explorer.details.look_closer(view).elsewhere
    assert "<script>alert" not in report_html(view, "<script>alert(2)</script>")


# ---- blanks ----


def test_blanks_get_candidates_before_and_after(explorer):
    shown = explorer.route("blanks", "Oil ___ rose", None)
    view, card, grid, panel, token = shown.view, shown.answer, shown.grid, shown.panel, shown.token
    best = view.answer.blanks[0].candidates[0][0]
    assert view.answer.text == f"Oil {best} rose" in card and "what fits here" in token
    assert len(panel["stops"]) > 1 and grid["tokens"] == ["Oil", "___", "rose"]
    off = {"kind": "change", "off": [[0, 0], [0, 1], [1, 2]], "capacity": "none"}
    changed, card, *_ = explorer.intervene(view, off)
    assert "changed-bars" in card and changed.answer.blanks[0].candidates != view.answer.blanks[0].candidates
    assert "write ___ where" in explorer.route("blanks", "Oil rose", None)[1]


# ---- pickers and the other tabs ----


def test_a_masked_model_and_an_encoder_read_a_data_set(explorer, tmp_path):
    analyst = Analyst(explorer.shelf, Workspace(tmp_path))
    (tmp_path / "stories.csv").write_text("text\n" + "Once upon a time there was a cat\nThe cat is nice\n" * 4, "utf-8")
    (*_, analysis), _ = zip(*analyst.run("blanks", "toy", str(tmp_path / "stories.csv"), "", 0), strict=True)
    pipeline = explorer.shelf.load("blanks").pipeline
    (first, *_), again = rows_of(analysis.corpus, pipeline), rows_of(analysis.corpus, pipeline)[0]
    hidden = first["labels"] >= 0
    assert hidden.any() and (first["input_ids"] == again["input_ids"]).all()
    read = [pipeline.read(text).ids for text in analysis.corpus.texts]
    assert first["input_ids"].where(~hidden, first["labels"]).tolist() in read
    assert NO_SOURCES in layer_view(analysis, analysis.corpus.layers[0]).words
    *_, table = measured(analyst, analysis)
    assert "effect (by chance)" in table and all(one.effect for one in analysis.atlas.entries)

    (*_, analysis), _ = zip(*analyst.run("hindi", "toy", None, "", 8), strict=True)
    assert {layer.partition(".")[0] for layer in analysis.corpus.layers} == {"encoder"}
    assert ENCODER_ALONE in analysis.note and analysis.atlas.entries
    assert "with their targets" in [*measured(analyst, analysis)][-1]


def test_pickers_name_the_kind_and_other_tabs_offer_classifiers(explorer):
    shelf = explorer.shelf
    assert shelf.choices() == [
        ("classes", "classes"),
        ("hindi · encoder-decoder", "hindi"),
        ("stories · causal LM", "stories"),
        ("blanks · masked LM", "blanks"),
    ]
    assert shelf.classifiers() == PrivateModels(shelf).classifiers(None) == [("classes", "classes")]
    assert "continues a text" in compare(shelf, "stories", PROMPT, "classes", "")[0]
    for model in ("hindi", "stories", "blanks"):
        facts, _, config = model_page(shelf, model)
        assert "kind" in facts and "num_experts" in config
    assert Endpoints(explorer.shelf).predict("oil")["label"]


def test_a_model_of_another_kind_changes_the_page(explorer):
    chosen = explorer.choose_model("stories", "", None, None)
    assert chosen.view is None and chosen.text["value"].startswith("Once upon") and chosen.begin
    assert chosen.generate["visible"] and chosen.settings["visible"]
    hidden = (chosen.run, chosen.samples, chosen.source, chosen.neighbours)
    assert not any(control["visible"] for control in hidden)
    chosen = explorer.choose_model("blanks", chosen.text["value"], None, None)
    assert chosen.view.answer.blanks and chosen.begin == gr.skip()
    kept = explorer.choose_model("classes", "my own words", None, None)
    assert "value" not in kept.text and kept.view.prediction.label and kept.run["value"] == "Run"


def test_a_model_that_restores_gaps_asks_for_them(tmp_path):
    folder = save_tiny_translator(tmp_path / "gaps", restores_gaps=True)
    shelf = ModelShelf({"gaps": folder}, "cpu")
    assert shelf.kind("gaps") is RESTORER and shelf.titled("gaps").endswith("span corruption")  # Before it is opened.
    box = Explorer(shelf, SampleLibrary()).choose_model("gaps", TRANSLATOR.example, None, None).text
    assert shelf.load("gaps").kind is RESTORER and "___" in box["placeholder"] and "___" in box["value"]
    for own in ("my ___ words", "my <extra_id_0> words"):
        assert fitting_text(RESTORER, own, None) == own
    assert fitting_text(RESTORER, "my own words", None) == "my own words"
    assert fitting_text(TRANSLATOR, RESTORER.example, None) == TRANSLATOR.example


def test_a_random_sample_suits_every_kind(explorer):
    for model in ("hindi", "stories"):
        # From whatever source the page still names; the text comes in steps of its own.
        drawn = SamplePicker(explorer).draw_sample(model, "bundled", "", None)
        text, sample = drawn.text, drawn.sample
        assert sample in explorer.library.rows(explorer.shelf.kind(model).samples) and text == sample.text
        assert drawn.view == drawn.answer == drawn.grid == gr.skip() and isinstance(drawn.begin, str)
        assert fitting_text(explorer.shelf.kind(model), text, sample) == text
    drawn = SamplePicker(explorer).draw_sample("blanks", "blanks", "", None)
    assert "___" in drawn.text and drawn.view.answer.blanks and drawn.begin == gr.skip()
    assert "10 samples" in SamplePicker(explorer).search_samples("stories", "imdb", "")


def test_what_went_wrong_stands_below_the_head_of_the_answer(explorer):
    assert "<h2>Filled in</h2>" in explorer.route("blanks", "no blank here", None)[1]
    assert "<h2>The model’s text</h2>" in explorer.route("stories", "", None)[1]


def test_a_long_beginning_leaves_the_written_text_in_sight():
    card = writing_card("word " * 400 + "the end of it", " and more", "writing …")
    assert "… word" in card and "the end of it</span> and more" in card and len(card) < 600


@pytest.mark.parametrize("kind", ["hindi", "stories", "blanks"])
def test_a_strangers_model_of_any_kind_opens(folders, kind, tmp_path):
    packed = shutil.make_archive(str(tmp_path / kind), "zip", folders[kind])
    (tmp_path / "out").mkdir()
    assert examine([Path(packed)], tmp_path / "out")["parameters"] > 0


def test_a_hub_name_is_said_not_to_be_reachable_where_that_is_the_reason(tmp_path):
    with pytest.raises(CheckpointError, match="me/model is not reachable: the Hugging Face Hub does not answer"):
        examine([], tmp_path, "me/model")


def test_a_model_without_a_head_is_refused_in_words(tmp_path):
    from switch_model import SwitchConfig, SwitchEncoderModel, load_checkpoint, save_checkpoint

    _, tokenizer = load_checkpoint(save_tiny_mask_filler(tmp_path / "tiny"), "cpu")
    config = SwitchConfig(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_heads=2, num_layers=1)
    save_checkpoint(SwitchEncoderModel(config), tokenizer, tmp_path / "bare")
    with pytest.raises(CheckpointError, match="without a head"):
        ModelShelf({"bare": tmp_path / "bare"}, "cpu").load("bare")


# ---- links, records, files ----


@pytest.fixture
def changed(explorer):
    view = written(explorer, "hindi", settings=(8, SAMPLE, 1.3, 20, 0.9, 4, 5))[-1][0]
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [[3, 1], [0, 2]], "capacity": 0.5})
    return look(view, len(view.answer.source.tokens) + 3, 3)[0]


def test_a_link_and_a_record_bring_back_what_was_written(explorer, changed):
    assert make_link(changed)[0]
    link = "#s=" + link_of(changed)
    opened = explorer.restore(link)
    assert (opened.text["value"], opened.model, opened.view, opened.begin) == (PROMPT, "hindi", None, link)
    raw = Path(keep(explorer, changed, "json")).read_bytes()
    saved = read_record(raw)
    assert (saved.answer.text, saved.place, saved.saved_from) == (changed.answer.text, changed.place, "hindi")
    assert saved.answer.next_tokens == changed.answer.next_tokens and saved.traces[1].tokens == changed.traces[1].tokens
    content = json.loads(raw)
    content["output"]["chances"] = content["output"]["chances"][:2]
    with pytest.raises(ValueError, match="not a record"):
        read_record(json.dumps(content).encode())


@pytest.mark.parametrize("model", ["stories", "blanks"])
def test_files_of_every_kind_can_be_made(explorer, model, tmp_path):
    view = explorer.route(model, "oil ___", None)[0]
    for kind in ("json", "html", "csv", "svg", "png"):
        assert Path(keep(explorer, view, kind)).read_bytes()
    file = tmp_path / "record.json"
    file.write_bytes(Path(keep(explorer, view, "json")).read_bytes())
    opened = explorer.open_record(str(file))
    assert opened.text == "oil ___" and opened.view.saved_from == model and "was saved" in opened.panel["said"]
    rows = list(csv.DictReader(io.StringIO(routing_csv(view))))
    assert len(rows) == sum(record.expert.numel() for record in view.records)


def test_the_page_opens_with_a_model_that_writes(folders, tmp_path):
    with running_app(folders["stories"], tmp_path) as address:
        assert address
