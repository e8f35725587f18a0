"""The app without a browser: its endpoints through gradio_client, failures in words, its flags, its end."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import gradio as gr
import httpx
import pytest
import torch
from gradio_client import Client
from gradio_client.exceptions import AppError

import app
from switch_model import Routing
from tests.support.pages import running_app
from tests.support.waits import PATIENCE
from ui.analyse.handlers import Analyst
from ui.catalog.models import ModelShelf
from ui.components.failures import say_failures
from ui.explore.streaming import Writing
from ui.page import build_demo
from ui.server.address import ask_oneself_directly, bind_error, host_name, in_url, without_proxy
from ui.server.workspace import Workspace

TEXT = "Oil prices rose as oil traders worried about oil. The team won the final."


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


def test_no_choice_and_nothing_that_follows_one_is_dropped_while_an_answer_is_on_its_way(client):
    events = [(event["targets"][0][1], event) for event in client.config["dependencies"] if event["targets"]]
    dropped = {kind for kind, event in events if event["trigger_mode"] == "once" and event["trigger_after"] is None}
    # Of these a second one makes no sense: of the others the last one counts, or each.
    assert dropped <= {"click", "upload", "tick", "load", "unload"}
    # Gradio answers the last one with the first one's data: these say where they differ.
    reading = {kind for kind, event in events if event["trigger_mode"] == "always_last"} & {"pick", "turn", "force"}
    assert not reading


def test_a_page_starts_without_a_model_and_however_long_it_takes_to_draw(tmp_path, monkeypatch):
    # What Gradio would ask of the page before it goes on, in vain on a busy machine.
    monkeypatch.setattr("gradio.networking.url_ok", lambda address: False)
    with running_app(None, tmp_path) as address:
        assert httpx.get(address, timeout=PATIENCE).is_success
        with pytest.raises(AppError, match="no model yet"):
            connected(address).predict(TEXT, api_name="/predict")


def test_every_exception_of_a_handler_is_words_in_its_card(checkpoint, tmp_path, monkeypatch, capsys):
    def fails(self, *given):
        raise KeyError("a library of another version")

    def fails_later(self, *given):
        yield "", None
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Writing, "on_choose_model", fails)
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
        assert next(running.stdout) == "Switch Explorer starts …\n"
        said = next(running.stdout)
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
