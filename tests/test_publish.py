"""Publishing, against a stand-in on this machine that speaks what the Hub's own client asks."""

import base64
import hashlib
import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from switch_model import load_checkpoint
from train.cli import main
from train.publish import PublishError, publish

TOKEN = "hf_good"
SAFE = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json", "README.md"}


class Hub(ThreadingHTTPServer):
    """Keeps what arrives: repositories by name, with their visibility and files."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict] = {}
        self.large: dict[str, bytes] = {}


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args):
        pass

    def _say(self, values: dict, status: int = 200, error: str | None = None) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        if self.path == "/api/whoami-v2":
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            self._say({"name": "me"} if known else {"error": "Invalid"}, 200 if known else 401)
        else:
            name = self.path.removeprefix("/api/models/")
            if name in self.server.repositories:
                self._say({"id": name, "private": self.server.repositories[name]["private"], "sha": "0" * 40})
            else:
                self._say({"error": "Repository not found"}, 404, "RepoNotFound")

    def do_PUT(self):
        self.server.large[self.path.removeprefix("/large/")] = self._body()
        self._say({})

    def do_POST(self):
        path, body = self.path, self._body()
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            if wanted["organization"] != "me":
                return self._say({"error": "You don't have the rights"}, 403)
            private = wanted.get("visibility") == "private" or wanted.get("private") is True
            self.server.repositories[name] = {"private": private, "files": {}}
            return self._say({"url": f"{self.server.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlicense:")
            return self._say({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._say({"files": files})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**item, "actions": {"upload": {"href": f"{self.server.url}/large/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return self._say({"transfer": "basic", "objects": objects})
        assert path.endswith("/commit/main"), path
        name = path.removeprefix("/api/models/").removesuffix("/commit/main")
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                self.server.repositories[name]["files"][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                self.server.repositories[name]["files"][value["path"]] = self.server.large[value["oid"]]
                assert hashlib.sha256(self.server.large[value["oid"]]).hexdigest() == value["oid"]
        self._say({"commitUrl": f"{self.server.url}/{name}/commit/0", "commitOid": "0" * 40})


@pytest.fixture
def hub(monkeypatch):
    server = Hub()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    # What HF_ENDPOINT, HF_HUB_OFFLINE and HF_HUB_DISABLE_XET set when the client is imported.
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def test_exactly_the_safe_files_arrive(hub, toy_run, capsys, tmp_path):
    assert main(["publish", "--run", str(toy_run.folder), "--repo_id", "me/my-model"]) == 0
    assert capsys.readouterr().out.strip() == f"{hub.url}/me/my-model"
    repository = hub.repositories["me/my-model"]
    assert repository["private"] and set(repository["files"]) == SAFE
    for name, content in repository["files"].items():
        assert content == (toy_run.best / name).read_bytes(), name
    # What others get is a checkpoint.
    for name, content in repository["files"].items():
        (tmp_path / name).write_bytes(content)
    load_checkpoint(tmp_path)

    # Again, into what is there; and not by mistake for all to see.
    assert publish(toy_run.best, "me/my-model") == f"{hub.url}/me/my-model"
    with pytest.raises(PublishError, match="already, and private"):
        publish(toy_run.best, "me/my-model", private=False)
    assert publish(toy_run.best, "me/shown", private=False)
    assert not hub.repositories["me/shown"]["private"]


def test_nothing_of_this_machine_and_no_pickle_goes_along(hub, toy_run, tmp_path):
    folder = tmp_path / "some where" / "model"
    shutil.copytree(toy_run.best, folder)
    for name in ("optimizer.pt", "log.txt", "training_args.bin", "trainer_state.json", "notes.md"):
        (folder / name).write_text(f"of {tmp_path}")
    training = json.loads((folder / "training.json").read_text())
    training["arguments"]["dataset"] = f"{tmp_path}/private/reviews.csv"
    training["command"] = (
        f"python -m train --dataset {tmp_path}/private/reviews.csv --tokenizer C:\\me\\words --lr 1e-3"
    )
    training["evaluation"] = {
        "checkpoint": f"{folder}",
        "dataset": "/private/reviews.csv",
        "per_class": [{"label": "a/b"}],
    }
    (folder / "training.json").write_text(json.dumps(training))
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(f"{card}\n{training['command']}\n{folder}\nhttps://example.org/a and/or b, 1/2\n")
    config = json.loads((folder / "config.json").read_text()) | {"_name_or_path": str(folder)}
    (folder / "config.json").write_text(json.dumps(config))
    publish(folder, "me/private-matters")
    files = hub.repositories["me/private-matters"]["files"]
    assert set(files) == SAFE
    for name, content in files.items():
        for word in (str(tmp_path), "C:\\me", "/private", str(Path.home()) + "/"):
            assert word.encode() not in content, (name, word)
    sent = json.loads(files["training.json"])
    assert sent["command"] == "python -m train --dataset reviews.csv --tokenizer words --lr 1e-3"
    assert sent["arguments"]["dataset"] == "reviews.csv" and sent["evaluation"]["per_class"] == [{"label": "a/b"}]
    assert "https://example.org/a and/or b, 1/2" in files["README.md"].decode()


def test_a_checkpoint_without_a_card_gets_one(hub, toy_run, tmp_path):
    folder = shutil.copytree(toy_run.best, tmp_path / "model")
    (folder / "README.md").unlink()
    publish(folder, "me/cards")
    assert hub.repositories["me/cards"]["files"]["README.md"] == (toy_run.best / "README.md").read_bytes()


def test_what_goes_wrong_is_said_in_a_line(hub, toy_run, tmp_path, monkeypatch, capsys):
    def refusal(run: Path = toy_run.folder, repo_id: str = "me/my-model") -> str:
        assert main(["publish", "--run", str(run), "--repo_id", repo_id]) == 2
        said = capsys.readouterr()
        assert not said.out and said.err.startswith("error: ") and len(said.err.splitlines()) == 1
        return said.err

    assert "no folder" in refusal(tmp_path / "nothing")
    assert "lacks config.json" in refusal(tmp_path)
    assert "write owner/name" in refusal(repo_id="my model")
    assert "write owner/name" in refusal(repo_id="my-model")
    assert "You have no right to write to you/my-model" in refusal(repo_id="you/my-model")
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "does not take this token" in refusal()
    monkeypatch.delenv("HF_TOKEN")
    assert "`hf auth login`, or set HF_TOKEN" in refusal()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # Nobody listens there.
    start = time.monotonic()
    assert "can't be reached" in refusal() and time.monotonic() - start < 15
    assert not hub.repositories
