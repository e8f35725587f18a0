"""A sweep's trials, and the same as Optuna has them: to draw values that were not tried yet, and for its plots.

Try it: as_study(parse_search(["lr=1e-4..1e-2:log"], Arguments.resolve({})), [], True).direction
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState, create_trial

from train.sweep.search_space import Dimension

# Drawn at random before TPE has something to learn from.
TPE_STARTUP = 5
# Draws of a combination that was tried before, until there seems to be no other.
DRAWS = 50


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        number: from 1.
        values: of the arguments that were searched.
        run: name of its folder; None = it could not even begin.
        state: of the run.
        figure: the best metric on validation; None = none yet.
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
        """Whether it can be compared with others."""
        return self.state == "finished" and self.figure is not None


def as_study(
    dimensions: Sequence[Dimension],
    trials: Sequence[Trial],
    higher_is_better: bool,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    """What was tried. Trials without a metric count as failed."""
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
    """Values that were not tried yet; None when there seem to be no others.

    They follow from the seed, the trial's number and the results so far alone, so that a sweep that was stopped goes on
    as one that was not.
    """
    distributions = {dimension.name: dimension.distribution for dimension in dimensions}
    tried = [trial.values for trial in trials]
    for attempt in range(2 * DRAWS):
        seed = int(np.random.SeedSequence((search_seed, number, attempt)).generate_state(1)[0])
        # TPE keeps to what was best: where it has nothing new, chance has.
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
    """Four digits are enough to search by, and can be read."""
    if not isinstance(distribution, optuna.distributions.FloatDistribution):
        return value
    return min(max(float(f"{value:.4g}"), distribution.low), distribution.high)
