"""The toy data set: generated texts of invented words, which any working model learns in seconds.

Try it: make_toy_split("test")[0][0]
"""

import numpy as np
from datasets import Dataset

from train.data.columns import label_features
from train.data.errors import DataError

TOY_VOCABULARY, TOY_SAMPLES = 500, 1000
TOY_SEEDS = {"train": 0, "validation": 1, "test": 2}


def make_toy_split(split: str | None = None, **shape: int) -> tuple[Dataset, list[str]]:
    """A split of the toy data of a given shape (`make_toy`'s num_classes, vocab_size, seq_len); None = test.

    No run trains on the test split: runs use seeds 3 n and 3 n + 1. Raises DataError for another split.
    """
    split = split or "test"
    if split not in TOY_SEEDS:
        raise DataError(f"toy has no split {split!r}: it has {', '.join(TOY_SEEDS)}.")
    return make_toy(seed=TOY_SEEDS[split], **shape)


def make_toy(
    num_samples: int = TOY_SAMPLES,
    num_classes: int = 3,
    vocab_size: int = TOY_VOCABULARY,
    seq_len: int = 16,
    seed: int = 0,
) -> tuple[Dataset, list[str]]:
    """Synthetic texts of invented words. A third of a text's words come from its class's own words, which for all
    classes together are a fifth of the vocabulary; so the words alone determine the class.
    """
    random = np.random.default_rng(seed)
    words = _invented_words(vocab_size)
    own = max(vocab_size // (5 * num_classes), 1)
    texts, labels = [], random.integers(num_classes, size=num_samples)
    for label in labels:
        length = int(random.integers(max(seq_len // 2, 1), seq_len + 1))
        chosen = random.integers(len(words), size=length)
        from_class = random.random(length) < 1 / 3
        from_class[random.integers(length)] = True
        chosen[from_class] = label * own + random.integers(own, size=int(from_class.sum()))
        texts.append(" ".join(words[index] for index in chosen))
    names = [f"class {index}" for index in range(num_classes)]
    rows = Dataset.from_dict({"text": texts, "label": labels.tolist()}, features=label_features(names))
    return rows, names


def _invented_words(count: int) -> list[str]:
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = []
    for index in range(count):
        word, rest = "", index
        for _ in range(2 if count <= len(syllables) ** 2 else 3):
            word, rest = word + syllables[rest % len(syllables)], rest // len(syllables)
        words.append(word)
    return words
