"""Tables as programs write them: read where it is plain what is meant, else refused with what they are. And what class
names may be, and how they are shown."""

import bz2
import datetime
import gzip
import json
import lzma
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from switch_model import SwitchConfig, SwitchForSequenceClassification
from switch_model.checkpoint import save_checkpoint
from train.cli.main import main
from train.data.columns import choose_columns
from train.data.errors import DataError
from train.data.loading import load_split
from train.data.packing import stream_texts
from train.data.pairs import load_pairs
from train.data.source import DataSource
from train.data.table_file import check_unpacked_size, without_endings
from train.data.table_output import check_output, write_table
from train.data.tables import read_table
from train.evaluation.metrics import classification_metrics
from train.evaluation.pictures import write_pictures
from train.formatting import one_line
from train.picture_text import drawable, names_for_picture
from train.preflight.data_report import data_report

CSV = "text,label\nhi there,a\nho,b\n"
ROWS = [{"text": "hi there", "label": "a"}, {"text": "ho", "label": "b"}]
FRAME = pd.DataFrame(ROWS)


def zipped(**files: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name.replace("_csv", ".csv"), text)

    return write


def parquet(**columns: Any) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns), path)


def write(path: Path, content: bytes | str | Callable[[Path], None]) -> str:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


LISTS = pa.array([["hi", "there"], ["ho"]])
READ = {
    # Packed, whatever the name says.
    "a.csv.gz": gzip.compress(CSV.encode()),
    "b.csv.bz2": bz2.compress(CSV.encode()),
    "c.tsv.xz": lzma.compress(CSV.replace(",", "\t").encode()),
    "d.csv.zst": pa.Codec("zstd").compress(CSV.encode()).to_pybytes(),
    "e.zip": zipped(inner_csv=CSV),
    "packed.csv": gzip.compress(CSV.encode()),
    "not packed.csv.gz": CSV,
    "f.jsonl.gz": gzip.compress("\n".join(map(json.dumps, ROWS)).encode()),
    "parquet.csv": lambda path: FRAME.to_parquet(path),
    # In other encodings, with a mark and without.
    **{f"{name}.csv": CSV.encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32")},
    "utf-16-le.jsonl": "\n".join(map(json.dumps, ROWS)).encode("utf-16-le"),
    # What stands above, between and around cells.
    "blank.csv": "\r\n ,\r\n" + CSV,
    "comment.csv": "# made today\n\n" + CSV,
    "sep.csv": "sep=;\n" + CSV.replace(",", ";"),
    "blank and quotes.csv": '"text", "label"\n"hi there", "a"\n"ho", "b"\n',
    "tab, blank and quotes.tsv": '"text"\t "label"\n"hi there"\t "a"\n"ho"\t "b"\n',
    "single quotes.csv": "'text','label'\n'hi there','a'\n'ho','b'\n",
    "two marks.csv": "\ufeff\ufeff" + CSV,
    # JSON.
    "g.ndjson": "\n".join(map(json.dumps, ROWS)),
    "pretty rows.jsonl": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "in a field.json": json.dumps({"about": "me", "data": ROWS}, indent=2),
    "served.json": json.dumps({"features": [{"name": "text"}], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}),  # noqa: E501
    "deep in fields.json": json.dumps({"status": "ok", "result": {"rows": ROWS}}),
    "lists.json": json.dumps(FRAME.to_dict("list")),
    **{f"pandas {form}.json": FRAME.to_json(orient=form) for form in ("columns", "index", "split", "table", "records")},
    "ids.json": json.dumps({"x": ROWS[0], "y": ROWS[1], "z": {"text": None, "label": "a"}}),
    "powershell.csv": "#TYPE System.Management.Automation.PSCustomObject\n" + CSV,
    "blanks in names.json": json.dumps([{" text ": row["text"], "label\t": row["label"]} for row in ROWS]),
    # Parquet: texts that are no strings.
    "blanks in names.parquet": parquet(**{" text ": ["hi there", "ho"], "label ": ["a", "b"]}),
    "bytes.parquet": parquet(text=[b"hi there", b"ho"], label=pa.array([b"a", b"b"], pa.large_binary())),
    "categories.parquet": parquet(text=["hi there", "ho"], label=pa.array(["a", "b"]).dictionary_encode()),
    "words.parquet": parquet(text=LISTS, label=["a", "b"]),
    "words.jsonl": '{"tokens": ["hi", "there"], "label": ["a"]}\n{"tokens": "ho", "label": ["b"]}',
    "odd kinds.parquet": parquet(text=["hi there", "ho"], label=["a", "b"], more=pa.array([b"\xff" * 16] * 2, pa.uuid())),  # noqa: E501
    "packed.parquet.gz": lambda path: path.write_bytes(gzip.compress(FRAME.to_parquet())),
    "missing as a number.jsonl": "\n".join(map(json.dumps, [*ROWS, {"text": "hi", "label": float("nan")}])),
    # An instruction, and what it is about where there is such.
    "instruction.jsonl": "\n".join(json.dumps({"instruction": row["text"], "input": "", "output": row["label"]}) for row in ROWS),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_is_plainly_meant_is_read(tmp_path, name):
    rows, names = load_split(DataSource(write(tmp_path / name, READ[name])))
    assert (rows["text"][:], rows["label"][:], names) == (["hi there", "ho"], [0, 1], ["a", "b"])


REFUSED = {
    "book.csv": (zipped(**{"[Content_Types].xml": "x"}), "is a spreadsheet"),
    "several.zip": (zipped(a_csv=CSV, b_csv=CSV), "several tables ('a.csv', 'b.csv')"),
    "cut.csv.gz": (gzip.compress(CSV.encode())[:-9], "can't be unpacked"),
    "page.csv": ("<!DOCTYPE html><html>", "is a web page"),
    "lfs.csv": ("version https://git-lfs.github.com/spec/v1\noid …", "git lfs pull"),
    "text.parquet": (CSV, "can't be read as parquet"),
    "rows.csv": ('{"text": "hi", "label": "a"}\n', "holds JSON"),
    "table.jsonl": (CSV, "If it is a CSV"),
    "table.xlsx": (b"PK\x03\x04", "is a spreadsheet"),
    "table.dat": (CSV, "rename it"),
    "half.csv": ("\ufefftext,label\nhi,a\n".encode("utf-16-le") + b"\0", "begins as UTF-16"),
    "header or not.csv": ("# text,label\n" + CSV, "line 1 begins with #"),
    "splits.json": (json.dumps({"train": ROWS, "test": ROWS}), "several fields ('train', 'test')"),
    "splits of columns.json": (json.dumps(dict.fromkeys("abc", FRAME.to_dict("list"))), "the fields 'a', 'b', 'c'"),
    "uneven.json": (json.dumps({"text": ["a", "b"], "label": ["x"]}), "different lengths (2 in 'text', 1 in 'label')"),
    "values.json": (json.dumps({"data": [["hi", "a"]]}), "no names in 'data'"),
    "lines of values.jsonl": ('["hi", "a"]\n["ho", "b"]', "no names"),
    "objects.parquet": (parquet(text=[{"en": "hi", "de": "na"}], label=["a"]), "an object with the fields 'en', 'de'"),
    "chat.jsonl": (json.dumps({"messages": [{"role": "user", "content": "hi"}], "label": "a"}) + "\n{}", "'role', 'content'"),  # noqa: E501
    "some objects.jsonl": ('{"text": "hi", "label": "a"}\n{"text": {"en": "ho"}}', "the fields '(no object)', 'en'"),
    "numbers of tokens.parquet": (parquet(text=pa.array([[1, 2]]), label=["a"]), "lists of numbers (row 1)"),
    "latin.parquet": (parquet(text=["é".encode("latin-1")], label=["a"]), "in row 1 the byte 0xe9"),
    "utf-16.parquet": (parquet(text=["hi".encode("utf-16-le")], label=["a"]), "a NUL byte, as in UTF-16"),
    "tags.parquet": (parquet(tokens=LISTS, tags=pa.array([[0, 1], [2]])), "a list of 2 in row 1"),
    "days.parquet": (parquet(text=["hi"], label=[datetime.date(2020, 1, 1)]), "no classes but date values"),
    "object classes.parquet": (parquet(text=["hi"], label=[{"name": "a"}]), "an object with the fields 'name'"),
    "twice.csv": ("text,text,label\nhi,na,a\nho,no,b\n", "several columns named 'text'"),
    "long.csv": (f"text,label\nhi,{'a' * 201}\nho,b\n", "has 201 characters"),
    "empty texts.csv": ("text,more,label\n,hi,a\n,ho,b\n", "a text ('text') and a class ('label')"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_meant_otherwise_is_refused_with_what_it_is(tmp_path, name):
    content, words = REFUSED[name]
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as refusal:
        data_report(DataSource(path))
    assert words in str(refusal.value) and name in str(refusal.value)


def test_a_file_of_one_row_is_no_table_in_its_fields(tmp_path):
    row = {"text": "hi", "label": "a", "parts": [{"start": 0}], "more": {"tags": ["x", "y"]}}
    rows = read_table(Path(write(tmp_path / "one.jsonl", json.dumps(row))))
    assert rows["text"][:] == ["hi"] and rows.column_names == list(row)


def test_a_small_file_that_unpacks_to_a_large_one_is_not_read_to_its_end(tmp_path, monkeypatch):
    path = Path(write(tmp_path / "bomb.csv.gz", gzip.compress(b"text\n" + b"a" * 2_000_000)))
    with pytest.raises(DataError, match="takes more than 1 MB"):
        check_unpacked_size(path, 1_000_000)
    check_unpacked_size(path, 3_000_000)
    same = Path(write(tmp_path / "same.parquet", parquet(text=pa.array(["a"] * 500_000))))
    assert same.stat().st_size < 100_000
    with pytest.raises(DataError, match="takes more than 1 MB"):
        check_unpacked_size(same, 1_000_000)
    monkeypatch.setattr("train.data.table_file.ALWAYS_ALLOWED", 1_000_000)
    with pytest.raises(DataError, match="100 times its size"):
        read_table(path)


def test_names_of_packed_tables_lose_all_their_endings():
    assert [without_endings(name) for name in ("d/x.csv.gz", "x.v2.csv", "x.zip")] == ["x", "x.v2", "x"]


def test_columns_are_found_whatever_their_case():
    names = ["ID", "My Text", "Kind"]
    assert choose_columns(DataSource("x", None, "my text", " kind"), names).texts == ("My Text",)
    with pytest.raises(DataError, match="has no column 'text'"):
        choose_columns(DataSource("x", None, "text", "Kind"), names)


def test_fields_of_objects_are_columns_to_choose(tmp_path):
    rows = [{"id": n, "pair": {"en": f"hi {n}", "fr": f"salut {n}"}, "kind": {"name": "ab"[n % 2]}} for n in range(4)]
    path = write(tmp_path / "rows.json", json.dumps(rows))
    with pytest.raises(DataError, match=r"'pair\.en', 'pair\.fr', 'kind\.name'"):
        load_split(DataSource(path))
    found, names = load_split(DataSource(path, text_column="pair.en", label_column="kind.name"))
    assert (found["text"][1], found["label"][:], names) == ("hi 1", [0, 1, 0, 1], ["a", "b"])
    pairs = load_pairs(DataSource(path, text_column="pair.fr", target_column="pair.en"))
    assert pairs[1] == {"text": "salut 1", "target": "hi 1"}


def test_an_instruction_is_read_with_what_it_is_about_in_every_task(tmp_path):
    rows = [{"instruction": "Say it.", "input": about, "output": "yes"} for about in ("", "the song")]
    path = write(tmp_path / "a.json", json.dumps(rows))
    wanted = ["Say it.", "Say it. [SEP] the song"]
    assert load_pairs(DataSource(path))["text"][:] == wanted and list(stream_texts(DataSource(path))) == wanted


def _labelled(folder: Path, classes: list[str]) -> str:
    rows = [(f"text number {n}", name) for n, name in enumerate(classes)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / "rows.csv", index=False)
    return str(folder / "rows.csv")


@pytest.mark.parametrize("word", ["NA", "nan", "NULL", "#N/A", "None", "-"])
def test_a_word_for_missing_is_no_class_among_numbers_and_said_among_words(tmp_path, word):
    report = data_report(DataSource(_labelled(tmp_path, ["1.0", "0.0"] * 600 + [word] * 6)))
    assert report.labels == {"1": 600, "0": 600} and "6 rows have no class" in report.warnings[0]
    report = data_report(DataSource(_labelled(tmp_path, ["yes", "no"] * 600 + [word] * 60)))
    assert report.labels[word] == 60 and f"({word}: 60)" in report.warnings[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("caf\u0065\u0301", "U+0301"),
        ("café\u200b", "U+200B"),
        ("c\u00adafé", "U+00AD"),
        ("ｃafé", "U+FF43"),
        ("c\u0430fé", "U+0430"),
    ],
)
def test_classes_that_look_alike_are_told_apart_by_number(tmp_path, other, said):
    warning = data_report(DataSource(_labelled(tmp_path, ["café", "tea", other] * 400))).warnings[0]
    assert warning.startswith("Some classes look alike") and said in warning


@pytest.mark.parametrize("text", ["['he', 'came']", "{'en': 'he'}", "b'he came'", "[12, 7]", '{"en": "he"}'])
def test_texts_that_a_program_wrote_out_are_noticed(tmp_path, text):
    rows = [(text.replace("he", f"he{n}"), "ab"[n % 2]) for n in range(1200)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "rows.csv", index=False)
    assert "1,200 texts look like a printed list" in data_report(DataSource(str(tmp_path / "rows.csv"))).warnings[0]


def test_class_names_are_one_line_and_obey_no_terminal(tmp_path, capsys):
    path = _labelled(tmp_path, ["\x1b[31mvery\n\tbad\x1b[0m", "very\u00a0 \u202egood"] * 40)
    assert load_split(DataSource(path))[1] == ["very bad", "very good"]
    run = str(tmp_path / "run")
    assert main(["--dataset", path, "--preset", "tiny", "--max_steps", "1", "--output_dir", run]) == 0
    capsys.readouterr()
    assert main(["predict", "--checkpoint", run, "te\x1b[2Jxt\r number"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split("\t")[1] == "text number" and line.startswith("very ")


def test_lists_and_objects_go_into_a_csv_as_json(tmp_path):
    rows = read_table(Path(write(tmp_path / "in.jsonl", '{"tokens": ["hé", "\'s"], "more": {"a": 1}}\n' * 2)))
    write_table([(rows, [{"predicted": "x"}] * 2)], str(tmp_path / "out.csv"))
    written = pd.read_csv(tmp_path / "out.csv")
    assert json.loads(written["tokens"][0]) == ["hé", "'s"] and json.loads(written["more"][1]) == {"a": 1}


def test_json_and_parquet_keep_numbers_and_a_json_file_is_an_array(tmp_path):
    rows = read_table(Path(write(tmp_path / "in.jsonl", '{"text": "hi", "n": 1}\n{"text": "", "n": null}\n')))
    added = [{"predicted": "x", "p(x)": 0.5}, {"predicted": None, "p(x)": None}]
    parts = [(rows.select([place]), [own]) for place, own in enumerate(added)]
    for name in ("out.json", "out.jsonl", "out.parquet", "out.csv"):
        write_table(parts, str(tmp_path / name))
    wanted = [row | own for row, own in zip(rows, added, strict=True)]
    assert json.loads((tmp_path / "out.json").read_text()) == wanted
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == wanted
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == wanted
    assert (tmp_path / "out.csv").read_text().splitlines() == ["text,n,predicted,p(x)", "hi,1,x,0.5000", ",,,"]


@pytest.mark.parametrize("name", ["x.csv.gz", "x.xlsx", "x"])
def test_a_copy_in_a_format_that_is_not_written_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end in \.csv, .* or \.parquet"):
        check_output(str(tmp_path / name), "in.csv")


def test_a_copy_takes_the_place_of_rows_and_of_nothing_more(tmp_path):
    path = write(tmp_path / "rows.json", json.dumps(ROWS))
    check_output(path, path)
    served = [{"row_idx": number, "row": row} for number, row in enumerate(ROWS)]
    for more in ({"version": 1, "data": ROWS}, served, served[0]):
        write(tmp_path / "rows.json", json.dumps(more))
        with pytest.raises(ValueError, match="contains more than rows"):
            check_output(path, path)
    check_output(str(tmp_path / "other.json"), path)


def test_numbers_among_words_are_one_class_however_they_are_written(tmp_path):
    rows = [{"text": f"text {n}", "label": label} for n, label in enumerate([0, "0", 0.0, "x", True, 1] * 4)]
    path = write(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, rows)))
    assert load_split(DataSource(path))[1] == ["0", "1", "true", "x"]
    assert any("mean the same" in warning and "true" in warning for warning in data_report(DataSource(path)).warnings)


def test_one_line_keeps_what_joins_letters():
    assert one_line("क्\u200dष 👩\u200d🚒\n") == "क्\u200dष 👩\u200d🚒"


@pytest.mark.parametrize("names", [["a" * 201, "b"], [f"{n}{'好' * 100}" for n in range(1000)]])
def test_names_that_no_checkpoint_could_be_opened_with_are_refused_before_it_is_written(tmp_path, names):
    config = SwitchConfig(
        vocab_size=10, d_model=8, num_heads=2, d_ff=8, num_layers=2, num_experts=2, id2label=dict(enumerate(names))
    )
    with pytest.raises(ValueError, match=r"above (the|its) limit"):
        save_checkpoint(SwitchForSequenceClassification(config), None, tmp_path / "new")
    assert not (tmp_path / "new").exists()


AWKWARD = ["$0 to $10", "price_$0_to_$9", "a_{b^%\\frac{", "坏", "हिन्दी", "<b>x</b>", "g" * 200, "2020-01-01"]


def test_pictures_show_names_as_they_are_written_or_by_number(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plt, "close", lambda figure: drawn.append(figure))
    metrics = classification_metrics(range(8), np.eye(8), AWKWARD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_pictures(metrics, "$5 on 数据", tmp_path)
    for figure in drawn:
        shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        known = [drawable(name) for name in AWKWARD]  # A machine may have more fonts than matplotlib brings along.
        assert shown[:3] == AWKWARD[:3] and len(shown[6]) == 30
        assert [name == f"class {n}" for n, name in enumerate(shown, 1)] == [not each for each in known]
        assert not any(label.get_parse_math() for label in figure.axes[0].get_xticklabels())
        assert figure.get_suptitle().startswith("$5 on")
    page = (tmp_path / "confusion_matrix.html").read_text()
    assert '"type":"category"' in page and "\\u003cb\\u003ex" not in page


def test_a_letter_that_no_font_has_is_numbered_and_never_a_box():
    assert names_for_picture(["good", "\U000e0fff"]) == ["good", "class 2"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--validation_size", "0.99"], "leaves 1 of 80 rows for training, for 2 classes"),
        (["--output_dir", "{file}"], "is a file: --output_dir must be a folder"),
        (["--dataset", "{folder}/other.csv.gz"], "There is no file"),
        (["--dataset", "{folder}/table.feather"], "pandas"),
        (["--dataset", "{folder}/table.xlsx", "--task", "clm"], "is a spreadsheet"),
        (["--dataset", "https://example.com/my.csv"], "is an address"),
    ],
)
def test_errors_of_paths_and_shares_say_what_is_so(tmp_path, capsys, flags, said):
    file = _labelled(tmp_path, ["a", "b"] * 40)
    asked = [flag.format(file=file, folder=tmp_path) for flag in flags]
    assert main(["--dataset", file, "--preset", "tiny", "--max_steps", "1", *asked]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1
