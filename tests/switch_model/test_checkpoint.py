"""Checkpoints: what goes in comes out, and what can't be trusted is refused with a reason."""

import json
import re
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from switch_model import (
    CheckpointError,
    Interventions,
    Predictor,
    SwitchForSequenceClassification,
    load_checkpoint,
    save_checkpoint,
)
from tests.support.pages import MAX_TOKENS, save_tiny_checkpoint


@pytest.fixture
def folder(tmp_path):
    return save_tiny_checkpoint(tmp_path / "tiny")


def test_saved_and_loaded_weights_are_bit_equal(folder, tmp_path):
    model, tokenizer = load_checkpoint(folder)
    again, _ = load_checkpoint(save_checkpoint(model, tokenizer, tmp_path / "again"))
    assert model.config.to_dict() == again.config.to_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    half, _ = load_checkpoint(save_checkpoint(model, tokenizer, tmp_path / "half", dtype=torch.float16))
    assert all(weight.dtype == torch.float32 for weight in half.state_dict().values())


def test_transformers_own_loading_works_too(folder, tmp_path):
    model, _ = load_checkpoint(folder)
    ids = torch.randint(20, (1, 8))
    model.save_pretrained(tmp_path / "theirs")
    for loaded in (
        SwitchForSequenceClassification.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "theirs"),
    ):
        torch.testing.assert_close(loaded.eval()(ids).logits, model(ids).logits)


def test_a_zip_of_the_folder_opens_and_leaves_nothing_behind(folder, tmp_path):
    archive = tmp_path / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as contents:
        for path in folder.iterdir():
            contents.write(path, f"tiny/{path.name}")
        contents.writestr("tiny/notes.txt", "not asked for")
    before = set(tmp_path.rglob("*"))
    model, _ = load_checkpoint(archive)
    assert torch.equal(model.shared.weight, load_checkpoint(folder)[0].shared.weight)
    assert set(tmp_path.rglob("*")) == before


def edit_json(path, **changes):
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | changes))


def tell_twice(path, key):
    text = path.read_text()
    path.write_text(re.sub(rf'("{key}": *)(\d+)', r"\g<1>\2, \g<1>\2", text, count=1))


def edit_header(path, change):
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = change(raw[8 : 8 + length])
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])


def add_nan(folder):
    weights = load_file(folder / "model.safetensors")
    weights["shared.weight"][0, 0] = float("nan")
    save_file(weights, folder / "model.safetensors")


HOSTILE = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "lacks model.safetensors"),
    "pickle instead": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "never opened: they can run code",
    ),
    "remote code": (lambda f: edit_json(f / "config.json", auto_map={"AutoModel": "evil.Model"}), "auto_map"),
    "private key": (lambda f: edit_json(f / "config.json", _attn_implementation_internal="evil"), "does not know"),
    "other model": (lambda f: edit_json(f / "config.json", model_type="bert"), "model_type='bert'"),
    "huge": (lambda f: edit_json(f / "config.json", num_layers=10**9), "above the limit"),
    "wide": (lambda f: edit_json(f / "config.json", d_ff=9_000_000, d_model=9_000_000), "parameters, above the limit"),
    "negative": (lambda f: edit_json(f / "config.json", d_model=-4), "d_model=-4"),
    "float": (lambda f: edit_json(f / "config.json", d_model=16.5), "d_model=16.5"),
    "labels": (lambda f: edit_json(f / "config.json", id2label={"7": "x"}), "id2label"),
    "other shape": (lambda f: edit_json(f / "config.json", d_ff=64), "has shape"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "told twice": (
        lambda f: tell_twice(f / "config.json", "num_experts"),
        "has the key 'num_experts' twice",
    ),
    "a word told twice": (lambda f: tell_twice(f / "tokenizer.json", "oil"), "tokenizer.json has the key 'oil' twice"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "JSON object"),
    "NaN": (add_nan, "NaN or infinite"),
    "pickled weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04evil." * 9),
        "not a safetensors file",
    ),
    "duplicate": (
        lambda f: edit_header(f / "model.safetensors", lambda h: h.replace(b'"shared.weight"', b'"classifier.bias"')),
        "twice",
    ),
    "truncated": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-8]),
        "can't be read",
    ),
    "regex": (
        lambda f: edit_json(
            f / "tokenizer.json",
            pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False},
        ),
        "pre_tokenizer 'Split' is not accepted",
    ),
    "regex behind a decoy": (
        lambda f: edit_json(
            f / "tokenizer.json",
            pre_tokenizer={
                "type": "Sequence",
                "normalizers": [{"type": "Lowercase"}],
                "pretokenizers": [{"type": "Split", "pattern": {"Regex": "(a+)+$"}}],
            },
        ),
        "'Split' is not accepted",
    ),
    "regex decoder": (
        lambda f: edit_json(f / "tokenizer.json", decoder={"type": "Replace", "pattern": {"Regex": "(a+)+$"}}),
        "regular expression",
    ),
    "number beyond": (
        lambda f: edit_json(
            f / "tokenizer.json",
            model=(model := json.loads((f / "tokenizer.json").read_text())["model"])
            | {"vocab": model["vocab"] | {"oil": 2**31}},
        ),
        "ids up to",
    ),
    "endless words": (
        lambda f: edit_json(
            f / "tokenizer.json",
            model=json.loads((f / "tokenizer.json").read_text())["model"] | {"max_input_chars_per_word": 10**9},
        ),
        "max_input_chars_per_word",
    ),
    "regex normalizer": (
        lambda f: edit_json(
            f / "tokenizer.json", normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
        ),
        "regular expression",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_cannot_be_trusted_is_refused_with_a_reason(folder, case):
    spoil, words = HOSTILE[case]
    spoil(folder)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(folder)


def test_nothing_there(tmp_path):
    (tmp_path / "no.zip").write_bytes(b"PK nonsense")
    for source, words in [
        (tmp_path / "no.zip", "not a valid checkpoint zip"),
        (tmp_path, "lacks config.json"),
        ("nobody/nothing", "neither a folder"),
    ]:
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(source)


def test_predictor_reads_a_text_as_it_stands(folder):
    predictor = Predictor.from_checkpoint(folder)
    text = "Oil prices ROSE 🎉 as <b>traders</b> worried"
    prediction = predictor(text)
    assert list(prediction.scores) == predictor.model.config.labels
    assert sum(prediction.scores.values()) == pytest.approx(1.0)
    assert prediction.scores[prediction.label] == max(prediction.scores.values())
    assert prediction.tokens[:3] == ["Oil", "prices", "ROSE"]
    assert [text[start:end] for start, end in prediction.offsets] == prediction.tokens
    assert "🎉" in prediction.tokens and prediction.unknown[prediction.tokens.index("🎉")]
    assert not prediction.truncated
    assert [record.name for record in prediction.routing] == ["encoder.1", "encoder.3"]
    assert all(record.expert.shape == (1, len(prediction.tokens)) for record in prediction.routing)


def test_predictor_in_a_batch_says_what_it_says_alone(folder):
    predictor = Predictor.from_checkpoint(folder)
    texts = ["oil", "the team won " * 5, "prices rose as traders worried about the winter"]
    for text, together in zip(texts, predictor.batch(texts), strict=True):
        alone = predictor(text)
        assert alone.scores == pytest.approx(together.scores, abs=1e-5)
        for one, other in zip(alone.routing, together.routing, strict=True):
            assert torch.equal(one.expert, other.expert) and torch.equal(one.dropped, other.dropped)
    assert predictor.batch([]) == []


def test_predictor_says_when_a_text_was_cut_and_refuses_one_without_tokens(folder):
    predictor = Predictor.from_checkpoint(folder)
    fits, cut = predictor("oil " * MAX_TOKENS), predictor("oil " * 10_000)
    assert not fits.truncated and len(fits.tokens) == MAX_TOKENS
    assert cut.truncated and len(cut.tokens) == MAX_TOKENS
    assert predictor("\ud800 oil").tokens[-1] == "oil"
    for empty in ("", " \n\t "):
        with pytest.raises(ValueError, match="empty"):
            predictor(empty)


def test_texts_of_unlike_length_take_passes_of_their_own_and_keep_order_and_changes(predictor, monkeypatch):
    texts = ["oil rose", "oil prices rose about oil", "the team won", "rose", "oil prices about the team"]
    changes = [Interventions(ablate={("encoder.1", expert)}) for expert in (0, 1, 2, 3, 0)]
    shapes = []
    predictor.tokenizer.backend_tokenizer.enable_padding()  # As `tokenizer(texts, padding=True)` leaves it.
    handle = predictor.model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    try:
        monkeypatch.setattr("switch_model.inference.batching.CPU_TOKENS", 16)
        found = predictor.batch(texts, changes)
        assert shapes == [(2, 2), (3, 5)]  # 4 and 15 tokens, and 2 for each pass: no other division costs less.
        together = [Interventions(capacity_factor=1.0, capacity_group="batch")] * 5
        shapes.clear()
        predictor.batch(texts, together)
        assert len(shapes) == 1  # The slots of all five texts are counted together.
    finally:
        handle.remove()
        predictor.tokenizer.backend_tokenizer.no_padding()
    for text, change, one in zip(texts, changes, found, strict=True):
        alone = predictor(text, change)
        assert one.scores == pytest.approx(alone.scores, abs=1e-6) and one.trace.tokens == alone.trace.tokens
        for together, by_itself in zip(one.routing, alone.routing, strict=True):
            assert torch.equal(together.expert, by_itself.expert)
