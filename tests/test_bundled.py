"""The model in assets/: small enough to ship, whole, and as good as its card says it is."""

import json
from pathlib import Path

import pytest

from switch_model import Predictor
from switch_model.checkpoint import read_training

ASSETS = Path(__file__).parent.parent / "assets"
FOLDERS = sorted(path.parent for path in ASSETS.glob("models/*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_bundled_model_is_small_and_its_card_says_what_was_measured(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000
    training = read_training(folder)
    measured, card = training["evaluation"], (folder / "README.md").read_text(encoding="utf-8")
    assert f"**{measured['accuracy']:.2%}**" in card and training["command"] in card
    for layer in measured["routing"]:
        assert min(layer["load"]) >= 0.02, f"an expert of {layer['layer']} is next to idle"


def test_the_news_model_knows_news():
    samples = json.loads((ASSETS / "samples.json").read_text(encoding="utf-8"))
    assert {sample["label"] for sample in samples} == {"World", "Sports", "Business", "Sci/Tech"} and len(samples) == 40
    predictions = Predictor.from_checkpoint(ASSETS / "models" / "ag_news", "cpu").batch([s["text"] for s in samples])
    right = sum(p.label == sample["label"] for p, sample in zip(predictions, samples, strict=True))
    # None of these texts was seen in training; each holds out what a person would call clear news of its class.
    assert right >= 36
