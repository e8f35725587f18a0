"""Training in a real Chromium: a run started, reloaded, stopped, resumed and explored."""

import csv
import re

import psutil
import pytest

from tests.support.explore_page import wait_for_words
from tests.support.pages import running_app, save_tiny_checkpoint
from tests.support.waits import wait_until
from train.data.toy import make_toy
from train.runs.run import Run
from ui.training.argument_form import BASIC, NAMES


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """An app of its own, where runs may be started: (address, folder of runs)."""
    runs = tmp_path_factory.mktemp("page") / "runs"
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    with running_app(folder, tmp_path_factory.mktemp("none"), runs) as address:
        yield address, runs


def step_shown(page) -> int:
    """The step that the live tab shows; 0 before the first."""
    found = re.search(r"step ([\d,]+)", page.inner_text("#progress"))
    return int(found[1].replace(",", "")) if found else 0


def wait_for_state(page, state: str) -> None:
    page.wait_for_function("state => document.querySelector('#run-head .state')?.textContent === state", arg=state)


def choose_size(page, label, preset):
    """Its arguments have arrived in the form then: what is typed before would be lost."""
    page.locator("#preset").get_by_label(label).check()
    wait_for_command(page, f"--preset {preset}")


def wait_for_command(page, words):
    page.wait_for_function("words => document.querySelector('#command textarea').value.includes(words)", arg=words)


def uploaded(page, address, table, said):
    """The page, whose Train tab was given a table, and says this of it."""
    page.goto(address)
    page.get_by_role("tab", name="Train").click()
    page.set_input_files("[data-testid='Upload a file-upload-button']", table)
    wait_for_words(page, "#data-report", said)
    return page


BASICS = ("train-data", "task", "text-column", "label-column", "preset", "argument-epochs", "argument-lr")
BASICS += ("argument-num_experts", "run-name")
SHOWN = "[...document.querySelectorAll('#advanced .argument')].filter(one => one.offsetHeight).map(one => one.id)"
# Of boxes, buttons and choices; the arrow and the box of a list are parts of a larger one.
SMALL = """[...document.querySelectorAll('#train-page :is(.buttons button, .checkbox-container, .argument input:not(' +
'[type=checkbox], [type=radio], [role=combobox]), .wrap:has(> .wrap-inner), #preset label, #task label)')].filter(
one => one.offsetHeight && one.getBoundingClientRect().height < 40).map(one => one.outerHTML)"""


def test_basics_are_in_view_and_a_search_finds_the_rest_on_a_phone_too(new_page, workspace):
    address, _ = workspace
    page = new_page(width=390, height=844)
    page.goto(f"{address}#tab=train")
    for name in BASICS:
        page.wait_for_selector(f"#{name} .info-text em", state="visible")
    assert not page.evaluate(SHOWN)
    page.click("#advanced > .label-wrap")
    page.wait_for_selector("#argument-seed")
    everything = page.evaluate(SHOWN)
    assert len(everything) == len(NAMES) - len(BASIC) and page.locator("#advanced .info-text em:visible").count() > 80
    assert page.evaluate("document.documentElement.scrollWidth") == 390 and not page.evaluate(SMALL)

    sent = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    for words, found in (
        ("lr_sch", ["argument-lr_schedule"]),
        ("FACTOR capacity train", ["argument-capacity_factor"]),
        ("no such thing", []),
        ("", everything),
    ):
        page.fill("#advanced input[type=search]", words)
        assert page.evaluate(SHOWN) == found
    assert not [data for data in sent if "capacity train" in data]


def test_train_reload_stop_resume_and_open_in_explore(new_page, workspace, tmp_path):
    address, runs = workspace
    rows, names = make_toy(300, num_classes=2)
    with (tmp_path / "my words.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((row["text"], names[row["label"]]) for row in rows)

    page = uploaded(new_page(), address, tmp_path / "my words.csv", "300")
    choose_size(page, "none", "none")
    page.fill("#run-name input, #run-name textarea", "mine")
    page.click("#advanced > .label-wrap")
    for name, value in {"epochs": "30", "logging_steps": "5", "eval_steps": "25"}.items():
        page.fill(f"#argument-{name} input, #argument-{name} textarea", value)
        page.keyboard.press("Tab")
    wait_for_command(page, "--eval_steps 25")
    command = page.input_value("#command textarea")
    assert command.startswith("python -m train --dataset ") and command.endswith("--max_runs 1")
    page.click("#start")

    # The curve grows, also on a page that was loaded anew: the run is not the page's. Held meanwhile, because it would
    # be over before a slow browser is there.
    run = Run(runs / "mine")
    wait_until(lambda: run.metrics("train"))
    process = psutil.Process(run.state().pid)
    process.suspend()
    wait_for_state(page, "running")
    page.wait_for_selector("#curves .js-plotly-plot")
    page.reload()
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("tab", name="Live").click()
    wait_for_state(page, "running")
    before = step_shown(page)
    process.resume()
    wait_until(lambda: run.progress()["step"] > before)
    process.suspend()
    page.wait_for_function(
        "before => Number((document.querySelector('#progress').textContent.match(/step ([\\d,]+)/) || [0, '0'])[1]"
        ".replace(',', '')) > before",
        arg=before,
    )

    page.click("#stop")
    wait_until(run.stop_path.exists)
    process.resume()
    wait_for_state(page, "stopped")
    assert run.last_checkpoint() is not None and step_shown(page) < 270
    page.click("#resume:not([disabled])")
    wait_for_state(page, "finished")
    # What the command said is what ran.
    assert run.arguments().train.epochs == 30
    page.click("#open-in-explore")
    page.wait_for_function("document.querySelector('#caption').textContent.includes('mine')")
    page.wait_for_function("document.querySelector('#prediction').textContent.includes('class 0')")
    page.click("#browse")
    wait_for_words(page, "#samples .sample", "class")
    assert page.input_value("#source input") == "Validation rows of run mine"


def test_a_translation_from_an_upload_shows_what_it_writes(new_page, workspace, tmp_path):
    address, _ = workspace
    with (tmp_path / "cats.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["english", "german"], *([f"{n} cats", f"{n} Katzen"] for n in range(60))])
    page = uploaded(new_page(), address, tmp_path / "cats.csv", "60 pairs")
    assert page.get_by_label("translate").is_checked() and page.locator("#target-column").is_visible()
    choose_size(page, "tiny · a first look", "tiny")
    page.click("#advanced > .label-wrap")
    for name, value in {"max_steps": "4", "eval_steps": "2"}.items():
        page.fill(f"#argument-{name} input, #argument-{name} textarea", value)
        page.keyboard.press("Tab")
    wait_for_command(page, "--eval_steps 2")
    page.click("#start")
    wait_for_state(page, "finished")
    page.wait_for_function("document.querySelector('#samples-written')?.textContent.includes('step 4')")
    assert re.search(r"given\s*\d+ cats\s*wanted\s*\d+ Katzen", page.inner_text("#samples-written"))
