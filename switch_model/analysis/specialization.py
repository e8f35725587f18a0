"""Expert specialization by class, word, position and correctness, beside chance. Pure functions of a Corpus.

Metrics as defined in docs/metrics.md. Where a token has several experts, all of them count.
Legend: C classes, E experts, N texts, V tokens of the vocabulary.
Try it: class_information(corpus, "encoder.1")
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from switch_model.analysis.corpus import Corpus

# Minimum number of occurrences of a listed token.
LEAST_OCCURRENCES = 10
# Permutations of the labels for the chance level.
PERMUTATIONS = 50
# Below these an expert's card warns of thin evidence.
THIN_TOKENS, THIN_TEXTS = 200, 30
PSEUDOCOUNT = 0.5


@dataclass(frozen=True)
class AgainstChance:
    """A metric, and its mean and 95th percentile when the labels are permuted over texts."""

    value: float
    chance: float
    chance_high: float

    @property
    def beyond_chance(self) -> bool:
        """Whether the value is above the 95th percentile of permuted labels."""
        return self.value > self.chance_high


@dataclass(frozen=True)
class TokenShare:
    """A token and an expert.

    Attributes:
        token, number: its readable name and its id.
        count: its occurrences; `taken` of them chose the expert, which is the share `share`.
        lift: log2 of that share over the expert's share of all tokens.
        q: false discovery rate (atlas.py); None = not computed.
        halves: its lift in two halves of the texts, drawn at random; None = not computed, NaN = no occurrence there.
        score: taken · lift, by which tokens are ranked: frequent and specific ones first.
    """

    token: str
    number: int
    count: int
    taken: int
    share: float
    lift: float
    q: float | None = None
    halves: tuple[float, float] | None = None

    @property
    def score(self) -> float:
        return self.taken * self.lift


@dataclass(frozen=True)
class Context:
    """An occurrence of a token or phrase: the text's index, the offset in it, and the characters before, of, and after
    it."""

    text: int
    start: int
    before: str
    token: str
    after: str


def text_counts(corpus: Corpus, layer: str) -> np.ndarray:
    """(N, E) number of tokens of each text that chose each expert."""
    return table_of(corpus.text, corpus.choices(layer), len(corpus.texts), corpus.num_experts)


def table_of(rows: np.ndarray, experts: np.ndarray, size: int, num_experts: int) -> np.ndarray:
    """(size, E) number of tokens of each row (K,) that chose each expert, of (K, J); -1 = no further one."""
    pairs = (rows[:, None] * num_experts + experts.astype(np.int64))[experts >= 0]
    return np.bincount(pairs, minlength=size * num_experts).reshape(size, num_experts)


def class_counts(corpus: Corpus, layer: str, labels: np.ndarray | None = None) -> np.ndarray:
    """(C, E) number of tokens of each class's texts that chose each expert.

    Args:
        labels: (N,) class indices; None = the corpus's true classes where known, else predicted ones.
    """
    return _by_label(text_counts(corpus, layer), corpus.labels if labels is None else labels, len(corpus.classes))


def lift(counts: np.ndarray) -> np.ndarray:
    """(C, E) log2 of p(expert | class) / p(expert), with a pseudocount of one half. 0 = as over all texts; NaN for a
    class without tokens."""
    absent = counts.sum(axis=1, keepdims=True) == 0
    counts = np.where(absent, np.nan, counts + PSEUDOCOUNT)
    given = counts / counts.sum(axis=1, keepdims=True)
    return np.log2(given / (np.nansum(counts, axis=0) / np.nansum(counts)))


def class_information(corpus: Corpus, layer: str, seed: int = 0) -> AgainstChance:
    """Mutual information of a token's expert with its text's class, normalised: I(class; expert) / H(class).

    Labels are permuted over texts, not tokens: the tokens of one text are not independent.
    """
    counts, labels = text_counts(corpus, layer), corpus.labels
    random, classes = np.random.default_rng(seed), len(corpus.classes)
    chance = [_information(_by_label(counts, random.permutation(labels), classes)) for _ in range(PERMUTATIONS)]
    value = _information(_by_label(counts, labels, classes))
    return AgainstChance(value, float(np.mean(chance)), float(np.quantile(chance, 0.95)))


def most_telling(told: Mapping[str, AgainstChance]) -> str:
    """Of layers with their `class_information`, the one farthest above its chance level: the first to look at."""
    return max(told, key=lambda layer: told[layer].value - told[layer].chance)


def drop_rate_by_position(corpus: Corpus, layer: str, bins: int = 10) -> list[tuple[int, int, float]]:
    """(first position, last position, drop rate) of `bins` position ranges with similar numbers of tokens."""
    dropped = corpus.dropped[corpus.layer_index(layer)]
    edges = np.unique(np.quantile(corpus.position, np.linspace(0, 1, bins + 1), method="lower"))
    edges = np.append(edges[:-1], corpus.position.max() + 1)
    found = []
    for begin, end in itertools.pairwise(edges.tolist()):
        inside = (corpus.position >= begin) & (corpus.position < end)
        if inside.any():
            found.append((begin, end - 1, float(dropped[inside].mean())))
    return found


def vocabulary(corpus: Corpus, layer: str, expert: int, least: int = LEAST_OCCURRENCES) -> list[TokenShare]:
    """The tokens with at least `least` occurrences, ranked by occurrences that chose the expert times lift."""
    takes = corpus.takes(layer, expert)
    size = int(corpus.token.max()) + 1
    counts, taken = (np.bincount(corpus.token[chosen], minlength=size) for chosen in (slice(None), takes))
    numbers = np.flatnonzero(counts >= least)
    lifts = token_lift(taken[numbers], counts[numbers], takes.mean())
    found = [
        TokenShare(corpus.names[number], number, int(counts[number]), int(here), float(here / counts[number]), ratio)
        for number, here, ratio in zip(numbers.tolist(), taken[numbers], lifts.tolist(), strict=True)
    ]
    return sorted(found, key=lambda one: (-one.score, -one.count))


def token_lift(taken: np.ndarray, counts: np.ndarray, overall: np.ndarray | float) -> np.ndarray:
    """log2 of the share `taken` of `counts` over the share `overall` of all tokens, with a pseudocount, which keeps it
    finite; 0 for an expert without tokens."""
    known = np.where(overall, overall, 1.0)
    return np.where(overall, np.log2((taken + PSEUDOCOUNT * known) / (counts + PSEUDOCOUNT) / known), 0.0)


def listed_tokens(corpus: Corpus, layer: str, expert: int, most: int) -> list[TokenShare]:
    """What page, report and command line list of an expert: the first of its `vocabulary` with a lift above 0."""
    return [one for one in vocabulary(corpus, layer, expert) if one.lift > 0][:most]


def contexts(
    corpus: Corpus, layer: str, expert: int, tokens: Sequence[TokenShare], count: int = 5, around: int = 40
) -> list[Context]:
    """Occurrences of these tokens that chose the expert, with `around` characters on either side: of the first tokens
    one each, sampled at random with a fixed seed; more of them where there are fewer. At most one per text."""
    here = corpus.takes(layer, expert) & (corpus.end > corpus.start)
    places = np.random.default_rng(0).permutation(np.flatnonzero(here))
    of_each = [places[corpus.token[places] == one.number][: 20 * count].tolist() for one in tokens[:count]]
    found: dict[int, Context] = {}
    for place in itertools.chain.from_iterable(itertools.zip_longest(*of_each)):
        if place is not None and len(found) < count and (text := int(corpus.text[place])) not in found:
            found[text] = _context(corpus, text, int(corpus.start[place]), int(corpus.end[place]), around)
    return list(found.values())


def find(corpus: Corpus, layer: str, expert: int | None, words: str = "") -> list[Context]:
    """Every occurrence of a word or phrase with a token that chose the expert (None = any), in the order of the texts,
    with its context; case-insensitive. Without `words`, every token that chose the expert.

    Matches whole words, however the tokenizer splits them, and single tokens that read like `words`.

    Raises:
        ValueError: when there is no such layer.
    """
    corpus.layer_index(layer)
    asked = words.split()
    wanted = np.ones(len(corpus.token), dtype=bool) if expert is None else corpus.takes(layer, expert)
    spans = []
    if asked:
        text, start, end, first, last = _occurrences(corpus, asked)
        until = np.concatenate([[0], np.cumsum(wanted)])
        hit = until[last] > until[first]
        spans = list(zip(text[hit].tolist(), start[hit].tolist(), end[hit].tolist(), strict=True))
        name = " ".join(asked).lower()
        numbers = [number for number, own in corpus.names.items() if own.removeprefix("##").lower() == name]
        # Skip tokens inside an occurrence that is already found.
        inside = np.zeros(len(wanted) + 1, dtype=np.int64)
        np.add.at(inside, first, 1)
        np.add.at(inside, last, -1)
        wanted &= np.isin(corpus.token, numbers) & (np.cumsum(inside[:-1]) == 0)
    places = np.flatnonzero(wanted)
    spans += zip(corpus.text[places].tolist(), corpus.start[places].tolist(), corpus.end[places].tolist(), strict=True)
    return [_context(corpus, *span, 40) for span in (sorted(spans) if asked else spans)]


def token_of(corpus: Corpus, layer: str, expert: int | None, place: Context) -> int:
    """Position in its text of the token of a place: the first that chose the expert (None = any)."""
    tokens = np.flatnonzero(corpus.text == place.text)
    here = (corpus.end[tokens] > place.start) & (corpus.start[tokens] < place.start + max(len(place.token), 1))
    if expert is not None:
        here &= (corpus.choices(layer)[tokens] == expert).any(axis=1)
    return int(here.argmax())


def _occurrences(corpus: Corpus, asked: list[str]) -> tuple[np.ndarray, ...]:
    """(text, start, end, first token, one after the last token) of each occurrence of these words in sequence, within
    the part of the text that the model read."""
    phrase = r"\s+".join(map(re.escape, asked))
    # Scripts without spaces have no word boundaries.
    before, after = (r"(?<!\w)", r"(?!\w)")
    edged = [re.match(r"\w", letter) and letter < "\u2e80" for letter in (asked[0][0], asked[-1][-1])]
    pattern = re.compile((before if edged[0] else "") + phrase + (after if edged[1] else ""), re.IGNORECASE)
    # Most texts have none: searching for the longest word first is faster than the pattern.
    longest = max(asked, key=len).lower()
    found = [
        (text, *match.span())
        for text, whole in enumerate(corpus.texts)
        if longest in whole.lower()
        for match in pattern.finditer(whole)
    ]
    text, start, end = np.array(found, dtype=np.int64).reshape(-1, 3).T
    # Texts and their tokens are sorted, so character offsets over all texts are sorted too.
    wide = max(map(len, corpus.texts)) + 1
    first = np.searchsorted(corpus.text * wide + corpus.end, text * wide + start, side="right")
    last = np.searchsorted(corpus.text * wide + corpus.start, text * wide + end, side="left")
    read = last > first
    return text[read], start[read], end[read], first[read], last[read]


def right_against_wrong(corpus: Corpus, layer: str, seed: int = 0) -> tuple[np.ndarray, AgainstChance]:
    """(2, E) expert loads over correctly and wrongly predicted texts, and their total variation distance (0 = the same,
    1 = no expert in common) beside permuted labels.

    Raises ValueError when the classes are unknown, or all predictions are right, or all wrong.
    """
    known = (corpus.true >= 0) & (corpus.predicted >= 0)
    wrong = (corpus.predicted != corpus.true)[known].astype(np.int64)
    if not len(wrong) or wrong.min() == wrong.max():
        raise ValueError("Right and wrong predictions can't be compared: only one of the two occurs.")
    counts = text_counts(corpus, layer)[known]
    random = np.random.default_rng(seed)
    chance = [_apart(_by_label(counts, random.permutation(wrong), 2)) for _ in range(PERMUTATIONS)]
    loads = _by_label(counts, wrong, 2)
    against = AgainstChance(_apart(loads), float(np.mean(chance)), float(np.quantile(chance, 0.95)))
    return loads / loads.sum(axis=1, keepdims=True), against


def caution(corpus: Corpus, layer: str, expert: int) -> str:
    """A warning against over-interpreting an expert's card; "" if none applies."""
    takes = corpus.takes(layer, expert)
    tokens, texts = int(takes.sum()), len(np.unique(corpus.text[takes]))
    if tokens < THIN_TOKENS or texts < THIN_TEXTS:
        return f"Thin evidence: {tokens:,} tokens of {texts:,} texts. Differences may be due to chance."
    if corpus.classes and not class_information(corpus, layer).beyond_chance:
        return "This layer separates the classes no better than shuffled labels would."
    return ""


def _by_label(counts: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    summed = np.zeros((size, counts.shape[1]), dtype=np.int64)
    known = labels >= 0
    np.add.at(summed, labels[known], counts[known])
    return summed


def _information(counts: np.ndarray) -> float:
    joint = counts / max(counts.sum(), 1)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    entropy = _entropy(rows)
    return max(entropy + _entropy(columns) - _entropy(joint.ravel()), 0.0) / entropy if entropy else 0.0


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


def _apart(loads: np.ndarray) -> float:
    shares = loads / np.maximum(loads.sum(axis=1, keepdims=True), 1)
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _context(corpus: Corpus, text: int, start: int, end: int, around: int) -> Context:
    whole = corpus.texts[text]
    before, after = whole[max(start - around, 0) : start], whole[end : end + around]
    return Context(
        text,
        start,
        ("…" if start > around else "") + before,
        whole[start:end],
        after + ("…" if end + around < len(whole) else ""),
    )
