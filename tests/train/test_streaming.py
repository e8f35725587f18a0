"""Rows that are read as they come: each once a pass, in an order that a resume repeats; what is refused."""

import json
from dataclasses import replace
from itertools import islice

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.support.small_model import SMALL
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data import tables
from train.data.errors import DataError
from train.data.loading import load_training_data
from train.data.source import DATASETS, DataSource, Selection
from train.data.stored.streaming import PASSED
from train.data.toy import make_toy


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Toy texts and classes, read eleven rows at a time; two rows lack something."""
    rows, names = make_toy(140, seed=5)
    frame = pd.DataFrame({"text": rows["text"][:], "label": [names[label] for label in rows["label"]]})
    frame.loc[3, "text"], frame.loc[40, "label"] = " ", None
    frame.to_csv(tmp_path / "rows.csv", index=False)
    parts = tables.table_in_parts
    monkeypatch.setattr(tables, "table_in_parts", lambda path, rows: parts(path, min(rows, 11)))
    return tmp_path / "rows.csv"


def streamed(file, **changes):
    settings = {"validation_size": 0.2, "shuffle_buffer": 20, "seed": 4} | changes
    return load_training_data(Selection(DataSource(str(file)), streaming=True, **settings))


def test_each_row_comes_once_a_pass_and_none_that_is_validated_on(file):
    data = streamed(file)
    held_out, count = set(data.validation["text"][:]), len(data.train)
    assert 15 < len(held_out) < 45 and count + len(data.validation) == 138
    first, second = (list(islice(iter(data.stream), start, start + count)) for start in (0, count))
    for rows in (first, second):
        assert sorted(row["text"] for row in rows) == sorted(data.train["text"][:])
        assert {row["text"]: row["label"] for row in rows} == dict(
            zip(data.train["text"], data.train["label"], strict=True)
        )
    assert not held_out & {row["text"] for row in first}
    assert [row["text"] for row in first] != [row["text"] for row in second] != data.train["text"][:]
    assert [row["row"] for row in first + second] == list(range(2 * count))

    data.stream.skip = count - 3
    rows = list(islice(iter(data.stream), 2 * count))
    assert all(row is PASSED for row in rows[: count - 3]) and rows[count - 3 :] == [*first[-3:], *second]


@pytest.mark.parametrize("task", ["classification", "mlm"])
def test_stopped_and_resumed_is_uninterrupted(file, task, tmp_path, stopping_at_saves, capsys):
    asked = ["--dataset", str(file), *SMALL, "--task", task, "--streaming", "true", "--shuffle_buffer", "20"]
    asked += ["--validation_size", "0.2", "--total_iters", "6", "--eval_steps", "4"]  # Stopped in the second pass.
    assert main([*asked, "--output_dir", str(tmp_path / "whole")]) == 0
    with stopping_at_saves():
        assert main([*asked, "--output_dir", str(tmp_path / "parts")]) == 130
    assert main(["resume", str(tmp_path / "parts")]) == 0
    whole, parts = (
        load_file(tmp_path / run / "checkpoints" / "checkpoint-6" / "model.safetensors") for run in ("whole", "parts")
    )
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    card = (tmp_path / "whole" / "best" / "README.md").read_text()
    assert "texts to train on" in card and "--streaming true" in card.lower()

    capsys.readouterr()
    command = ["evaluate", "--checkpoint", str(tmp_path / "whole"), "--dataset", str(file), "--device", "cpu"]
    assert main([*command, "--split", "validation"]) == 0
    held_out = json.loads(capsys.readouterr().out)
    assert held_out["trained_on"] == "none" and held_out["rows"] > 15
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["trained_on"] == "most"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"max_steps": None}, "has no end: say with --max_steps"),
        ({"task": "translation"}, "--task translation: pairs that are too long"),
        ({"task": "clm"}, "--task clm: its texts are a stream already"),
        ({"teachers": "somewhere"}, "with --teachers"),
        ({"init_from": "somewhere", "train_only": "hot_experts"}, "with --train_only hot_experts"),
        ({"total_batch_size": 4096}, "take --gradient_accumulation_steps"),
        ({"dataset": "toy"}, "the toy, which is generated"),
    ],
)
def test_what_has_no_place_in_a_stream_is_refused(flags, said):
    asked = {"dataset": "my.csv", "streaming": True, "max_steps": 10} | flags
    with pytest.raises(ValueError, match=said):
        Arguments.resolve(asked).check()


def test_a_class_that_begins_below_the_first_rows_is_refused(file, monkeypatch):
    monkeypatch.setattr("train.data.stored.streaming.FIRST_ROWS", 30)
    file.write_text(file.read_text() + "a text,other\n")
    with pytest.raises(DataError, match="row 141: the class 'other' is not among those of its first 30 rows"):
        list(islice(iter(streamed(file).stream), 140))


def test_a_folder_with_its_own_validation_rows_is_streamed(file, tmp_path, monkeypatch):
    frame = pd.read_csv(file).dropna()
    (tmp_path / "mine").mkdir()
    for split in ("train", "validation", "test"):
        frame.to_parquet(tmp_path / "mine" / f"{split}.parquet")
    data = load_training_data(Selection(DataSource("mine", str(tmp_path)), streaming=True))
    assert len(data.validation) == len(data.train) == 138
    assert len({row["text"] for row in islice(iter(data.stream), 138)}) == len(set(data.train["text"][:]))


def test_a_set_on_the_hub_is_streamed_or_kept_on_disk(tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    rows = pd.DataFrame({"text": [f"film {number}" for number in range(60)], "label": [0, 1] * 30})
    rows.to_parquet(tmp_path / "plain" / "train-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain\n  data_files:\n  - split: train\n    path: plain/train-*\n---\n"
    )
    monkeypatch.setitem(DATASETS, "imdb", replace(DATASETS["imdb"], hub_id=str(tmp_path), hub_config="plain"))
    monkeypatch.setenv("SWITCH_CACHE_DIR", str(tmp_path / "cache"))
    data = load_training_data(Selection(DataSource("imdb"), validation_size=0.2, streaming=True))
    assert data.labels == ["neg", "pos"]
    passed = list(islice(iter(data.stream), len(data.train)))
    assert sorted(row["text"] for row in passed) == sorted(data.train["text"][:]) and len(data.validation) > 4

    chosen, found = Selection(DataSource("imdb"), validation_size=0.2), []
    for most in ("100", "0"):
        monkeypatch.setenv(tables.IN_MEMORY_MB, most)
        data = load_training_data(chosen)
        found.append((data.train["text"][:], data.validation["label"][:], data.labels))
    assert found[0] == found[1] and data.parts
