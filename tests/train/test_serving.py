"""Exported folders answer as the platforms call them, with their own code; bad requests are refused in words."""

import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import pytest
import yaml

from app import parse_arguments
from switch_model.export import onnx_graph
from switch_model.export.inference import input_fn, output_fn
from switch_model.export.service import Service
from switch_model.inference.decoding import Decoding
from switch_model.inference.factory import open_pipeline
from tests.support.pages import (
    save_tiny_checkpoint,
    save_tiny_mask_filler,
    save_tiny_storyteller,
    save_tiny_translator,
)
from tests.support.triton import Triton, read_config, served
from tests.support.waits import wait_until
from train.cli.main import main
from train.release.export import FORMATS

ROOT = Path(__file__).parents[2]
TEXTS = ["oil prices rose", "the team won about winter as traders worried"]
SAVE = {
    "classifier": save_tiny_checkpoint,
    "filler": save_tiny_mask_filler,
    "storyteller": save_tiny_storyteller,
    "translator": save_tiny_translator,
}
# As a platform calls each folder, in a process that knows no other switch_model: path, requests as JSON -> answers.
CALLS = {
    "endpoint": """
spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
handler = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handler)
answer = handler.EndpointHandler(folder)
""",
    "sagemaker": """
sys.path.insert(0, f"{folder}/code")
import inference
model = inference.model_fn(folder)
def answer(request):
    data = inference.input_fn(json.dumps(request).encode(), "application/json")
    return json.loads(inference.output_fn(inference.predict_fn(data, model), "application/json"))
""",
}


def called(format: str, folder, requests: list) -> list:
    code = (
        "import importlib.util, json, sys\nfolder, requests = sys.argv[1], json.loads(sys.argv[2])\n"
        f"{CALLS[format]}\nprint(json.dumps([answer(request) for request in requests]))\n"
        "assert sys.modules['switch_model'].__file__.startswith(folder)"
    )
    command = [sys.executable, "-I", "-c", code, str(folder), json.dumps(requests)]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def export(checkpoint, format: str, output) -> None:
    assert main(["export", "--checkpoint", str(checkpoint), "--format", format, "--output", str(output)]) == 0


@pytest.mark.parametrize(
    ("format", "kind"), [("endpoint", "storyteller"), ("endpoint", "classifier"), ("sagemaker", "translator")]
)
def test_a_folder_answers_as_its_platform_calls_it(format, kind, tmp_path):
    checkpoint = SAVE[kind](tmp_path / "model")
    export(checkpoint, format, tmp_path / "out")
    folder = tmp_path / "out"
    if format == "sagemaker":
        folder = tmp_path / "unpacked"
        with tarfile.open(tmp_path / "out/model.tar.gz") as tar:
            assert {(one.uid, one.uname) for one in tar} == {(0, "")}
            tar.extractall(folder, filter="data")
        assert {path.name for path in folder.iterdir()} == {one.name for one in (tmp_path / "out").iterdir()} - {
            "model.tar.gz"
        }
    requirements = (folder / ("code" if format == "sagemaker" else ".") / "requirements.txt").read_text()
    assert {"torch", "transformers", "tokenizers"} <= {line.partition(">")[0] for line in requirements.splitlines()}
    pipeline = open_pipeline(checkpoint)
    settings = {"parameters": {"max_new_tokens": 9}} if kind != "classifier" else {}
    alone, several = called(format, folder, [{"text": TEXTS[0], **settings}, {"inputs": TEXTS, **settings}])
    if kind == "classifier":
        own = [pipeline(text) for text in TEXTS]
        expected = [{"label": one.label, "scores": pytest.approx(one.scores, abs=1e-5)} for one in own]
    else:
        expected = [{"generated_text": pipeline(text, max_new_tokens=9).text} for text in TEXTS]
    assert several == expected and alone == expected[0]


def test_routing_and_blanks_are_in_the_answer(tmp_path):
    service = Service(save_tiny_mask_filler(tmp_path / "model"))
    answer = service.answer({"inputs": "oil ___ rose", "parameters": {"routing": True}})
    assert answer["text"].startswith("oil ") and len(answer["blanks"]) == 1
    assert [record["name"] for record in answer["routing"]] == [
        record.name for record in service.pipeline("oil ___ rose").routing
    ]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("oil", "Send an object"),
        ({}, "Send an object"),
        ({"inputs": "oil", "text": "oil"}, "Send an object"),
        ({"inputs": []}, "a text, or a list"),
        ({"inputs": ["oil", 3]}, "a text, or a list"),
        ({"inputs": ["oil"] * 257}, "257 texts"),
        ({"inputs": "oil", "parameters": [1]}, "must be an object"),
        ({"inputs": "oil", "parameters": {"beams": 2}}, "there is no beams"),
        ({"inputs": "oil", "parameters": {"num_beams": "2"}}, "must be a number"),
        ({"inputs": "oil", "parameters": {"num_beams": 200}}, "num_beams=200"),
        ({"inputs": "oil", "parameters": {"routing": 1}}, "true or false"),
    ],
)
def test_a_request_that_can_not_be_answered_is_refused_in_words(storyteller, request_, said):
    with pytest.raises(ValueError, match=said):
        storyteller.answer(request_)


@pytest.fixture(scope="module")
def storyteller(tmp_path_factory):
    return Service(save_tiny_storyteller(tmp_path_factory.mktemp("models") / "model"))


def test_bodies_and_content_types_of_sagemaker():
    assert input_fn(b"oil", "text/plain; charset=utf-8") == {"inputs": "oil"}
    assert json.loads(output_fn({"label": "a"}, "application/*, text/html", None)) == {"label": "a"}
    for body, kind in [(b"{", "application/json"), (b"a,b", "text/csv")]:
        with pytest.raises(ValueError, match=r"valid JSON|text/csv"):
            input_fn(body, kind)
    with pytest.raises(ValueError, match="image/png"):
        output_fn({}, "image/png")


def shipped(folder: Path):
    """(path, bytes) of every file of a folder, and of the archives in it."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix == ".gz" and tarfile.is_tarfile(path):
            with tarfile.open(path) as tar:
                yield from ((Path(one.name), tar.extractfile(one).read()) for one in tar if one.isfile())
        elif path.is_file() and "assets" not in path.parts:
            yield path, path.read_bytes()


@pytest.fixture(scope="module")
def leaking(own_run, tmp_path_factory):
    """A run's checkpoint among files and paths that stay at home."""
    checkpoint = shutil.copytree(own_run.best, tmp_path_factory.mktemp("leaking") / "model")
    for name in ("optimizer.pt", "training_args.bin", "scheduler.pt", ".env", "log.txt"):
        (checkpoint / name).write_text("hf_secret")
    training = json.loads((checkpoint / "training.json").read_text(encoding="utf-8"))
    training["arguments"]["init_from"] = f"{checkpoint.parent}/start"  # As earlier versions wrote it.
    (checkpoint / "training.json").write_text(json.dumps(training), encoding="utf-8")
    return checkpoint


@pytest.fixture
def one_graph(leaking, monkeypatch):
    """The checkpoint's graph is exported once: all formats have the same."""
    once, write = leaking.with_name("model.onnx"), onnx_graph.write_onnx

    def write_once(graph, path):
        if not once.is_file():
            write(graph, once)
        shutil.copyfile(once, path)

    monkeypatch.setattr(onnx_graph, "write_onnx", write_once)


# These two need packages that are not among the project's own.
INSTALLED = [one for one in FORMATS if one not in ("openvino", "torchao-int8") or find_spec(one.partition("-")[0])]


@pytest.mark.parametrize("format", INSTALLED)
def test_no_format_ships_paths_secrets_and_optimizer_files_or_takes_a_broken_checkpoint(
    format, leaking, one_graph, own_run, tmp_path, capsys
):
    export(leaking, format, tmp_path / "out")
    held = list(shipped(tmp_path / "out"))
    homes = (tmp_path, leaking.parent, own_run.folder.parent, sys.prefix, ROOT)
    strange = [b"hf_secret", b"site-packages/", *(str(path).encode() for path in homes)]
    assert len(held) > 5 and not [path for path, text in held if any(one in text for one in strange)]
    assert not [path for path, text in held if path.suffix == ".onnx" and b'.py"' in text]
    unwanted = {".pt", ".pth", ".pkl", ".pyc"} | (set() if format == "openvino" else {".bin"})
    assert not [path for path, _ in held if path.suffix in unwanted or path.name in (".env", "log.txt")]

    broken = shutil.copytree(leaking, tmp_path / "broken")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    capsys.readouterr()
    flags = ["--checkpoint", str(broken), "--format", format, "--output", str(tmp_path / "none")]
    assert main(["export", *flags]) == 2 and not (tmp_path / "none").exists()
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "model.safetensors" in said and said.count("\n") == 1


@pytest.fixture
def own_path(monkeypatch):
    """What an exported file adds to sys.path and to the loaded modules goes with the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "texts", raising=False)
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", None)
    yield
    sys.modules.pop("texts", None)


def test_a_repository_for_triton_batches_texts_and_answers_the_documented_client(tmp_path, own_path):
    checkpoint = save_tiny_checkpoint(tmp_path / "ag_news")
    export(checkpoint, "triton", tmp_path / "models")
    texts, graph = (read_config(tmp_path / "models" / name / "config.pbtxt") for name in ("ag_news", "ag_news-graph"))
    assert (texts.name, graph.name) == ("ag_news", "ag_news-graph")
    assert texts.HasField("dynamic_batching") and texts.max_batch_size == graph.max_batch_size > 1
    session = onnxruntime.InferenceSession(tmp_path / "models/ag_news-graph/1/model.onnx")
    assert [one.name for one in graph.input] == [one.name for one in session.get_inputs()]
    assert all(list(one.dims) == [-1] for one in graph.input)
    pipeline = open_pipeline(checkpoint)
    assert [(one.name, *one.dims) for one in graph.output] == [("logits", len(pipeline.model.config.labels))]

    triton = Triton(tmp_path / "models", "ag_news")
    answers = triton.ask({"TEXT": TEXTS[:1]}, {"TEXT": TEXTS[1:] + TEXTS[:1]}, {"TEXT": [" "]})
    own = [{"label": one.label, "scores": pytest.approx(one.scores, abs=1e-4)} for one in map(pipeline, TEXTS)]
    assert answers[:2] == [own[:1], [own[1], own[0]]] and "a text is empty" in answers[2]
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8")
    [client] = [code for code in re.findall(r"(?s)```python\n(.*?)```", page) if "/v2/models/" in code]
    with served(triton, "ag_news") as address:
        known: dict = {}
        exec(client.replace("http://127.0.0.1:8000", address), known)
    assert [one["label"] for one in known["answers"]] == [pipeline(text).label for text in known["texts"]]
    assert subprocess.run(["bash", "-n", tmp_path / "models/run_triton.sh"]).returncode == 0


def test_triton_writes_texts_of_like_parameters_in_one_pass(tmp_path, own_path):
    checkpoint = save_tiny_storyteller(tmp_path / "model")
    export(checkpoint, "triton", tmp_path / "models")
    assert "PARAMETERS" in {one.name for one in read_config(tmp_path / "models/model/config.pbtxt").input}
    short, wrong = [json.dumps({"max_new_tokens": 5})], ["{"]
    answers = Triton(tmp_path / "models", "model").ask(
        {"TEXT": TEXTS[:1], "PARAMETERS": short},
        {"TEXT": TEXTS[:1], "PARAMETERS": wrong},
        {"TEXT": TEXTS[1:], "PARAMETERS": short},
    )
    own = [[{"generated_text": open_pipeline(checkpoint)(text, max_new_tokens=5).text}] for text in TEXTS]
    assert [answers[0], answers[2]] == own and "Expecting" in answers[1]


@pytest.mark.parametrize("kind", ["storyteller", "translator"])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 3}])
def test_a_batch_writes_what_each_text_alone_gets(kind, settings, tmp_path):
    for position in ("relative", "learned"):
        folder = SAVE[kind](tmp_path / position, position=position, max_positions=24)
        generator = open_pipeline(folder)
        texts = ["Once", "Once upon a time there was a cat", "The weather"]
        alone = [generator(text, max_new_tokens=20, **settings) for text in texts]
        together = generator.batch(texts, Decoding(max_new_tokens=20, **settings))
        assert [one.text for one in together] == [one.text for one in alone]
        assert [one.answer.tokens for one in together] == [one.answer.tokens for one in alone]


def test_the_folder_of_a_space_starts_with_its_model(tmp_path):
    export(save_tiny_checkpoint(tmp_path / "model"), "space", tmp_path / "space")
    front = yaml.safe_load((tmp_path / "space/README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["app_file"] == "start.py" and front["sdk"] == "gradio" and front["title"] == "model"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "start.py", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        command, cwd=tmp_path / "space", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"{address}/config", timeout=60).status == 200
        except OSError:
            return False

    try:
        wait_until(answers, process)
        event = json.load(
            urllib.request.urlopen(
                urllib.request.Request(
                    f"{address}/gradio_api/call/predict",
                    json.dumps({"data": [TEXTS[0]]}).encode(),
                    {"Content-Type": "application/json"},
                )
            )
        )["event_id"]
        said = urllib.request.urlopen(f"{address}/gradio_api/call/predict/{event}").read().decode()
    finally:
        process.terminate()
        process.wait()
    [answer] = json.loads(re.search(r"event: complete\ndata: (.*)", said)[1])
    assert answer["label"] == open_pipeline(tmp_path / "model")(TEXTS[0]).label


def test_the_folder_of_an_image_holds_what_its_steps_name(tmp_path):
    export(save_tiny_checkpoint(tmp_path / "model"), "docker", tmp_path / "image")
    steps = (tmp_path / "image/Dockerfile").read_text(encoding="utf-8")
    [starts] = re.findall(r"(?m)^CMD (\[.*\])$", steps)
    program, script, *flags = json.loads(starts)
    options = parse_arguments(flags)
    assert program == "python" and (tmp_path / "image" / script).is_file()
    assert (options.host, options.port, options.public) == ("0.0.0.0", 7860, True)
    assert re.search(r"(?m)^USER 1000$", steps) and "HEALTHCHECK" in steps
    ignored = (tmp_path / "image/.dockerignore").read_text(encoding="utf-8").split()
    assert not set(ignored) & {"assets", "model", "switch_model", "start.py", "app.py", "requirements.txt"}
    [service] = yaml.safe_load((tmp_path / "image/compose.yaml").read_text(encoding="utf-8"))["services"].values()
    assert service["read_only"] and service["volumes"] == ["runs:/app/runs"]
