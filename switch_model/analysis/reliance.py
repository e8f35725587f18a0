"""Expert reliance: a model's metric with experts switched off, and with the routing shuffled over tokens.

Metrics as defined in docs/metrics.md. Legend: N texts, L sparse layers, E experts, R bootstrap samples.
Try it: reliance(model, [{"input_ids": [5, 6, 7], "labels": 0}, …]).all_off["accuracy"]
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from switch_model.analysis.scoring import Scores, batches_of, score
from switch_model.inference.pipeline import AnyModel
from switch_model.interventions import Interventions
from switch_model.stepping import to_the_end

# Default number of texts.
ROWS = 256
# Single experts that are switched off, of all layers; of each layer at least. Of more, the most used ones.
MOST_EXPERTS, LEAST_EXPERTS = 128, 4
# Total number of texts, and of tokens, for the ablations of single experts, shared among all experts of the model;
# minimum texts for each.
EXPERT_TEXTS, EXPERT_TOKENS, LEAST_EXPERT_TEXTS = 32 * ROWS, 2**21, 16
# Bootstrap samples of the texts; digits to which metrics are rounded.
DRAWS, DIGITS = 1000, 6


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % bootstrap confidence interval over texts."""

    value: float
    low: float
    high: float


# Metrics under an intervention, by name: "accuracy" (of texts, or of tokens), "agreement" (share of predictions that
# stay the same, where classes are unknown) or "perplexity"; "change" of the first of these. For a classifier also
# "class_changes", the share of texts whose predicted class changes, and "probability_change", the mean change of the
# probability of the class predicted without intervention.
Effect = Mapping[str, Estimate]


@dataclass(frozen=True)
class LayerReliance:
    """One sparse layer: with all experts off, with its choices shuffled, and with single experts off alone: those
    numbered `experts`, which are all, or in a model of many the most used ones."""

    layer: str
    off: Effect
    shuffled: Effect
    experts: tuple[int, ...]
    experts_off: tuple[Effect, ...]


@dataclass(frozen=True)
class Reliance:
    """How much a model relies on its experts.

    Attributes:
        figure: the main metric: "accuracy", "agreement" or "perplexity".
        rows, expert_rows: number of texts, and number of texts for each single expert.
        num_experts: E, of which `LayerReliance.experts` were switched off alone.
        chance: accuracy of always predicting the most frequent class; None for a model without classes.
        as_it_is: the model unchanged.
        without_limit: dropless, the baseline for shuffled choices.
        all_off: all experts of all layers off.
        busiest_off: in each text, the expert of each layer that most of its tokens chose is off.
        shuffled: the choices of all layers are shuffled.
        layers: each sparse layer alone.
    """

    figure: str
    rows: int
    expert_rows: int
    num_experts: int
    chance: float | None
    as_it_is: Effect
    without_limit: Effect
    all_off: Effect
    busiest_off: Effect
    shuffled: Effect
    layers: tuple[LayerReliance, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Reliance":
        """The inverse of `to_dict`. Raises ValueError for anything else."""
        try:
            layers = [_layer(one) for one in values["layers"]]
            found = cls(
                figure=str(values["figure"]),
                rows=int(values["rows"]),
                expert_rows=int(values["expert_rows"]),
                num_experts=int(values.get("num_experts", max((len(one.experts) for one in layers), default=0))),
                chance=None if values["chance"] is None else float(values["chance"]),
                layers=tuple(layers),
                **{name: _effect(values[name]) for name in _WHOLE},
            )
            if not all(found.figure in effect for effect in (found.as_it_is, *found._changed())) or not layers:
                raise ValueError(f"the metric {found.figure!r} is missing")
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"These are not metrics of expert reliance: {error!r}.") from error
        return found

    def _changed(self) -> list[Effect]:
        own = [effect for one in self.layers for effect in (one.off, one.shuffled, *one.experts_off)]
        return [self.without_limit, self.all_off, self.busiest_off, self.shuffled, *own]


_WHOLE = ("as_it_is", "without_limit", "all_off", "busiest_off", "shuffled")


def _layer(values: Any) -> LayerReliance:
    off = tuple(map(_effect, values["experts_off"]))
    # Before experts were chosen, all were measured.
    experts = tuple(int(one) for one in values.get("experts", range(len(off))))
    if len(experts) != len(off) or not off:
        raise ValueError("the experts that were switched off are not as many as their metrics")
    return LayerReliance(str(values["layer"]), _effect(values["off"]), _effect(values["shuffled"]), experts, off)


def _effect(values: Any) -> dict[str, Estimate]:
    found = {
        str(name): Estimate(*(float(one[key]) for key in ("value", "low", "high"))) for name, one in values.items()
    }
    if not all(math.isfinite(number) for one in found.values() for number in (one.value, one.low, one.high)):
        raise ValueError("a number is not finite")
    return found


def reliance(
    model: AnyModel,
    rows: Sequence[Mapping[str, Any]],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Reliance:
    """Measure how much a model relies on its experts.

    Args:
        rows: as for `scoring.batches_of`, in random order: with many experts, single ones are ablated on the first
            rows only.
        seed: of the shuffled choices and of the intervals.
        progress: called with (texts done, total) after each pass over some of them.

    Raises:
        ValueError: when there are no rows, no labels in them, or the model has no sparse layer.
    """
    return to_the_end(reliance_in_steps(model, rows, seed), progress)


def reliance_in_steps(
    model: AnyModel, rows: Sequence[Mapping[str, Any]], seed: int = 0
) -> Generator[tuple[int, int], None, Reliance]:
    """`reliance` as a generator, to show progress or to cancel: yields (texts done, total) of all passes, since
    those with a single expert off read fewer texts."""
    config, layers, num_experts = model.config, model.config.sparse_layers, model.config.num_experts
    if not layers:
        raise ValueError("This model has no sparse layer: there are no experts to rely on.")
    if not rows:
        raise ValueError("There are no texts on which to measure expert reliance.")

    # 1. Baselines: unchanged, and dropless, because shuffling must change the experts and not the drops.
    batches = batches_of(model, rows)
    plain = free = score(model, batches, choices_wanted=True)
    if plain.dropped:
        free = score(model, batches, Interventions(capacity_factor=math.inf), choices_wanted=True)
    compare = _Comparison(plain, seed)
    few = rows[: _texts_for_each(rows, len(layers) * num_experts)]
    some, compare_some = batches, compare
    if len(few) < len(rows):
        some = batches_of(model, few)
        compare_some = _Comparison(score(model, some), seed)

    # 2. One pass per intervention.
    measured = _most_used(free.choices or [], num_experts)
    questions = _questions(config, free.choices or [], measured, seed)
    effects: dict[Question, dict[str, Estimate]] = {}
    texts = {key: len(few) if len(key) == 3 else len(rows) for key in questions}
    done, total = 0, sum(texts.values())
    for key, question in questions.items():
        yield done, total
        single = len(key) == 3
        scores = score(model, some if single else batches, question())
        effects[key] = (compare_some if single else compare).effect(scores)
        done += texts[key]
    yield total, total
    return Reliance(
        figure=compare.metric,
        rows=len(rows),
        expert_rows=len(few),
        num_experts=num_experts,
        chance=compare.chance(rows),
        as_it_is=compare.effect(plain),
        without_limit=compare.effect(free),
        all_off=effects["off",],
        busiest_off=effects["busiest",],
        shuffled=effects["shuffled",],
        layers=tuple(
            LayerReliance(
                layer,
                effects.get(("off", layer), effects["off",]),
                effects.get(("shuffled", layer), effects["shuffled",]),
                own,
                tuple(effects["off", layer, expert] for expert in own),
            )
            for layer, own in zip(layers, measured, strict=True)
        ),
    )


def _texts_for_each(rows: Sequence[Mapping[str, Any]], experts: int) -> int:
    """On how many of the rows each single expert is measured."""
    lengths = [len(row["input_ids"]) for row in rows]
    of_tokens = int(np.searchsorted(np.cumsum(lengths), EXPERT_TOKENS // experts, side="right"))
    return max(LEAST_EXPERT_TEXTS, min(EXPERT_TEXTS // experts, of_tokens))


def _most_used(choices: Sequence[list[np.ndarray]], num_experts: int) -> list[tuple[int, ...]]:
    """Of each layer the experts that are switched off alone, ascending: all, or those that most of the choices fell on
    (of equal ones the first).

    Args:
        choices: per sparse layer and text, the experts that the model itself chose for its tokens.
    """
    most = max(MOST_EXPERTS // len(choices), LEAST_EXPERTS)
    loads = [
        np.bincount(np.concatenate([one.ravel() for one in own]).astype(int), minlength=num_experts) for own in choices
    ]
    return [tuple(sorted(np.argsort(-load, kind="stable")[:most].tolist())) for load in loads]


# Key of an intervention: ("off" | "shuffled" | "busiest"[, layer[, expert]]).
Question = tuple[Any, ...]


def _questions(
    config: Any, choices: Sequence[list[np.ndarray]], measured: Sequence[tuple[int, ...]], seed: int
) -> dict[Question, Callable[[], Interventions | list[Interventions]]]:
    """The interventions to measure, each made when its turn comes.

    Args:
        choices: per sparse layer and text, the experts that the model itself chose for its tokens.
        measured: per sparse layer, the experts to switch off alone.
    """
    layers, experts = config.sparse_layers, range(config.num_experts)
    texts = range(len(choices[0]))
    one_for_all = config.attention_experts == "module"
    mixed = {
        layer: _shuffled(own, np.random.default_rng((seed, index)), one_for_all and layer.endswith(".attention"))
        for index, (layer, own) in enumerate(zip(layers, choices, strict=True))
    }

    def off(*named: str) -> Interventions:
        return Interventions(ablate={(layer, expert) for layer in named for expert in experts})

    def busiest_off() -> list[Interventions]:
        pairs = [list(zip(layers, (own[row] for own in choices), strict=True)) for row in texts]
        busiest = [
            {(layer, int(np.bincount(own.ravel()).argmax())) for layer, own in pair if len(own)} for pair in pairs
        ]
        return [Interventions(ablate=named, capacity_group=config.capacity_group) for named in busiest]

    def shuffled(*named: str) -> list[Interventions]:
        return [
            Interventions(
                choices={layer: mixed[layer][row].tolist() for layer in named},
                capacity_factor=math.inf,
                capacity_group=config.capacity_group,
            )
            for row in texts
        ]

    questions: dict[Question, Callable[[], Interventions | list[Interventions]]] = {
        ("off",): partial(off, *layers),
        ("shuffled",): partial(shuffled, *layers),
        ("busiest",): busiest_off,
    }
    for layer, own in zip(layers, measured, strict=True):
        if len(layers) > 1:  # With a single layer, the same as all layers.
            questions |= {("off", layer): partial(off, layer), ("shuffled", layer): partial(shuffled, layer)}
        for expert in own:
            questions["off", layer, expert] = partial(Interventions, ablate={(layer, expert)})
    return questions


def _shuffled(choices: list[np.ndarray], random: np.random.Generator, per_text: bool) -> list[np.ndarray]:
    """The choices of one layer, permuted over the tokens of all texts, so that every expert's load stays the same.

    `per_text`: all tokens of a text share one choice, and choices are permuted over texts.
    """
    lengths = [len(own) for own in choices]
    if per_text:
        order = random.permutation(len(choices))
        # A text without tokens has no choice.
        own = [int(one[0]) if len(one) else 0 for one in choices]
        return [np.full(length, own[other]) for length, other in zip(lengths, order, strict=True)]
    return np.split(random.permutation(np.concatenate(choices)), np.cumsum(lengths)[:-1])


class _Comparison:
    """Metrics of a model under an intervention, compared with the unchanged model on the same texts."""

    def __init__(self, plain: Scores, seed: int):
        self.plain, texts = plain, len(plain.asked)
        self.labelled = bool(plain.asked.any())
        # (N,) class predicted without intervention; None for a model without classes.
        self.own = None if plain.probs is None else plain.probs.argmax(axis=1)
        if not self.labelled and self.own is None:
            raise ValueError("These texts have no labels: there is no metric to compare.")
        self.metric = "perplexity" if self.own is None else "accuracy" if self.labelled else "agreement"
        drawn = np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), size=DRAWS)
        self.weights = np.concatenate([np.ones((1, texts)), drawn])  # (1 + R, N): the original sample comes first.

    def chance(self, rows: Sequence[Mapping[str, Any]]) -> float | None:
        """Accuracy of always predicting the most frequent class."""
        if self.own is None:
            return None
        labels = [int(row["labels"]) for row in rows] if self.labelled else self.own.tolist()
        counts = np.bincount([label for label in labels if label >= 0])
        return round(float(counts.max() / counts.sum()), DIGITS)

    def effect(self, scores: Scores) -> dict[str, Estimate]:
        """Metrics with confidence intervals."""
        now, before = self._metrics(scores), self._metrics(self.plain)
        found = now | {"change": now[self.metric] - before[self.metric]}
        if self.own is not None and self.plain.probs is not None and scores.probs is not None:
            place = np.arange(len(self.own))
            found["class_changes"] = self._mean(scores.probs.argmax(axis=1) != self.own)
            found["probability_change"] = self._mean(scores.probs[place, self.own] - self.plain.probs[place, self.own])
        return {name: _estimate(values) for name, values in found.items()}

    def _metrics(self, scores: Scores) -> dict[str, np.ndarray]:
        """(1 + R,) each."""
        if self.metric == "agreement" and scores.probs is not None:
            return {"agreement": self._mean(scores.probs.argmax(axis=1) == self.own)}
        asked = np.maximum(self.weights @ scores.asked, 1)
        accuracy = {"accuracy": self.weights @ scores.right / asked}
        if self.own is not None:
            return accuracy
        # e^709 overflows a float.
        return {"perplexity": np.exp(np.minimum(self.weights @ scores.nats / asked, 700))} | accuracy

    def _mean(self, values: np.ndarray) -> np.ndarray:
        return self.weights @ values / self.weights.shape[1]


def _estimate(values: np.ndarray) -> Estimate:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Estimate(*(round(float(one), DIGITS) for one in (values[0], low, high)))
