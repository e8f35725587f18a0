"""What a model loses without an expert, beside random experts of the same load.

The expert is taken from the tokens that chose it, which choose again; the gates of all others stay. A random expert of
the same load: as many tokens of each text, drawn at random in the same layer, each without one of its own experts. So
the difference is what the expert's own tokens have, beyond their number.
Metrics as defined in docs/metrics.md. Legend: N texts, T tokens of a text, J choices of a token, D draws.
Try it: expert_effects(predictor.model, [{"input_ids": [5, 6, 7]}, …])["encoder.1", 3].change
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy

from switch_model.analysis.scoring import Scores, batches_of, score
from switch_model.inference.classifier import CLASSIFIERS
from switch_model.inference.pipeline import AnyModel
from switch_model.interventions import Interventions
from switch_model.stepping import to_the_end

# Random experts for each expert and text.
DRAWS = 4
# Tokens of all passes together, which bounds the time; texts at least and, unless asked for others, at most.
MOST_TOKENS, LEAST_TEXTS, TEXTS = 1_500_000, 8, 32

# (layer, expert).
Place = tuple[str, int]


@dataclass(frozen=True)
class ExpertEffect:
    """What changes without one expert: the mean over texts.

    Attributes:
        change: of the predicted class's probability, or of the mean log-probability (natural) of a text's tokens, of a
            masked model's the masked ones.
        flipped: share of texts whose predicted class changes; None for a model without classes.
        chance, low, high: mean of the same over random experts of the same load, and the interval that holds 95 % of
            them.
        p: probability of a change at least as far from `chance`, were the expert one of them.
        q: false discovery rate over all experts that were measured.
        texts: N, with those that never use the expert.
    """

    change: float
    flipped: float | None
    chance: float
    low: float
    high: float
    p: float
    q: float
    texts: int


def expert_effects(
    model: AnyModel,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[Place] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    most: int = MOST_TOKENS,
) -> dict[Place, ExpertEffect]:
    """The effect of each expert by (layer, expert).

    Args:
        rows: of each text, as for `scoring.batches_of`, in random order: with many experts the first ones alone are
            used. A classifier's labels are not read.
        places: the experts to measure; None = all, the busiest where there are too many for the time.
        seed: of the random experts.
        progress: called with (experts done, total).
        most: tokens of all passes together.

    Raises:
        ValueError: when there are no rows, or the model has no head to be measured by.
    """
    return to_the_end(effects_in_steps(model, rows, places, seed, most), progress)


def effects_in_steps(
    model: AnyModel,
    rows: Sequence[Mapping[str, Any]],
    places: Sequence[Place] | None = None,
    seed: int = 0,
    most: int = MOST_TOKENS,
) -> Generator[tuple[int, int], None, dict[Place, ExpertEffect]]:
    """`expert_effects` as a generator, to show progress or to cancel: yields (experts done, total).

    Raises ValueError as it does.
    """
    if isinstance(model, CLASSIFIERS):  # What the model itself says of a text is compared: a class needs no label.
        rows = [{"input_ids": row["input_ids"], "labels": -1} for row in rows]
    if not rows:
        raise ValueError("There are no texts on which to measure what experts do.")
    config, layers = model.config, model.config.sparse_layers
    plain = score(model, batches_of(model, rows), choices_wanted=True)
    choices = dict(zip(layers, plain.choices or [], strict=True))
    if places is None:  # Where a text has one choice for all its tokens, no random part of them can go elsewhere.
        whole = config.attention_experts == "module"
        places = [
            (layer, expert)
            for layer in layers
            for expert in range(config.num_experts)
            if not (whole and layer.endswith(".attention"))
        ]
    rows, places = _within_time(rows, choices, places, config.num_experts, most)
    found: dict[Place, ExpertEffect] = {}
    for layer, expert in places:
        yield len(found), len(places)
        random = np.random.default_rng((seed, layers.index(layer), expert))
        found[layer, expert] = _effect(model, rows, choices[layer], layer, expert, plain, random)
    yield len(places), len(places)
    rates = scipy.stats.false_discovery_control([one.p for one in found.values()]) if found else []
    return {place: replace(one, q=float(rate)) for (place, one), rate in zip(found.items(), rates, strict=True)}


def _within_time(
    rows: Sequence[Mapping[str, Any]],
    choices: Mapping[str, list[np.ndarray]],
    places: Sequence[Place],
    num_experts: int,
    most: int,
) -> tuple[Sequence[Mapping[str, Any]], list[Place]]:
    """As many of the first texts, and of the experts, as `most` tokens allow; each expert needs a pass over the texts
    that use it, and one for each draw."""
    uses = np.stack(
        [np.stack([np.bincount(own.ravel(), minlength=num_experts) for own in texts]) for texts in choices.values()], 1
    )
    layer_of = {layer: number for number, layer in enumerate(choices)}
    lengths = np.array([len(row["input_ids"]) for row in rows])
    load = np.stack([uses[:, layer_of[layer], expert] for layer, expert in places], axis=1)
    cost = (1 + DRAWS) * lengths[:, None] * (load > 0)
    texts = int(np.searchsorted(np.cumsum(cost.sum(axis=1)), most, side="right"))
    if texts >= min(LEAST_TEXTS, len(rows)):
        return rows[:texts], list(places)
    texts = min(LEAST_TEXTS, len(rows))
    busiest = np.argsort(-load.sum(axis=0), kind="stable")
    until = int(np.searchsorted(np.cumsum(cost[:texts].sum(axis=0)[busiest]), most, side="right"))
    return rows[:texts], [places[number] for number in sorted(busiest[: max(until, 1)].tolist())]


def _effect(
    model: AnyModel,
    rows: Sequence[Mapping[str, Any]],
    choices: Sequence[np.ndarray],
    layer: str,
    expert: int,
    plain: Scores,
    random: np.random.Generator,
) -> ExpertEffect:
    texts = len(rows)
    own = [text for text in range(texts) if (choices[text] == expert).any()]
    flipped = None if plain.probs is None else 0.0
    if not own:
        return ExpertEffect(0.0, flipped, 0.0, 0.0, 0.0, 1.0, 1.0, texts)
    # 1. Each text without the expert, then without each random one.
    asked = [_without(choices[text], layer, expert) for text in own]
    for _ in range(DRAWS):
        asked += [_random_expert(choices[text], layer, expert, random) for text in own]
    repeated = [rows[text] for text in own] * (1 + DRAWS)
    scores = score(model, batches_of(model, repeated), asked)
    before, after = _values(plain, plain, own), _values(scores, plain, own)
    change_DN = after.reshape(1 + DRAWS, -1) - before
    if plain.probs is not None and scores.probs is not None:
        now = scores.probs[: len(own)].argmax(axis=1)
        flipped = float((now != plain.probs[own].argmax(axis=1)).sum() / texts)

    # 2. The mean over texts beside the distribution of such means over random experts, text by text independent.
    change, chance_N = change_DN[0].sum() / texts, change_DN[1:].mean(axis=0)
    chance = chance_N.sum() / texts
    spread = float(np.sqrt(change_DN[1:].var(axis=0, ddof=1).sum())) / texts
    freedom = len(own) * (DRAWS - 1)
    wide = scipy.stats.t.ppf(0.975, freedom) * spread
    # The chance level is a mean of draws itself.
    apart = abs(change - chance) / np.sqrt(1 + 1 / DRAWS)
    p = 2 * scipy.stats.t.sf(apart / spread, freedom) if spread > 0 else float(apart <= 1e-9)
    return ExpertEffect(
        float(change), flipped, float(chance), float(chance - wide), float(chance + wide), float(p), 1.0, texts
    )


def _without(choices: np.ndarray, layer: str, expert: int) -> Interventions:
    """The expert taken from each token of a text, (T,) or (T, J) choices, that chose it."""
    tokens = np.flatnonzero((choices.reshape(len(choices), -1) == expert).any(axis=1))
    return Interventions(ablate_at={(layer, int(token)): {expert} for token in tokens})


def _random_expert(choices: np.ndarray, layer: str, expert: int, random: np.random.Generator) -> Interventions:
    """As many tokens of a text, (T,) or (T, J) choices, as chose the expert, each without one of its own experts."""
    several = choices.reshape(len(choices), -1)
    count = int((several == expert).sum())
    tokens = random.choice(len(several), count, replace=False)
    which = random.integers(several.shape[1], size=count)
    return Interventions(
        ablate_at={(layer, int(token)): {int(several[token, one])} for token, one in zip(tokens, which, strict=True)}
    )


def _values(scores: Scores, plain: Scores, own: Sequence[int]) -> np.ndarray:
    """What is compared, of the texts `own` in the plain scores, or of all in others: the probability of the class that
    the plain ones predict, or the mean log-probability of a text's tokens."""
    rows = np.array(own) if scores is plain else np.arange(len(scores.asked))
    if plain.probs is not None and scores.probs is not None:
        labels = plain.probs[own].argmax(axis=1)
        return scores.probs[rows, np.tile(labels, len(rows) // len(own))]
    return -scores.nats[rows] / np.maximum(scores.asked[rows], 1)
