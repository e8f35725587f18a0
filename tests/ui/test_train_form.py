"""The form of the Train tab, without a browser: arguments, data and their columns, estimates, errors without flags."""

import gzip
import json
import re
import shlex
from argparse import Namespace
from pathlib import Path

import gradio as gr
import psutil
import pytest

from switch_model import SwitchConfig, load_checkpoint
from tests.support.train_inputs import FIRST, inputs
from train.arguments.arguments import Arguments
from train.arguments.values import HINTS
from train.cli.parser import read_flags
from train.data.loading import read_rows
from train.data.toy import make_toy
from train.distributed.processes import Processes
from train.preflight import estimate as preflight
from train.preflight import first_rows
from train.preflight.estimate import estimate
from train.runs.run import Run
from train.training.loop import prepare
from ui.server.limits import VisitorLimits
from ui.server.workspace import Workspace
from ui.training.argument_form import FORM, NAMES, given, values_of
from ui.training.data_choice import NO_COLUMN, NONE_CHOSEN
from ui.training.live_run import LiveRun
from ui.training.new_run import Followed, NewRun, Sized, estimate_html


@pytest.mark.parametrize("preset", ["none", "tiny", "small", "base"])
def test_the_form_holds_every_argument_and_changes_none(preset):
    arguments = Arguments.resolve({"dataset": "imdb", "preset": preset, "lr": 1.25e-4, "capacity_factor": float("inf")})
    back = given(values_of(arguments))
    assert back == {name: value for name, value in arguments.to_dict().items() if name in NAMES} | {
        "capacity_factor": float("inf")
    }
    assert all(item.metadata["help"] and item.metadata["label"] for _, items in FORM for item in items)
    # Every argument of the command line is asked for, but for the folder of data sets, which is the page's own.
    chosen = {"dataset", "task", "text_column", "label_column", "target_column", "language", "preset", "output_dir"}
    assert {*NAMES} | chosen == {*HINTS} - {"data_dir"} and not {*NAMES} & chosen


def test_the_command_shown_is_the_command_that_the_shell_reads(workspace):
    page = NewRun(workspace)
    wanted = inputs("toy", "tiny", "über mich / 2", lr="3e-4", router_bias=True, compile="off")
    command, wrong = page.preview(*wanted)
    assert not wrong and command.startswith("python -m train ")
    read, max_runs = read_flags(shlex.split(command)[3:], epilog="")
    assert read.to_dict() == page.arguments(*wanted).to_dict() and max_runs == 1
    assert Path(read.train.output_dir) == workspace.root / "ber-mich-2"
    assert page.preview(*inputs(lr="fast")) == (
        "",
        '<p class="notice" role="alert">“Learning rate” &#39;fast&#39; is not allowed: it must be a number or none.'
        "</p>",
    )


def test_arguments_go_to_a_file_and_come_back(workspace, tmp_path):
    page = NewRun(workspace)
    wanted = inputs(num_experts="6", capacity_factor="inf")
    path = page.save(*wanted)
    filled = page.load(path)
    assert list(filled[FIRST:]) == wanted[FIRST:] and filled.dataset["value"] == "toy"
    (tmp_path / "bad.json").write_text('{"num_expert": 3}')
    with pytest.raises(gr.Error, match="num_expert"):
        page.load(str(tmp_path / "bad.json"))


def test_a_broken_upload_is_a_sentence(workspace, tmp_path):
    (tmp_path / "broken.csv").write_bytes(b"\x00\xff\xfe\x00nothing")
    page = NewRun(workspace)
    kept = str(page.workspace.keep_upload(str(tmp_path / "broken.csv")))
    card, *_, facts = page.data.look_at(kept, "classification", *NONE_CHOSEN)
    assert 'role="alert"' in card and "Traceback" not in card and facts is None


def test_an_estimate_counts_what_the_run_will_do(workspace, toy_run):
    arguments = Arguments.resolve({"dataset": "toy", "epochs": 3.0})
    found = estimate(arguments, rows=1000, classes=3, words=[10, 12, 14])
    model, _ = load_checkpoint(toy_run.best, "cpu")
    assert found.steps == 96 and found.seconds > 0
    assert abs(found.parameters - model.num_parameters()) < 0.05 * model.num_parameters()
    counted, timed = NewRun(workspace).estimate({"rows": 1000, "classes": 3, "words": [12]}, *inputs())
    assert "timing a few steps" in counted and "on this machine" in timed


def test_an_estimate_takes_no_memory_of_the_page_and_gives_up_in_time(monkeypatch):
    arguments = Arguments.resolve({"dataset": "toy", "num_layers": 200, "d_model": 64, "num_heads": 4})
    counts = estimate(arguments, rows=1000, classes=3, words=[12], timed=False)
    assert counts.parameters > 200 * 4 * 64**2 and counts.seconds is None
    before = psutil.Process().memory_info().rss
    monkeypatch.setattr("train.preflight.estimate.MEMORY", 30_000_000)
    found = estimate(arguments, rows=1000, classes=3, words=[13])
    assert "more than 0.03 GB of memory" in found.untimed and "0.03 GB" in estimate_html(found)
    assert psutil.Process().memory_info().rss - before < 100_000_000
    monkeypatch.setattr("train.preflight.estimate.WORK_SECONDS", 0.0)
    monkeypatch.setattr("train.preflight.estimate.MEMORY", 4_000_000_000)
    assert "more than 0 seconds" in estimate(arguments, rows=1000, classes=3, words=[5]).untimed


@pytest.mark.parametrize("every", [(1, None, 1), (2, 3, 2), (3, 0, 1)])
def test_a_deep_models_parameters_come_from_shallow_ones(every, monkeypatch):
    names = ("encoder_sparse_step", "decoder_sparse_step", "attention_sparse_step")
    small = {"vocab_size": 50, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_heads": 2, "num_experts": 3}
    shape = small | dict(zip(names, every, strict=True)) | {"num_layers": 23, "num_decoder_layers": 17}
    config = SwitchConfig(**shape, attention_experts="projections").to_json_string(use_diff=False)
    count, built = preflight._count, []
    monkeypatch.setattr(preflight, "_count", lambda task, made: built.append(json.loads(made)) or count(task, made))
    assert preflight._counts("translation", config) == count("translation", config)
    assert built and all(one["num_layers"] < 20 for one in built)


@pytest.mark.parametrize(
    "name, value, said", [("lr", "999", "high"), ("lr", "1e-12", "low"), ("dropout", "0.95", "left")]
)
def test_arguments_that_are_hardly_meant_are_warned_of(workspace, name, value, said):
    command, warned = NewRun(workspace).preview(*inputs(**{name: value}))
    assert command and said in warned and 'role="status"' in warned
    assert NewRun(workspace).preview(*inputs())[1] == ""


def test_a_late_answer_is_dropped_and_a_preset_chosen_meanwhile_stays(workspace, monkeypatch):
    """Handlers as the browser calls them; reading the first data set takes until others were chosen."""
    page, me, other = NewRun(workspace), Namespace(session_hash="me"), Namespace(session_hash="other")
    meanwhile = []

    def slowly(*given, choose=page.data.choose):
        while meanwhile:
            meanwhile.pop()()
        return choose(*given)

    monkeypatch.setattr(page.data, "choose", slowly)
    choose_data, looked = page.in_turn(page.choose_data), {"rows": 3}
    # Another size, before the data are there: it stays, the form is filled for it, and Train waits.
    said, button = page.begin(me)
    assert "Reading" in said and not button["interactive"] and not page.ready(me, looked)["interactive"]
    assert not [*page.estimate_in_turn(me, looked, *inputs())] and [*page.estimate_in_turn(other, None, *inputs())]
    assert page.ready(other, looked)["interactive"]
    sizes = []
    meanwhile.append(lambda: sizes.append(page.preset_in_turn(me, "base", "toy", "classification", "")))
    answer = choose_data(me, "mini_news", "")
    assert sizes == [Sized()] and answer.preset == "base"
    assert answer.d_model == page.choose_preset("base", "mini_news", "classification").d_model != "64"
    assert page.ready(me, looked)["interactive"] and not page.ready(me, None)["interactive"]
    # Other data, before the first are there: theirs is the only answer.
    later = []
    meanwhile.append(lambda: later.append((page.begin(me), choose_data(me, "mini_reviews", ""))))
    page.begin(me)
    assert choose_data(me, "mini_news", "") == Followed()
    assert "negative" in later[0][1].card and later[0][1].preset == "tiny" and page.ready(me, looked)["interactive"]


def test_train_waits_until_the_form_is_filled_for_the_last_preset(workspace):
    page, me, looked = NewRun(workspace), Namespace(session_hash="me"), {"rows": 3}
    for preset in ("tiny", "base"):
        assert not page.begin_size(me, preset)["interactive"]
    page.preset_in_turn(me, "tiny", "toy", "classification", "")
    assert not page.ready(me, looked)["interactive"]
    assert page.preset_in_turn(me, "base", "toy", "classification", "") != Sized()
    assert page.ready(me, looked)["interactive"]
    # The answer about data reaches the browser after the click on a preset, and puts its own there.
    page.begin(me)
    assert page.in_turn(page.choose_data)(me, "toy", "").preset == "none"
    page.begin_size(me, "base")
    filled = page.preset_in_turn(me, "none", "toy", "classification", "")
    assert filled.preset == "base" and filled[1:] == page.choose_preset("base", "toy", "classification")
    assert page.ready(me, looked)["interactive"]


def test_an_estimate_knows_small_data_the_model_started_from_and_what_ends_it(workspace, tmp_path):
    """What the page says of a table, and of a run that goes on from another, is what training then prints."""
    rows, names = make_toy(120, num_classes=2)
    table = tmp_path / "few.csv"
    table.write_text("text,label\n" + "".join(f"{row['text']},{names[row['label']]}\n" for row in rows))
    page = NewRun(workspace)
    *_, facts = page.data.look_at(str(table), "classification", *NONE_CHOSEN)
    small = {"dataset": str(table), "preset": "tiny", "d_model": 16, "num_heads": 2, "epochs": 90.0}
    for start_from in (
        {},
        {"init_from": str(workspace.root / "toy" / "best"), "preset": "none", "d_model": None, "num_heads": None},
    ):
        values = {key: value for key, value in (small | start_from).items() if value is not None}
        found = estimate(Arguments.resolve(values), **facts, timed=False)
        model = prepare(Arguments.resolve(values), Processes()).model
        assert found.exact == bool(start_from)
        assert 0 <= found.parameters - model.num_parameters() <= (0 if start_from else 16 * 20)
    found = estimate(Arguments.resolve(small | {"batch_size": 32, "max_steps": 50}), **facts, timed=False)
    assert found.ended_by == "max_steps" and "max_steps ends it at epoch 12" in estimate_html(found)


def test_an_uploaded_file_is_kept_once(workspace, tmp_path):
    (tmp_path / "my file.csv").write_text("text,label\na,x\nb,y\n")
    kept = [workspace.keep_upload(str(tmp_path / "my file.csv")) for _ in range(2)]
    assert kept[0] == kept[1] and kept[0].parent == workspace.uploads and kept[0].suffix == ".csv"


def test_a_packed_upload_is_read_and_on_a_public_page_bounded(workspace, tmp_path):
    for name in ("one", "two"):  # Another file of the same name keeps its endings.
        (tmp_path / name).mkdir()
        rows = "".join(f"{name} {n},{'ab'[n % 2]}\n" for n in range(60))
        (tmp_path / name / "my.csv.gz").write_bytes(gzip.compress(f"text,label\n{rows}".encode()))
        dataset, _, card, *_ = NewRun(workspace).upload(str(tmp_path / name / "my.csv.gz"))
        assert f"{name} 0" in card and dataset["value"].endswith(".csv.gz")
    assert workspace.folder_for(None, dataset["value"]).name.startswith("my-")
    public = Workspace(tmp_path / "public", limits=VisitorLimits(unpacked=100))
    with pytest.raises(gr.Error, match=r"my.csv.gz takes more than"):
        NewRun(public).upload(str(tmp_path / "one" / "my.csv.gz"))
    assert not public.uploads.exists()


def test_numbers_of_a_file_are_read_as_those_of_a_flag(workspace, tmp_path):
    (tmp_path / "some.yaml").write_text("dataset: toy\nlr: 1e-3\nnum_experts: 8\n")
    filled = NewRun(workspace).load(str(tmp_path / "some.yaml"))[FIRST:]
    assert filled[NAMES.index("lr")] == "0.001" and filled[NAMES.index("num_experts")] == "8"


PAIRS = "en,de\n" + "".join(f"the {n} cats,die {n} Katzen\n" for n in range(60))


@pytest.mark.parametrize(
    "content, task",
    [
        (PAIRS, "translation"),
        ("text,target\n" + "\n".join(PAIRS.splitlines()[1:9]) + "\n", "translation"),
        ("text,label\na b,x\nb c,y\na c,x\nb b,y\n", "classification"),
        ("line\n" + "some words\nother words\n" * 9, "clm"),
    ],
)
def test_the_task_of_an_uploaded_table_is_found(workspace, tmp_path, content, task):
    (tmp_path / "mine.csv").write_text(content)
    page = NewRun(workspace)
    dataset, learned, card, *_ = page.upload(str(tmp_path / "mine.csv"))
    assert learned["value"] == task and 'role="alert"' not in card
    assert dataset["value"].endswith("mine.csv")


def test_few_values_in_a_column_without_a_telling_name_are_classes(workspace, tmp_path):
    (tmp_path / "odd.csv").write_text("kind,words\n" + "".join(f"k{n % 3},these are {n}\n" for n in range(400)))
    _, task, card, text, label, *_ = NewRun(workspace).upload(str(tmp_path / "odd.csv"))
    assert (task["value"], text["value"], label["value"]) == ("classification", "words", "kind")
    assert "<b>3</b> classes" in card


@pytest.mark.parametrize(
    "columns, chosen",
    [
        ("nr,kind,words", ("words", "kind")),
        ("nr,kind,text", ("text", "kind")),  # What a name says stays; only the rest is guessed.
        ("nr,topic,words", ("words", "topic")),
    ],
)
def test_unclear_columns_are_chosen_by_content_and_a_sentence_says_so(workspace, tmp_path, columns, chosen):
    path = tmp_path / "odd.csv"
    path.write_text(columns + "\n" + "".join(f"a{n},k{n % 3},these are {n}\n" for n in range(400)))
    _, _, card, text, label, *_ = NewRun(workspace).upload(str(path))
    assert (text["value"], label["value"], 'role="alert"' in card) == (*chosen, False)
    assert f"“{chosen[0]}” for texts and “{chosen[1]}” for classes" in card
    pair = NewRun(workspace).choose_task("translation", str(path), "tiny")
    longest = sorted((columns.split(",")[0], columns.split(",")[2]))
    assert sorted((pair.text_column["value"], pair.target_column["value"])) == longest and "target texts" in pair.card


def test_unclear_columns_are_refused_without_flags_and_what_is_missing_is_listed_last(workspace, tmp_path):
    page, path = NewRun(workspace), tmp_path / "odd.csv"
    for content, words in (("a,b\nx y z,1\n", "Column of"), ("text,label\nx,[1]\n" * 1, "")):
        path.write_text(content)
        said = page.data.look_at(str(path), "classification", *NONE_CHOSEN)[0]
        assert words in said and not re.search(r"--\w", said)
    followed = page.choose_data("imdb")
    assert "imdb is not reachable" in followed.card and followed.estimate == "" and followed.dataset["choices"]
    titles = [title for title, _ in page.data.choices()]
    assert (
        titles[:3] == ["toy", "mini_news", "mini_reviews"]
        and "not available here: the Hugging Face Hub is" in titles[-1]
    )


@pytest.mark.parametrize("limits", [None, VisitorLimits()])
def test_no_error_of_the_form_speaks_of_flags(workspace, limits):
    """Each field with nonsense in it, and with numbers that no rule allows; then what an estimate and a run find."""
    workspace.limits = limits
    page, said = NewRun(workspace), []
    for name in NAMES:
        for value in ("nonsense", "-1", "", "1e9"):
            asked = inputs(**{name: value})
            command, words = page.preview(*asked)
            said += [] if command else [words, page.start(None, *asked).wrong]
    other_shape = inputs(init_from=str(workspace.root / "toy" / "best"), num_experts="6")
    said += page.estimate({"rows": 9, "classes": 2, "words": [3]}, *other_shape)
    assert len(said) > len(NAMES) and all('role="alert"' in words for words in said)
    assert not [words for words in said if re.search(r"--\w|[A-Z]_[A-Z]|can&#39;t be used here", words)]
    run = Run.create(Arguments.resolve({"dataset": "toy", "output_dir": str(workspace.root / "gone")}))
    run.set_state("failed", "The loss became nan at step 3: try a lower --lr.")
    assert "lower “Learning rate”." in LiveRun(workspace).tick("gone", "").head


def test_each_task_has_its_card_columns_command_and_estimate(workspace, tmp_path):
    (tmp_path / "pairs.csv").write_text(PAIRS + "same,same\n,leer\n")
    page, path = NewRun(workspace), str(tmp_path / "pairs.csv")
    for task, row, words in (
        ("translation", "pair", "61</b> pairs"),
        ("clm", "block", "61</b> texts"),
        ("mlm", "text", "61</b> texts"),
        ("span_corruption", "text", "61</b> texts"),
    ):
        column = NO_COLUMN if task == "translation" else "en"
        card, text, label, target, _, facts = page.data.look_at(path, task, column, NO_COLUMN, NO_COLUMN, "")
        assert words in card and not label["visible"]
        assert ("1 pair has the same text on both sides" in card) == (task == "translation")
        assert target["visible"] == (task == "translation") and text["choices"] == [NO_COLUMN, "en", "de"]
        small = {"d_model": "16", "d_ff": "32", "num_layers": "1", "num_heads": "2", "vocab_size": "200"}
        form = dict(zip(NAMES, page.choose_preset("tiny", path, task), strict=True)) | small
        asked = [path, task, column, "kind", "de", "", "tiny", "", *form.values()]
        command, wrong = page.preview(*asked)
        assert f"--task {task}" in command and not wrong and "--label_column" not in command
        assert ("--target_column" in command) == (task == "translation")
        *_, said = page.estimate(facts, *asked)
        assert f"tokens a {row}" in said and "not timed" not in said


def test_another_task_refills_the_form_and_keeps_the_run_to_start_from(workspace):
    filled = NewRun(workspace).choose_task("clm", "toy", "small", "runs/toy/best")
    assert filled.seq_len == "256" and filled.init_from == "runs/toy/best" and filled.task["value"] == "clm"


def test_a_report_is_kept_until_its_file_changes(workspace, tmp_path, monkeypatch):
    path = tmp_path / "mine.csv"
    path.write_text("text,label\na b,x\nb c,y\n")
    read = []
    monkeypatch.setattr(first_rows, "read_rows", lambda *args: read.append(args) or read_rows(*args))
    look = NewRun(workspace).data.look_at
    assert look(str(path), "classification", *NONE_CHOSEN)[-1]["rows"] == 2
    look(str(path), "classification", *NONE_CHOSEN)
    assert len(read) == 1
    path.write_text("text,label\na b,x\nb c,y\nc d,x\n")
    assert look(str(path), "classification", *NONE_CHOSEN)[-1]["rows"] == 3
