"""The app: the time until the page is up, the overhead of the page's handler over the model's forward pass, and what a
browser loads until the grid is there.

python -m benchmarks.serving            # all
python -m benchmarks.serving --load     # the first load alone
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.report import Measurement, table
from benchmarks.timing import compare

ROOT = Path(__file__).parent.parent
ROUNDS = 5
# Everything that the served app has imported, in its order, except what only runs as a script.
NAMES = """
import json, sys, threading, time, urllib.request
import app
port, path = sys.argv[1:]
def ask():
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
            break
        except OSError:
            time.sleep(0.05)
    json.dump([name for name in sys.modules if name != "__main__"], open(path, "w"))
    print("written", flush=True)
threading.Thread(target=ask, daemon=True).start()
app.main(["--port", port])
"""
IMPORT = """
import importlib, json, sys
for name in json.load(sys.stdin):
    try:
        importlib.import_module(name)
    except Exception:
        pass
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def modules_of_the_app() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "modules.json"
        command = [sys.executable, "-c", NAMES, str(free_port()), str(path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            if not any(line.strip() == "written" for line in process.stdout):
                raise RuntimeError("The app ended before its page was up.")
            return json.loads(path.read_text())
        finally:
            process.kill()
            process.wait()


def wait_for(address: str, process: subprocess.Popen) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(address).read()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("The app ended before its page was up.")


def seconds_until_the_page_is_up() -> float:
    port = free_port()
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/", process)
        return time.perf_counter() - start
    finally:
        process.kill()
        process.wait()


def seconds_to_import(names: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, input=json.dumps(names), text=True, capture_output=True)
    return time.perf_counter() - start


def handler_ratio() -> tuple[float, float]:
    """(the page's handler / the bare forward, the forward's milliseconds) for a text of about 100 tokens."""
    from ui.catalog.models import ModelShelf
    from ui.catalog.samples import SampleLibrary
    from ui.explore.handlers import Explorer

    shelf = ModelShelf.find(None, "cpu")
    explorer = Explorer(shelf, SampleLibrary())
    predictor = shelf.load(shelf.default).predictor
    words = " ".join(sample.text for _, sample in explorer.library.search("bundled", "").rows)[:2000]
    encoding = predictor.tokenizer(words, return_offsets_mapping=True, truncation=True, max_length=100)
    text, input_ids = words[: encoding["offset_mapping"][-1][1]], torch.tensor([encoding["input_ids"]])

    @torch.inference_mode()
    def forward():
        predictor.model(input_ids)

    ratios = compare(
        {"forward": forward, "handler": lambda: explorer.route(shelf.default, text, None)}, "forward", rounds=31
    )
    return ratios["handler"], ratios["forward ms"]


@dataclass(frozen=True)
class FirstLoad:
    """What a browser loads with an empty cache, from the page to the grid and the card of the token.

    Attributes:
        requests: their number.
        transferred: bytes, as they come over the network.
        page: those of the page itself, with its configuration.
        own: bytes of the page, before compression, that this project wrote: scripts, values, templates, styles.
        whole: bytes of the page before compression.
    """

    requests: int
    transferred: int
    page: int
    own: int
    whole: int


def first_load() -> FirstLoad | None:
    """None where there is no browser (it comes with the tests' requirements)."""
    try:
        from playwright.sync_api import sync_playwright

        from tests.support.install_browser import find_chromium
    except ImportError:
        return None
    if (chromium := find_chromium()) is None:
        return None
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL)
    urls: dict[str, str] = {}
    sizes: dict[str, int] = {}
    try:
        wait_for(address, process)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            network = page.context.new_cdp_session(page)
            network.send("Network.enable")
            network.on("Network.requestWillBeSent", lambda it: urls.update({it["requestId"]: it["request"]["url"]}))
            network.on("Network.loadingFinished", lambda it: sizes.update({it["requestId"]: it["encodedDataLength"]}))
            page.goto(address, timeout=600_000)
            page.wait_for_selector("#what-if .what-row:not(.what-head)", timeout=600_000)
            page.wait_for_load_state("load")
            browser.close()
        whole = urllib.request.urlopen(address).read()
        config = json.load(urllib.request.urlopen(f"{address}config"))
    finally:
        process.kill()
        process.wait()
    ours = ("js_on_load", "html_template", "value", "css_template")
    own = [config["css"], config["head"]]
    own += [json.dumps(part["props"].get(name) or "") for part in config["components"] for name in ours]
    page_bytes = sum(size for one, size in sizes.items() if urls.get(one) == address)
    return FirstLoad(len(urls), sum(sizes.values()), page_bytes, sum(map(len, own)), len(whole))


def first_load_in_words(load: FirstLoad) -> str:
    return (
        f"First load, from the page to the grid, empty cache: {load.requests} requests, "
        f"{load.transferred / 1000:,.0f} kB transferred, of which the page {load.page / 1000:,.0f} kB. Before "
        f"compression the page has {load.whole / 1000:,.0f} kB, of which {load.own / 1000:,.0f} kB are this project’s "
        "scripts, values and styles; the rest, and all other requests, are Gradio’s."
    )


def measurements() -> list[Measurement]:
    names = modules_of_the_app()
    seconds_until_the_page_is_up()
    pairs = [(seconds_until_the_page_is_up(), seconds_to_import(names)) for _ in range(ROUNDS)]
    start = statistics.median(up / imports for up, imports in pairs)
    up, alone = (statistics.median(times) for times in zip(*pairs, strict=True))
    note = f"{up:.1f} s; importing the same {len(names):,} modules alone {alone:.1f} s"
    handler, forward_ms = handler_ratio()
    return [
        Measurement("app: page up / importing what it imports", start, 1.5, 1.25, note=note),
        Measurement(
            "predict + trace handler / bare forward, 100 tokens", handler, 3, 2, note=f"forward {forward_ms:.1f} ms"
        ),
    ]


if __name__ == "__main__":
    if "--load" not in sys.argv:
        print(table(measurements()), end="\n\n")
    print(first_load_in_words(load) if (load := first_load()) else "First load: no Chromium.")
