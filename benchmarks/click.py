"""How long a click in the grid takes to be on screen: 2,000 tokens in 32 layers, 8 of 64 experts each, in the real app.

python -m benchmarks.click      some minutes; needs playwright and a Chromium. Prints the median and the most of 20, and
the processor time of the page's own thread until then, which a busy machine does not change.

A random OLMoE-shaped model is made, the app started with it, and a text written with a prompt of 2,000 tokens. Measured
in the page, from the click's own time stamp to the first task after the frame that shows the mark.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast

TOKENS, LAYERS, EXPERTS, CHOICES, CLICKS = 2000, 32, 64, 8, 20
WORDS = ["<pad>", "<s>", "</s>", "oil", "prices", "rose", "rain", "fell", "team", "won"]
AIM, PORT = 100, int(os.environ.get("CLICK_PORT", 7979))

# Resolves with milliseconds from the click to the frame in which `shown` is there.
MEASURE = """
([selector, shown]) => new Promise((done) => {
  let began = null;
  const note = (event) => (began = event.timeStamp);
  document.querySelector(selector).addEventListener("click", note, { capture: true, once: true });
  const look = () => {
    if (began === null || !document.querySelector(shown)) return requestAnimationFrame(look);
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now() - began);
    channel.port2.postMessage(0);
  };
  requestAnimationFrame(look);
})
"""


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = OlmoeConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_experts=EXPERTS,
        num_experts_per_tok=CHOICES,
        max_position_embeddings=2 * TOKENS,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    OlmoeForCausalLM(config).save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>")
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)


@contextmanager
def running_app(folder: Path) -> Iterator[str]:
    """The app in a process of its own; gives its address."""
    address = f"http://127.0.0.1:{PORT}"
    app = Path(__file__).resolve().parent.parent / "app.py"
    process = subprocess.Popen([sys.executable, str(app), "--checkpoint", str(folder), "--port", str(PORT)])
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(address, timeout=5)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait()


def measured(address: str) -> dict[str, list[tuple[float, float]]]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome") or playwright.chromium.executable_path
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(600_000)
        clock = page.context.new_cdp_session(page)
        clock.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(address)
        page.wait_for_selector(".matrix-cell")
        page.fill("#text textarea", " ".join(WORDS[3 + index % 7] for index in range(TOKENS)))
        page.click("#generate")
        least = f"Number(document.querySelector('.matrix-frame').getAttribute('aria-colcount')) > {TOKENS}"
        page.wait_for_function(least)
        frame = page.locator(".matrix-frame")
        frame.evaluate("(frame) => { frame.scrollTop = 0; frame.scrollLeft = 76 * 1000; }")
        time.sleep(2)
        times: dict[str, list[tuple[float, float]]] = {"a cell": [], "an expert of the list": []}
        for index in range(CLICKS):
            token, layer = 1001 + 2 * (index % 3), 1 + index % 8
            cell = f'.matrix-cell[data-t="{token}"][data-l="{layer}"]'
            times["a cell"].append(_click(page, clock, cell, f".selected{cell}"))
        for index in range(CLICKS):
            chip = f".matrix-chip:nth-of-type({1 + index % 6})"
            times["an expert of the list"].append(_click(page, clock, chip, f'{chip}[aria-pressed="true"]'))
        browser.close()
    return times


def _click(page: Any, clock: Any, selector: str, shown: str) -> tuple[float, float]:
    """Milliseconds until it is on screen, and those of the page's thread."""
    page.locator(selector).first.scroll_into_view_if_needed()
    box = page.locator(selector).first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    handle = page.evaluate_handle(f"(given) => ({{ waited: ({MEASURE})(given) }})", [selector, shown])
    before = _thread_time(clock)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    spent = handle.evaluate("({ waited }) => waited")
    thread = _thread_time(clock) - before
    time.sleep(0.7)  # Nobody clicks faster; the page's answer arrives meanwhile.
    return spent, thread


def _thread_time(clock: Any) -> float:
    metrics = {one["name"]: one["value"] for one in clock.send("Performance.getMetrics")["metrics"]}
    return 1000 * metrics["TaskDuration"]


def main() -> None:
    with TemporaryDirectory() as folder:
        save_model(Path(folder))
        with running_app(Path(folder)) as address:
            for what, times in measured(address).items():
                spent, thread = zip(*times, strict=True)
                print(
                    f"click on {what}: median {median(spent):.0f} ms, most {max(spent):.0f} ms (aim: under {AIM} ms); "
                    f"the page's thread {median(thread):.0f} ms, most {max(thread):.0f} ms"
                )


if __name__ == "__main__":
    main()
