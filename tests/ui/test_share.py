"""Links, records and files of a view: what goes out comes back, and what is damaged says so."""

import csv
import io
import json
import math
import re
from pathlib import Path
from urllib.parse import urlencode

import gradio as gr
import pytest
import torch
from gradio.exceptions import Error

from switch_model import Interventions
from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.explore.details import look
from ui.explore.handlers import Explorer
from ui.explore.share_bar import keep, make_link
from ui.sharing.link import address_of, link_of, plain_link, read_link
from ui.sharing.records import read_record, record_of
from ui.sharing.routing_csv import routing_csv

TEXT = "Oil <b>prices</b> rose $5 as traders won, 石油"


@pytest.fixture(scope="module")
def explorer(checkpoint):
    return Explorer(ModelShelf({"tiny": checkpoint}, "cpu"), SampleLibrary())


@pytest.fixture
def view(explorer):
    view, *_ = explorer.route("tiny", TEXT, None)
    view, *_ = explorer.intervene(view, {"kind": "change", "off": [[0, 3]], "capacity": "none"})
    view, *_ = explorer.intervene(look(view, 1, 1)[0], {"kind": "force", "expert": 2})
    return view


def test_a_link_brings_back_text_place_and_changes(explorer, view):
    shown = explorer.restore("#s=" + link_of(view))
    again = shown.view
    assert (shown.text["value"], shown.model) == (TEXT, "tiny") and "experts" in shown.caption
    assert again.prediction.scores == pytest.approx(view.prediction.scores)
    assert (again.token, again.layer, again.changes) == (1, 1, view.changes)
    assert again.changes.force == {("encoder.3", 1): 2}


def test_the_address_brings_back_model_text_and_place_and_no_private_model(explorer, view):
    plain = type(view)(**vars(view) | {"changes": Interventions(), "true_label": "Sports"})
    assert address_of(plain) == {"model": "tiny", "text": TEXT, "label": "Sports"}
    again = explorer.restore(plain_link(**address_of(plain), token=1, layer=1)).view
    assert (again.model, again.text, again.place, again.true_label) == ("tiny", TEXT, (1, 1), "Sports")
    # Changes and longer texts are packed.
    again = explorer.restore("#s=?" + urlencode({**address_of(view), "layer": 0, "token": 2})).view
    assert (again.changes, again.place) == (view.changes, (2, 0))
    long = type(plain)(**vars(plain) | {"text": "oil " * 300})
    assert read_link("?" + urlencode(address_of(long))).text == long.text
    # A visitor's own model is gone after a reload, its text is not.
    assert address_of(type(plain)(**vars(plain) | {"model": "mine #x"})) == {"text": TEXT, "label": "Sports"}
    assert explorer.restore("#s=?" + urlencode({"text": TEXT})).model == "tiny"
    # Of a model alone, a text that suits it.
    alone = explorer.restore("#s=?model=tiny&layer=1")
    assert alone.failed == "" and alone.view.text == alone.text["value"] and len(alone.view.text) > 10


@pytest.mark.parametrize(
    "link",
    ["", "x", "é", "!" * 300_000, "eJyrVkrLz1eyUkpKLFKqBQAdUAQG", "eJwDAAAAAAE", "?layer=1", "?text=a&layer=x"],
)
def test_damaged_links_say_so_and_change_nothing_else(explorer, link):
    with pytest.raises(ValueError, match="link"):
        read_link(link)
    kept = explorer.restore("#s=" + link)
    assert "link" in kept.failed and all(part == gr.skip() for part in kept._replace(failed=gr.skip()))


def test_a_link_to_an_unknown_model_or_layer_says_which(explorer, view):
    assert "no model" in explorer.restore("#s=" + link_of(type(view)(**vars(view) | {"model": "gone"}))).failed
    elsewhere = type(view)(**vars(view) | {"changes": Interventions(ablate={("encoder.9", 0)})})
    assert "encoder.9" in explorer.restore("#s=" + link_of(elsewhere)).failed


def test_private_models_and_saved_records_have_no_link(view):
    assert make_link(view)[0]
    assert make_link(type(view)(**vars(view) | {"model": "mine #x"}))[0] == ""
    assert make_link(None)[0] == ""


def test_a_record_opens_without_the_model_and_shows_the_same(explorer, view, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record_of(view, "Tiny")), encoding="utf-8")
    shown = explorer.intervene(view, {"kind": "none"})
    empty = Explorer(ModelShelf({}), SampleLibrary())
    opened = empty.open_record(str(path))
    again = opened.view
    assert opened.text == TEXT and "view of Tiny was saved" in opened.notice
    assert "Changed: expert 3 of layer 1 off" in opened.panel["said"] and "with your changes" in opened.answer
    # Grid, cards and changes are those of the live view, but for the model's name.
    assert (opened.token, opened.load) == (shown.token, shown.load)
    assert opened.grid == shown.grid | {"address": None, "asked": ["", TEXT]}
    assert again.changes == view.changes and empty.intervene(again, {"kind": "undo"})[0] is again


def test_a_record_keeps_what_matters_and_what_if(explorer, view, tmp_path):
    measured, *_ = explorer.intervene(view, {"kind": "measure"})
    card = explorer.details.look_closer(measured).elsewhere
    empty = Explorer(ModelShelf({}), SampleLibrary())
    opened = empty.open_record(keep(explorer, measured, "json"))
    again = opened.view
    assert opened.grid == explorer.intervene(measured, {"kind": "none"}).grid | {"address": None, "asked": ["", TEXT]}
    assert "What moves" in opened.notice
    assert torch.equal(again.importance.experts, measured.importance.experts)
    values = [re.findall(r"[\d.]+\s%|[+−±][\d.]+", html) for html in (card, empty.details.look_closer(again).elsewhere)]
    assert len(values[0]) >= 3 and values[0] == values[1]
    assert "Not available in saved views" in empty.details.look_closer(look(again, 0, 0).view).elsewhere


def _measured(view):
    record = record_of(view, "Tiny")
    tokens, (layers, experts) = len(view.prediction.tokens), (2, 4)
    record["matters"] = {"experts": [[0.1] * experts for _ in range(layers)], "tokens": [0.1] * tokens}
    record["what_if"] = {"probability": [0.1] * experts, "labels": ["World"] * experts}
    return record


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop("prediction"),
        lambda record: record["prediction"]["tokens"].pop(),
        lambda record: record["prediction"]["routing"][0]["expert"][0].__setitem__(0, 99),
        lambda record: record["prediction"]["scores"].update(World="x"),
        lambda record: record.update(force=[["encoder.1"]]),
        lambda record: record["matters"]["experts"].pop(),
        lambda record: record["matters"]["experts"][0].pop(),
        lambda record: record["matters"]["tokens"].append(0.0),
        lambda record: record["matters"]["tokens"].__setitem__(0, math.nan),
        lambda record: record.update(matters=None),
        lambda record: record["what_if"]["probability"].__setitem__(0, 2.0),
        lambda record: record["what_if"]["labels"].__setitem__(0, None),
        lambda record: record["what_if"]["labels"].__setitem__(0, "<b>"),
        lambda record: record["what_if"]["labels"].pop(),
    ],
)
def test_a_damaged_record_is_refused_in_words(view, spoil):
    record = _measured(view)
    read_record(json.dumps(record).encode())
    spoil(record)
    with pytest.raises(ValueError, match="not a record of this page"):
        read_record(json.dumps(record).encode())


def test_files_hold_what_is_on_screen(explorer, view):
    rows = list(csv.DictReader(io.StringIO(routing_csv(view))))
    assert len(rows) == 2 * len(view.prediction.tokens)
    assert [int(row["expert"]) for row in rows[: len(rows) // 2]] == view.prediction.routing[0].expert[0].tolist()
    report = Path(keep(explorer, view, "html")).read_text(encoding="utf-8")
    assert "Changed: expert 3 of layer 1 off" in report and "<b>prices" not in report
    # Of the page's own: plotly's code, inside a script, holds addresses of maps that nobody draws.
    own = re.sub(r"(<script[^>]*>).*?</script>", r"\1", report, flags=re.DOTALL)
    assert 'src="http' not in own and 'href="http' not in own and "@import" not in own
    assert Path(keep(explorer, view, "png")).read_bytes()[:4] == b"\x89PNG"
    picture = Path(keep(explorer, view, "svg")).read_text(encoding="utf-8")
    assert "<svg" in picture and "<script" not in picture
    for said in ("tiny", "expert 3 of layer 1 off", "another route than before"):
        assert said in picture
    assert "dropped" not in picture and "Struck through" not in report  # No expert can be full: no capacity applies.
    # A frame for each cell that is framed on the page, and one in the legend.
    before = [layer["before"] for layer in explorer.intervene(view, {"kind": "none"}).grid["layers"]]
    assert picture.count("stroke-width: 1.6") == sum(bool(one) for layer in before for one in layer) + 1
    with pytest.raises(Error):
        keep(explorer, None, "csv")


def test_the_report_holds_what_was_asked_and_opened(explorer, view):
    short = Path(keep(explorer, view, "html")).read_text(encoding="utf-8")
    assert short.count("what-row") - 1 >= 3 and "data-expert" not in short and "Flow from" not in short
    measured, _, notice, *_ = explorer.intervene(view, {"kind": "measure"})
    most = 100 * measured.importance.experts.flatten()[measured.importance.experts.abs().argmax()]
    assert "What moves" in notice and f"{abs(most):.1f} points" in notice
    report = Path(keep(explorer, measured, "html", "flow")).read_text(encoding="utf-8")
    assert "Attribution of" not in short and f"Attribution of {view.prediction.label}" in report
    assert report.count('class="grid-matter"') == len(view.prediction.tokens) and "Flow from layer 1" not in short
    assert "of its expert there" in report and '"type":"sankey"' in report
    # plotly once, and little beside it.
    from plotly.offline import get_plotlyjs

    assert 0 < len(report.encode()) - len(get_plotlyjs().encode()) < 2_000_000


# As they were first written; `records/` has a file of each kind.
OLD_LINKS = {
    "prediction": (
        "eNoljE0KAjEMha8ibx0Gu3DTS3iAYZBMjVKM7RBbsYh3t9Xd-_3eeMI7wj2fReFRYmogFHmV7o5Rd5YfMpJ8k_SbKj"
        "cx-H3PrMpJeR3PVFUJvCoXgZ9nSAqdaZMDuWUhXLKF0XQZeOMQS-uQ6UC4Wq7bn_D5AtA2Lfk"
    ),
    "filled": (
        "eNo1jktuwzAMRK8ScC0Y9qJd6BI9QBAQtMUEhqkP9EkTBLl7KbXdUSPMe_OCO9jFgI-OBSysQuEoYKDyo-r7a5cTIp"
        "5yLNzTeHAYBaEnZ7CzZrkxCq29H5qIAVJKZbDnM3DYlJynGcxyuRi4xrz1Hz03SrTt9amQ6cPALceW_gmOtbaHG9gX"
        "eHpg4G8c7gL2U52heVyZfBlbXMRCPomCrySF-3qfOFNtWbNl6itjwuN3r17pLy3MboRdUlQa3DBM8_v9A3QfW0I"
    ),
}


@pytest.mark.parametrize("kind", ["prediction", "written", "filled"])
def test_old_records_and_links_open(kind):
    raw = (Path(__file__).parent / "records" / f"{kind}.json").read_bytes()
    view, content = read_record(raw), json.loads(raw)
    assert (view.text, view.place, view.saved_from) == (content["text"], (1, 0), content["model"])
    assert view.changed and view.changes.capacity_factor == 0.5 and view.base is not view.answer
    again = record_of(view, view.saved_from) | {key: content[key] for key in ("matters", "what_if") if key in content}
    assert set(again) == set(content)
    if kind in OLD_LINKS:
        shared = read_link(OLD_LINKS[kind])
        assert (shared.text, shared.changes) == (view.text, view.changes)
