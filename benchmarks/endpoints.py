"""How long a program waits for an answer of the app's /predict, by the way it asks, beside the work itself.

python -m benchmarks.endpoints
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
from gradio_client import Client

from benchmarks.serving import ROOT, free_port, wait_for
from switch_model import Predictor
from train.formatting import counted

MODEL = "assets/models/ag_news"
TEXT = "Oil prices rose again on Tuesday, as the committee met for the second time."
ROUNDS, WARMUP = 40, 5


def waits(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARMUP + ROUNDS):
        for name, ask in ways.items():
            start = time.perf_counter()
            ask()
            if turn >= WARMUP:
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(own) for name, own in times.items()}


def main() -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(address, process)
        predictor = Predictor.from_checkpoint(ROOT / MODEL, "cpu")
        plain, unverified = Client(address, verbose=False), Client(address, verbose=False, ssl_verify=False)
        http = httpx.Client(base_url=f"{address}/gradio_api/call/predict", timeout=60)

        def ask(**session: str) -> None:
            event = http.post("", json={"data": [TEXT], **session}).json()["event_id"]
            http.get(f"/{event}").raise_for_status()

        found = waits(
            {
                "the prediction itself, in this process": lambda: predictor(TEXT),
                "gradio_client": lambda: plain.predict(TEXT, api_name="/predict"),
                "gradio_client, ssl_verify=False": lambda: unverified.predict(TEXT, api_name="/predict"),
                "HTTP with a session_hash": lambda: ask(session_hash="benchmark"),
                "HTTP without": ask,
            }
        )
    finally:
        process.kill()
        process.wait()
    print(f"Median of {counted(ROUNDS, 'call')} each, in turns:")
    for name, milliseconds in found.items():
        print(f"{milliseconds:7.1f} ms  {name}")


if __name__ == "__main__":
    main()
