"""Where rows come from (files of any kind, a folder in the layout of the Hub, the Hub), and their token ids."""

import csv
import json
from dataclasses import replace

import pandas as pd
import pytest
from datasets import Dataset

from train.cli.main import main
from train.data.errors import DataError
from train.data.loading import load_split, load_training_data
from train.data.source import DATASETS, DataSource, Selection
from train.data.splits import cut_by_sentence
from train.data.tokenizers import load_tokenizer, tokenize, train_tokenizer


def test_a_users_file_trains_and_evaluates(tmp_path, capsys):
    toy, names = load_split(DataSource("toy", split="train"))
    path = tmp_path / "mine.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Message", "Topic"])
        writer.writerows((row["text"], names[row["label"]]) for row in toy.select(range(400)))
        writer.writerow(["", "class 0"])
    run = tmp_path / "run"
    assert main(["--dataset", str(path), "--vocab_size", "600", "--epochs", "1", "--output_dir", str(run)]) == 0
    assert json.loads((run / "best" / "config.json").read_text())["id2label"] == {
        "0": "class 0", "1": "class 1", "2": "class 2",
    }  # fmt: skip
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", str(run), "--dataset", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 400  # The row without a text is left out.
    assert main(["package", "--run", str(run), "--output", str(tmp_path / "small")]) == 0
    card = (tmp_path / "small" / "README.md").read_text()
    assert "--dataset mine.csv" in card and str(tmp_path) + "/mine.csv" not in card and "were trained on" in card


@pytest.mark.parametrize("ending", ["tsv", "jsonl", "parquet"])
def test_every_kind_of_file_is_read(tmp_path, ending):
    table = pd.DataFrame({"text": ["a b", "c\td", 'e "f"'], "label": [10, 9, 10]})
    path = tmp_path / f"rows.{ending}"
    writers = {
        "tsv": lambda: table.to_csv(path, sep="\t", index=False),
        "jsonl": lambda: table.to_json(path, orient="records", lines=True),
        "parquet": lambda: table.to_parquet(path),
    }
    writers[ending]()
    rows, names = load_split(DataSource(str(path), split="train"))
    assert rows["text"] == table.text.tolist()
    assert names == ["9", "10"] and rows["label"] == [1, 0, 1]


def test_local_folder_in_the_layout_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "imdb").mkdir()
    table = pd.DataFrame(
        {"text": [f"good {i}" for i in range(30)] + [f"bad {i}" for i in range(30)], "label": [1] * 30 + [0] * 30}
    )
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / "imdb" / f"{split}.parquet")
    monkeypatch.setenv("SWITCH_DATA_DIR", str(tmp_path))
    data = load_training_data(Selection(DataSource("imdb"), validation_size=0.2))
    assert data.labels == ["neg", "pos"] and len(data.train) == 48 and len(data.validation) == 12
    assert sum(data.validation["label"]) == 6  # Both classes, though the rows are sorted.
    with pytest.raises(DataError, match="no split 'test'"):
        load_split(DataSource("imdb", split="test"))
    # Any other folder works the same way; its class names may lie beside it.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "labels.json").write_text('{"names": ["no", "yes"]}')
    table.to_parquet(tmp_path / "mine" / "train.parquet")
    rows, names = load_split(DataSource("mine"))
    assert names == ["no", "yes"] and rows[0] == {"text": "good 0", "label": 1}
    # A validation split of its own is used as it is, where there is a test split to report on.
    table[:10].to_parquet(tmp_path / "mine" / "validation.parquet")
    table.to_parquet(tmp_path / "mine" / "test.parquet")
    data = load_training_data(Selection(DataSource("mine")))
    assert len(data.validation) == 10 and len(data.train) == 60
    with pytest.raises(DataError, match="--data_dir"):
        load_split(DataSource("sst2", split="validation"))


LAYOUTS = {
    "shards": ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"),
    "hub": (
        "data/train-00000-of-00002-a09b74b3ef9c3b56.parquet",
        "data/train-00001-of-00002-b09b74b3ef9c3b56.parquet",
        "data/test.parquet",
    ),
    "folders": ("train/b.csv", "train/c.csv", "test/a.csv.gz"),
    "numbered": ("train_1.jsonl", "train_2.jsonl", "test.jsonl"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_of_several_files_is_a_data_set_with_splits(layout, tmp_path):
    frame = pd.DataFrame({"text": [f"text {row}" for row in range(30)], "label": ["a", "b"] * 15})
    for name, rows in zip(LAYOUTS[layout], (frame[:10], frame[10:20], frame[20:]), strict=True):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if ".parquet" in name:
            rows.to_parquet(path)
        elif ".csv" in name:
            rows.to_csv(path, index=False)
        else:
            rows.to_json(path, orient="records", lines=True)
    (tmp_path / "mine" / "dataset_info.json").write_text("{}")
    source = DataSource(str(tmp_path / "mine"))
    assert load_split(source.at("train"))[0]["text"][:] == frame.text[:20].tolist()
    assert load_split(source)[0]["text"][:] == frame.text[20:].tolist() and not source.on_hub


def test_a_folder_whose_rows_are_not_clear_is_refused(tmp_path):
    for name, text in (("one/a.csv", "text,label\na,b\n"), ("two/a.csv", "text,class\na,b\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=r"several data sets \(one, two\)"):
        load_split(DataSource(str(tmp_path)))
    (tmp_path / "one" / "b.csv").write_text("text,class\na,b\n")
    with pytest.raises(DataError, match=r"b.csv has the columns 'text', 'class', .*a.csv has 'text', 'label'"):
        load_split(DataSource(str(tmp_path / "one")))
    (tmp_path / "one" / "b.csv").rename(tmp_path / "one" / "b.jsonl")
    with pytest.raises(DataError, match="several kinds"):
        load_split(DataSource(str(tmp_path / "one")))


def test_the_hub_is_read_through_datasets(tmp_path, monkeypatch):
    """The real loading code on a folder in the hub's layout, as datasets accepts it in place of a hub id."""
    (tmp_path / "sst2").mkdir()
    table = pd.DataFrame({"sentence": ["fine", "poor", ""], "label": [1, 0, 0], "idx": [0, 1, 2]})
    table.to_parquet(tmp_path / "sst2" / "validation-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: sst2\n  data_files:\n  - split: validation\n    path: sst2/validation-*\n---\n"
    )
    monkeypatch.setitem(DATASETS, "sst2", replace(DATASETS["sst2"], hub_id=str(tmp_path)))
    rows, names = load_split(DataSource("sst2", split="validation"))
    assert (
        names == ["negative", "positive"] and list(rows["text"]) == ["fine", "poor"] and list(rows["label"]) == [1, 0]
    )
    with pytest.raises(DataError, match="could not be loaded"):
        load_split(DataSource("ag_news", split="test"))


def test_pairs_are_joined_and_regression_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mnli").mkdir()
    table = pd.DataFrame({"premise": ["it rains"], "hypothesis": ["it is wet"], "label": [2]})
    for split in ("train", "validation_matched", "validation_mismatched"):
        table.to_parquet(tmp_path / "mnli" / f"{split}.parquet")
    monkeypatch.setenv("SWITCH_DATA_DIR", str(tmp_path))
    rows, names = load_split(DataSource("mnli"))
    assert rows[0] == {"text": "it rains [SEP] it is wet", "label": 2} and names[2] == "contradiction"
    tokenizer = train_tokenizer(["it rains is wet"], 60, 16, whole_words=True)
    assert tokenizer.convert_ids_to_tokens(tokenize(rows, tokenizer)[0]["input_ids"])[2] == "[SEP]"
    tokenizer.sep_token = "rains"
    assert tokenizer.convert_ids_to_tokens(tokenize(rows, tokenizer)[0]["input_ids"])[2] == "rains"
    table.to_csv(tmp_path / "pairs.csv")
    rows, _ = load_split(DataSource(str(tmp_path / "pairs.csv"), text_column="hypothesis, premise"))
    assert rows[0]["text"] == "it is wet [SEP] it rains"
    with pytest.raises(DataError, match="regression"):
        load_split(DataSource("stsb"))


def test_no_fragment_of_a_sentence_to_validate_on_is_trained_on():
    sentences = [f"a{n} b{n} c{n} d{n} of all" for n in range(40)]
    fragments = [text for n in range(40) for text in (f"b{n} c{n}", f"d{n} of all")]
    texts = sentences + fragments
    rows = Dataset.from_dict({"text": texts, "label": [len(text) % 2 for text in texts]})
    train, validation = cut_by_sentence(rows, 0.25)
    assert len(validation) == 10 and set(validation["text"]) < set(sentences) and len(train) == 90
    assert not any(f" {part} " in f" {whole} " for part in train["text"] for whole in validation["text"])


def test_the_same_texts_give_the_same_tokens_and_ids():
    """Many pairs are equally common here, so that a hash table's order would decide which become tokens."""
    texts = [f"{one}{two} {two}{one}" for one in ("ab", "cde", "fghi") for two in ("kl", "mno", "pqrs", "tuvw")]
    first, again = (train_tokenizer(texts, 60, 16) for _ in range(2))
    assert first.get_vocab() == again.get_vocab() and len(first) == 60
    assert set(first.all_special_tokens) == {"[PAD]", "[UNK]", "[MASK]", "[SEP]"}


def test_a_tokenizer_by_name(tmp_path):
    train_tokenizer(["a few words", "and a few more"], 60, 16).save_pretrained(tmp_path / "words")
    assert load_tokenizer(str(tmp_path / "words"), 8).tokenize("few words") == ["few", "words"]
    with pytest.raises(DataError, match="no tokenizer"):
        load_tokenizer("nobody/nothing", 8)


def test_bad_files_are_refused(tmp_path):
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    (tmp_path / "one.csv").write_text("text,label\nx,1\ny,1\n")
    (tmp_path / "fractions.csv").write_text("text,label\nx,0.5\ny,1\n")
    (tmp_path / "distinct.csv").write_text("text,label\n" + "".join(f"x,c{n}\n" for n in range(30)))
    (tmp_path / "nested.jsonl").write_text('{"text": "x", "label": {"a": 1}}\n')
    for name, words in [
        ("broken.parquet", "can't be read"),
        ("columns.csv", "Which column"),
        ("one.csv", "only one class"),
        ("fractions.csv", "regression"),
        ("distinct.csv", "is it the column of classes"),
        ("nested.jsonl", "holds no classes"),
    ]:
        with pytest.raises(DataError, match=words):
            load_training_data(Selection(DataSource(str(tmp_path / name))))
