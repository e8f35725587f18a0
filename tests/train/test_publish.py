"""Publishing and fetching, against a stand-in of the Hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from switch_model import load_checkpoint
from tests.support.hub import TOKEN, Hub
from tests.support.their_models import save_theirs
from train.cli.main import main
from train.data.errors import DataError
from train.data.loading import load_split
from train.data.source import DataSource
from train.release.publish import PublishError, publish

SAFE = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.json", "README.md"}


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
    with pytest.raises(PublishError, match="already exists and is private"):
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

    assert "not a folder" in refusal(tmp_path / "nothing")
    assert "lacks config.json" in refusal(tmp_path)
    assert "write owner/name" in refusal(repo_id="my model")
    assert "write owner/name" in refusal(repo_id="my-model")
    assert "You have no permission to write to you/my-model" in refusal(repo_id="you/my-model")
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "rejects this token" in refusal()
    monkeypatch.delenv("HF_TOKEN")
    assert "`hf auth login`, or set HF_TOKEN" in refusal()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # Nobody listens there.
    # At once: the client itself would sleep and try again, for minutes.
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it tried again"))
    assert "can't be reached" in refusal()
    assert not hub.repositories


@pytest.mark.parametrize(
    ("offline", "endpoint", "said"),
    [
        (True, None, "HF_HUB_OFFLINE is set, and it was not downloaded before"),
        (False, "http://127.0.0.1:9", "the Hugging Face Hub could not be reached. Is this machine online?"),
        (False, None, "the Hugging Face Hub has no such data set, or it is private"),
    ],
)
def test_a_data_set_that_the_hub_does_not_give_is_said_with_what_to_do(hub, monkeypatch, offline, endpoint, said):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint or hub.url)
    with pytest.raises(DataError) as refusal:
        load_split(DataSource("me/nothing", split="train"))
    assert str(refusal.value).startswith("me/nothing (train) could not be loaded: ") and said in str(refusal.value)
    assert "name a table as --dataset, such as my.csv" in str(refusal.value)


FETCH = """
from pathlib import Path
from switch_model import CheckpointError, load_checkpoint
from ui.catalog.sandbox import examine

for index, name in enumerate(("me/shown", "me/pickles", "me/heavy", "me/nothing")):
    folder = Path({folder!r}, str(index))
    folder.mkdir()
    try:
        print(examine([], folder, name)["parameters"], sorted(path.name for path in folder.iterdir() if path.is_file()))
    except CheckpointError as error:
        print(error)
print(load_checkpoint("me/shown")[0].num_parameters())
"""
REVISIONS = """
from pathlib import Path
from switch_model import CheckpointError, MaskFiller, Predictor, SwitchForConditionalGeneration, TextGenerator
from switch_model import load_checkpoint
from switch_model.inference.factory import open_pipeline
from train.cli.main import main
from ui.catalog.models import ModelShelf
from ui.catalog.sandbox import examine

def size(model):
    print("size", model.num_parameters())

scratch = Path({folder!r})
assert main(["import", "me/pickled", "--output_dir", str(scratch / "none")]) == 2
assert main(["import", "me/pickled", "--revision", "nope", "--output_dir", str(scratch / "none")]) == 2
assert main(["import", "me/alone", "--output_dir", str(scratch / "none")]) == 2
for words in (["me/pickled", "--revision", "refs/pr/5"], ["me/pickled@refs/pr/5"]):
    assert main(["import", *words, "--output_dir", str(scratch / "imported")]) == 0
size(SwitchForConditionalGeneration.from_switch_transformers("me/pickled", revision="refs/pr/5"))
size(load_checkpoint("me/shown")[0])
size(load_checkpoint("me/shown", revision="v2")[0])
size(Predictor.from_checkpoint("me/shown@v2").model)
size(open_pipeline("me/shown", revision="v2").model)
for kind in (TextGenerator, MaskFiller):
    try:
        kind.from_checkpoint("me/shown", revision="v3")
    except CheckpointError as error:
        print(error)
(scratch / "examined").mkdir()
print("size", examine([], scratch / "examined", "me/shown@v2")["parameters"])
shelf = ModelShelf.find("me/shown@v2", "cpu")
assert shelf.default == "shown", shelf.default
size(shelf.load("shown").pipeline.model)
asked = ["--checkpoint", "me/shown", "--revision", "v2"]
assert main(["predict", *asked, "oil prices"]) == 0
assert main(["predict", "--checkpoint", str(scratch / "imported"), "--revision", "v2", "oil"]) == 2
toy = ["--max_steps", "1", "--epochs", "1"]
assert main(["--init_from", "me/shown", "--revision", "v2", *toy, "--output_dir", str(scratch / "started")]) == 0
print("tokens", len(load_checkpoint(scratch / "started")[1]))
assert main(["--tokenizer", "me/shown@v2", *toy, "--output_dir", str(scratch / "run")]) == 0
print("tokens", len(load_checkpoint(scratch / "run")[1]))
assert main(["--tokenizer", "me/shown", "--revision", "v3", *toy, "--output_dir", str(scratch / "none")]) == 2
"""


def test_every_hub_id_takes_a_revision_and_pickles_are_pointed_past(hub, toy_run, checkpoint, tmp_path):
    publish(toy_run.best, "me/shown", private=False)
    shown = hub.repositories["me/shown"]
    files = shown["files"]
    unread = {"pytorch_model.bin": b"", "config.json": files["config.json"]}
    hub.repositories["me/pickles"] = {"private": False, "files": unread}
    hub.repositories["me/heavy"] = {"private": False, "files": files | {"training.json": bytes(1_000_001)}}
    files["modeling.py"] = b"raise SystemExit"
    shown["refs"] = {"v2": {path.name: path.read_bytes() for path in Path(checkpoint).iterdir()}}
    save_theirs(tmp_path / "theirs")
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    pickled = {name: content for name, content in theirs.items() if name != "model.safetensors"}
    pickled["pytorch_model.bin"] = b"never read"
    refs = {"refs/pr/3": pickled, "refs/pr/5": theirs}
    hub.repositories["me/pickled"] = {"private": False, "files": pickled, "refs": refs}
    hub.repositories["me/alone"] = {"private": False, "files": pickled}
    # One process for all: the client reads these when it is imported.
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    environment["HF_HUB_CACHE"] = str(tmp_path / "cache")
    script = (FETCH + REVISIONS).format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = (tmp_path / "imported", toy_run.best, checkpoint)
    ours, first, second = (load_checkpoint(folder)[0].num_parameters() for folder in folders)

    # What was published opens by its name, and nothing else is asked for.
    opened, unread, heavy, missing, loaded, *said = done.stdout.splitlines()
    assert loaded == str(first)
    assert opened.startswith(f"{first} ['README.md', 'config.json', 'model.safetensors'")
    assert heavy == "training.json is larger than 1 MB."
    assert "model.safetensors" in unread and "gave no checkpoint 'me/nothing'" in missing
    assert "modeling.py" not in hub.fetched and "pytorch_model.bin" not in hub.fetched

    # At each revision.
    sizes = [int(line.split()[1]) for line in said if line.startswith("size ")]
    assert sizes == [ours, first, second, second, second, second, second] and first != second
    assert said.count(f"tokens {len(load_checkpoint(checkpoint)[1])}") == 2
    assert sum(line.startswith("me/shown is on the Hugging Face Hub, but has no revision 'v3'") for line in said) == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "never opened" in errors[0] and "--revision refs/pr/5, or me/pickled@refs/pr/5" in errors[0]
    assert "has no revision 'nope'" in errors[1]
    assert "--revision refs/pr/N. google/switch-base-32" in errors[2] and "…" not in errors[2]
    assert "is a local path and has no revision 'v2'" in errors[3]
    assert "me/shown is on the Hugging Face Hub, but has no revision 'v3'" in errors[4]
