"""The page in a real Chromium, with a tiny model. Errors on it, and requests to anywhere else, fail the test.

Opening the page takes a browser four seconds of work, and drawing a tab for the first time more: tests that don't ask
how a page begins share one.
"""

import pytest

from tests.support.explore_page import open_detail, route
from tests.support.pages import running_app, save_tiny_checkpoint, save_tiny_translator

DRAWN = "#what-if .what-row:not(.what-head)"


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """An app that opens with the classifier "tiny"; to choose are "votes", whose experts vote, and "hindi", which
    writes."""
    folder = tmp_path_factory.mktemp("app")
    save_tiny_checkpoint(folder / "models" / "votes", readout="experts")
    save_tiny_translator(folder / "models" / "hindi")
    with running_app(save_tiny_checkpoint(folder / "tiny"), folder / "models", folder / "runs") as address:
        yield address


def watched(page, address, wrong):
    """The page, whose errors and requests to anywhere else are appended to `wrong`."""

    def watch_request(request):
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    def watch_console(message):
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    def watch_failure(error):
        wrong.append(f"page error: {error}")

    page.on("request", watch_request)
    page.on("console", watch_console)
    page.on("pageerror", watch_failure)
    return page


@pytest.fixture
def open_page(new_page, address):
    """Opens the page; at the end, fails on page errors, console errors and requests to anywhere else."""
    wrong = []

    def open_it(fragment="", theme="light", **device):
        page = watched(new_page(**device), address, wrong)
        page.goto(f"{address}?__theme={theme}{fragment}")
        # An address can lead to another tab, with Explore drawn behind it.
        page.wait_for_selector(DRAWN, state="attached" if fragment else "visible")
        return page

    yield open_it
    assert not wrong, wrong


@pytest.fixture(scope="module")
def shared(new_pages, address):
    wrong = []
    page = watched(new_pages(), address, wrong)
    page.goto(f"{address}?__theme=light")
    page.wait_for_selector(DRAWN)
    assert page.locator(".cell[data-t]").count() > 20, "a sample is routed before anyone types"
    return page, wrong


@pytest.fixture
def page(shared):
    """The module's page in Explore with another text than the tests'. Whoever changes the routing takes it back."""
    page, wrong = shared
    page.set_viewport_size({"width": 1200, "height": 900})
    page.get_by_role("tab", name="Explore").click()
    open_detail(page, "Token")
    route(page, "script alert")
    yield page
    assert not wrong, wrong
