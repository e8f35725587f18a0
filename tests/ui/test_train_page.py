"""The runs of the Train tab, without a browser: started, watched, listed, opened, and what strangers may not do."""

import re
import shlex
import zipfile
from argparse import Namespace

import gradio as gr
import pytest

from switch_model import load_checkpoint
from tests.support.pages import save_tiny_mask_filler, save_tiny_storyteller, save_tiny_translator
from tests.support.train_inputs import FIRST, inputs
from train.arguments.arguments import Arguments
from train.cli.parser import read_flags
from train.data.loading import load_training_data
from train.runs.run import Run, RunError
from train.training.probe import make_probe
from ui.catalog.kinds import STORYTELLER
from ui.catalog.models import ModelShelf
from ui.catalog.samples import BUNDLED, SampleLibrary
from ui.explore.handlers import Explorer
from ui.explore.samples import SamplePicker
from ui.server.limits import VisitorLimits
from ui.server.workspace import clean_name
from ui.training.argument_form import NAMES
from ui.training.data_choice import NO_COLUMN, NONE_CHOSEN
from ui.training.live_run import LiveRun
from ui.training.new_run import NewRun
from ui.training.new_run_layout import create_new_run
from ui.training.run_history import RunHistory
from ui.training.tab import open_run
from ui.training.written_samples import NONE_YET, samples_html


def test_a_watched_run_is_drawn_once_per_change(workspace):
    live = LiveRun(workspace)
    assert workspace.to_attach_to() == "toy"
    head, progress, log, stop, resume, explore, *_, seen, drawn = live.tick("toy", "")
    assert "finished" in head and "step 96" in progress and "validation: loss" in log and drawn.startswith("toy")
    assert not stop["interactive"] and not resume["interactive"] and explore["interactive"]
    assert all(part == gr.skip() for part in live.tick("toy", seen))
    words, curves, *_ = live.draw("toy", None)
    assert "expert" in words and {trace.name for trace in curves.data} >= {"validation loss", "validation accuracy"}
    assert "There is no run" in live.tick("../etc", "")[0]


def test_a_run_opens_in_explore_with_a_text_that_it_held_out(workspace, toy_run):
    explore = Namespace(shelf=ModelShelf({"toy": toy_run.best}, "cpu"), library=SampleLibrary())
    pages, model, text, sample, source = open_run(workspace, explore, "toy", "")
    held_out = load_training_data(toy_run.arguments().selection).validation
    assert text == sample.text == held_out["text"][0] and sample.label == f"class {held_out['label'][0]}"
    assert (model["value"], pages.selected) == ("run toy", "explore")
    assert source["value"] in [value for _, value in source["choices"]]
    assert {row.text for row in explore.library.rows(source["value"])} <= {*held_out["text"]}
    assert explore.library.draw(source["value"], labels=["class 1"]).label == "class 1"
    assert not [title for title, _ in explore.library.choices() if "toy" in title]  # It is this visitor's alone.
    # Its rows stay on offer, and are no samples for another model.
    picker = SamplePicker(explore)
    assert picker.sources(model["value"], source["value"])["value"] == source["value"]
    left = picker.sources("another", source["value"])
    assert left["value"] == BUNDLED and source["value"] in [value for _, value in left["choices"]]
    with pytest.raises(gr.Error, match="no run"):
        open_run(workspace, explore, "gone", "")


def test_a_model_brings_a_text_of_its_own_kind(checkpoint, toy_run):
    explorer = Explorer(ModelShelf({"tiny": checkpoint, "toy": toy_run.best}, "cpu"), SampleLibrary())
    labels = explorer.shelf.load("tiny").labels
    review = explorer.library.first_of(["positive"])
    chosen = explorer.choose_model("tiny", review.text, review, None)
    assert chosen.sample.label in labels and chosen.text["value"] == chosen.sample.text == chosen.view.text
    assert "value" not in explorer.choose_model("tiny", chosen.sample.text, chosen.sample, None).text
    # What a visitor typed stays; an example of a kind is nobody's.
    assert explorer.choose_model("tiny", "my own words", review, None).view.text == "my own words"
    assert explorer.choose_model("tiny", STORYTELLER.example, review, None).sample.label in labels
    # A run's classes are those of no bundled text: it brings a row that it held out.
    held_out = load_training_data(toy_run.arguments().selection).validation
    assert explorer.choose_model("toy", review.text, review, None).view.text == held_out["text"][0]


def test_a_run_is_said_to_wait_only_behind_another(workspace):
    live, history = LiveRun(workspace), RunHistory(workspace)
    for name in ("second", "third"):
        arguments = Arguments.resolve({"dataset": "toy", "output_dir": str(workspace.root / name)})
        Run.create(arguments, state="queued")
    assert "starting" in live.tick("second", "").head and "queued" in live.tick("third", "").head
    assert "waiting for its turn" in live.tick("third", "").progress
    assert {row[0]: row[1] for row in history.table()} == {"toy": "finished", "second": "starting", "third": "queued"}


def test_a_run_that_is_stopped_while_it_starts_says_so(workspace):
    live = LiveRun(workspace)
    arguments = Arguments.resolve({"dataset": "toy", "output_dir": str(workspace.root / "second")})
    Run.create(arguments, state="queued")
    seen = live.tick("second", "").seen
    live.stop("second")
    now = live.tick("second", seen)
    assert "stopping" in now.head and "before its first step" in now.progress and not now.stop["interactive"]


def test_a_run_is_renamed_packed_continued_and_deleted(workspace):
    history = RunHistory(workspace)
    assert history.table()[0][:3] == ["toy", "finished", "toy"]
    assert "Renamed to my-toy" in history.rename("toy", "my toy")[1]
    with zipfile.ZipFile(history.download("my-toy")) as packed:
        names = packed.namelist()
        assert "best/model.safetensors" in names and not [
            name for name in names if "optimizer" in name or "log" in name
        ]
        assert str(workspace.root) not in packed.read("arguments.json").decode()
    filled = NewRun(workspace).go_on_from("my-toy")
    assert filled[FIRST + NAMES.index("init_from")] == (workspace.root / "my-toy" / "best").as_posix()
    command, wrong = NewRun(workspace).preview("toy", "classification", *NONE_CHOSEN, *filled[6:-1])
    assert "--init_from" in command and not wrong
    figure, said = history.compare(["my-toy"], "loss", "step")
    assert figure.data and said
    assert history.ask_to_rename("my-toy")[1] == "my-toy"
    shown, question, renaming = history.ask_to_delete("my-toy")
    assert "Delete <b>my-toy</b>?" in question and shown["visible"] and not renaming["visible"]
    assert "Deleted" in history.delete("my-toy")[1] and not workspace.names()
    assert "There is no run" in history.delete("my-toy")[1]


def test_strangers_meet_limits(workspace, tmp_path):
    workspace.limits = VisitorLimits(rows=500, steps=20, minutes=1)
    page = NewRun(workspace)
    asked = page.arguments(*inputs(epochs="1000", num_samples="9000"))
    assert (asked.data.num_samples, asked.train.max_steps, asked.train.max_minutes) == (500, 20, 1)
    assert page.arguments(*inputs(total_iters="9000")).train.total_iters == 20
    refused = [
        inputs(str(tmp_path / "toy" / "metrics.jsonl")),
        inputs("owner/name"),
        inputs(d_model="4096"),
        inputs(num_decoder_layers="99"),
        inputs(tokenizer="/etc"),
        inputs(init_from="/etc"),
        inputs(report_to="wandb"),
    ]
    assert all(page.preview(*wanted)[1] for wanted in refused)
    assert page.preview(*inputs(init_from=str(workspace.root / "toy" / "best")))[0]
    history = RunHistory(workspace)
    assert "only who started" in history.delete("toy")[1] and "only who started" in LiveRun(workspace).stop("toy")
    # One run per visitor, and so many in the queue.
    for name, visitor in (("a", "me"), ("b", "you")):
        Run.create(Arguments.resolve({"dataset": "toy", "output_dir": str(workspace.root / name)}))
        workspace.started(name, visitor)
    with pytest.raises(RunError, match="You have a run"):
        workspace.check_may_start("me")
    workspace.check_may_start("someone else")
    workspace.limits = VisitorLimits(queue=2)
    with pytest.raises(RunError, match="try again later"):
        workspace.check_may_start("someone else")
    assert "try again later" in page.start(None, *inputs())[0]


def test_what_the_train_button_says_is_not_written_over(workspace):
    """Whatever follows its click would take a refusal off the page again."""
    with gr.Blocks() as demo, gr.Tabs() as tabs, gr.Tab() as tab:
        create_new_run(NewRun(workspace), tab, tabs, gr.Dropdown())
    (start,) = (event for event in demo.fns.values() if getattr(event.fn, "__name__", "") == "start")
    assert "wrong" in {part.elem_id for part in start.outputs}
    assert not [event for event in demo.fns.values() if event.trigger_after == start._id]


@pytest.mark.parametrize("name, clean", [("../../etc/passwd", "etc-passwd"), (" a b ", "a-b"), ("…", ""), (None, "")])
def test_names_of_runs_are_names_of_folders(name, clean):
    assert clean_name(name) == clean


def test_publishing_without_a_login_is_a_sentence(workspace, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    said = RunHistory(workspace).publish("toy", "me/my-model", True)
    assert said.startswith('<p class="facts"') and "Published" not in said


def test_a_run_goes_on_with_the_shape_it_had_and_its_columns_are_on_offer(workspace, toy_run, tmp_path):
    """A queued run finds its arguments as they were written, whatever the model it starts from brings along."""
    start_from = str(toy_run.folder / "best")
    arguments = Arguments.resolve({"dataset": "toy", "init_from": start_from, "num_experts": 6, "output_dir": "x"})
    read, _ = read_flags(shlex.split(NewRun(workspace).command(arguments))[3:], epilog="")
    assert read.to_dict() == arguments.to_dict()
    (tmp_path / "odd.csv").write_text('"a,b",kind\none,x\ntwo,y\n')
    card, text, label, *_ = NewRun(workspace).data.look_at(str(tmp_path / "odd.csv"), "classification", *NONE_CHOSEN)
    assert 'role="alert"' in card and text["choices"] == [NO_COLUMN, "a,b", "kind"] == label["choices"]


@pytest.mark.parametrize(
    "save, stack",
    [(save_tiny_translator, "encoder"), (save_tiny_storyteller, "decoder"), (save_tiny_mask_filler, "encoder")],
)
def test_a_text_is_watched_in_models_of_every_kind(tmp_path, save, stack):
    model, tokenizer = load_checkpoint(save(tmp_path / "model"), "cpu")
    model.train()
    seen = make_probe("oil prices rose", tokenizer)(model)
    assert model.training and [layer["layer"] for layer in seen["layers"]] == [f"{stack}.0", f"{stack}.1"]
    assert all(len(layer["expert"]) == len(seen["pieces"]) for layer in seen["layers"])


def test_what_a_model_writes_is_shown_as_text_the_latest_first():
    lines = [
        {"kind": "samples", "step": step, "samples": [{"text": "<b>hi", "answer": f"ho {step}", "reference": "hallo"}]}
        for step in range(10, 200, 10)
    ]
    html = samples_html(lines)
    steps = [int(step) for step in re.findall(r"ho (\d+)", html)]
    assert "&lt;b&gt;hi" in html and "hallo" in html and "<b>hi" not in html
    assert steps[0] == 190 and steps[-1] == 10 and len(steps) == 6
    assert samples_html([{"kind": "samples", "step": 1, "samples": []}]) == NONE_YET


def test_a_run_whose_arguments_can_not_be_read_is_listed_and_can_be_deleted(workspace):
    (workspace.root / "toy" / "arguments.json").write_text("")
    history, live = RunHistory(workspace), LiveRun(workspace)
    assert history.table()[0][0] == "toy"
    name, said, *buttons = history.chosen("toy")
    assert (
        name == "toy"
        and "it is empty" in said
        and [button["interactive"] for button in buttons[:6]] == [False] * 5 + [True]
    )
    assert "it is empty" in live.tick("toy", "")[0] and live.draw("toy", None).curves is None
    assert history.compare(["toy"], "loss", "step")[0] is None and history.measures(["toy"], "loss")
    history.delete("toy")
    assert not (workspace.root / "toy").exists()
