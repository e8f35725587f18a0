"""The app: the time until the page is up, and the overhead of the page's handler over the model's forward pass.

python -m benchmarks.serving
"""

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
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


def seconds_until_the_page_is_up() -> float:
    port = free_port()
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
                return time.perf_counter() - start
            except OSError:
                time.sleep(0.02)
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
    print(table(measurements()))
