"""Holding whole sentences out of data that also hold their fragments as rows, as SST-2 does.

Try it: cut_by_sentence(load_split("sst2", "train")[0], share=0.1)
"""

from collections import Counter, defaultdict

import numpy as np
from datasets import Dataset


def cut_by_sentence(rows: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Rows to train on, and whole sentences to validate on of which no fragment is left to train on.

    A row is a fragment of a sentence when it is one of its runs of words. Cutting row by row would put fragments of one
    sentence on both sides, and the validation accuracy would speak of memory.
    """
    texts = rows["text"]
    frequency = Counter(word for text in texts for word in set(text.split()))
    sentence_of: dict[str, str] = {}
    holding: dict[str, list[str]] = defaultdict(list)
    for text in sorted(set(texts), key=len, reverse=True):
        words = text.split()
        # The sentences with the text's rarest word are few.
        candidates = holding[min(words, key=frequency.__getitem__)]
        sentence = next((whole for whole in candidates if f" {' '.join(words)} " in f" {whole} "), None)
        if sentence is None:
            sentence = " ".join(words)
            for word in set(words):
                holding[word].append(sentence)
        sentence_of[text] = sentence
    sentences = sorted(set(sentence_of.values()))
    held_out = set(np.random.default_rng(0).permutation(sentences)[: max(round(len(sentences) * share), 1)])
    train, validation = [], []
    for index, text in enumerate(texts):
        if sentence_of[text] not in held_out:
            train.append(index)
        elif " ".join(text.split()) == sentence_of[text]:
            validation.append(index)
    return rows.select(train), rows.select(validation)
