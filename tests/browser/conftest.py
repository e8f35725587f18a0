"""The page in a real Chromium, with a tiny model. Errors on it, and requests to anywhere else, fail the test."""

import pytest

from tests.support.pages import running_app, save_tiny_checkpoint


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    with running_app(folder, tmp_path_factory.mktemp("none")) as address:
        yield address


@pytest.fixture
def open_page(new_page, address):
    """Opens the page; at the end, fails on page errors, console errors and requests to anywhere else."""
    wrong = []

    def watch_request(request):
        if not request.url.startswith((address, "data:", "blob:")):
            wrong.append(f"request to {request.url}")

    def watch_console(message):
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    def watch_failure(error):
        wrong.append(f"page error: {error}")

    def open_it(fragment="", theme="light", **device):
        page = new_page(**device)
        page.on("request", watch_request)
        page.on("console", watch_console)
        page.on("pageerror", watch_failure)
        page.goto(f"{address}?__theme={theme}{fragment}")
        page.wait_for_selector("#what-if .what-row:not(.what-head)")
        return page

    yield open_it
    assert not wrong, wrong
