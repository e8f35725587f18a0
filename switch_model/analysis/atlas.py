"""The expert atlas: for each expert its tokens and classes beside chance, and whether two halves of the texts agree.

Chance for tokens: the routes of each text are permuted among its own tokens, so that what an expert owes to the topic
of a text tells nothing of a token. Chance for classes: the classes are permuted over texts.
Metrics as defined in docs/metrics.md. Legend: N texts, K tokens, V tokens of the vocabulary, C classes, E experts,
J choices of a token, P permutations.
Try it: expert_atlas(corpus).entries[0].words
"""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy

from switch_model.analysis.corpus import Corpus
from switch_model.analysis.effects import ExpertEffect, Place
from switch_model.analysis.specialization import (
    LEAST_OCCURRENCES,
    TokenShare,
    class_counts,
    lift,
    table_of,
    text_counts,
    token_lift,
)

# False discovery rate below which something counts as found.
RATE = 0.05
# Permutations of the routes (each takes as long as the real ones) and of the classes.
ROUTE_PERMUTATIONS, CLASS_PERMUTATIONS = 5, 200
# Listed tokens of an expert; pairs of a token and an expert, which bounds the memory: the most frequent tokens.
LISTED, MOST_PAIRS = 10, 20_000_000
# For stability: occurrences of a token in each half, and such tokens.
LEAST_IN_HALF, LEAST_TOKENS = 5, 10


@dataclass(frozen=True)
class ClassShare:
    """A class and an expert: log2 lift, and the false discovery rate of one so far from 0."""

    name: str
    lift: float
    q: float


@dataclass(frozen=True)
class ExpertEntry:
    """One expert.

    Attributes:
        tokens, share, texts: tokens that chose it, as a share of all tokens, and the texts they are of.
        words: its listed tokens, of the highest score first, those with a lift above 0.
        found: number of tokens of the vocabulary that it takes more often than chance would, at a false discovery rate
            of 5 %.
        stability: rank correlation, over tokens, of its share of them in two halves of the texts; None = too few.
        stability_chance: the same of permuted routes.
        classes: the highest lift first.
        effect: None = not measured.
    """

    layer: str
    expert: int
    tokens: int
    share: float
    texts: int
    words: tuple[TokenShare, ...]
    found: int
    stability: float | None
    stability_chance: float | None
    classes: tuple[ClassShare, ...]
    effect: ExpertEffect | None = None


@dataclass(frozen=True)
class Atlas:
    """Every expert of every layer.

    Attributes:
        vocabulary: number of tokens that were tested with each expert.
        found: pairs of a token and an expert that were found.
        found_chance: mean number of them in permuted routes.
    """

    entries: tuple[ExpertEntry, ...]
    vocabulary: int
    found: int
    found_chance: float

    def entry(self, layer: str, expert: int) -> ExpertEntry | None:
        """One expert's entry; None where there is no such expert."""
        return next((one for one in self.entries if (one.layer, one.expert) == (layer, expert)), None)

    def with_effects(self, effects: Mapping[Place, ExpertEffect]) -> "Atlas":
        """The atlas with these effects; the others stay."""
        entries = [replace(one, effect=effects.get((one.layer, one.expert), one.effect)) for one in self.entries]
        return replace(self, entries=tuple(entries))


def expert_atlas(corpus: Corpus, seed: int = 0) -> Atlas:
    """The atlas of a routed data set, without effects, which need the model (`effects.py`).

    Args:
        seed: of the permutations and of the halves.
    """
    random = np.random.default_rng(seed)
    tested = _Tested.of(corpus, random)
    real = [tested.table(corpus.choices(layer)) for layer in corpus.layers]
    rates = _rates([tested.p(table) for table in real])
    counted, stable = [], []
    for _ in range(ROUTE_PERMUTATIONS):
        order = np.lexsort((random.random(len(corpus.text)), corpus.text))
        tables = [tested.table(corpus.choices(layer)[order]) for layer in corpus.layers]
        counted.append(sum(int((rate <= RATE).sum()) for rate in _rates([tested.p(table) for table in tables])))
        stable.append([tested.stability(table) for table in tables])
    classes = _class_shares(corpus, random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # Of experts that no permutation has a number for.
        by_chance = np.nanmean(stable, axis=0)  # (L, E)
    entries = []
    for index, layer in enumerate(corpus.layers):
        stability = tested.stability(real[index])
        for expert, words in enumerate(tested.words(corpus, layer, real[index], rates[index])):
            takes = corpus.takes(layer, expert)
            entries.append(
                ExpertEntry(
                    layer,
                    expert,
                    int(takes.sum()),
                    float(takes.mean()),
                    len(np.unique(corpus.text[takes])),
                    words,
                    int((rates[index][:, expert] <= RATE).sum()),
                    _number(stability[expert]),
                    _number(by_chance[index, expert]),
                    classes[index][expert],
                )
            )
    found = sum(one.found for one in entries)
    return Atlas(tuple(entries), len(tested.numbers), found, float(np.mean(counted)))


@dataclass(frozen=True, eq=False)
class _Tables:
    """Of one layer: (V, E) occurrences that chose each expert, in all texts and in each half, their mean when the
    routes of each text are permuted, and (E,) the share of all tokens."""

    taken: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    expected: np.ndarray
    overall: np.ndarray


@dataclass(frozen=True, eq=False)
class _Tested:
    """The tokens that are tested, and where they occur.

    Attributes:
        numbers, counts: (V,) their ids, and their occurrences.
        place: (K,) index among them of every token of the corpus; V = not tested.
        text: (K,) its text.
        in_texts: (V, N) occurrences in each text.
        second: (N,) whether a text is of the second half.
    """

    numbers: np.ndarray
    counts: np.ndarray
    place: np.ndarray
    text: np.ndarray
    in_texts: scipy.sparse.csr_array
    second: np.ndarray
    num_experts: int

    @classmethod
    def of(cls, corpus: Corpus, random: np.random.Generator) -> "_Tested":
        numbers, place, counts = np.unique(corpus.token, return_inverse=True, return_counts=True)
        most = max(MOST_PAIRS // (len(corpus.layers) * corpus.num_experts), 1)
        frequent = np.sort(np.argsort(-counts, kind="stable")[:most])
        kept = frequent[counts[frequent] >= LEAST_OCCURRENCES]
        new = np.full(len(numbers), len(kept))
        new[kept] = np.arange(len(kept))
        place, texts = new[place], len(corpus.texts)
        here = place < len(kept)
        ones = np.ones(int(here.sum()))
        in_texts = scipy.sparse.csr_array((ones, (place[here], corpus.text[here])), shape=(len(kept), texts))
        second = random.permutation(texts) < texts // 2
        return cls(numbers[kept], counts[kept], place, corpus.text, in_texts, second, corpus.num_experts)

    def table(self, choices: np.ndarray) -> _Tables:
        """Of a layer's choices (K, J)."""
        size, texts = len(self.numbers), len(self.second)
        second = self.second[self.text]
        halves = [
            table_of(self.place[half], choices[half], size + 1, self.num_experts)[:size] for half in (~second, second)
        ]
        of_texts = table_of(self.text, choices, texts, self.num_experts)
        lengths = np.bincount(self.text, minlength=texts)
        expected = self.in_texts @ (of_texts / np.maximum(lengths, 1)[:, None])
        return _Tables(halves[0] + halves[1], (halves[0], halves[1]), expected, of_texts.sum(axis=0) / len(self.text))

    def p(self, tables: _Tables) -> np.ndarray:
        """(V, E) probability that permuted routes give an expert as many occurrences of a token, or more.

        Each text's number is hypergeometric, and so a sum of independent yes-or-no trials (Vatutin and Mikhailov 1982);
        the tail of such a sum over all texts is at most that of a binomial with the same mean (Hoeffding 1956, from
        mean + 1 on). So this is an upper bound, and no small p owes anything to the number of permutations.
        """
        mean, counts = tables.expected, self.counts[:, None]
        share = np.clip(mean / np.maximum(counts, 1), 0.0, 1.0)
        return np.where(tables.taken >= mean + 1, scipy.stats.binom.sf(tables.taken - 1, counts, share), 1.0)

    def stability(self, tables: _Tables) -> np.ndarray:
        """(E,) Spearman's correlation, over tokens, of the expert's share of them in both halves; NaN = too few."""
        of_half = [np.bincount(self.place, half, len(self.numbers) + 1)[:-1] for half in self._halves()]
        known = (of_half[0] >= LEAST_IN_HALF) & (of_half[1] >= LEAST_IN_HALF)
        found = np.full(self.num_experts, np.nan)
        if known.sum() < LEAST_TOKENS:
            return found
        shares = [own[known] / half[known, None] for own, half in zip(tables.halves, of_half, strict=True)]
        vary = np.flatnonzero(np.ptp(shares[0], axis=0) * np.ptp(shares[1], axis=0))
        for expert in vary.tolist():
            found[expert] = scipy.stats.spearmanr(shares[0][:, expert], shares[1][:, expert]).statistic
        return found

    def words(self, corpus: Corpus, layer: str, tables: _Tables, rates: np.ndarray) -> Iterator[tuple[TokenShare, ...]]:
        """The listed tokens of each expert of a layer, as `specialization.listed_tokens` has them, with their rates."""
        overall = tables.overall
        lifts = token_lift(tables.taken, self.counts[:, None], overall)
        of_half = [np.bincount(self.place, half, len(self.numbers) + 1)[:-1] for half in self._halves()]
        in_half = [
            np.where(count[:, None] > 0, token_lift(own, count[:, None], overall), np.nan)
            for own, count in zip(tables.halves, of_half, strict=True)
        ]
        score = tables.taken * lifts
        for expert in range(self.num_experts):
            order = np.lexsort((-self.counts, -score[:, expert]))[:LISTED]
            yield tuple(
                TokenShare(
                    corpus.names[int(self.numbers[one])],
                    int(self.numbers[one]),
                    int(self.counts[one]),
                    int(tables.taken[one, expert]),
                    float(tables.taken[one, expert] / self.counts[one]),
                    float(lifts[one, expert]),
                    float(rates[one, expert]),
                    (float(in_half[0][one, expert]), float(in_half[1][one, expert])),
                )
                for one in order
                if lifts[one, expert] > 0
            )

    def _halves(self) -> tuple[np.ndarray, np.ndarray]:
        second = self.second[self.text]
        return ~second, second


def _rates(p: list[np.ndarray]) -> list[np.ndarray]:
    """False discovery rates (Benjamini and Hochberg) over all tokens, experts and layers together, in `p`'s shape."""
    flat = np.concatenate([one.ravel() for one in p])
    rates = scipy.stats.false_discovery_control(flat) if len(flat) else flat
    parts = np.split(rates, np.cumsum([one.size for one in p])[:-1])
    return [own.reshape(one.shape) for own, one in zip(parts, p, strict=True)]


def _class_shares(corpus: Corpus, random: np.random.Generator) -> list[list[tuple[ClassShare, ...]]]:
    """For each layer and expert its classes."""
    known = corpus.labels >= 0
    labels = corpus.labels[known]
    there = np.unique(labels)
    if len(there) < 2:
        return [[()] * corpus.num_experts for _ in corpus.layers]
    orders = [random.permutation(labels) for _ in range(CLASS_PERMUTATIONS)]
    rates = _rates([_class_p(text_counts(corpus, layer)[known], labels, orders, there) for layer in corpus.layers])
    found = []
    for layer, rate in zip(corpus.layers, rates, strict=True):
        lifts = lift(class_counts(corpus, layer))
        of_layer = []
        for expert in range(corpus.num_experts):
            shares = [
                ClassShare(corpus.classes[name], float(lifts[name, expert]), float(rate[index, expert]))
                for index, name in enumerate(there.tolist())
            ]
            of_layer.append(tuple(sorted(shares, key=lambda one: -one.lift)))
        found.append(of_layer)
    return found


def _class_p(counts: np.ndarray, labels: np.ndarray, orders: list[np.ndarray], there: np.ndarray) -> np.ndarray:
    """(C, E) probability of an expert's share of a class so far from its mean, with the classes permuted over texts.

    All experts and classes of a layer, each in units of its own spread, share one distribution, so that few
    permutations tell small probabilities (Storey and Tibshirani 2003).
    """

    def shares(labels: np.ndarray) -> np.ndarray:
        summed = (labels[None] == there[:, None]).astype(np.float64) @ counts
        return summed / np.maximum(summed.sum(axis=1, keepdims=True), 1)

    permuted_PCE = np.stack([shares(order) for order in orders])
    mean, spread = permuted_PCE.mean(axis=0), permuted_PCE.std(axis=0)
    spread = np.where(spread > 0, spread, np.inf)  # An expert without tokens is never far from its mean.
    apart = np.sort((np.abs(permuted_PCE - mean) / spread).ravel())
    above = len(apart) - np.searchsorted(apart, np.abs(shares(labels) - mean) / spread, side="left")
    return (1 + above) / (1 + len(apart))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
