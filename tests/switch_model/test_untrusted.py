"""Checkpoints from strangers: mutated by the thousand and hand-made, none does more than raise CheckpointError.

FUZZ=100000 python -m pytest tests/switch_model/test_untrusted.py    as many mutations instead of 2,000
"""

import copy
import io
import json
import os
import random
import shutil
import stat
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from switch_model import CheckpointError, load_checkpoint
from switch_model.checkpoint import read_config
from switch_model.storage import safetensors_io
from switch_model.storage.archive import OPTIONAL_FILES, REQUIRED_FILES, unzip
from switch_model.storage.safetensors_io import read_header
from tests.support.pages import save_tiny_checkpoint
from ui.catalog.models import MAX_CARD, ModelShelf
from ui.catalog.private_models import MAX_OWN, PrivateModels
from ui.catalog.sandbox import examine
from ui.models.page import model_page

MUTATIONS = int(os.environ.get("FUZZ", "2000"))
# What a fuzzer puts where something sensible stood.
ODD = [None, True, -1, 0, 1, 2**31, 2**63, 10**30, -1e308, 1e-320, "", "x" * 5000, "\x00", "../../x", [], {}, [[]]]
ODD += [{"a": {"b": {}}}, [1] * 500, "NaN", "Infinity", 0.5, "auto_map", {"type": "Regex"}]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


def mutated_json(values, chance: random.Random):
    """A copy with one to three places changed, removed or added, at any depth."""
    values = json.loads(json.dumps(values))
    for _ in range(chance.randint(1, 3)):
        place, holders = values, []
        while isinstance(place, (dict, list)) and len(place):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            holders.append((place, chance.choice(keys)))
            place = place[holders[-1][1]]
        if not holders:
            break
        holder, key = chance.choice(holders)
        what = chance.random()
        if what < 0.6:
            holder[key] = copy.deepcopy(chance.choice(ODD))
        elif what < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[chance.choice(["auto_map", "_attn_implementation", "x", str(key) + "s"])] = copy.deepcopy(
                chance.choice(ODD)
            )
    return values


def mutated_bytes(raw: bytes, chance: random.Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        where = chance.randrange(len(changed))
        what = chance.random()
        if what < 0.5:
            changed[where] = chance.randrange(256)
        elif what < 0.75:
            del changed[where : where + chance.randint(1, 64)]
        else:
            changed[where:where] = chance.randbytes(chance.randint(1, 64))
        if not changed:
            break
    return bytes(changed)


def only_refuses(call) -> bool:
    """Whether it worked; anything but CheckpointError fails the test."""
    begun = time.process_time()  # Its own work, however busy the machine is.
    try:
        call()
        return True
    except CheckpointError as error:
        assert str(error) and len(str(error)) < 700
        return False
    finally:
        assert time.process_time() - begun < 10


def test_mutated_files_are_opened_or_refused_and_nothing_else(good, tmp_path):
    chance = random.Random(0)
    config, tokenizer = (json.loads((good / name).read_text()) for name in ("config.json", "tokenizer.json"))
    weights = (good / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", weights[:8])[0]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in good.iterdir():
            archive.write(path, f"tiny/{path.name}")
    folder, scratch = tmp_path / "mutated", tmp_path / "scratch"
    shutil.copytree(good, folder)
    scratch.mkdir()
    opened = 0
    for _ in range(MUTATIONS // 4):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(mutated_json(config, chance)))
        opened += only_refuses(lambda path=path: read_config(path))

        path = tmp_path / "model.safetensors"
        header = mutated_bytes(weights[: 8 + length], chance)
        path.write_bytes(header + weights[8 + length :])
        opened += only_refuses(lambda path=path: read_header(path))

        (folder / "tokenizer.json").write_text(json.dumps(mutated_json(tokenizer, chance)))
        opened += only_refuses(lambda: load_checkpoint(folder, "cpu"))

        path = tmp_path / "tiny.zip"
        path.write_bytes(mutated_bytes(packed.getvalue(), chance))
        opened += only_refuses(lambda path=path: unzip(path, scratch))
    # Were all refused, the mutations would not have come past the first check.
    assert MUTATIONS // 50 < opened < MUTATIONS
    known = {*REQUIRED_FILES, *OPTIONAL_FILES}
    assert {path.name for path in scratch.iterdir()} <= known
    assert {path.name for path in tmp_path.iterdir()} <= {*known, "mutated", "scratch", "tiny.zip"}


def zipped(tmp_path: Path, good: Path, **extra: bytes) -> Path:
    target = tmp_path / "model.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in good.iterdir():
            archive.write(path, f"tiny/{path.name}")
        for name, content in extra.items():
            archive.writestr(name, content)
    return target


def link(tmp_path: Path, good: Path) -> Path:
    target = zipped(tmp_path, good)
    with zipfile.ZipFile(target, "a") as archive:
        member = zipfile.ZipInfo("README.txt")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return target


HOSTILE_ZIPS = {
    "up": (lambda t, g: zipped(t, g, **{"../../evil.txt": b"no"}), "leads out of its folder"),
    "absolute": (lambda t, g: zipped(t, g, **{"/etc/evil": b"no"}), "leads out of its folder"),
    "drive": (lambda t, g: zipped(t, g, **{"C:\\evil": b"no"}), "leads out of its folder"),
    "bomb": (lambda t, g: zipped(t, g, **{"zeros": bytes(60_000_000)}), "times its size"),
    "many": (lambda t, g: zipped(t, g, **{f"f{index}": b"" for index in range(1001)}), "at most 1,000"),
    "link": (link, "a link"),
    # Too small a ratio for a bomb, and none of them is read before it lies on the disk.
    "card": (lambda t, g: zipped(t, g, **{"README.md": bytes(1_000_001)}), "README.md is larger than 1 MB"),
    "training": (lambda t, g: zipped(t, g, **{"training.json": bytes(1_000_001)}), "larger than 1 MB"),
    "words": (lambda t, g: zipped(t, g, **{"target_tokenizer.json": os.urandom(20_000_001)}), "larger than 20 MB"),
}


@pytest.mark.parametrize("case", HOSTILE_ZIPS)
def test_hostile_zips_are_refused_before_anything_is_unpacked(good, tmp_path, case):
    make, words = HOSTILE_ZIPS[case]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(CheckpointError, match=words):
        unzip(make(tmp_path, good), scratch)
    assert not list(scratch.iterdir())


def test_a_header_of_a_million_tensors_is_refused_unread(good, tmp_path, monkeypatch):
    header = json.dumps({f"t{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for index in range(10**5)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    monkeypatch.setattr(safetensors_io, "parse_json", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CheckpointError, match="too large"):
        read_header(path)


def test_a_child_opens_what_is_good_and_names_what_is_not(good, tmp_path):
    for index, uploaded in enumerate(([zipped(tmp_path, good)], sorted(good.iterdir()))):
        folder = tmp_path / f"opened-{index}"
        folder.mkdir()
        assert examine(uploaded, folder)["parameters"] > 0
        assert (folder / "model.safetensors").is_file()
    folder = tmp_path / "refused"
    folder.mkdir()
    for name, content, words in [
        ("old.pt", b"\x80\x04evil.", "never is opened here"),
        ("model.zip", b"PK nonsense", "not a valid checkpoint zip"),
        ("notes.txt", b"", "not a file of a checkpoint"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=words):
            examine([tmp_path / name], folder)
        assert not list(folder.iterdir())
    renamed = tmp_path / "model.safetensors"
    renamed.write_bytes(b"\x80\x04evil." * 9)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        examine([renamed, good / "config.json", good / "tokenizer.json"], folder)
    (tmp_path / "README.md").write_bytes(bytes(1_000_001))
    with pytest.raises(CheckpointError, match=r"README\.md is larger than 1 MB"):
        examine([tmp_path / "README.md", *good.iterdir()], folder)
    assert not list(folder.iterdir())
    with pytest.raises(CheckpointError, match="Nothing was uploaded"):
        examine([], folder)


def test_a_child_that_works_or_waits_too_long_is_given_up(good, tmp_path, monkeypatch):
    # What the checks let through is bounded all the same: so little is too little even for a good one.
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.setattr("train.bounded_process.LOOK_SECONDS", 0.0)
    for bound, words in (("WORK_SECONDS", "0.001 seconds of work"), ("SECONDS", "more than 0.001 seconds,")):
        with monkeypatch.context() as little, pytest.raises(CheckpointError, match=words):
            little.setattr(f"ui.catalog.sandbox.{bound}", 0.001)
            examine([zipped(tmp_path, good)], folder)
        assert not list(folder.iterdir())


def test_a_visitors_model_is_theirs_alone_and_goes_with_them(good, tmp_path):
    shelf = ModelShelf({"tiny": good}, "cpu")
    private = PrivateModels(shelf)
    key, said = private.receive([str(zipped(tmp_path, good))], "", "me")
    assert "for you alone" in said and (("model (yours)", key) in private.choices("me"))
    assert private.choices("you") == [("tiny", "tiny")] == shelf.choices()
    assert shelf.load(key).predictor("oil prices").label
    facts, _, config = model_page(shelf, key)
    assert "WordPiece" in facts and json.loads(config)["num_experts"] == 4
    for _ in range(MAX_OWN - 1):
        private.receive([str(tmp_path / "model.zip")], "", "me")
    assert "You have" in private.receive([str(tmp_path / "model.zip")], "", "me")[1]
    folder, (_, _, other) = shelf.folder(key), private._own["me"]
    private.remove("you", key)
    assert shelf.load(key) and private.owns("me", key) and not private.owns("you", key)
    removed = shelf.folder(other)
    assert "is removed" in private.remove("me", other) and not removed.exists()
    assert private.offer("me", other)["value"] == "tiny" and private.offer("me", key)["value"] == key
    private.forget("me")
    assert not folder.exists() and private.choices("me") == shelf.choices()
    with pytest.raises(CheckpointError, match="There is no model"):
        shelf.load(key)


def test_a_strangers_card_can_not_show_pictures_or_markup(good, tmp_path):
    (tmp_path / "model").mkdir()
    for path in good.iterdir():
        shutil.copy(path, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: x\n---\n# Mine\n![x](http://evil/y.png) <img src=x>")
    shelf = ModelShelf({}, "cpu")
    card = shelf.card(shelf.add_private(tmp_path / "model", "mine"))
    assert card.startswith("# Mine") and "![" not in card and "<img" not in card


def test_of_a_long_card_no_more_is_read_than_shown(good, tmp_path):
    folder = shutil.copytree(good, tmp_path / "model")
    (folder / "README.md").write_text("é" * 60_000_000, encoding="utf-8")
    shelf = ModelShelf({"mine": folder}, "cpu")
    tracemalloc.start()
    try:
        assert len(shelf.card("mine")) == MAX_CARD
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
