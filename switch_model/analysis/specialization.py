"""What experts take: classes, words, positions, right and wrong predictions; beside it, what chance gives.

Pure functions of a Corpus.

Every measure as defined in docs/metrics.md. Legend: C classes, E experts, N texts.
Try it: class_information(corpus, "encoder.1")
"""

import itertools
import re
from dataclasses import dataclass

import numpy as np

from switch_model.analysis.corpus import Corpus

# A token's specialization is told from so many occurrences on.
LEAST_OCCURRENCES = 10
# Permutations of the labels that chance is measured with.
PERMUTATIONS = 50
# Below these an expert's card says that its evidence is thin.
THIN_TOKENS, THIN_TEXTS = 200, 30
PSEUDOCOUNT = 0.5


@dataclass(frozen=True)
class AgainstChance:
    """A measure, and what it becomes when the labels are permuted over the texts: mean and 95th percentile."""

    value: float
    chance: float
    chance_high: float

    @property
    def beyond_chance(self) -> bool:
        return self.value > self.chance_high


@dataclass(frozen=True)
class TokenShare:
    """A token and an expert: of `count` occurrences the share that the expert takes, and log2 of that share over the
    expert's share of all tokens."""

    token: str
    count: int
    share: float
    lift: float


@dataclass(frozen=True)
class Context:
    """A place of a token or of words: the text's number, and the characters before, of, and after it."""

    text: int
    before: str
    token: str
    after: str


def text_counts(corpus: Corpus, layer: str) -> np.ndarray:
    """(N, E) how many tokens of each text chose each expert."""
    experts = corpus.expert[corpus.layer_index(layer)].astype(np.int64)
    pairs = corpus.text * corpus.num_experts + experts
    return np.bincount(pairs, minlength=len(corpus.texts) * corpus.num_experts).reshape(-1, corpus.num_experts)


def class_counts(corpus: Corpus, layer: str, labels: np.ndarray | None = None) -> np.ndarray:
    """(C, E) how many tokens of each class's texts chose each expert.

    Args:
        labels: (N,) other class indices than the corpus's own: true ones where they are known, else predicted ones.
    """
    return _by_label(text_counts(corpus, layer), _labels(corpus) if labels is None else labels, len(corpus.classes))


def lift(counts: np.ndarray) -> np.ndarray:
    """(C, E) log2 of p(expert | class) over p(expert), half a token added to every cell. 0 = as everywhere; NaN for a
    class without a token."""
    absent = counts.sum(axis=1, keepdims=True) == 0
    counts = np.where(absent, np.nan, counts + PSEUDOCOUNT)
    given = counts / counts.sum(axis=1, keepdims=True)
    return np.log2(given / (np.nansum(counts, axis=0) / np.nansum(counts)))


def class_information(corpus: Corpus, layer: str, seed: int = 0) -> AgainstChance:
    """I(class; expert) / H(class): how much of a text's class one token's expert tells, beside permuted labels.

    Labels are permuted over texts, not tokens: the tokens of one text are no independent witnesses.
    """
    counts, labels = text_counts(corpus, layer), _labels(corpus)
    random, classes = np.random.default_rng(seed), len(corpus.classes)
    chance = [_information(_by_label(counts, random.permutation(labels), classes)) for _ in range(PERMUTATIONS)]
    value = _information(_by_label(counts, labels, classes))
    return AgainstChance(value, float(np.mean(chance)), float(np.quantile(chance, 0.95)))


def drop_rate_by_position(corpus: Corpus, layer: str, bins: int = 10) -> list[tuple[int, int, float]]:
    """(first position, last position, drop rate) of `bins` stretches with about as many tokens each."""
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
    """The tokens that occur often enough, those first of which the expert takes most beyond its share of all tokens."""
    takes = corpus.expert[corpus.layer_index(layer)] == expert
    size = int(corpus.token.max()) + 1
    counts, taken = (np.bincount(corpus.token[chosen], minlength=size) for chosen in (slice(None), takes))
    overall = takes.mean()
    found = []
    for number in np.flatnonzero(counts >= least).tolist():
        share = taken[number] / counts[number]
        # Half an occurrence added on either side keeps a share of 0 from being an infinite surprise.
        raised = (taken[number] + PSEUDOCOUNT * overall) / (counts[number] + PSEUDOCOUNT)
        ratio = float(np.log2(raised / overall)) if overall else 0.0
        found.append(TokenShare(corpus.names[number], int(counts[number]), float(share), ratio))
    # Of equal lifts the one with more occurrences says more.
    return sorted(found, key=lambda one: (-round(one.lift, 1), -one.count))


def contexts(corpus: Corpus, layer: str, expert: int, count: int = 5, around: int = 40, seed: int = 0) -> list[Context]:
    """Places drawn at random from all tokens that chose the expert, at most one of a text."""
    places = np.flatnonzero(corpus.expert[corpus.layer_index(layer)] == expert)
    places = np.random.default_rng(seed).permutation(places)
    found: dict[int, Context] = {}
    for place in places[: 20 * count].tolist():
        text, start, end = int(corpus.text[place]), int(corpus.start[place]), int(corpus.end[place])
        if text not in found and end > start:
            found[text] = _context(corpus, text, start, end, around)
        if len(found) == count:
            break
    return list(found.values())


def find(corpus: Corpus, layer: str, expert: int | None, words: str = "") -> list[Context]:
    """Every place of a word or phrase of which some token chose the expert (None = any), in the order of the texts,
    with what stands around it; upper and lower case alike. Without words, every token that did.

    Places are whole words, however the tokenizer splits them, and beside them the tokens that read like `words`.

    Raises:
        ValueError: when there is no such layer.
    """
    index, asked = corpus.layer_index(layer), words.split()
    wanted = np.ones(len(corpus.token), dtype=bool) if expert is None else corpus.expert[index] == expert
    spans = []
    if asked:
        text, start, end, first, last = _occurrences(corpus, asked)
        until = np.concatenate([[0], np.cumsum(wanted)])
        hit = until[last] > until[first]
        spans = list(zip(text[hit].tolist(), start[hit].tolist(), end[hit].tolist(), strict=True))
        name = " ".join(asked).lower()
        numbers = [number for number, own in corpus.names.items() if own.removeprefix("##").lower() == name]
        # A token within a place that is found already is not another one.
        inside = np.zeros(len(wanted) + 1, dtype=np.int64)
        np.add.at(inside, first, 1)
        np.add.at(inside, last, -1)
        wanted &= np.isin(corpus.token, numbers) & (np.cumsum(inside[:-1]) == 0)
    places = np.flatnonzero(wanted)
    spans += zip(corpus.text[places].tolist(), corpus.start[places].tolist(), corpus.end[places].tolist(), strict=True)
    return [_context(corpus, *span, 40) for span in (sorted(spans) if asked else spans)]


def _occurrences(corpus: Corpus, asked: list[str]) -> tuple[np.ndarray, ...]:
    """(text, start, end, first token, one after the last) of each place where these words stand one after the other,
    as far as the model read."""
    phrase = r"\s+".join(map(re.escape, asked))
    # Where a script has no spaces, a word has no edge.
    before, after = (r"(?<!\w)", r"(?!\w)")
    edged = [re.match(r"\w", letter) and letter < "\u2e80" for letter in (asked[0][0], asked[-1][-1])]
    pattern = re.compile((before if edged[0] else "") + phrase + (after if edged[1] else ""), re.IGNORECASE)
    # Most texts hold none: to look for the longest word alone is quicker than the pattern.
    longest = max(asked, key=len).lower()
    found = [
        (text, *match.span())
        for text, whole in enumerate(corpus.texts)
        if longest in whole.lower()
        for match in pattern.finditer(whole)
    ]
    text, start, end = np.array(found, dtype=np.int64).reshape(-1, 3).T
    # Texts and, within each, tokens are in order: characters counted through all texts are, too.
    wide = max(map(len, corpus.texts)) + 1
    first = np.searchsorted(corpus.text * wide + corpus.end, text * wide + start, side="right")
    last = np.searchsorted(corpus.text * wide + corpus.start, text * wide + end, side="left")
    read = last > first
    return text[read], start[read], end[read], first[read], last[read]


def right_against_wrong(corpus: Corpus, layer: str, seed: int = 0) -> tuple[np.ndarray, AgainstChance]:
    """(2, E) load of the experts over texts predicted right and wrong, and half of their absolute difference summed
    (0 = the same, 1 = no expert in common) beside permuted verdicts.

    Raises ValueError when the classes are unknown, or all predictions are right, or all wrong.
    """
    known = corpus.true >= 0
    wrong = (corpus.predicted != corpus.true)[known].astype(np.int64)
    if not known.any() or wrong.min() == wrong.max():
        raise ValueError("Right and wrong predictions can't be compared: there is only one kind of them.")
    counts = text_counts(corpus, layer)[known]
    random = np.random.default_rng(seed)
    chance = [_apart(_by_label(counts, random.permutation(wrong), 2)) for _ in range(PERMUTATIONS)]
    loads = _by_label(counts, wrong, 2)
    against = AgainstChance(_apart(loads), float(np.mean(chance)), float(np.quantile(chance, 0.95)))
    return loads / loads.sum(axis=1, keepdims=True), against


def caution(corpus: Corpus, layer: str, expert: int) -> str:
    """What speaks against reading much into an expert's card; "" when nothing does."""
    takes = corpus.expert[corpus.layer_index(layer)] == expert
    tokens, texts = int(takes.sum()), len(np.unique(corpus.text[takes]))
    if tokens < THIN_TOKENS or texts < THIN_TEXTS:
        return f"Thin evidence: {tokens:,} tokens of {texts:,} texts. What stands out here may be chance."
    information = class_information(corpus, layer)
    if not information.beyond_chance:
        return "This layer tells the classes apart no better than shuffled labels would: read nothing into them."
    return ""


def _labels(corpus: Corpus) -> np.ndarray:
    return np.where(corpus.true >= 0, corpus.true, corpus.predicted)


def _by_label(counts: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    summed = np.zeros((size, counts.shape[1]), dtype=np.int64)
    np.add.at(summed, labels, counts)
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
        ("…" if start > around else "") + before,
        whole[start:end],
        after + ("…" if end + around < len(whole) else ""),
    )
