"""Side-by-side timing: contestants take turns in one process, so that a machine's drift affects them equally.

Ratios are taken round by round, and their median is what counts.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

SPAN = 0.02


def compare(
    contestants: Mapping[str, Callable[[], object]], baseline: str, rounds: int = 15, warmup: int = 3
) -> dict[str, float]:
    """Median over rounds of each contestant's time over the baseline's, and "<baseline> ms", its median time.

    In a round each contestant runs as often as fills about SPAN seconds: a call of microseconds is not to be measured
    with the caches that its rivals left.
    """
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    repeats = {name: _repeats(run, synchronize) for name, run in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(warmup + rounds):
        for name, run in contestants.items():
            synchronize()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            synchronize()
            if turn >= warmup:
                times[name].append((time.perf_counter() - start) / repeats[name])
    ratios = {
        name: statistics.median(own / base for own, base in zip(times[name], times[baseline], strict=True))
        for name in contestants
        if name != baseline
    }
    return ratios | {f"{baseline} ms": 1000 * statistics.median(times[baseline])}


def _repeats(run: Callable[[], object], synchronize: Callable[[], None]) -> int:
    run()
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return max(1, round(SPAN / (time.perf_counter() - start)))
