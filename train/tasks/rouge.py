"""ROUGE-1, ROUGE-2, ROUGE-L of generated texts (Lin, 2004, "ROUGE: A Package for Automatic Evaluation of Summaries").

Own code, since the packages that compute it are no longer kept up, or leave out all letters that are not ASCII.
Try it: rouge(["the cat sat"], ["the cat sat down"])
"""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence


def rouge(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """rouge1, rouge2 and rougeL: the mean of the pairs' F1, 0 to 100; without stemming, upper and lower case alike.

    ROUGE-N counts common sequences of N words (section 2, as F1), ROUGE-L the longest common subsequence of the whole
    texts (section 3.1, with beta = 1).
    """
    totals = Counter({"rouge1": 0.0, "rouge2": 0.0, "rougeL": 0.0})
    for answer, reference in zip(answers, references, strict=True):
        own, wanted = words(answer), words(reference)
        for size in (1, 2):
            found, asked = _sequences(own, size), _sequences(wanted, size)
            totals[f"rouge{size}"] += _f1((found & asked).total(), found.total(), asked.total())
        totals["rougeL"] += _f1(common_subsequence(own, wanted), len(own), len(wanted))
    return {name: 100 * total / max(len(answers), 1) for name, total in totals.items()}


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters, digits and the marks that belong to letters (as vowel signs
    in Devanagari do)."""
    kept = (character if unicodedata.category(character)[0] in "LNM" else " " for character in text.lower())
    return "".join(kept).split()


def common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence.

    A column of the usual table is one number whose zero bits are the rows at which the length grows (Hyyrö, 2004, "Bit-
    parallel LCS-length computation revisited").
    """
    places: dict[Hashable, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(first)) - 1
    column = every
    for word in second:
        matched = column & places.get(word, 0)
        column = ((column + matched) | (column - matched)) & every
    return len(first) - column.bit_count()


def _sequences(found: list[str], size: int) -> Counter:
    return Counter(zip(*(found[start:] for start in range(size)), strict=False))


def _f1(common: int, own: int, wanted: int) -> float:
    return 2 * common / (own + wanted) if common else 0.0
