"""Several visitors of one app: each gets answers about their own text, a full queue is said in words, who left is
forgotten."""

import asyncio

import httpx
import pytest

from benchmarks import load
from benchmarks.load import Tally, Visitor, marker, markers, visit
from benchmarks.visitor import Answer, Busy, Layout, Page
from tests.support.pages import save_tiny_checkpoint
from tests.support.waits import PATIENCE, wait_until
from ui.analyse.handlers import Analyst
from ui.catalog.models import ModelShelf
from ui.page import BUSY, QUEUE_SECONDS, build_demo, launch_options
from ui.server.limits import VisitorLimits
from ui.server.workspace import Workspace


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(the page's blocks, its address)"""
    checkpoint = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    shelf = ModelShelf.find(str(checkpoint), "cpu", checkpoint)
    demo = build_demo(shelf, Workspace(tmp_path_factory.mktemp("runs")))
    _, address, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **launch_options())
    yield demo, address
    demo.close()


def test_an_idle_app_does_not_look_for_events_all_the_time(served):
    assert served[0]._queue.sleep_when_free == QUEUE_SECONDS  # It outlives the launch.


def test_what_is_large_loads_with_the_tab_that_shows_it(served):
    heavy = [part for part in served[0].blocks.values() if part.get_block_name() in ("code", "dataframe", "markdown")]
    assert len(heavy) == 3 and not any(part.visible for part in heavy)


def test_every_answer_belongs_to_the_visitor_who_asked(served, monkeypatch):
    monkeypatch.setattr(load, "PATIENCE", PATIENCE)
    tally = asyncio.run(visit(served[1], visitors=2, seconds=1.0, every=0.2))
    # Each of them once at least, however slow the machine is.
    assert tally.actions >= 2 and tally.wrong == 0, tally


def test_a_foreign_answer_is_noticed():
    tally = Tally()
    visitor = Visitor(None, 7, [], tally)
    assert markers({"tokens": ["z", "q0007", "x0000z", "oil"]}) == {marker(7, 0)}
    visitor.check(Answer([[{"tokens": ["zq0007x", "0000z"]}]]))
    assert tally.wrong == 0
    visitor.check(Answer([[{"tokens": [marker(7, 0)]}, f"<b>{marker(8, 0)}</b>"]]))
    assert tally.foreign == 1
    visitor.check(Answer([["nothing"]]))
    assert tally.errors.total() == 1


def test_a_full_queue_is_said_in_words_and_passes(served, monkeypatch):
    demo, address = served

    async def ask():
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
            page = Page(client, await Layout.of(client))
            monkeypatch.setattr(demo._queue, "max_size", 0)
            with pytest.raises(Busy, match="Many people") as refused:
                await page.act("route", "click", text="oil prices rose")
            monkeypatch.undo()
            answer = await page.act("route", "click", text="oil prices rose")
            return str(refused.value), answer

    said, answer = asyncio.run(ask())
    assert said == BUSY and answer.values[0][4]["tokens"] == ["oil", "prices", "rose"]


def test_the_data_set_of_a_visitor_who_left_goes_at_once(served):
    demo, address = served

    async def come_and_go():
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
            layout = await Layout.of(client)
            filled = [set(layout.events[number]["outputs"]) for number in layout.find("analyse", "click")]
            (state,) = layout.states & set.union(*filled)
            page = Page(client, layout)
            async with page.opened():
                held = demo.state_holder[page.session]
                held[state] = "a data set"
            return held, state

    held, state = asyncio.run(come_and_go())
    wait_until(lambda: held.state_data[state] is None)


def test_a_public_page_holds_so_many_data_sets_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("ui.analyse.handlers.MAX_HELD", 2)
    checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    handlers = Analyst(ModelShelf({"tiny": checkpoint}, "cpu"), Workspace(tmp_path / "runs", limits=VisitorLimits()))
    held = [[*handlers.run("tiny", "toy", None, "", 2)][-1][0] for _ in range(2)]
    assert "Too many visitors" in [*handlers.run("tiny", "toy", None, "", 2)][-1][1]
    held.pop()
    assert [*handlers.run("tiny", "toy", None, "", 2)][-1][0].corpus.texts
