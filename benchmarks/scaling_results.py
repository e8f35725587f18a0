"""Curves of models with more and more experts -> how much sooner they reach the dense model's loss; table and picture.

Try it: share_of_steps([(1, 3.0), (2, 2.0)], target=2.5, steps=2)
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switch_model.storage.whole_files import write_atomically

HERE = Path(__file__).parent
# The page draws them too, and is installed without benchmarks/.
RESULTS = HERE.parent / "ui" / "how_it_works" / "scaling_experts.json"
REPORT, PICTURE = HERE / "scaling_experts.md", HERE / "scaling_experts.png"
DENSE = 1
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Curve:
    """One training run.

    Attributes:
        experts: per layer; 1 = a dense model.
        points: (step, loss on held-out tokens), in the order of the steps.
        seconds: of training and evaluation, as a clock has it.
    """

    experts: int
    seed: int
    points: list[tuple[int, float]]
    seconds: float

    @property
    def final(self) -> float:
        return self.points[-1][1]


def share_of_steps(points: Points, target: float, steps: int) -> float | None:
    """The share of `steps` after which a curve first is at `target` or below, on straight lines between its points;
    None = never."""
    before: tuple[int, float] | None = None
    for step, loss in points:
        if loss <= target:
            if before is None or before[1] <= loss:
                return step / steps
            earlier, higher = before
            return (earlier + (step - earlier) * (higher - target) / (higher - loss)) / steps
        before = (step, loss)
    return None


def compared(curves: Sequence[Curve], steps: dict[int, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each number of experts: its final loss, and how much sooner it reaches the dense model's.

    A run is compared with the dense run of its own seed, which met the same batches in the same order; where there are
    several seeds, their mean counts.

    Args:
        steps: for each number of experts, at least "ratio": what one of its steps takes over a dense one.
    """
    dense = {curve.seed: curve for curve in curves if curve.experts == DENSE}
    rows = []
    for experts in sorted({curve.experts for curve in curves}):
        own = [curve for curve in curves if curve.experts == experts]
        shares = [
            share_of_steps(curve.points, dense[curve.seed].final, dense[curve.seed].points[-1][0])
            for curve in own
            if curve.seed in dense
        ]
        finals = [curve.final for curve in own]
        share = None if not shares or None in shares else 1.0 if experts == DENSE else _mean(shares)
        rows.append(
            {
                "experts": experts,
                "seeds": len(own),
                "loss": _mean(finals),
                "spread": max(finals) - min(finals),
                "share_of_steps": share,
                "speed_up_in_steps": share and 1 / share,
                "speed_up_in_time": share and 1 / (share * steps[experts]["ratio"]),
            }
            | steps[experts]
        )
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def summary(setup: dict[str, Any], curves: Sequence[Curve], steps: dict[int, dict[str, float]]) -> dict[str, Any]:
    """The numbers only, rounded, as they are kept."""
    rows = [{name: _rounded(value) for name, value in row.items()} for row in compared(curves, steps)]
    kept = [
        {
            "experts": curve.experts,
            "seed": curve.seed,
            "seconds": round(curve.seconds),
            "points": [[step, round(loss, 4)] for step, loss in curve.points],
        }
        for curve in sorted(curves, key=lambda curve: (curve.experts, curve.seed))
    ]
    return {"setup": setup, "rows": rows, "curves": kept}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def publish(results: dict[str, Any]) -> None:
    """Write the repository's files: numbers for the page, a table and a picture for readers."""
    curves = ",\n  ".join(json.dumps(curve) for curve in results["curves"])
    rows = ",\n  ".join(json.dumps(row) for row in results["rows"])
    setup = json.dumps(results["setup"])
    text = f'{{\n "setup": {setup},\n "rows": [\n  {rows}\n ],\n "curves": [\n  {curves}\n ]\n}}\n'
    write_atomically(RESULTS, text)
    write_atomically(REPORT, report(results))
    draw(results, PICTURE)


def report(results: dict[str, Any]) -> str:
    """The results as a Markdown file."""
    setup = results["setup"]
    intro = (
        f"Causal models of d_model {setup['d_model']}, d_ff {setup['d_ff']}, {setup['num_layers']} layers and "
        f"{setup['num_heads']} heads on English text ({setup['train_tokens']:,} tokens, a vocabulary of "
        f"{setup['vocabulary']}), {setup['steps']:,} steps of {setup['tokens_per_step']:,} tokens at a learning rate "
        f"of {setup['lr']:g}, nothing dropped. The models differ in the number of their experts alone; loss is that of "
        f"{setup['validation_tokens']:,} held-out tokens, in nats. The same seed meets the same batches. A step is "
        "measured on one core, by the processor's clock, all models taking turns; what goes over all weights is "
        "clipping, the optimizer and the average of the weights."
    )
    command = f"`python -m benchmarks.scaling_experts --steps {setup['steps']}`"
    picture = "![Loss against steps, and speed-up against experts](scaling_experts.png)"
    return "\n\n".join(["# More experts, fewer steps", command, intro, table(results), picture]) + "\n"


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    head = (
        "| experts | parameters | loss | dense loss after | speed-up in steps | a step, ms | of it over all weights | "
        "a step / dense | speed-up in time |\n|---|---|---|---|---|---|---|---|---|"
    )
    lines = []
    for row in results["rows"]:
        seeds = f" ± {row['spread'] / 2:.4f} ({row['seeds']} seeds)" if row["seeds"] > 1 else ""
        share, dense = row["share_of_steps"], row["experts"] == DENSE
        sooner = (
            ("never", "", "")
            if share is None
            else (f"{share:.2f} of the steps", f"{row['speed_up_in_steps']:.2f}", f"{row['speed_up_in_time']:.2f}")
        )
        after, in_steps, in_time = ("", "1", "1") if dense else sooner
        cells = (
            "1 (dense)" if dense else row["experts"],
            f"{row['parameters']:,}",
            f"{row['loss']:.4f}{seeds}",
            after,
            in_steps,
            f"{row['milliseconds']:.1f}",
            f"{row['over_all_weights']:.1f}",
            f"{row['ratio']:.2f}",
            in_time,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([head, *lines])


def draw(results: dict[str, Any], path: Path) -> None:
    """Loss against steps, and speed-up against experts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), constrained_layout=True)
    firsts = [curve for curve in results["curves"] if curve["seed"] == 0]
    shades = plt.get_cmap("viridis_r")
    for index, curve in enumerate(firsts):
        dense = curve["experts"] == DENSE
        colour = "black" if dense else shades(0.15 + 0.85 * index / max(len(firsts) - 1, 1))
        label = "dense" if dense else f"{curve['experts']} experts"
        left.plot(*zip(*curve["points"], strict=True), color=colour, label=label, linestyle="--" if dense else "-")
        if dense:
            left.axhline(curve["points"][-1][1], color="black", linewidth=0.6, alpha=0.5)
    # The first steps are alike, and would take most of the height.
    losses = [loss for curve in firsts for step, loss in curve["points"] if step >= curve["points"][-1][0] / 4]
    if losses:
        left.set_ylim(min(losses) - 0.02, max(losses) + 0.02)
    left.set(xlabel="steps", ylabel="loss of a held-out token, nats", title="Loss against steps")
    left.legend(fontsize=8)

    rows = [row for row in results["rows"] if row["speed_up_in_steps"]]
    experts = [row["experts"] for row in rows]
    for name, label, colour in (
        ("speed_up_in_steps", "in steps", "#0072b2"),
        ("speed_up_in_time", "in time (one core)", "#d55e00"),
    ):
        right.plot(experts, [row[name] for row in rows], "o-", color=colour, label=label)
    right.axhline(1, color="black", linewidth=0.6, alpha=0.5)
    right.set_xscale("log", base=2)
    right.set_xticks(experts, [str(one) for one in experts])
    right.set(xlabel="experts", ylabel="speed-up", title="Speed-up to the dense model's final loss")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    setup = results["setup"]
    figure.suptitle(
        f"Causal models, d_model {setup['d_model']}, d_ff {setup['d_ff']}, {setup['num_layers']} layers, "
        f"{setup['steps']:,} steps of {setup['tokens_per_step']:,} tokens",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
