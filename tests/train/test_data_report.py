"""Files as people have them: read where it is clear what they mean, else refused in a sentence. And reports on them."""

import json
import random

import pandas as pd
import pytest

from train.data.errors import DataError
from train.data.loading import columns_of, load_split, load_training_data
from train.data.source import DataSource, Selection
from train.preflight.data_report import data_report

READABLE = {
    "a byte order mark.csv": b"\xef\xbb\xbftext,label\nhi there,a\nho,b\n",
    "semicolons.csv": b"text;label\nhi there;a\nho;b\n",
    "quoted semicolons.csv": b'"text";"label"\n"hi there";"a"\n"ho";"b"\n',
    "tabs.csv": b"text\tlabel\nhi there\ta\nho\tb\n",
    "Excel's Unicode text.csv": "text\tlabel\nhi there\ta\nho\tb\n".encode("utf-16"),
    "carriage returns.csv": b"text,label\rhi there,a\rho,b\r",
    "a short row.csv": b"text,label\nhi there,a\nleft out\n\nho,b\n",
    "empty cells at the end.csv": b"text,label,,\nhi there,a,,\nho,b,,,\n",
    "blanks around.csv": b" Text , Label \nhi there, a\nho,b \n",
    "one usual name.csv": b"id,phrase,label\n1,hi there,a\n2,ho,b\n",
    "stars * and [brackets]?.csv": b"text,label\nhi there,a\nho,b\n",
    "several kinds.jsonl": b'{"label": "a", "text": "hi there"}\n\n{"text": "ho", "label": "b", "more": [1]}\n',
    "one array.json": b'[{"text": "hi there", "label": "a"}, {"text": "ho", "label": "b"}]',
}


@pytest.mark.parametrize("name", READABLE)
def test_what_is_clear_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(READABLE[name])
    rows, names = load_split(DataSource(str(tmp_path / name)))
    assert (rows["text"][:], rows["label"][:], names) == (["hi there", "ho"], [0, 1], ["a", "b"])


REFUSED = {
    "latin.csv": ("text,label\nhi,a\ncaf\xe9,b\n".encode("latin-1"), "not UTF-8: line 3 holds the byte 0xe9"),
    "junk.csv": (random.Random(0).randbytes(5000), "not text"),
    "excel.csv": (b"PK\x03\x04" + bytes(100), "Excel"),
    "nul.csv": (b"text,label\nhi,a\nh\0,b\n", "line 3 holds a NUL byte"),
    "ragged.csv": (b"text,label\nhi,a\nhi, there,b\n", "line 3 has 3 cells, the header 2: if a comma"),
    "open.csv": (b'text,label\nhi,a\n"ho,b\nho,a\n', "line 3: a cell opens with a double quote"),
    "pair.csv": (b'text,label\nhi,a\n"ho,b\nho,a\n"hi,b\n', "line 3: a cell opens with a double quote"),
    "empty.csv": (b"\n", "is empty"),
    "header.csv": (b"text,label\n", "no rows below its columns"),
    "headless.csv": (b"I liked it a lot,good\nI left,bad\n", "Does its first line name the columns"),
    "unlabelled.csv": (b"text,label\nhi,\n,a\n", "no row with both"),
    "broken.jsonl": (b'{"text": "hi", "label": "a"}\n{"text":\n', "line 2 is not JSON"),
    "numbers.jsonl": (b"3\n4\n", "line 1 is not a row"),
    "deep.json": (b"[" * 100_000, "is not JSON"),
    "cut.parquet": (b"PAR1", "can't be read as parquet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_broken_is_refused_with_its_place(tmp_path, name):
    content, words = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        data_report(DataSource(str(tmp_path / name)))
    assert words in str(refusal.value)


def test_raw_quotes_between_tabs_are_part_of_the_text(tmp_path):
    (tmp_path / "raw.tsv").write_text('text\tlabel\n"Hi", he said\ta\n"an open quote\tb\n')
    assert load_split(DataSource(str(tmp_path / "raw.tsv")))[0]["text"][:] == ['"Hi", he said', '"an open quote']


def test_a_cell_of_a_million_characters(tmp_path):
    (tmp_path / "long.csv").write_text("text,label\n" + "word " * 200_000 + ",a\nho,b\n")
    assert len(load_split(DataSource(str(tmp_path / "long.csv")))[0]["text"][0]) == 1_000_000


def test_words_that_other_readers_take_for_missing_are_kept(tmp_path):
    (tmp_path / "na.csv").write_text("text,label\nnull,NA\nNA,None\n")
    rows, names = load_split(DataSource(str(tmp_path / "na.csv")))
    assert rows["text"][:] == ["null", "NA"] and names == ["NA", "None"]


@pytest.mark.parametrize(
    "written, names",
    [("10 9 -1", ["-1", "9", "10"]), ("1.0 0.0 2", ["0", "1", "2"]), ("02 10 01", ["01", "02", "10"])],
)
def test_classes_that_are_numbers_sort_as_numbers(tmp_path, written, names):
    path = tmp_path / "numbers.csv"
    path.write_text("text,label\n" + "".join(f"hi,{cell}\n" for cell in written.split()))
    assert load_split(DataSource(str(path)))[1] == names


def test_a_large_file_is_reported(tmp_path):
    words = " ".join(f"word{n}" for n in range(38))
    path = tmp_path / "large.csv"
    path.write_text("text,label\n" + "".join(f"text {n} {words},{n % 7}\n" for n in range(200_000)))
    # In seconds; were each row compared with every other, this would not come back.
    assert data_report(DataSource(str(path))).rows == 200_000


def _csv(folder, rows, name="rows.csv"):
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / name, index=False)
    return str(folder / name)


def _mixed(count, names="ab", words="word"):
    """Rows with distinct texts, their classes taking turns."""
    return [(f"{words} {n}", names[n % len(names)]) for n in range(count)]


def test_the_report_of_a_file_with_nothing_wrong(tmp_path):
    rows = _mixed(1200, "aab")
    rows[2] = ("long " * 100, "b")
    report = data_report(DataSource(_csv(tmp_path, rows)))
    assert report.warnings == []
    assert (report.columns, report.text_column, report.label_column) == (["text", "label"], "text", "label")
    assert report.rows == 1200 and report.labels == {"a": 800, "b": 400} and list(report.labels) == ["a", "b"]
    assert report.preview[:2] == [("word 0", "a"), ("word 1", "a")] and len(report.preview) == 5
    assert len(report.preview[2][0]) <= 160 and report.preview[2][0].endswith("…")
    assert report.median_words == report.most_words == 2 and len(report.words) == 500
    assert json.loads(json.dumps(report.to_dict()))["labels"] == {"a": 800, "b": 400}
    assert columns_of(DataSource(_csv(tmp_path, rows))) == report.columns


WARNED = {
    "one class": (_mixed(1000, "a"), ["All rows have one class (a)"]),
    "few": ([*_mixed(1000), ("x", "c"), ("y", "d"), ("z", "d")], ["2 classes have fewer than 5 rows (c: 1, d: 2)"]),
    "case": (_mixed(1000, ["a", "A"]), ["upper and lower case only (a and A)"]),
    "no text": ([*_mixed(997), ("", "a"), (" ", "b"), (None, "a")], ["3 rows have no text (0.3\u00a0%)"]),
    "no class": ([*_mixed(999), ("x", None)], ["1 row has no class (0.1\u00a0%), and is excluded"]),
    "repeated": ([*_mixed(1000), ("WORD  4", "a")], ["1 row repeats the text of an earlier one (0.1\u00a0%)"]),
    "contradicting": (
        [*_mixed(1000), ("word 4", "b")],
        ["1 row repeats", "1 text has different classes in different rows (“word 4” as a and b)"],
    ),
    "sorted": (sorted(_mixed(1000), key=lambda row: row[1]), ["The rows are sorted by class"]),
    "one large class": (_mixed(1000, "aaaaaaaaab"), ["90.0\u00a0% of the rows have the class a"]),
    "one small class": (_mixed(1000, "ab" * 20 + "c"), ["a has 488 rows, c 24"]),
    "few rows": (_mixed(200), ["Of 200 rows, 10 are held out"]),
    "long": (_mixed(1000, words="long " * 150), ["100\u00a0% of the texts have more than 128 words"]),
}


@pytest.mark.parametrize("case", WARNED)
def test_a_report_warns_of_what_matters_and_of_nothing_else(tmp_path, case):
    rows, expected = WARNED[case]
    warnings = data_report(DataSource(_csv(tmp_path, rows))).warnings
    assert len(warnings) == len(expected), warnings
    assert all(words in warning for words, warning in zip(expected, warnings, strict=True)), warnings


def test_a_report_counts_rows_to_report_on_that_are_trained_on(tmp_path):
    (tmp_path / "mine").mkdir()
    for split, rows in (("train", _mixed(1000)), ("test", [*_mixed(4), ("new", "a")])):
        pd.DataFrame(rows, columns=["text", "label"]).to_parquet(tmp_path / "mine" / f"{split}.parquet")
    (warning,) = data_report(DataSource("mine", str(tmp_path))).warnings
    assert warning.startswith("4 of the 5 rows that are used for testing (80.0\u00a0%) are among the training rows")


def test_one_class_is_refused_where_a_report_only_warns(tmp_path):
    with pytest.raises(DataError, match="only one class"):
        load_training_data(Selection(DataSource(_csv(tmp_path, _mixed(100, "a")))))


def test_pairs_that_are_too_long_are_counted(tmp_path):
    rows = [(f"short text {index}", f"kurzer Text {index}") for index in range(1200)]
    rows[:30] = [(f"short text {index}", f"lang {index} " * 20) for index in range(30)]
    path = tmp_path / "pairs.csv"
    pd.DataFrame(rows, columns=["source", "target"]).to_csv(path, index=False)
    (warning,) = data_report(DataSource(str(path)), task="translation").warnings
    assert warning.startswith("About 30 pairs are longer than 32 tokens on one side (2.5\u00a0%)")
