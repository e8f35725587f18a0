"""A sweep and its trials, and their conversion to an Optuna study, for sampling and plots.

Try it: as_study(parse_search(["lr=1e-4..1e-2:log"], Arguments.resolve({})), [], True).direction
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from train.arguments.arguments import Arguments
from train.formatting import percent
from train.runs.run import Run
from train.sweep.search_space import Dimension

# Random trials before TPE starts.
TPE_STARTUP = 5
# Attempts to sample a new combination before giving up.
DRAWS = 50


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        number: from 1.
        values: of the searched arguments.
        run: name of its folder; None = it could not start.
        state: of the run.
        figure: the best validation metric; None = none yet.
        seconds: of training.
        message: why it stopped or failed.
    """

    number: int
    values: dict[str, Any]
    run: str | None
    state: str
    figure: float | None = None
    seconds: float = 0.0
    message: str = ""

    @property
    def measured(self) -> bool:
        """Whether it is finished and has a metric."""
        return self.state == "finished" and self.figure is not None


@dataclass
class Sweep:
    """Settings and results of a sweep.

    Attributes:
        dimensions: the search space.
        sampler, search_seed: how values are sampled.
        arguments: common to all trials.
        figure, higher_is_better: the metric by which trials are compared, and its direction.
        rows: a digest of the trials' training and validation rows; None = unknown.
        trials: in the order in which they ran.
        stopped: why it ended early; "" = it did not.
    """

    folder: Path
    dimensions: list[Dimension]
    sampler: str
    search_seed: int
    arguments: Arguments
    figure: str
    higher_is_better: bool
    rows: dict[str, str] | None = None
    trials: list[Trial] = field(default_factory=list)
    stopped: str = ""

    def ranked(self) -> list[Trial]:
        """The trials with a metric, the best first; among equals, the earlier one."""
        finished = [trial for trial in self.trials if trial.measured]
        return sorted(finished, key=lambda trial: -trial.figure if self.higher_is_better else trial.figure)

    @property
    def best(self) -> Trial | None:
        """The trial with the best metric; None before the first has finished."""
        return next(iter(self.ranked()), None)

    def best_arguments(self) -> Arguments | None:
        """The arguments of the best trial's run; None without one."""
        return None if self.best is None else Run(self.folder / self.best.run).arguments()

    def draw(self, number: int) -> dict[str, Any] | None:
        """New values for the trial with this number; None if all combinations seem to be tried."""
        tpe = self.sampler == "tpe"
        return draw(
            self.dimensions, self.trials, self.higher_is_better, tpe=tpe, number=number, search_seed=self.search_seed
        )

    def metric_text(self, value: float) -> str:
        """A value of the metric as tables show it."""
        return percent(value) if self.figure == "accuracy" else f"{value:.4f}"

    def plan(self) -> dict[str, Any]:
        """What must be the same to resume a sweep."""
        return {
            "search": {dimension.name: dimension.text for dimension in self.dimensions},
            "sampler": self.sampler,
            "search_seed": self.search_seed,
            "arguments": self.arguments.portable(),
            "rows": self.rows,
        }

    def to_dict(self) -> dict[str, Any]:
        """For sweep.json."""
        best, arguments = self.best, self.best_arguments()
        return self.plan() | {
            "figure": self.figure,
            "higher_is_better": self.higher_is_better,
            "dimensions": [_json_ready(asdict(dimension)) for dimension in self.dimensions],
            "trials": [_json_ready(asdict(trial)) for trial in self.trials],
            "best": best
            and {
                "number": best.number,
                "figure": best.figure,
                "arguments": arguments.portable(),
                "command": arguments.command(),
            },
            "stopped": self.stopped,
        }


def as_study(
    dimensions: Sequence[Dimension],
    trials: Sequence[Trial],
    higher_is_better: bool,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """The trials as an Optuna study. Trials without a metric count as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize", sampler=sampler)
    distributions = {dimension.name: dimension.distribution for dimension in dimensions}
    for trial in trials:
        study.add_trial(
            create_trial(
                params=trial.values,
                distributions=distributions,
                value=trial.figure if trial.measured else None,
                state=TrialState.COMPLETE if trial.measured else TrialState.FAIL,
            )
        )
    return study


def draw(
    dimensions: Sequence[Dimension],
    trials: Sequence[Trial],
    higher_is_better: bool,
    *,
    tpe: bool,
    number: int,
    search_seed: int,
) -> dict[str, Any] | None:
    """Values that were not tried yet; None if all combinations seem to be tried.

    They depend on the seed, the trial's number and the results so far alone, so that a resumed sweep is the same as one
    that was never stopped.
    """
    distributions = {dimension.name: dimension.distribution for dimension in dimensions}
    tried = [trial.values for trial in trials]
    for attempt in range(2 * DRAWS):
        seed = int(np.random.SeedSequence((search_seed, number, attempt)).generate_state(1)[0])
        # TPE may repeat the best combination: then fall back to random sampling.
        if tpe and attempt < DRAWS:
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=TPE_STARTUP)
        else:
            sampler = optuna.samplers.RandomSampler(seed=seed)
        study = as_study(dimensions, trials, higher_is_better, sampler)
        values = {name: _rounded(value, distributions[name]) for name, value in study.ask(distributions).params.items()}
        if values not in tried:
            return values
    return None


def _rounded(value: Any, distribution: optuna.distributions.BaseDistribution) -> Any:
    """A float rounded to four digits, for readability."""
    if not isinstance(distribution, optuna.distributions.FloatDistribution):
        return value
    return min(max(float(f"{value:.4g}"), distribution.low), distribution.high)


def _json_ready(value: Any) -> Any:
    """The value with "inf" for infinite floats, which JSON can't hold."""
    if isinstance(value, dict):
        return {key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    return "inf" if isinstance(value, float) and math.isinf(value) else value
