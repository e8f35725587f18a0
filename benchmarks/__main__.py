"""All measurements of speed, one after the other, into benchmarks/results.md.

python -m benchmarks      (or: make bench)      about ten minutes on an idle machine
"""

import os
import platform
from pathlib import Path

import torch
import transformers

from benchmarks import adapters, memory, serving, sparse_mlp, throughput, training
from benchmarks.report import table

RESULTS = Path(__file__).parent / "results.md"


def main() -> None:
    parts = []
    for title, module in (
        ("One sparse layer", sparse_mlp),
        ("Texts a second", throughput),
        ("Training", training),
        ("Memory and growth", memory),
        ("The app", serving),
        ("Models of other families", adapters),
    ):
        print(f"{title} …", flush=True)
        found = module.measurements()
        text = table(found) if found else "Not measured: its data set was not at hand."
        print(text, flush=True)
        parts.append(f"## {title}\n\n`python -m {module.__name__}`\n\n{text}\n")
    if (load := serving.first_load()) is not None:
        parts.append(f"{serving.first_load_in_words(load)}\n")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    intro = (
        "# Speed\n\nWritten by `make bench` (`python -m benchmarks`). Ratios are medians over rounds in which the "
        "contestants take turns; memory and growth are measured in a process of their own each. Lower is better where "
        "a ratio is ours over another, higher where it is another over ours.\n\n"
        f"Machine: {cores} CPU cores, {platform.machine()}, {versions}.\n"
    )
    picture = "![Time and memory of a training step against tokens, experts and layers](scaling.png)\n"
    RESULTS.write_text("\n".join([intro, *parts, picture]), encoding="utf-8")


if __name__ == "__main__":
    main()
