"""Memory, time to the first step and throughput over a table that is larger than memory would like. Linux only.

python -m benchmarks.large_data                    5 million made-up rows (1.5 GB of CSV) beside 50,000; an hour or two
python -m benchmarks.large_data --rows 500000 --folder /tmp/large    fewer; files stay in the folder and are used again
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SMALL_ROWS = 50_000
CLASSES = ("World", "Sports", "Business", "Sci/Tech")
# Of a run: few steps, since their number is the same for both tables.
FLAGS = ["--max_steps", "60", "--eval_iters", "4", "--seq_len", "64", "--logging_steps", "1", "--device", "cpu"]
BETWEEN_LOOKS = 0.2
# Blocks of steps by turns, and steps of a block.
BLOCKS, STEPS = 9, 20


def make_rows(path: Path, rows: int) -> None:
    """A CSV of made-up texts of 40 words, of which the class decides five."""
    drawn = random.Random(0)
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = ["".join(drawn.choices(syllables, k=3)) for _ in range(5_000)]
    own = [words[1_000 + 200 * number : 1_200 + 200 * number] for number in range(len(CLASSES))]
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for row in range(rows):
            number = drawn.randrange(len(CLASSES))
            chosen = drawn.choices(words, k=35) + drawn.choices(own[number], k=5)
            file.write(f'"{" ".join(chosen)}, {row}",{CLASSES[number]}\n')


@dataclass
class Measured:
    """Of one command: seconds, seconds to the first line of metrics, most anonymous memory of all its processes
    together, and most memory of the first one with the files that are mapped into it, in MB."""

    seconds: float
    first_step: float | None
    memory: float
    with_files: float


def measure(arguments: list[str], cache: Path, in_memory_mb: int = 100, metrics: Path | None = None) -> Measured:
    """Run python -m train with these arguments. Raises RuntimeError with its last words if it fails."""
    begun, found = time.monotonic(), Measured(0.0, None, 0.0, 0.0)
    own = os.environ | {"SWITCH_CACHE_DIR": str(cache), "SWITCH_IN_MEMORY_MB": str(in_memory_mb)}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, "-m", "train", *arguments], env=own, stdout=said, stderr=said)

        def look() -> None:
            while process.poll() is None:
                found.memory = max(found.memory, sum(map(anonymous, family(process.pid))) / 1e3)
                found.with_files = max(found.with_files, number_in(process.pid, "status", "VmHWM") / 1e3)
                if found.first_step is None and metrics and metrics.is_file() and metrics.stat().st_size:
                    found.first_step = time.monotonic() - begun
                time.sleep(BETWEEN_LOOKS)

        watching = threading.Thread(target=look)
        watching.start()
        status = process.wait()
        watching.join()
        found.seconds = time.monotonic() - begun
        if status:
            said.seek(0)
            raise RuntimeError(said.read()[-1_000:])
    return found


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for thread in Path(f"/proc/{pid}/task").iterdir():
            if thread.name != str(pid):
                started += (thread / "children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in started for one in family(int(child)))]


def anonymous(pid: int) -> int:
    """Kilobytes that only memory can hold: not those of files, which the kernel drops when it needs the room. What
    several processes share counts once."""
    return number_in(pid, "smaps_rollup", "Pss_Anon") + number_in(pid, "smaps_rollup", "Pss_Shmem")


def number_in(pid: int, file: str, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration):  # It has ended.
        return 0


def throughput(large: Path, small: Path, cache: Path) -> float:
    """Tokens trained on per second of processor time over the table on disk, over those of the small one in memory: of
    blocks by turns in one process, medians."""
    os.environ["SWITCH_CACHE_DIR"] = str(cache)
    import torch
    from torch.utils.data import DataLoader

    from train.arguments.arguments import Arguments
    from train.tasks.registry import TASKS
    from train.tasks.rows import make_rows, make_tokenizer
    from train.training.sampler import LengthGroupedOrder

    torch.set_num_threads(1)
    task, loaders, tokenizer = TASKS["classification"], [], None
    for path in (large, small):  # With the tokenizer of the large one, which is on disk already.
        arguments = Arguments.resolve({"dataset": str(path), "seq_len": 64})
        data = task.read(arguments.selection)
        tokenizer = tokenizer or make_tokenizer(arguments, data)
        rows = make_rows(arguments, data, tokenizer)
        print(f"{path.name}: {'on disk' if data.parts else 'in memory'}", flush=True)
        order = LengthGroupedOrder(rows.lengths, 32, seed=0)
        collate = task.collator(tokenizer, arguments.train)
        loaders.append(iter(DataLoader(rows.train, batch_size=32, sampler=order, collate_fn=collate)))
    model = task.model_class(arguments.config(len(tokenizer), tokenizer.pad_token_id, list(CLASSES))).train()
    optimizer = torch.optim.AdamW(model.parameters())
    rates: list[list[float]] = [[], []]
    for _ in range(BLOCKS):
        for loader, found in zip(loaders, rates, strict=True):
            begun, tokens = time.process_time(), 0
            for _ in range(STEPS):
                batch = next(loader)
                tokens += int(batch["attention_mask"].sum())
                model(**batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            found.append(tokens / (time.process_time() - begun))
    return statistics.median(rates[0]) / statistics.median(rates[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the large table")
    parser.add_argument("--folder", type=Path, help="for tables, cache and runs; none = a temporary one")
    parser.add_argument("--evaluated", type=int, default=20_000, help="rows to evaluate and to analyse")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"small": SMALL_ROWS, "large": options.rows}
    for name, rows in tables.items():
        if not (folder / f"{name}.csv").is_file():
            make_rows(folder / f"{name}.csv", rows)
        print(f"{name}.csv: {rows:,} rows, {(folder / f'{name}.csv').stat().st_size / 1e9:.2f} GB", flush=True)
    found: dict[str, Measured] = {}
    count = ["--num_samples", str(options.evaluated), "--reliance", "0"]
    for name in tables:
        data, run, cache = ["--dataset", str(folder / f"{name}.csv")], folder / f"run-{name}", folder / "cache"
        checkpoint = ["--checkpoint", str(run), *data, *count]
        commands = {
            "train, first time": [*data, *FLAGS, "--output_dir", str(run)],
            "train, again": [*data, *FLAGS, "--output_dir", str(run)],
            "evaluate": ["evaluate", *checkpoint],
            "evaluate --split validation": ["evaluate", *checkpoint, "--split", "validation"],
            "analyze": ["analyze", *checkpoint, "--importance", "0", "--output", str(folder / "report")],
        }
        for what, arguments in commands.items():
            if what.startswith("train"):
                shutil.rmtree(run, ignore_errors=True)
            one = found[f"{what}, {name}"] = measure(arguments, cache, metrics=run / "metrics.jsonl")
            first = f", first step after {one.first_step:.0f} s" if what.startswith("train") else ""
            memory = f"{one.memory:,.0f} MB ({one.with_files:,.0f} with mapped files)"
            print(f"{what}, {name}: {memory}, {one.seconds:.0f} s{first}", flush=True)
    for what in commands:
        ratio = found[f"{what}, large"].memory / found[f"{what}, small"].memory
        print(f"{what}: memory of the large table over that of the small one: {ratio:.2f}")
    ratio = throughput(folder / "large.csv", folder / "small.csv", folder / "cache")
    print(f"throughput of training, on disk over in memory: {ratio:.3f}")
    print(json.dumps({name: vars(one) for name, one in found.items()}))
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
