"""What every test stands on: no hub, no telemetry, one thread, a run trained once for all that need one, a browser."""

import gc
import os
from contextlib import contextmanager

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False")
# Tiny models gain nothing from a second thread, and wait for it endlessly on a busy machine. One thread also adds up in
# the same order whatever else the machine does; processes that tests start take this over.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
os.environ.pop("SWITCH_DATA_DIR", None)
# torch is imported by fixtures and tests, not here: the process that hands out the tests would wait for it in vain.
# Of several workers each looks for free ports where no other does.
if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["GRADIO_SERVER_PORT"] = str(7860 + 100 * int(worker.removeprefix("gw")))

import pytest

from tests.support.install_browser import find_chromium
from tests.support.waits import PATIENCE

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Streams of tokens are kept with these tests, not in the cache of who runs them."""
    os.environ["SWITCH_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def imports_are_no_garbage():
    """Collections of garbage, of which a training asks for one at least, needn't look through all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The tiny checkpoint of tests/support/pages.py, to be read and not changed."""
    from tests.support.pages import save_tiny_checkpoint

    return save_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def predictor(checkpoint):
    from switch_model import Predictor

    return Predictor.from_checkpoint(checkpoint, "cpu")


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """A run folder, trained on the toy data with the command line's own defaults but for three epochs."""
    from train.cli.main import main
    from train.runs.run import Run

    folder = tmp_path_factory.mktemp("runs") / "toy"
    assert main(["--output_dir", str(folder), "--epochs", "3"]) == 0
    return Run(folder)


@pytest.fixture
def stopping_at_saves(monkeypatch):
    """Runs of this process are stopped, as by Ctrl-C, right behind a checkpoint: with stopping_at_saves(): …"""
    from train.training.trainer import SwitchTrainer

    saved = SwitchTrainer._save_checkpoint

    def save_then_stop(self, *args):
        saved(self, *args)
        raise KeyboardInterrupt

    @contextmanager
    def stopping():
        with monkeypatch.context() as patch:
            patch.setattr(SwitchTrainer, "_save_checkpoint", save_then_stop)
            yield

    return stopping


@pytest.fixture(scope="module")
def browser():
    """A Chromium. For a module, because it holds an event loop that asyncio.run in other modules would meet."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="browser tests skipped: playwright is not installed (pip install playwright)"
    )
    found = find_chromium()
    if found is None:
        pytest.skip("browser tests skipped: there is no Chromium (make test installs one where it can)")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=CHROMIUM_FLAGS, timeout=1000 * PATIENCE)
        yield running
        running.close()


@contextmanager
def pages_of(browser):
    pages = []

    def open_one(width: int = 1200, height: int = 900, **device):
        page = browser.new_page(viewport={"width": width, "height": height}, **device)
        page.set_default_timeout(1000 * PATIENCE)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture
def new_page(browser):
    """Pages of a visitor of their own each, closed at the end: new_page(height=844, has_touch=True)."""
    with pages_of(browser) as open_one:
        yield open_one


@pytest.fixture(scope="module")
def new_pages(browser):
    """The same, closed when the module's tests are done."""
    with pages_of(browser) as open_one:
        yield open_one
