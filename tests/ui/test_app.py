"""The app without a browser: handlers as plain functions, the endpoints through gradio_client, the flags."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

import app
from switch_model import CheckpointError, Routing
from switch_model.analysis.layer_names import layer_title
from switch_model.plots.routing import router_probabilities
from tests.support.pages import LABELS, MAX_TOKENS, running_app, save_tiny_checkpoint
from tests.support.waits import PATIENCE
from ui.analyse.handlers import Analyst
from ui.cards.prediction import prediction_card
from ui.cards.routing import load_card, token_card
from ui.catalog.models import ModelShelf
from ui.catalog.samples import BUNDLED, DATASET_NAMES, Sample, SampleLibrary
from ui.components.failures import say_failures
from ui.components.grid_tokens import joined_tokens
from ui.components.routing_grid import grid_value
from ui.components.sample_table import rows_html
from ui.explore.handlers import Explorer, draw_probabilities, look
from ui.explore.samples import SamplePicker
from ui.explore.streaming import Writing
from ui.look.palette import CELL_INK, MAX_COLOURS, contrast, expert_colour
from ui.page import QUEUE_SECONDS, build_demo, launch_options
from ui.server.address import ask_oneself_directly, bind_error, host_name, in_url, without_proxy
from ui.server.workspace import Workspace

TEXT = "Oil prices rose as oil traders worried about oil. The team won the final."
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> ${alert(3)} {{7*7}} `C:\\users\\new`"


@pytest.fixture
def explorer(checkpoint, tmp_path):
    return Explorer(ModelShelf({"tiny": checkpoint}, "cpu"), SampleLibrary(str(tmp_path)))


# ---- routing a text ----


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
    view, _, notice, *_ = explorer.route("tiny", "oil " * 10_000, None)
    assert len(view.prediction.tokens) == MAX_TOKENS
    assert f"first {MAX_TOKENS} tokens" in notice


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


# ---- the closer look ----


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


# ---- samples and models ----


def test_bundled_samples():
    rows = SampleLibrary().rows(BUNDLED)
    assert Counter(row.label for row in rows) == dict.fromkeys([*LABELS, "positive", "negative"], 10)
    assert all(7 <= len(row.text.split()) <= 45 for row in rows)
    assert len({row.text for row in rows}) == 60


def test_a_random_sample_suits_the_model():
    library = SampleLibrary()
    assert {library.draw(BUNDLED, labels=["positive", "negative"]).label for _ in range(40)} == {"positive", "negative"}
    assert library.draw(BUNDLED, labels=["ham", "spam"]).label  # No such text: any will do.


def test_search_matches_text_and_label():
    library = SampleLibrary()
    assert library.search(BUNDLED, "").matching == 60
    assert {row.label for _, row in library.search(BUNDLED, "SPORTS").rows} == {"Sports"}
    found = library.search(BUNDLED, "oil norway")
    assert found.matching == 1 and library.pick(BUNDLED, found.rows[0][0]).label == "Business"
    assert "1 of 60 match" in rows_html(found)
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


# ---- the running app ----


@pytest.fixture(scope="module")
def client(checkpoint, tmp_path_factory):
    with running_app(checkpoint, tmp_path_factory.mktemp("none")) as address:
        yield connected(address)


def connected(address):
    return Client(address, verbose=False, httpx_kwargs={"timeout": PATIENCE})


def test_predict_endpoint(client, predictor):
    answer = client.predict(TEXT, api_name="/predict")
    expected = predictor(TEXT)
    assert answer["label"] == expected.label
    assert answer["scores"] == pytest.approx(expected.scores, abs=1e-6)


def test_trace_endpoint(client, predictor):
    records = [Routing.from_dict(values) for values in client.predict(TEXT, api_name="/trace")]
    for record, expected in zip(records, predictor(TEXT).routing, strict=True):
        assert record.name == expected.name
        assert torch.equal(record.expert, expected.expert) and torch.equal(record.slot, expected.slot)


@pytest.mark.parametrize("endpoint", ["/predict", "/trace"])
def test_endpoints_refuse_an_empty_text_in_words(client, endpoint):
    with pytest.raises(AppError, match="empty"):
        client.predict("  ", api_name=endpoint)


def test_only_two_endpoints_are_public(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/predict", "/trace"}


def test_page_starts_without_a_model(tmp_path):
    with running_app(None, tmp_path) as address, pytest.raises(AppError, match="no model yet"):
        connected(address).predict(TEXT, api_name="/predict")


def test_a_page_that_takes_long_to_draw_is_no_page_that_fails(checkpoint, tmp_path, monkeypatch):
    # What Gradio would ask of the page before it goes on, in vain on a busy machine.
    monkeypatch.setattr("gradio.networking.url_ok", lambda address: False)
    with running_app(checkpoint, tmp_path) as address:
        assert httpx.get(address, timeout=PATIENCE).is_success


# ---- what nobody expected ----


def test_every_exception_of_a_handler_is_words_in_its_card(checkpoint, tmp_path, monkeypatch, capsys):
    def fails(self, *given):
        raise KeyError("a library of another version")

    def fails_later(self, *given):
        yield "", None
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writing, "choose_model", fails)
    monkeypatch.setattr(Analyst, "run", fails_later)
    demo = build_demo(ModelShelf({"tiny": checkpoint}, "cpu"), Workspace(tmp_path))
    handlers = [event for event in demo.fns.values() if event.fn is not None]
    assert len(handlers) > 80 and all(hasattr(event.fn, "__wrapped__") for event in handlers)
    for name in ("fails", "fails_later"):
        for event in (event for event in handlers if event.fn.__name__ == name):
            answer = [*event.fn()][-1] if name == "fails_later" else event.fn()
            words = [part for part in answer if isinstance(part, str)]
            assert len(answer) == len(event.outputs) and len(words) == 1
            assert ("No space left" if name == "fails_later" else "KeyError") in words[0] and "alert" in words[0]
    assert "another version" in capsys.readouterr().err  # For who serves the page.


def test_an_exception_without_a_card_is_a_message_and_one_in_words_stays_as_it_is():
    def fails():
        raise MemoryError

    def refuses():
        raise gr.Error("Analyse a data set first.")

    with gr.Blocks() as demo:
        button, card, number = gr.Button(), gr.HTML("", visible=False), gr.Number()
        button.click(fails, None, [card, number])
        button.click(refuses, None, [gr.HTML("")])
    say_failures(demo)
    for event, said in zip(
        demo.fns.values(), ("more memory than there is", "^'Analyse a data set first.'"), strict=True
    ):
        with pytest.raises(gr.Error, match=said):
            event.fn()


# ---- app.py ----


def refusal(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        app.main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_bad_flags_get_one_clear_line(capsys, tmp_path):
    said = refusal(capsys, "--checkpoint", str(tmp_path))
    assert said.startswith("app.py: The checkpoint lacks config.json") and said.count("\n") == 1
    said = refusal(capsys, "--device", "quantum")
    assert said.startswith("app.py: --device quantum:") and said.count("\n") == 1
    assert "unrecognized arguments: --check" in refusal(capsys, "--check", "x")


def test_taken_port_is_named(capsys, checkpoint):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(capsys, "--checkpoint", str(checkpoint), "--port", str(port))
    assert f"port {port} is taken" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("nobody.invalid", "Write 127.0.0.1 for this machine alone"),
        ("a..b", "Write 127.0.0.1 for this machine alone"),
        ("203.0.113.1", "Write 127.0.0.1 for this machine alone"),
        ("127.0.0.1:80", "Write --host 127.0.0.1 --port 80"),
        ("http://localhost", "Write --host localhost"),
        ("http://[::1]:7860/", "Write --host [::1] --port 7860"),
    ],
)
def test_an_address_that_nobody_can_listen_on_is_named(host, remedy, capsys):
    said = refusal(capsys, "--host", host)
    assert said.startswith(f"app.py: can't listen on {host}: ") and remedy in said and said.count("\n") == 1


def test_hosts_and_what_is_excepted_from_a_proxy(monkeypatch):
    assert [in_url(host_name(text)) for text in ("[::1]", "::", " localhost ")] == ["[::1]", "[::]", "localhost"]
    monkeypatch.setenv("NO_PROXY", "example.org, 10.0.0.1")
    monkeypatch.setenv("no_proxy", "example.org,*.lan")
    with without_proxy():
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "*"
    assert os.environ["NO_PROXY"] == "example.org, 10.0.0.1"
    ask_oneself_directly("::")
    assert os.environ["NO_PROXY"] == "example.org,*.lan,10.0.0.1,127.0.0.1,localhost,::1,::"
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]


def test_sigterm_ends_it_cleanly_and_nothing_uploaded_stays(checkpoint, tmp_path):
    places = {"TMPDIR": tmp_path / "tmp", "GRADIO_TEMP_DIR": tmp_path / "gradio"}
    for folder in places.values():
        folder.mkdir()
    host = "::1" if bind_error("::1", None) is None else "127.0.0.1"
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        port = str(free.getsockname()[1])
    flags = ["--checkpoint", str(checkpoint), "--device", "cpu", "--port", port, "--runs_dir", str(tmp_path / "runs")]
    # Nobody answers there, and the last would need a package more: Gradio must ask neither for its own page.
    proxies = {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "fd00::/8"}
    running = subprocess.Popen(
        [sys.executable, "app.py", *flags, "--host", host],
        cwd=Path(app.__file__).parent,
        env=os.environ | proxies | {name: str(folder) for name, folder in places.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = next(iter(running.stdout))
        assert f"listens on http://{in_url(host)}:{port}/" in said
        # An open page, which waits for news, and a file.
        page = httpx.Client(base_url=f"http://{in_url(host)}:{port}", trust_env=False, timeout=PATIENCE)
        with page.stream("GET", "/gradio_api/heartbeat/me"):
            page.post("/gradio_api/upload", files={"files": ("mine.zip", b"mine")}).raise_for_status()
            assert list(places["TMPDIR"].rglob("checkpoints-*")) and list(places["GRADIO_TEMP_DIR"].rglob("mine.zip"))
            running.terminate()
            said = running.communicate(timeout=PATIENCE)[0]
    finally:
        running.kill()
    assert running.returncode == 0 and "Traceback" not in said
    left = {path.name for path in places["TMPDIR"].iterdir()}
    assert not {name for name in left if not name.startswith("torch")}, left  # torch keeps what it compiled.
    assert not [path for path in places["GRADIO_TEMP_DIR"].rglob("*") if path.is_file()]


def test_an_idle_app_does_not_look_for_events_all_the_time(checkpoint):
    demo = build_demo(ModelShelf.find(str(checkpoint), "cpu", checkpoint), Workspace(checkpoint / "runs"))
    demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **launch_options())
    try:
        assert demo._queue.sleep_when_free == QUEUE_SECONDS  # It outlives the launch.
    finally:
        demo.close()
