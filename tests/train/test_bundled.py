"""The models in assets/ and the data sets in train/data/bundled/: small enough to ship, whole, and as good as they are
said to be."""

import json
from pathlib import Path

import pytest

from switch_model import Predictor
from switch_model.adapters import families
from switch_model.checkpoint import CheckpointError, read_training
from switch_model.inference.factory import open_pipeline, try_out
from train.data.loading import load_split, load_training_data
from train.data.source import DATASETS, DataSource, Selection
from train.release.card import metrics_in_words
from ui.catalog.samples import Sample

ROOT = Path(__file__).parent.parent.parent
FOLDERS = sorted(path.parent for path in ROOT.glob("assets/models/*/config.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_bundled_model_is_small_and_its_card_says_what_was_measured(folder):
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12 * 2**20
    training = read_training(folder)
    measured, card = training["evaluation"], (folder / "README.md").read_text(encoding="utf-8")
    assert metrics_in_words(measured) in card and training["command"] in card
    for layer in measured["routing"]:
        if "choices" in layer:  # The library's balance loss leaves experts idle, and the card says so.
            continue
        # An expert that hardly works is named.
        for expert in (expert for expert, share in enumerate(layer["load"]) if share < 0.02):
            assert f"{expert} of {layer['layer']}" in card.split("Next to idle")[1]
            assert folder.name != "ag_news"


CLASSIFIERS = [folder for folder in FOLDERS if "confusion" in read_training(folder)["evaluation"]]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_bundled_model_answers(folder):
    try:
        try_out(open_pipeline(folder, "cpu", trusted=True))
    except CheckpointError as error:
        assert families.too_old() and str(error) == families.too_old()


@pytest.mark.parametrize("folder", CLASSIFIERS, ids=lambda path: path.name)
def test_bundled_model_knows_the_bundled_texts_of_its_kind(folder):
    predictor = Predictor.from_checkpoint(folder, "cpu")
    samples = json.loads((ROOT / "ui" / "catalog" / "samples.json").read_text(encoding="utf-8"))
    labels = predictor.model.config.labels
    samples = [Sample(**sample).named_as_in(labels) for sample in samples]
    samples = [sample for sample in samples if sample.label in labels]
    predictions = predictor.batch([sample.text for sample in samples])
    right = sum(p.label == sample.label for p, sample in zip(predictions, samples, strict=True))
    # None of these texts was seen in training; each is what a person would call clear of its class.
    assert len(samples) >= 20 and right >= (0.9 if folder.name == "ag_news" else 0.75) * len(samples)


@pytest.mark.parametrize("name", [name for name, known in DATASETS.items() if known.bundled])
def test_bundled_texts_are_split_for_good_and_known_to_a_bundled_model(name, tmp_path):
    # Wherever other data sets are said to lie.
    train, test = (load_split(DataSource(name, str(tmp_path), split=split)) for split in ("train", "test"))
    texts, labels = [*train[0]["text"], *test[0]["text"]], train[1]
    assert train[1] == test[1] and len(set(texts)) == len(texts) and load_split(DataSource(name))[0][:] == test[0][:]
    for rows, _ in (train, test):
        assert {rows["label"][:].count(index) for index in range(len(labels))} == {len(rows) // len(labels)}
    data = load_training_data(Selection(DataSource(name), validation_size=0.2))
    assert not {*data.train["text"], *data.validation["text"]} & {*test[0]["text"]}
    predictors = (Predictor.from_checkpoint(folder, "cpu") for folder in CLASSIFIERS)
    predictor = next(own for own in predictors if set(own.model.config.labels) == set(labels))
    predictions = predictor.batch(test[0]["text"][:])
    right = [found.label == labels[label] for found, label in zip(predictions, test[0]["label"], strict=True)]
    assert sum(right) >= 0.85 * len(right)
