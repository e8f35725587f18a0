"""A table too large for memory gives the rows, digests and token ids of one read whole, and says what it can't do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.pages import save_tiny_checkpoint
from tests.support.small_model import SMALL
from train.analysis.analyze import rows_to_analyze
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.data import tables
from train.data.errors import DataError
from train.data.fingerprint import Fingerprint
from train.data.loading import load_training_data, read_split
from train.data.pairs import load_training_pairs
from train.data.source import DataSource, Selection
from train.data.stored import cache, table
from train.data.tables import ROWS_AT_ONCE
from train.data.toy import make_toy
from train.preflight.data_report import data_report
from train.runs.run import Run
from train.tasks.registry import TASKS
from train.tasks.rows import make_rows, make_tokenizer

WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, sep="\t", index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
    "folder": lambda frame, path: in_two_files(frame, path),
}


def in_two_files(frame: pd.DataFrame, folder: Path) -> None:
    folder.mkdir()
    for number, own in enumerate((frame[:50], frame[50:])):
        own.to_parquet(folder / f"train-{number:05}-of-00002.parquet")


@pytest.fixture
def in_parts(monkeypatch, tmp_path):
    """Every table is too large for memory, and read seven rows at a time."""

    def switch(on: bool = True) -> None:
        monkeypatch.setenv(tables.IN_MEMORY_MB, "0" if on else "100")

    monkeypatch.setenv("SWITCH_CACHE_DIR", str(tmp_path / "cache"))
    parts = tables.table_in_parts
    monkeypatch.setattr(
        tables, "table_in_parts", lambda path, rows=ROWS_AT_ONCE: parts(path, 7 if rows == ROWS_AT_ONCE else rows)
    )
    return switch


def frame_of_rows(rows: int = 90) -> pd.DataFrame:
    """Toy texts and classes, of which some are missing."""
    texts, names = make_toy(rows, seed=5)
    frame = pd.DataFrame({"text": texts["text"][:], "label": [names[label] for label in texts["label"]]})
    frame.loc[[3, 40], "text"] = "  "
    frame.loc[[11], "label"] = None
    return frame


@pytest.mark.parametrize("ending", WRITERS)
def test_rows_read_in_parts_are_those_read_whole(ending, in_parts, tmp_path):
    path = tmp_path / f"rows.{ending}"
    WRITERS[ending](frame_of_rows(), path)
    chosen, found = Selection(DataSource(str(path)), validation_size=0.2, num_samples=80, seed=3), []
    arguments = Arguments.resolve({"dataset": str(path), "seq_len": 12})
    tokenizer = make_tokenizer(arguments, load_training_data(chosen))
    for on in (False, True):
        in_parts(on)
        data, split = load_training_data(chosen), read_split(chosen.source)
        assert (data.parts is not None) == on and len(split.rows) == 87
        rows = make_rows(arguments, data, tokenizer)
        found.append(
            [
                *(data.train["text"][:], data.validation["label"][:], data.labels, split.empty, split.unlabelled),
                *(Fingerprint.of(data).digest(), list(rows.lengths), rows.train["input_ids"][:]),
                *(rows.validation["labels"][:], rows.count_tokens(len(tokenizer)).tolist()),
            ]
        )
    assert found[0] == found[1]


def test_pairs_and_texts_read_in_parts_are_those_read_whole(in_parts, tmp_path):
    path = tmp_path / "pairs.csv"
    texts = make_toy(60, seed=5)[0]["text"][:]
    targets = [text[::-1] for text in texts]
    targets[7] = ""
    texts[9] = " ".join(texts[9:12])  # Longer than is trained on.
    pd.DataFrame({"source": texts, "target": targets}).to_csv(path, index=False)
    arguments = Arguments.resolve({"dataset": str(path), "task": "translation", "seq_len": 40, "vocab_size": 200})
    tokenizer = make_tokenizer(arguments, load_training_pairs(arguments.selection))
    found = []
    for on in (False, True):
        in_parts(on)
        data = TASKS["translation"].read(arguments.selection)
        rows = make_rows(arguments, data, tokenizer)
        unlabelled = load_training_data(Selection(DataSource(str(path), text_column="source")), labelled=False)
        assert (data.parts is not None) == (unlabelled.parts is not None) == on
        found.append(
            [
                *(
                    Fingerprint.of(data).digest(),
                    rows.train["input_ids"][:],
                    rows.train["labels"][:],
                    list(rows.lengths),
                ),
                *(unlabelled.validation["text"][:], Fingerprint.of(unlabelled).digest()),
            ]
        )
    assert found[0] == found[1] and len(found[0][1]) < 56


def test_a_large_table_is_read_and_tokenized_once(in_parts, tmp_path, monkeypatch):
    path, arguments = tmp_path / "rows.csv", None
    frame_of_rows().to_csv(path, index=False)
    in_parts()
    for _ in range(2):
        arguments = Arguments.resolve({"dataset": str(path), "seq_len": 12})
        data = load_training_data(arguments.selection)
        make_rows(arguments, data, make_tokenizer(arguments, data))
        monkeypatch.setattr(table._Writer, "write", None)
        monkeypatch.setattr("train.data.stored.tokens._write", None)
    path.write_text(path.read_text() + "one more,class 1\n")  # Other content: read again.
    with pytest.raises(TypeError):
        load_training_data(arguments.selection)


def test_a_large_table_trains_and_is_measured_as_one_in_memory(in_parts, tmp_path, capsys):
    path, told = tmp_path / "rows.csv", []
    frame_of_rows(120).to_csv(path, index=False)
    for on in (False, True):
        in_parts(on)
        run = tmp_path / f"run {on}"
        asked = ["--dataset", str(path), *SMALL, "--max_steps", "4", "--rare_token_dropout", "0", "--tokenizer"]
        tokenizer = str(tmp_path / "run False" / "tokenizer") if on else "none"
        assert main([*asked, tokenizer, "--output_dir", str(run)]) == 0
        capsys.readouterr()
        measured = []
        for split in ([], ["--split", "validation"]):
            assert main(["evaluate", "--checkpoint", str(run), "--dataset", str(path), "--device", "cpu", *split]) == 0
            measured.append({**json.loads(capsys.readouterr().out), "checkpoint": ""})
        told.append(([line["loss"] for line in Run(run).metrics("train")], measured))
    assert told[0] == told[1] and told[0][1][0]["trained_on"] == "most" and told[0][1][1]["trained_on"] == "none"


def test_the_report_on_a_large_table_is_about_its_first_rows(in_parts, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    frame_of_rows().to_csv(path, index=False)
    monkeypatch.setattr("train.preflight.first_rows.MOST_ROWS", 30)
    in_parts()
    report = data_report(DataSource(str(path)))
    assert report.looked_at == 28 and 75 <= report.rows <= 100 and "its first 30 rows" in report.warnings[0]


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        ("a.json", '[{"text": "a", "label": 1}]', "its lines are not rows. Write it as JSON lines"),
        (
            "a.jsonl",
            '{"text": "a b", "label": 1}\n' * 7 + '{"text": "c", "label": 1, "topic": 2}\n',
            "has the field 'topic'",
        ),
        ("a.jsonl", '{"text": "a b", "label": 1}\n' * 7 + '{"text": "c", "label": "x"}\n', "holds numbers and texts"),
        ("a.csv", "text,label\n" + "a b,1\n" * 9 + "a,b,1\n", "line 11 has 3 cells, the header 2"),
        ("a.csv", "text,label\n" + "a b,\n" * 9, "no row with both a text"),
    ],
)
def test_what_can_not_be_read_in_parts_is_refused(name, lines, said, in_parts, tmp_path):
    (tmp_path / name).write_text(lines)
    in_parts()
    with pytest.raises(DataError, match=said):
        read_split(DataSource(str(tmp_path / name)))
    assert not list((tmp_path / "cache").rglob("info.json"))


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_predictions_of_a_large_table_are_written_in_parts(ending, in_parts, tmp_path, capsys):
    path, model = tmp_path / "rows.csv", str(save_tiny_checkpoint(tmp_path / "tiny"))
    frame_of_rows(50).to_csv(path, index=False)
    found = []
    for on in (False, True):
        in_parts(on)
        output = tmp_path / f"{on}.{ending}"
        assert main(["predict", "--checkpoint", model, "--file", str(path), "--output", str(output)]) == 0
        assert "50 rows with predicted, p(" in capsys.readouterr().err
        found.append(output.read_bytes() if ending != "parquet" else pd.read_parquet(output).to_csv())
    assert found[0] == found[1]


def test_teachers_are_refused_for_a_large_table(in_parts, tmp_path):
    path = tmp_path / "rows.csv"
    frame_of_rows().to_csv(path, index=False)
    in_parts()
    arguments = Arguments.resolve({"dataset": str(path), "teachers": "somewhere"})
    data = load_training_data(arguments.selection)
    with pytest.raises(ValueError, match="leave --teachers out"):
        make_rows(arguments, data, make_tokenizer(arguments, data))


def test_a_sample_of_a_large_table_is_of_the_chosen_rows_alone(in_parts, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    frame_of_rows().to_csv(path, index=False)
    monkeypatch.setattr(table, "RUN", 5)
    in_parts()
    part = read_split(DataSource(str(path))).part
    own = part.of(np.arange(0, 80, 2))
    drawn = own.spread(20)["text"][:]
    assert 8 <= len(drawn) <= 12 and set(drawn) <= set(own.rows["text"][:])


def test_of_a_large_table_a_sample_is_analysed_and_said(in_parts, tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    frame_of_rows().to_csv(path, index=False)
    monkeypatch.setattr("train.analysis.analyze.MOST_OF_LARGE", 10)
    in_parts()
    rows = rows_to_analyze([], DataSource(str(path)))
    assert len(rows.texts) == len(set(rows.texts)) == 10 and "10 of the 87 texts, drawn at random" in rows.note
    assert len(rows_to_analyze([], DataSource(str(path)), num_samples=30).texts) == 30


def test_of_a_full_cache_the_least_recently_used_goes_but_for_what_a_process_uses(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SWITCH_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("SWITCH_CACHE_GB", "0.000002")
    folders = {name: cache.cache_folder("tables") / name for name in ("used", "old", "new", "newest")}
    for age, folder in enumerate(folders.values()):
        folder.mkdir(parents=True)
        (folder / "rows").write_bytes(bytes(1_000))
        os.utime(folder, (1e9 + age, 1e9 + age))
    code = f"from pathlib import Path; from train.data.stored.cache import use; use(Path({str(folders['used'])!r})); "
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}print(flush=True); input()"], stdin=pipe, stdout=pipe
    ) as process:
        process.stdout.readline()
        os.utime(cache._mark(folders["used"]), (1, 1))
        cache.make_room()
        assert [name for name, folder in folders.items() if folder.is_dir()] == ["used", "newest"]
        assert capsys.readouterr().err.count("removed") == 2
        process.communicate(b"\n")
    monkeypatch.setenv("SWITCH_CACHE_GB", "0.000001")
    cache.make_room()
    assert [name for name, folder in folders.items() if folder.is_dir()] == ["newest"]
