"""Of two answers on one page the newer one stays, whichever comes last."""

from functools import partial
from types import SimpleNamespace

import pytest

from ui.catalog.models import ModelShelf
from ui.catalog.samples import SampleLibrary
from ui.components.outputs import is_skipped
from ui.explore.detail_tabs import LAYER, TOKEN
from ui.explore.handlers import Explorer
from ui.explore.outputs import Drawn, Looked, Shown
from ui.explore.present import Present
from ui.explore.streaming import Writing

TEXT, OTHER = "oil prices rose about oil", "the team won"
VISITOR = SimpleNamespace(session_hash="one")


class Slow(Explorer):
    """While it works out one answer, the page asks for another, and gets it."""

    meanwhile = None

    def __init__(self, *given):
        super().__init__(*given)
        self.details.draw = partial(self._drawn, self.details.draw)

    def _wait(self):
        ask, self.meanwhile = self.meanwhile, None
        if ask:
            ask()

    def _drawn(self, draw, *asked):
        drawn = draw(*asked)
        self._wait()
        return drawn

    def intervene(self, *asked):
        shown = super().intervene(*asked)
        self._wait()
        return shown

    def route(self, *asked):
        shown = super().route(*asked)
        self._wait()
        return shown


@pytest.fixture
def explorer(checkpoint, tmp_path):
    return Slow(ModelShelf({"tiny": checkpoint}, "cpu"), SampleLibrary(str(tmp_path)))


@pytest.fixture
def present(explorer):
    """A page that shows TEXT, asked for first."""
    present = Present(None, TOKEN)
    explorer.on_route("tiny", TEXT, None, present, None, "1")
    return present


def look(explorer, present, token):
    return Writing(explorer).on_look(present, None, SimpleNamespace(token=token, layer=1), VISITOR)


def intervene(explorer, present, off):
    return explorer.on_intervene(present, None, SimpleNamespace(_data={"kind": "change", "off": off, "capacity": None}))


def test_a_slow_drawing_ends_with_the_place_and_the_tab_in_view(explorer, present):
    look(explorer, present, 1)
    explorer.meanwhile = lambda: look(explorer, present, 2)
    assert "rose" in explorer.on_draw(present, None).elsewhere
    explorer.meanwhile = lambda: explorer.on_open_tab(present, LAYER)
    assert not is_skipped(explorer.on_draw(present, None).plot) and explorer.on_draw(present, None).plot is not None
    # What had to be asked for stays, too.
    explorer.on_open_tab(present, TOKEN)
    card = explorer.on_ask(present)[1]
    assert explorer.on_draw(present, None).elsewhere == card


def test_a_slow_change_keeps_the_newer_place_and_the_newer_change(explorer, present):
    explorer.meanwhile = lambda: look(explorer, present, 2)
    shown = Shown(*intervene(explorer, present, [[0, 1]])[: len(Shown._fields)])
    assert shown.view.changed and shown.view.token == 2 and "rose" in shown.token
    forced = SimpleNamespace(expert=3)
    explorer.meanwhile = lambda: explorer.on_force(present, None, forced)
    intervene(explorer, present, [[0, 1], [0, 2]])
    assert len(present.view.changes.ablate) == 2 and set(present.view.changes.force.values()) == {3}


@pytest.mark.parametrize("ask, fields", [(look, Looked), (intervene, Shown)])
def test_what_was_asked_of_another_text_is_dropped(explorer, present, ask, fields):
    explorer.meanwhile = lambda: explorer.on_route("tiny", OTHER, None, present, None, "2")
    answer = ask(explorer, present, 1 if ask is look else [[0, 1]])
    assert len(answer) == len(fields._fields) + len(Drawn._fields) and all(map(is_skipped, answer))
    assert present.view.text == OTHER and not present.view.changed


def test_a_text_is_dropped_once_a_newer_one_was_asked_for(explorer, present):
    for first, last in ((TEXT, OTHER), (OTHER, TEXT)):
        numbers = [str(present.asked + more) for more in (1, 2)]
        link = f"#s=?model=tiny&text={last.replace(' ', '+')}"
        explorer.meanwhile = partial(explorer.on_restore, link, present, numbers[1])
        assert all(map(is_skipped, explorer.on_route("tiny", first, None, present, None, numbers[0])))
        assert (present.view.text, present.view.run) == (last, int(numbers[1]))
