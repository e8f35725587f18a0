"""The Analyse tab's handlers and `python -m train analyze`: a file in, measures, tables, cards and texts out."""

import json
import math
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gradio as gr
import pyarrow.parquet as pq
import pytest

from switch_model import Predictor, load_checkpoint
from switch_model.analysis.atlas import expert_atlas
from switch_model.analysis.corpus import route_corpus
from tests.support.pages import save_tiny_storyteller
from train.analysis.analyze import atlas_of, rows_to_analyze
from train.analysis.atlas import atlas_html
from train.analysis.report import report_html
from train.cli.main import main
from train.data.errors import Unreachable
from train.data.source import DataSource
from train.evaluation.measured_rows import rows_of
from train.evaluation.reliance import html, known, measured
from ui.analyse import atlas
from ui.analyse.handlers import Analysis, Analyst, cell_texts, layer_view, search, summary, tables
from ui.analyse.opening import Asked, Opening
from ui.catalog.models import ModelShelf
from ui.catalog.reach import DataReach, _Hub
from ui.server.limits import VisitorLimits
from ui.server.workspace import Workspace

ROWS = [
    ("Oil prices rose as traders worried", "Business"),
    ("The team won <b>again</b>", "Sports"),
    ("The winter alert worried the team", "World"),
    ("Oil, oil and more oil", "Business"),
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "news.csv"
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS * 3), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def analyst(checkpoint, tmp_path_factory):
    return Analyst(ModelShelf({"tiny": checkpoint}, "cpu"), Workspace(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def analysis(analyst, table):
    return [*analyst.run("tiny", "toy", str(table), "", 0)][-1][0]


def test_a_table_is_analysed_and_summed_up(analyst, analysis, table):
    assert len(analysis.corpus.texts) == 12 and analysis.corpus.labelled
    facts, layers, loads, _, may_drop, picker, sought, experts, matrix, shown = summary(analysis)
    assert "12 texts" in facts and "tiny on news.csv" in facts and "layer 1" in layers and shown["visible"]
    assert loads.data[0].z.shape == (2, 4) and [value for _, value in picker["choices"]] == ["encoder.1", "encoder.3"]
    assert matrix.count("data-true") == 16 and sought == picker and len(experts["choices"]) == 5
    told, lifts, *_ = layer_view(analysis, picker["value"])
    above = {name: one.value - one.chance for name, one in analysis.told.items()}
    assert picker["value"] == max(above, key=above.get)
    assert "shuffled" in told and "ayer" in told.rpartition("chance.")[2] and lifts.data[0].z.shape == (4, 4)
    assert "dropped" in layers and may_drop["visible"]
    few = [*analyst.run("tiny", "toy", str(table), "", 5)][-1][0]
    assert len(few.corpus.texts) == 5


def test_the_tab_opens_with_an_example_that_is_routed_once_for_all(analyst, toy_run):
    opening, asked = Opening(analyst), Asked()
    (example, _, shown), (again, *_) = [*opening.look(asked)][-1], [*opening.look(Asked())][-1]
    assert (example.model, asked.begun, shown) == ("tiny", True, "shown") and again is example
    assert len(example.corpus.texts) >= 60 and example.corpus.labelled
    looking, late = opening.look(other := Asked()), (gr.skip(),) * 3
    next(looking)
    other.begun = True  # Something else was asked for meanwhile.
    assert [*looking] == [*opening.look(asked)] == [late]
    other = Analyst(ModelShelf({"toy": toy_run.best}, "cpu"), analyst.workspace)  # Its classes are not those of news.
    assert [*Opening(other).look(Asked())][-1][0] == gr.skip()


def test_nothing_is_said_of_drops_where_no_expert_can_be_full(checkpoint, tmp_path):
    model, tokenizer = load_checkpoint(checkpoint, "cpu")
    model.config.eval_capacity_factor = math.inf
    predictor = Predictor(type(model)(model.config).eval(), tokenizer)
    analysis = Analysis(route_corpus(predictor, [text for text, _ in ROWS]), "free", "free", "")
    shown = summary(analysis)
    assert "dropped" not in shown.layers and shown.drops is None and not shown.may_drop["visible"]
    assert (
        "Dropped tokens"
        not in report_html(analysis.corpus, expert_atlas(analysis.corpus), "free", "").split("</script>")[-1]
    )


def test_search_and_matrix_lead_to_texts_and_escape_them(analysis):
    found = search(analysis, "encoder.1", -1, "OIL")
    assert found.count("data-row") == 6 and "<mark>" in found and "12 places in 6 texts, layer 1" in found
    assert "No text matches" in search(analysis, "encoder.1", 0, "zebra")
    team = search(analysis, "encoder.1", -1, "won")
    assert "<b>again" not in team and "&lt;b" in team
    corpus = analysis.corpus
    shown = cell_texts(analysis, int(corpus.true[0]), int(corpus.predicted[0]))
    assert 'data-row="0"' in shown
    assert cell_texts(analysis, 99, -1) == ""


def test_every_text_found_is_on_some_page(analysis, monkeypatch):
    monkeypatch.setattr("ui.analyse.handlers.PAGE_TEXTS", 4)
    pages = [search(analysis, "encoder.1", -1, "oil", page) for page in (0, 1, 99)]
    rows = [re.findall(r'data-row="(\d+)"', page) for page in pages]
    assert [len(found) for found in rows] == [4, 2, 2] and rows[1] == rows[2] and not set(rows[0]) & set(rows[1])
    assert "1–4 of 6" in pages[0] and 'data-page="1"' in pages[0] and "5–6 of 6" in pages[1]


def test_an_experts_card_is_cautious_and_measures_when_asked(analyst, analysis):
    plain, measured = (analyst.card(analysis, "encoder.1", 1, asked) for asked in (False, True))
    assert "Thin evidence" in plain and "without it" not in plain and "without it" in measured
    assert re.search(r"the class changes in [\d.]+\s% of 12 texts", measured)
    assert "random experts of the same load" in measured
    assert analyst.card(None, None, None, False) == ""


def test_the_atlas_measures_effects_and_opens_an_expert(analyst, analysis):
    assert "effect (by chance)" not in atlas.shown(Analysis(analysis.corpus, "tiny", "", ""))
    *steps, last = atlas.measured(analyst, analysis)
    assert "0 of 8 experts" in steps[0] and last.count("data-place") == 8 and "effect (by chance)" in last
    # The command line says the same.
    predictor = analyst.shelf.load("tiny").predictor
    assert atlas_html(atlas_of(predictor, analysis.corpus, 32), analysis.corpus, picks=True) == last
    layer, *view, card = atlas.opened(analyst, analysis, 6)
    assert layer["value"] == "encoder.3" and view[-1]["value"] == 2 and "Expert 2 of layer 3" in card
    assert len(Path(atlas.exported(analysis, "csv")).read_text().splitlines()) == 9
    assert atlas.shown(None) == "" and atlas.opened(analyst, analysis, 99)[-1] == gr.skip()


def test_a_model_that_writes_is_analysed_by_where_its_texts_come_from(table, tmp_path):
    writer = Analyst(ModelShelf({"writer": save_tiny_storyteller(tmp_path / "writer")}, "cpu"), Workspace(tmp_path))
    analysis = [*writer.run("writer", "toy", str(table), "", 0)][-1][0]
    corpus = analysis.corpus
    assert corpus.classes == ["Business", "Sports", "World"] and not corpus.classified and corpus.accuracy is None
    shown = summary(analysis)
    assert "12 texts" in shown.facts and "no class" in shown.matrix
    view = layer_view(analysis, corpus.layers[0])
    assert "the text’s source" in view.words and view.right_loads is None
    assert "log-probability of a token" in writer.card(analysis, corpus.layers[0], 0, True)
    assert search(analysis, corpus.layers[0], -1, "oil").count("data-row") == 6


def test_of_pairs_the_sources_are_analysed(analyst, tmp_path):
    (tmp_path / "pairs.csv").write_text(
        "src,tgt\n" + "".join(f"oil prices {row},bedi bada {row}\n" for row in range(30))
    )
    analysis = [*analyst.run("tiny", "toy", str(tmp_path / "pairs.csv"), "", 0)][-1][0]
    assert analysis.corpus.texts[3] == "oil prices 3" and "sources of pairs (column 'src')" in analysis.note


def test_the_page_measures_what_the_command_line_does(analyst, analysis):
    *steps, last = analyst.reliance(analysis)
    predictor = analyst.shelf.load("tiny").predictor
    found = known(measured(predictor.model, rows_of(analysis.corpus, predictor), 256))
    assert "texts of all passes" in steps[0] and last == html(found)
    assert [*analyst.reliance(None)] == []


def test_what_is_wrong_is_said(analyst, tmp_path):
    broken = tmp_path / "empty.csv"
    broken.write_text("", encoding="utf-8")
    *_, (analysis, said) = analyst.run("tiny", "toy", str(broken), "", 0)
    assert "is empty" in said and not hasattr(analysis, "corpus")
    *_, (_, said) = analyst.run("gone", "toy", None, "", 0)
    assert "There is no model" in said


def test_a_table_whose_columns_leave_a_doubt_is_read_by_its_longest_texts(analyst, tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("nr,kind,words\n" + "".join(f"a{n},k{n % 2},oil prices rose {n}\n" for n in range(60)))
    offered, texts, classes = analyst.take(str(path))
    assert offered["choices"][0] == ("odd.csv", offered["value"]) and texts["choices"] == ["nr", "kind", "words"]
    assert (texts["value"], classes["value"], texts["visible"]) == ("words", "kind", True)
    chosen = texts["value"], classes["value"]
    analysis = [*analyst.run("tiny", offered["value"], str(path), "", 0, *chosen)][-1][0]
    assert analysis.corpus.texts[0] == "oil prices rose 0"
    assert "Texts: words; classes: kind, chosen by content." in summary(analysis).facts
    other = [*analyst.run("tiny", offered["value"], str(path), "", 0, "nr", "")][-1][0]
    assert "Texts: nr; classes: none." in summary(other).facts
    *_, (_, said) = analyst.run("tiny", "toy", str(path), "", 0)
    assert "Column of texts" in said and "--" not in said
    assert [update["visible"] for update in analyst.leave("toy", str(path))[1:]] == [False, False]


@pytest.mark.parametrize("written", ['{"a": 1}', '[{"a": 1}, {"a": 2}]', '{"a": true}\n{"a": false}\n'])
def test_a_table_of_values_is_no_table_of_texts(analyst, tmp_path, written):
    path = tmp_path / "values.json"
    path.write_text(written, encoding="utf-8")
    _, texts, classes = analyst.take(str(path))
    *_, (analysis, said) = analyst.run("tiny", "toy", str(path), "", 0, texts["value"], classes["value"])
    assert not hasattr(analysis, "corpus") and "no texts, only values such as" in said and "one to a line" in said


def test_rows_that_are_left_out_are_counted(analyst, tmp_path):
    path = tmp_path / "gaps.csv"
    path.write_text('text,label\noil rose,a\n,a\n"  ",b\n\x01,b\nteam won,b\nno class,\n', encoding="utf-8")
    note = [*analyst.run("tiny", "toy", str(path), "", 0)][-1][0].note
    for said in ("2 empty rows left", "1 row without a class left", "1 text without a visible character left"):
        assert f"{said} out." in note


def test_what_can_not_be_reached_is_listed_last_and_said_without_flags(checkpoint, tmp_path, monkeypatch):
    page = Analyst(ModelShelf({"tiny": checkpoint}, "cpu"), Workspace(tmp_path, str(tmp_path)))
    offered = page.offer()
    assert [name for _, name in offered][:3] == ["mini_news", "mini_reviews", "toy"]
    assert all("not available here: it is not in the folder" in title for title, _ in offered[3:])
    for data_dir in (str(tmp_path), None):
        page = Analyst(page.shelf, Workspace(tmp_path, data_dir))
        *_, (_, said) = page.run("tiny", "imdb", None, "", 0)
        assert "imdb is not reachable" in said and not re.search(r"--\w|[A-Z]+_[A-Z]", said)
    # Online for all that is known here, until somebody has tried.
    monkeypatch.setattr("ui.catalog.reach._no_network", lambda: "")
    titles = {name: title for title, name in DataReach().choices(["sst2", "mini_news"])}
    assert titles["sst2"] == "sst2 · from the Hugging Face Hub" and next(iter(titles)) == "mini_news"
    reach = DataReach()
    reach.failed("sst2", Unreachable("no", "the Hugging Face Hub does not answer"))
    assert reach.choices(["sst2"])[0][0] == "sst2 · not available here: the Hugging Face Hub does not answer"


@pytest.mark.parametrize("status, reason", [(None, "the Hugging Face Hub does not answer"), (200, "")])
def test_a_hub_that_does_not_answer_is_known_before_anybody_tries(status, reason, monkeypatch):
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *said):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("ui.catalog.reach._no_network", lambda: "")
        monkeypatch.setattr("ui.catalog.reach.HUB", hub := _Hub())
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        hub.ask().join()
        assert DataReach().unreachable("sst2") == reason
        if status is not None:
            server.shutdown()


def test_a_public_page_takes_so_many_rows(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("ui.analyse.handlers.PUBLIC_ROWS", 7)
    public = Analyst(ModelShelf({"tiny": checkpoint}, "cpu"), Workspace(tmp_path, limits=VisitorLimits()))
    analysis = [*public.run("tiny", "toy", None, "", 0)][-1][0]
    assert len(analysis.corpus.texts) == 7 and "at most 7 rows" in analysis.note


def test_tables_hold_every_token(analysis):
    tokens, texts, _ = tables(analysis)
    read = pq.read_table(tokens)
    assert read.num_rows == len(analysis.corpus.token) and "encoder.3 expert" in read.column_names
    assert pq.read_table(texts).column("text").to_pylist() == analysis.corpus.texts


def test_classes_are_used_where_they_fit(checkpoint, tmp_path):
    labels = Predictor.from_checkpoint(checkpoint, "cpu").model.config.labels
    path = tmp_path / "other.csv"
    path.write_text("text,label\na film,pos\na bore,neg\n", encoding="utf-8")
    other = rows_to_analyze(labels, DataSource(str(path)))
    assert other.true == [-1, -1] and "does not know the classes neg, pos" in other.note
    path.write_text("text,label\na,Sports\nb,World\nc,Nonsense\nd,Sports\n", encoding="utf-8")
    mixed = rows_to_analyze(labels, DataSource(str(path)))
    assert mixed.true == [1, 0, -1, 1] and "class Nonsense: " in mixed.note and "1 of 4 rows" in mixed.note
    path.write_text("text,id\na film,1\na bore,2\n", encoding="utf-8")
    assert "no classes" in rows_to_analyze(labels, DataSource(str(path))).note


def test_the_command_line_writes_a_report_that_stands_alone(checkpoint, table, tmp_path, capsys):
    folder = tmp_path / "report"
    command = ["analyze", "--checkpoint", str(checkpoint), "--dataset", str(table), "--output", str(folder)]
    assert main([*command, "--importance", "2"]) == 0
    said = capsys.readouterr().out
    assert "12 texts" in said and "experts" in said.splitlines()[1]
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert "<b>again" not in report and "Expert 3 of layer 3" in report and "src=" not in report.split("</script>")[-1]
    metrics = json.loads((folder / "measures.json").read_text())
    assert metrics["reliance"]["rows"] == 12 and "Do the experts matter?" in report
    assert len(metrics["layers"]) == 2 and len(metrics["layers"][0]["experts"]) == 4
    assert metrics["layers"][0]["experts"][0]["importance"] is not None
    assert pq.read_table(folder / "tokens.parquet").num_rows == metrics["tokens"]
    assert main([*command[:3], "--dataset", "nowhere.csv", "--output", str(folder)]) == 2
