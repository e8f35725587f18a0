"""What an open page costs a run: its steps per second with the page open and closed, in alternation.

python -m benchmarks.polling      about ten minutes; needs Chromium for the browser's own part, as the tests do
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.report import Measurement, table
from benchmarks.serving import ROOT, free_port
from train.arguments.arguments import Arguments
from train.runs.process import start
from train.runs.run import Run

# A turn has several lines of metrics and evaluations, after each of which the page redraws its plots. A page that was
# just opened gets time to settle: the start of a browser is not measured.
SECONDS, SETTLING, ROUNDS = 20.0, 10.0, 5
# The server's part only: the requests of a page, at its interval.
POLL = """
import sys, time
from pathlib import Path
from ui.training.live_run import POLL_SECONDS, LiveRun
from ui.server.workspace import Workspace
live, name = LiveRun(Workspace(Path(sys.argv[1]))), sys.argv[2]
live.draw(name, None)
print("ready", flush=True)
seen = drawn = ""
while True:
    answer = live.tick(name, seen)
    if isinstance(answer[-2], str):
        seen = answer[-2]
        if answer[-1] != drawn:
            drawn = answer[-1]
            live.draw(name, None)
    time.sleep(POLL_SECONDS)
"""


@contextmanager
def polling(run: Run) -> Iterator[None]:
    """A process that sends the requests of an open page."""
    command = [sys.executable, "-c", POLL, str(run.folder.parent), run.name]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def watching(run: Run) -> Iterator[None]:
    """The app, and its page open in Chromium on the same machine."""
    from playwright.sync_api import sync_playwright

    from tests.support.install_browser import find_chromium

    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port), "--runs_dir", str(run.folder.parent)]
    app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        next(line for line in app.stdout if "listens on" in line)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{port}")
            page.get_by_role("tab", name="Train").click()
            page.get_by_role("tab", name="Live").click()
            page.wait_for_selector("#curves .js-plotly-plot", timeout=60_000)
            yield
            browser.close()
    finally:
        app.kill()
        app.wait()


def speed(run: Run) -> float:
    """Steps per second over one turn."""
    before, begun = run.progress()["step"], time.perf_counter()
    time.sleep(SECONDS)
    return (run.progress()["step"] - before) / (time.perf_counter() - begun)


def measurements() -> list[Measurement]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        wanted = {"dataset": "toy", "num_samples": 1000, "epochs": 1e5, "seq_len": 64, "num_experts": 8}
        shape = {"num_layers": 4, "logging_steps": 50, "eval_steps": 50}
        run = start(Arguments.resolve(wanted | shape), folder, "watched")
        while not run.metrics("train"):
            time.sleep(0.5)
        for what, open_page in (
            ("the server's part alone", polling),
            ("app and browser on the same two cores", watching),
        ):
            ratios, noise = [], []
            for _ in range(ROUNDS):
                before = speed(run)
                with open_page(run):
                    time.sleep(SETTLING)
                    watched = speed(run)
                after = speed(run)
                ratios.append(2 * watched / (before + after))
                noise.append(after / before)
            what = f"steps per second, page open / closed: {what}"
            chance = f"closed / closed: {min(noise):.2f} to {max(noise):.2f}"
            found.append(Measurement(what, statistics.median(ratios), 0.97, higher_is_better=True, note=chance))
        run.request_stop()
        while run.state().active:
            time.sleep(0.5)
    return found


if __name__ == "__main__":
    print(table(measurements()))
