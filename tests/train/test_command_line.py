"""The command line as someone meets it with a file of their own: what it prints can be pasted, and says what is so."""

import io
import json
import math
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from switch_model import SwitchConfig, load_checkpoint
from tests.support.small_model import SMALL
from train.arguments.arguments import Arguments
from train.cli.main import main
from train.cli.parser import read_flags
from train.data.fingerprint import Fingerprint
from train.release.card import model_card, with_own_licence
from train.runs.run import Run
from train.sweep.search_space import parse_search
from ui.catalog.models import ModelShelf
from ui.models.page import model_page


def test_the_command_to_train_the_same_again_runs_as_it_is_printed(own_file, own_run):
    words = shlex.split(own_run.arguments().again())
    assert words[:3] == ["python", "-m", "train"] and str(own_file) in words and "--output_dir" not in words
    again = own_run.folder.with_name("again")
    assert main([*words[3:], "--output_dir", str(again)]) == 0
    assert Run(again).arguments().to_dict() == own_run.arguments().to_dict() | {"output_dir": str(again)}


def test_rows_that_were_trained_on_are_said_to_be_and_those_held_out_can_be_measured(own_file, own_run, capsys):
    def evaluated(checkpoint, file, *more) -> tuple[dict, str]:
        capsys.readouterr()
        assert main(["evaluate", "--checkpoint", str(checkpoint), "--dataset", str(file), *more]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    metrics, said = evaluated(own_run.folder, own_file)
    assert (metrics["rows"], metrics["trained_rows"], metrics["trained_on"]) == (90, 72, "most")
    assert "72 of these rows were trained on" in said
    metrics, said = evaluated(own_run.folder, own_file, "--split", "validation")
    kept = max(own_run.metrics("eval"), key=lambda record: record["accuracy"])
    assert (metrics["rows"], metrics["trained_on"], said) == (18, "none", "")
    assert metrics["accuracy"] == pytest.approx(kept["accuracy"])

    # Moved elsewhere, it is the same file; another of its name is not.
    moved = shutil.copytree(own_run.best, own_file.parent / "moved")
    assert evaluated(moved, own_file, "--split", "validation")[0]["accuracy"] == pytest.approx(kept["accuracy"])
    other = own_file.parent / "other" / own_file.name
    other.parent.mkdir()
    other.write_text("".join(own_file.read_text().splitlines(keepends=True)[:50]))
    metrics, said = evaluated(moved, other)
    assert metrics["trained_on"] is None and said == ""
    assert main(["evaluate", "--checkpoint", str(moved), "--dataset", str(other), "--split", "validation"]) == 2
    assert "was not trained on its" in capsys.readouterr().err

    # With its run at hand, rows are known wherever they stand: in a file that grew, was sorted anew or renamed.
    lines = own_file.read_text().splitlines(keepends=True)
    grown = other.with_name("grown.csv")
    grown.write_text("".join([lines[0], *(f"a new text {n},class 1\n" for n in range(60)), *lines[:0:-1]]))
    metrics, said = evaluated(own_run.folder, grown, "--split", "validation")
    assert (metrics["rows"], metrics["trained_rows"]) == (18, 0) and "60 rows were added" in said
    assert metrics["accuracy"] == pytest.approx(kept["accuracy"])
    assert evaluated(own_run.folder, grown)[0]["trained_rows"] == 72
    words = ["--checkpoint", str(own_run.folder), "--dataset", str(grown), "--importance", "0"]
    assert main(["analyze", *words, "--output", str(other.parent / "report")]) == 0
    assert "72 of the 150 texts were trained on" in capsys.readouterr().out
    grown.write_text("".join([lines[0], *(f"never seen {n},class {n % 2}\n" for n in range(40))]))
    assert main(["evaluate", *words[:4], "--split", "validation"]) == 2
    assert "None of the 18 rows that" in capsys.readouterr().err


@pytest.mark.parametrize("left", [None, b"", b"PK torn"])
def test_a_run_that_lost_its_rows_knows_its_file_by_the_digest(own_run, own_file, left, tmp_path, capsys):
    run, grown = Run(shutil.copytree(own_run.folder, tmp_path / "run")), tmp_path / own_file.name
    shutil.copy(own_file, grown)
    values = json.loads(run.arguments_path.read_text())
    run.arguments_path.write_text(json.dumps(values | {"dataset": str(grown)}))
    run.rows_path.unlink() if left is None else run.rows_path.write_bytes(left)
    words = ["--checkpoint", str(run.folder), "--dataset", str(grown)]
    held_out = [*words, "--split", "validation"]
    assert main(["evaluate", *held_out]) == 0 and json.loads(capsys.readouterr().out)["rows"] == 18
    # `analyze` takes the same rows by the same name.
    assert main(["analyze", *held_out, "--importance", "0", "--output", str(tmp_path / "report")]) == 0
    assert capsys.readouterr().out.startswith("18 texts")
    with grown.open("a") as file:
        file.write("".join(f"a new text {number},class 1\n" for number in range(60)))
    for command in (["evaluate", *held_out], ["analyze", *held_out, "--output", str(tmp_path / "other")]):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert "was not trained on its present content" in said and said.count("\n") == 1
    assert main(["evaluate", *words]) == 0
    said = capsys.readouterr()
    assert (
        json.loads(said.out)["trained_on"] is None and "how many of these rows were trained on is not known" in said.err
    )


def test_a_text_that_stands_on_both_sides_is_not_held_out(own_file, tmp_path, capsys):
    lines = own_file.read_text().splitlines(keepends=True)
    file, folder = tmp_path / "twice.csv", tmp_path / "run"
    file.write_text("".join([*lines, *lines[1:31]]))
    assert main(["--dataset", str(file), *SMALL, "--max_steps", "1", "--output_dir", str(folder)]) == 0
    found = Fingerprint.load(Run(folder).rows_path)
    assert 0 < found.leaked < len(found.held_out)
    assert f"note: {found.leaked} of the 6 validation rows" in capsys.readouterr().err
    words = ["--checkpoint", str(folder), "--dataset", str(file), "--split", "validation"]
    assert main(["evaluate", *words]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"] == 6 - found.leaked and "trained on the same texts" in said.err


def test_class_names_in_a_card_are_no_markup(own_run):
    names = ["<b>|x", "[a](b)", "two_words\n_or_ *more*"]
    training = json.loads((own_run.best / "training.json").read_text())
    card = model_card(SwitchConfig(id2label=dict(enumerate(names))), training, (2, 1))
    assert "classifies texts into \\<b\\>\\|x, \\[a\\](b), two_words \\_or\\_ \\*more\\*." in card


def test_a_packaged_card_names_no_path_and_promises_no_licence_of_data_that_it_does_not_know(own_run, capsys):
    folder = own_run.folder.with_name("small")
    assert main(["package", "--run", str(own_run.folder), "--output", str(folder)]) == 0
    card = (folder / "README.md").read_text()
    assert "evaluate --checkpoint small --dataset good.csv --split train" in card and "\nlicense: other\n" in card
    assert "## Do the experts matter?" in card and "| all layers |" in card
    assert "its experts" in model_page(ModelShelf({"small": folder}, "cpu"), "small").facts
    assert str(folder.parent) not in card + (folder / "training.json").read_text()
    assert with_own_licence(card.replace("license: other", "license: apache-2.0")) == card


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"seed": 1,\n "max_step": 4}', "a.json, line 2: there is no argument max_step (did you mean max_steps?)."),  # noqa: E501
        ("b.yaml", "seed: 1\nmax_steps: four\n", "b.yaml, line 2: max_steps 'four' is not allowed: it must be a whole number or none."),  # noqa: E501
        ("c.json", '{"seed": 1,\n "lr" 2}', "c.json, line 2 is neither valid YAML nor JSON"),
        ("d.yaml", None, "there is no file"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_config_file_is_said_with_its_line(tmp_path, capsys, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["--config", str(tmp_path / name)]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1 and printed.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "text", "meant"),
    [
        ("num_experts", "8.0", 8),
        ("eval_steps", "1e3", 1000),
        ("capacity_factor", "inf", math.inf),
        ("lr", "none", None),
        ("router_bias", "yes", True),
        ("position", "learned", "learned"),
        ("dropout", "nan", "'nan' is not allowed: it must be a number"),
        ("num_heads", "2.5", "'2.5' is not allowed: it must be a whole number"),
        ("seed", "1e30", "'1e30' is too large"),
        ("position", "absolute", "'absolute' is not allowed: it must be relative, sinusoidal, learned"),
    ],
)
def test_a_value_is_read_alike_from_a_flag_a_file_and_a_search(tmp_path, capsys, name, text, meant):
    (tmp_path / "a.yaml").write_text(f"{name}: {text}\n")
    base = Arguments.resolve({"dataset": "imdb"})
    ways = {
        "flag": lambda: read_flags([f"--{name}", text], "")[0].to_dict()[name],
        "file": lambda: read_flags(["--config", str(tmp_path / "a.yaml")], "")[0].to_dict()[name],
        "search": lambda: parse_search([f"{name}={text}"], base)[0].choices[0],
    }
    for read in ways.values():
        try:
            found = read()
        except (ValueError, SystemExit) as error:
            found = f"{error}{capsys.readouterr().err}"
        refused = isinstance(meant, str) and meant.startswith("'")
        assert meant in found if refused else float(found) == meant if found == "inf" else found == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bogus"], "there is no command bogus. Commands: runs, stop, resume, "),
        (["resum", "x"], "did you mean resume?"),
        (["my.csv"], "To train on it: python -m train --dataset my.csv"),
        (["evaluate", "--checkpoint", "x", "--dataset", "toy", "--spilt", "x"], "--spilt (did you mean --split?)"),
        (["--num_expert", "4"], "there is no flag --num_expert (did you mean --num_experts?)"),
    ],
)
def test_unknown_words_get_the_nearest_known_one(words, said, capsys):
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr().err
    assert status == 2 and said in printed and printed.count("\n") == 1


def test_a_run_says_what_about_the_file_would_surprise(own_file, tmp_path, capsys):
    lines = own_file.read_text().splitlines()
    rows = [line.split(",")[0] + "," if number % 5 == 0 else line for number, line in enumerate(lines[1:])]
    file = tmp_path / "gaps.csv"
    file.write_text("\n".join([lines[0], *rows, *rows[:2], "one more,rare"]) + "\n")
    asked = ["--dataset", str(file), *SMALL, "--max_steps", "1", "--output_dir", str(tmp_path / "run")]
    assert main(asked) == 0
    said = capsys.readouterr().err
    notes = [line for line in said.splitlines() if line.startswith("note: ")]
    assert any("19 rows have no class" in note and note.endswith("are excluded.") for note in notes)
    assert any("1 class has fewer than 5 rows (rare: 1)" in note for note in notes) and len(notes) <= 5
    assert all(note in Run(tmp_path / "run").log_path.read_text() for note in notes)


def test_predict_writes_what_the_ending_of_the_file_says_and_each_column_once(own_file, own_run, tmp_path, capsys):
    first, second, third = (tmp_path / name for name in ("out.tsv", "again.tsv", "last.jsonl"))
    for source, target in ((own_file, first), (first, second), (second, third)):
        words = ["--checkpoint", str(own_run.folder), "--file", str(source), "--output", str(target)]
        assert main(["predict", *words]) == 0
        said = capsys.readouterr()
        assert said.out == "" and "90 rows with" in said.err and str(target) in said.err
    header = first.read_text().splitlines()[0].split("\t")
    assert header == ["text", "label", "predicted", "p(class 0)", "p(class 1)", "p(class 2)"]
    assert second.read_text() == first.read_text()
    assert list(json.loads(third.read_text().splitlines()[0])) == header


def test_a_dash_is_standard_output(own_file, own_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "--checkpoint", str(own_run.folder), "--file", str(own_file), "--output", "-"]) == 0
    assert capsys.readouterr().out.startswith("text,label,predicted,") and not any(tmp_path.iterdir())


@pytest.mark.parametrize("words", [["predict", "--checkpoint", ""], ["--output_dir", ""], ["--tokenizer", " "]])
def test_an_empty_path_is_refused(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and "it is empty" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("mount") or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk_leaves_the_file_that_is_read_and_written(own_file, own_run, tmp_path, capsys):
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        file = Path(shutil.copy(own_file, tmp_path))
        with pytest.raises(OSError), (tmp_path / "fill").open("wb", buffering=0) as filling:
            while filling.write(bytes(4096)):
                pass
        for name in (file.name, "other.parquet"):
            words = ["--checkpoint", str(own_run.folder), "--file", str(file), "--output", str(tmp_path / name)]
            assert main(["predict", *words]) == 2
            assert f"{name}: the disk is full. The previous file is unchanged" in capsys.readouterr().err
        assert main(["--dataset", "toy", "--max_steps", "1", "--output_dir", str(tmp_path / "run")]) == 2
        assert "the disk is full" in capsys.readouterr().err
        assert file.read_bytes() == own_file.read_bytes() and not any((tmp_path / "run").iterdir())
    finally:
        subprocess.run(["umount", str(tmp_path)])


def test_predict_says_that_no_text_came(own_run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["predict", "--checkpoint", str(own_run.folder)]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "Standard input is empty" in said.err


def test_a_trace_has_a_legend_of_what_it_shows(own_run, capsys):
    assert main(["predict", "--checkpoint", str(own_run.folder), "bada bedi", "--trace"]) == 0
    (legend,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("n 0.48: "))
    assert "was full" not in legend


@pytest.mark.parametrize(
    ("columns", "flags", "said"),
    [
        ("sentence1,sentence2,label", [], "--text_column sentence1,sentence2"),
        ("text,label", ["--label_column", "sort"], "has no column 'sort': it has 'text', 'label'."),
    ],
)
def test_errors_of_columns_quote_names_and_know_pairs(tmp_path, capsys, columns, flags, said):
    file = tmp_path / "pairs.csv"
    file.write_text(f"{columns}\n" + ",".join("abc"[: columns.count(",") + 1]) + "\n")
    assert main(["--dataset", str(file), *flags]) == 2
    assert said in capsys.readouterr().err


def test_the_toy_has_no_pairs(capsys):
    assert main(["--task", "translation"]) == 2
    assert "toy has no pairs of texts" in capsys.readouterr().err


def test_convert_takes_the_classes_of_the_run_whose_tokenizer_it_takes(own_run, tmp_path, capsys):
    model, _ = load_checkpoint(own_run.folder, "cpu")
    torch.save(model.state_dict(), tmp_path / "old.pt")
    words = [str(tmp_path / "old.pt"), "--tokenizer", str(own_run.folder), "--output", str(tmp_path / "new")]
    assert main(["convert", *words]) == 0 and "--labels" not in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "new", "cpu")[0].config.labels == ["class 0", "class 1", "class 2"]
    words[1:3] = ["--tokenizer", str(own_run.tokenizer)]
    assert main(["convert", *words]) == 0 and "3 classes have no names" in capsys.readouterr().out
