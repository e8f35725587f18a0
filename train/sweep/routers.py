"""Kinds of routers compared at equal work: the same data, steps, seeds and active parameters of every MLP.

A run for each kind and seed, one after another, then each one's best checkpoint measured on the validation rows. A run
that is complete is read and one that was stopped goes on, so that the same command goes on where it ended.
Try it: python -m train compare-routers --dataset toy --max_steps 40 --seeds 0 --output_dir runs/routers
"""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from switch_model.checkpoint import load_checkpoint
from switch_model.storage.whole_files import write_atomically
from train.arguments.arguments import Arguments
from train.arguments.presets import of_router
from train.evaluation.class_told import class_told
from train.evaluation.classification import evaluate
from train.evaluation.settings import EvaluationSettings
from train.formatting import aligned
from train.runs.run import Run, RunError
from train.tasks.registry import TASKS
from train.training.loop import train
from train.training.resuming import resume

# Kind -> arguments. With W for d_ff and E for num_experts every token goes through MLPs W wide in all; the sparse ones
# hold E times as much (fine-grained ones an eighth of that more, for what is shared).
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"sparse_step": 0},
    "switch": {"router": "switch"},
    "top-2": {"router": "topk", "top_k": 2, "expert_granularity": 2},
    "fine-grained": {"router": "topk", "top_k": 3, "expert_granularity": 4, "num_shared_experts": 1},
    "sigmoid-bias": {"router": "sigmoid_bias", "top_k": 2, "expert_granularity": 2},
    "expert-choice": {"router": "expert_choice", "top_k": 2, "expert_granularity": 2},
}
# Validation texts that are measured, and of these texts for reliance and for specialization.
ROWS, RELIANCE_ROWS, ROUTED_ROWS = 2000, 300, 500


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        metric: of the task, on validation; `loss` likewise.
        active, total: parameters.
        tokens_per_second: in training; None of a run that was killed behind its last step.
        load_cv, drop_rate: means over sparse layers; None of a dense model, as the rest.
        reliance: what the metric of `train/evaluation/reliance.py` loses when all choices are shuffled.
        off: the same when all experts are off.
        specialization: what a token's experts say of its text's class, I(class; expert) / H(class) beyond chance, mean
            over layers; None for other models than classifiers.
    """

    kind: str
    seed: int
    metric: float
    loss: float
    active: int
    total: int
    tokens_per_second: float | None
    load_cv: float | None = None
    drop_rate: float | None = None
    reliance: float | None = None
    off: float | None = None
    specialization: float | None = None


def kinds_for(task: str) -> list[str]:
    """The kinds that a task's model can have: expert choice needs a model without a decoder."""
    return [kind for kind in KINDS if kind != "expert-choice" or task in ("classification", "mlm")]


def arguments_of(base: Arguments, kind: str, seed: int, folder: Path) -> Arguments:
    """The arguments of one run: those of all with the kind's. Experts of a token that has several are never full."""
    values = KINDS[kind]
    own = of_router(values.get("router", "switch")) | values
    return Arguments.from_dict(base.to_dict() | own | {"seed": seed, "output_dir": str(folder / f"{kind}-{seed}")})


def compare_routers(base: Arguments, kinds: Sequence[str], seeds: Sequence[int], folder: Path) -> list[Measured]:
    """Train what is missing, measure, and write routers.json and routers.csv into the folder.

    Returns all runs of these arguments that the folder has, those of earlier commands with other kinds and seeds too.
    Raises ValueError, DataError, RunError as training does, and RunError where a run is stopped.
    """
    planned = [arguments_of(base, kind, seed, folder) for seed in dict.fromkeys(seeds) for kind in dict.fromkeys(kinds)]
    for arguments in planned:
        arguments.check()
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(arguments.train.output_dir).name for arguments in planned]
    found = [one for one in _of_earlier_commands(base, folder) if f"{one.kind}-{one.seed}" not in names]
    for number, arguments in enumerate(planned, start=1):
        run = Run(arguments.train.output_dir)
        print(f"Run {number} of {len(planned)}: {run.name}", flush=True)
        if not run.arguments_path.exists():
            run = train(arguments)
        elif run.arguments().to_dict() != arguments.to_dict():
            raise RunError(f"{run.folder} contains a run with other arguments. Choose another --output_dir.")
        else:
            run = resume(run.folder)
        if run.state().name != "finished":
            raise RunError(f"{run.name} is not complete: the same command with --output_dir {folder} goes on.")
        found.append(measured(run, *run.name.rsplit("-", 1)))
        write_table(found, folder)
    return found


def _of_earlier_commands(base: Arguments, folder: Path) -> list[Measured]:
    """Measured runs in the folder that differ from these arguments by kind and seed alone."""
    found = []
    for path in sorted(folder.glob("*/measured.json")):
        one = Measured(**json.loads(path.read_text(encoding="utf-8")))
        expected = arguments_of(base, one.kind, one.seed, folder)
        if Run(path.parent).arguments().to_dict() == expected.to_dict():
            found.append(one)
    return found


def measured(run: Run, kind: str, seed: str) -> Measured:
    """A complete run, measured on its validation rows, or read from measured.json if that was done before."""
    kept = run.folder / "measured.json"
    if kept.exists():
        return Measured(**json.loads(kept.read_text(encoding="utf-8")))
    arguments = run.arguments()
    task, source = TASKS[arguments.train.task], arguments.data.source.at("validation")
    metrics = evaluate(str(run.best), source, EvaluationSettings(num_samples=ROWS, reliance=RELIANCE_ROWS))
    lines = [json.loads(line) for line in run.metrics_path.read_text(encoding="utf-8").splitlines()]
    end = next((line for line in reversed(lines) if line["kind"] == "end"), None)
    evaluated = [line for line in lines if line["kind"] == "eval" and task.best in line]
    best = (max if task.higher_is_better else min)(evaluated, key=lambda line: line[task.best])
    model, _ = load_checkpoint(run.best)
    total, active = model.parameter_counts()
    layers = metrics.get("routing") or []
    found = Measured(
        kind,
        int(seed),
        metric=best[task.best],
        loss=best["loss"],
        active=active,
        total=total,
        tokens_per_second=end and end["tokens"] / end["train_runtime"],
        **(_of_experts(layers, metrics.get("reliance")) if layers else {}),
        specialization=class_told(run, ROUTED_ROWS) if layers and task.labelled else None,
    )
    write_atomically(kept, json.dumps(vars(found)) + "\n")
    return found


def _of_experts(layers: Sequence[Mapping[str, Any]], relied: Mapping[str, Any] | None) -> dict[str, float]:
    """What is measured of sparse layers: their loads, and what is lost without the router's choices."""
    own = {name: statistics.fmean(layer[name] for layer in layers) for name in ("load_cv", "drop_rate")}
    if not relied:
        return own
    figure = relied["figure"]

    def lost(name: str, base: str) -> float:
        return abs(relied[base][figure]["value"] - relied[name][figure]["value"])

    return own | {"reliance": lost("shuffled", "without_limit"), "off": lost("all_off", "as_it_is")}


# Results


def write_table(found: Sequence[Measured], folder: Path) -> None:
    """routers.json and routers.csv: a row for each run."""
    write_atomically(folder / "routers.json", json.dumps([vars(one) for one in found], indent=2) + "\n")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, Measured.__dataclass_fields__)
    writer.writeheader()
    writer.writerows(vars(one) for one in found)
    write_atomically(folder / "routers.csv", text.getvalue())


def by_kind(found: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The runs of each kind, in the order of KINDS."""
    kinds = {kind: [one for one in found if one.kind == kind] for kind in KINDS}
    return {kind: runs for kind, runs in kinds.items() if runs}


def mean_and_spread(runs: Sequence[Measured], figure: str) -> tuple[float, float] | None:
    """Mean and standard deviation over seeds (0 of one seed); None where the kind has no such figure."""
    values = [value for one in runs if (value := getattr(one, figure)) is not None]
    if not values:
        return None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


# Heading, figure, factor, format.
COLUMNS = (
    ("loss", "loss", 1, ".3f"),
    ("active", "active", 1e-6, ".2f"),
    ("all", "total", 1e-6, ".2f"),
    ("tokens/s", "tokens_per_second", 1, ",.0f"),
    ("load CV", "load_cv", 1, ".2f"),
    ("dropped", "drop_rate", 100, ".1f"),
    ("shuffled", "reliance", 1, ".3f"),
    ("off", "off", 1, ".3f"),
    ("class told", "specialization", 100, ".1f"),
)


def table(found: Sequence[Measured], task: str) -> str:
    """All kinds as text in aligned columns: means over seeds, ± their standard deviation where it differs by seed."""
    best = TASKS[task].best
    columns = [column for column in COLUMNS if column[1] != best]
    cells = [["router", best, *(heading for heading, *_ in columns)]]
    for kind, runs in by_kind(found).items():
        row = [kind, _cell(runs, "metric", 1, ".4f")]
        cells.append(row + [_cell(runs, figure, factor, form) for _, figure, factor, form in columns])
    return aligned(cells)


def _cell(runs: Sequence[Measured], figure: str, factor: float, form: str) -> str:
    found = mean_and_spread(runs, figure)
    if found is None:
        return "-"
    mean, spread = (round(value * factor, 6) + 0.0 for value in found)  # No "-0.0".
    return f"{mean:{form}} ± {spread:{form}}" if spread else f"{mean:{form}}"


def write_picture(found: Sequence[Measured], task: str, path: Path) -> None:
    """routers.png: a dot for each run and a bar for each kind's mean, of the metric, load CV, reliance and speed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    wanted = (
        (f"validation {TASKS[task].best}", "metric"),
        ("load CV (0 = even)", "load_cv"),
        ("lost with choices shuffled", "reliance"),
        ("training tokens per second", "tokens_per_second"),
    )
    kinds = by_kind(found)
    shown = [(title, name) for title, name in wanted if any(getattr(one, name) is not None for one in found)]
    figure, axes = plt.subplots(1, len(shown), figsize=(3.1 * len(shown), 2.8), sharey=True)
    for axis, (title, name) in zip(axes, shown, strict=True):
        for place, runs in enumerate(kinds.values()):
            values = [value for one in runs if (value := getattr(one, name)) is not None]
            if values:
                axis.plot(values, [place] * len(values), "o", color="#4078b0", alpha=0.55, markersize=5)
                axis.plot([statistics.fmean(values)] * 2, [place - 0.3, place + 0.3], color="#08306b", linewidth=2)
        axis.set_title(title, fontsize=9)
        axis.grid(axis="x", alpha=0.3)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(kinds)), kinds)
    axes[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
