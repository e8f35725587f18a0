"""Load test: many visitors at once, the correctness and time of their answers, and the app's memory.

Each visitor has a page of their own (benchmarks/visitor.py), and acts every two seconds: types a text and routes it,
clicks a cell, or switches an expert off. Every text has a marker; answers must have it, and no other visitor's.
python -m benchmarks.load [--visitors 50] [--seconds 60] [--every 2]      ends with 1 when a goal is missed
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any

import httpx
import psutil

from benchmarks.report import Measurement, table
from benchmarks.serving import ROOT, free_port
from benchmarks.visitor import Answer, Busy, Layout, Page, Refused

MEDIAN_SECONDS, GROWTH = 0.7, 1.05
# Seconds after which an answer counts as lost.
PATIENCE = 30.0
# For each page, one after the other, before they begin.
OPENING = 6.0
MEMORY_SECONDS = 10.0
KINDS = ("type", "click", "switch off")
MARKER = re.compile(r"zq(\d{4})x(\d{4})z")


def marker(visitor: int, round_: int) -> str:
    return f"zq{visitor:04}x{round_:04}z"


def markers(value: Any) -> set[str]:
    """Every marker in an answer: in a text, or in its tokens (lists of strings)."""
    found: set[str] = set()
    if isinstance(value, dict):
        for inner in value.values():
            found |= markers(inner)
    elif isinstance(value, list):
        if value and all(isinstance(inner, str) for inner in value):
            found |= set(_matches("".join(value)))
        for inner in value:
            found |= markers(inner)
    elif isinstance(value, str):
        if value.startswith("{"):  # A figure is sent as JSON within JSON.
            try:
                return markers(json.loads(value))
            except ValueError:
                pass
        found |= set(_matches(value))
    return found


def _matches(text: str) -> Iterator[str]:
    return (match.group() for match in MARKER.finditer(text))


@dataclass
class Tally:
    """Results of all visitors: times per kind of action, and errors."""

    first: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    whole: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    errors: Counter = field(default_factory=Counter)
    busy: int = 0
    foreign: int = 0
    size: int = 0
    memory: list[float] = field(default_factory=list)
    client_share: float = 0.0
    server_share: float = 0.0

    @property
    def actions(self) -> int:
        return sum(map(len, self.whole.values()))

    @property
    def wrong(self) -> int:
        return self.busy + self.foreign + self.errors.total()

    @property
    def median(self) -> float:
        return statistics.median([second for seconds in self.whole.values() for second in seconds] or [float("inf")])

    @property
    def growth(self) -> float:
        """Memory in the last third of the time / in the first."""
        third = max(len(self.memory) // 3, 1)
        return statistics.mean(self.memory[-third:]) / statistics.mean(self.memory[:third])


class Visitor:
    """One visitor: acts, and checks that every answer is about their own last text.

    Args:
        number: which visitor; part of the marker.
        texts: to type, each after the marker.
    """

    def __init__(self, page: Page, number: int, texts: list[str], tally: Tally):
        self.page, self.number, self.texts, self.tally = page, number, texts, tally
        self.random = random.Random(number)
        self.round = 0
        self.tokens: list[str] = []
        self.layers = self.experts = 0
        # The token of the last click, while its answer is awaited.
        self.clicked: str | None = None

    async def stay(self, until: float, every: float) -> None:
        """Act at a fixed interval in seconds, the first time after a random part of it."""
        due = time.perf_counter() + self.random.uniform(0, every)
        while due < until:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            await self.act(self.random.choices(KINDS, (2, 1, 1))[0] if self.tokens else "type")
            due = max(due + every, time.perf_counter())

    async def act(self, kind: str) -> None:
        """Do one action and record its result."""
        try:
            answer = await asyncio.wait_for(self._do(kind), PATIENCE)
        except Busy:
            self.tally.busy += 1
        except (Refused, httpx.HTTPError, TimeoutError) as error:
            self.tally.errors[f"{type(error).__name__}: {error}"[:200]] += 1
        else:
            self.tally.first[kind].append(answer.first)
            self.tally.whole[kind].append(answer.whole)
            self.tally.size += answer.size
            self.check(answer)

    def check(self, answer: Answer) -> None:
        """Every part of an answer that shows a text must show this visitor's last one, and no other's. The answer to a
        click shows the token that was clicked."""
        own = marker(self.number, self.round)
        parts = [markers(values) for values in answer.values]
        self.tally.foreign += bool(set().union(*parts) - {own})
        if self.clicked is not None:
            if not any(f">{escape(self.clicked)}</bdi>" in str(value) for value in answer.values[-1]):
                self.tally.errors["the clicked token did not come back"] += 1
        elif own not in parts[-1]:
            self.tally.errors["the marker did not come back"] += 1

    async def _do(self, kind: str) -> Answer:
        self.clicked = None
        if kind == "click":
            place = {"token": self.random.randrange(len(self.tokens)), "layer": self.random.randrange(self.layers)}
            self.clicked = self.tokens[place["token"]]
            return await self.page.act("routing-grid", "look", place)
        if kind == "switch off":
            off = [[self.random.randrange(self.layers), self.random.randrange(self.experts)]]
            asked = {"kind": "change", "off": off, "capacity": None, "serial": 1}
            return await self.page.act("expert-panel", "intervene", asked)
        self.round += 1
        text = f"{marker(self.number, self.round)} {self.random.choice(self.texts)}"
        answer = await self.page.act("route", "click", text=text)
        grid = self.page.values[self.page.layout.ids["routing-grid"]]
        self.tokens, self.layers, self.experts = grid["tokens"], len(grid["layers"]), grid["experts"]
        return answer


@contextmanager
def served() -> Iterator[tuple[str, psutil.Process]]:
    """The app with --public in a separate process, on a free local port: (address, process)."""
    port = free_port()
    command = [sys.executable, "app.py", "--public", "--host", "127.0.0.1", "--port", str(port)]
    app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        if not any("listens on" in line for line in app.stdout):
            raise RuntimeError("The app ended before its page was up.")
        yield f"http://127.0.0.1:{port}", psutil.Process(app.pid)
    finally:
        app.kill()
        app.wait()


async def visit(address: str, visitors: int, seconds: float, every: float, app: psutil.Process | None = None) -> Tally:
    """Open the pages, one after the other, then let all act at once for some seconds."""
    from ui.catalog.samples import BUNDLED, SampleLibrary

    texts = [sample.text for _, sample in SampleLibrary().search(BUNDLED, "").rows]
    tally = Tally()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4 * visitors)
    async with AsyncExitStack() as stack:
        client = httpx.AsyncClient(base_url=address, limits=limits, timeout=httpx.Timeout(PATIENCE, read=None))
        await stack.enter_async_context(client)
        layout = await Layout.of(client)
        pages = [await stack.enter_async_context(Page(client, layout).opened()) for _ in range(visitors)]
        people = [Visitor(page, number, texts, tally) for number, page in enumerate(pages)]
        begun, own = time.perf_counter(), time.process_time()
        before = _cpu_seconds(app)
        watching = asyncio.create_task(_watch(app, tally))
        await asyncio.gather(*(person.stay(begun + seconds, every) for person in people))
        watching.cancel()
        taken = time.perf_counter() - begun
        tally.client_share = (time.process_time() - own) / taken
        tally.server_share = (_cpu_seconds(app) - before) / taken
    return tally


async def _watch(app: psutil.Process | None, tally: Tally) -> None:
    while app:
        await asyncio.sleep(MEMORY_SECONDS)
        tally.memory.append(app.memory_info().rss / 1e6)


def _cpu_seconds(app: psutil.Process | None) -> float:
    return sum(app.cpu_times()[:2]) if app else 0.0


def words(tally: Tally, visitors: int, seconds: float, every: float) -> str:
    """A summary of the run and a table of times, as Markdown."""
    lines = ["| action | times | answered: median | 95 % | longest | all drawn: median | 95 % | longest |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        if tally.whole[kind]:
            times = " | ".join(
                f"{second:.2f} s" for which in (tally.first, tally.whole) for second in _spread(which[kind])
            )
            lines.append(f"| {kind} | {len(tally.whole[kind])} | {times} |")
    planned = round(visitors * seconds / every)
    lines.append("")
    lines.append(
        f"{tally.actions:,} actions of {planned:,} planned, {tally.errors.total()} errors, {tally.busy} refused as "
        f"busy, {tally.foreign} answers to another text; {tally.size / max(tally.actions, 1) / 1e3:.0f} kB each. "
        f"CPU: the app {tally.server_share:.2f} cores, the visitors themselves {tally.client_share:.2f}."
    )
    lines += [f"{count} × {error}" for error, count in tally.errors.most_common(5)]
    lines.append(f"Memory every {MEMORY_SECONDS:.0f} s: {', '.join(f'{rss:,.0f}' for rss in tally.memory)} MB")
    return "\n".join(lines)


def _spread(seconds: list[float]) -> tuple[float, float, float]:
    ordered = sorted(seconds)
    return statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))], ordered[-1]


def measurements(visitors: int = 50, seconds: float = 60.0, every: float = 2.0) -> list[Measurement]:
    with served() as (address, app):
        # Opening may be slow, but must end.
        bound = seconds + PATIENCE + OPENING * visitors
        tally = asyncio.run(asyncio.wait_for(visit(address, visitors, seconds, every, app), bound))
    print(words(tally, visitors, seconds, every), flush=True)
    crowd = f"{visitors} visitors, each acting every {every:g} s for {seconds:g} s"
    found = [
        Measurement(
            f"{crowd}: errors, busy, answers of another text", tally.wrong, 0, note=f"{tally.actions:,} actions"
        ),
        Measurement("seconds until all is drawn, median", tally.median, MEDIAN_SECONDS),
    ]
    if len(tally.memory) > 2:
        note = f"{tally.memory[0]:,.0f} to {tally.memory[-1]:,.0f} MB"
        found.append(Measurement("memory in the last third / in the first", tally.growth, GROWTH, note=note))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=50, help="pages open at once (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they act (default: %(default)s)")
    parser.add_argument(
        "--every", type=float, default=2.0, help="seconds between a visitor's acts (default: %(default)s)"
    )
    options = parser.parse_args()
    found = measurements(options.visitors, options.seconds, options.every)
    print("\n" + table(found))
    sys.exit(not all(one.reaches(one.floor) for one in found))


if __name__ == "__main__":
    main()
