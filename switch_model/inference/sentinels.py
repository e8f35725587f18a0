"""Sentinels of span corruption: `___` in a text -> sentinels, and a model's answer -> the text with its gaps filled.

T5's pretraining task (1910.10683, section 3.1.4): `<extra_id_0>` replaces the first gap, and the answer has each
sentinel before the span that fills it. Try it: with_sentinels("the ___ sat on the ___", tokenizer)
"""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

# How people write a gap.
GAP = "___"
_GAPS = re.compile(r"_{3,}")
_SENTINELS = re.compile(r"<extra_id_\d+>")


def has_gap(text: str) -> bool:
    """Whether a text has a gap or a sentinel."""
    return bool(_GAPS.search(text) or _SENTINELS.search(text))


def with_sentinels(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    """The text with a sentinel for each gap, counted from 0; unchanged where it already has sentinels, or where the
    tokenizer has none."""
    if _SENTINELS.search(text) or tokenizer.backend_tokenizer.token_to_id("<extra_id_0>") is None:
        return text
    count = iter(range(len(text)))
    return _GAPS.sub(lambda _: f"<extra_id_{next(count)}>", text)


def restored(text: str, written: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> str | None:
    """A text with its sentinels replaced by the generated spans, `___` where there is none; None for a text without
    sentinels."""
    if not _SENTINELS.search(text):
        return None
    backend = tokenizer.backend_tokenizer
    spans: dict[str, list[int]] = {}
    own: list[int] = []
    for token_id in written:
        name = backend.id_to_token(token_id) or ""
        if _SENTINELS.fullmatch(name):
            own = spans.setdefault(name, [])
        else:
            own.append(token_id)
    words = {name: backend.decode(ids, skip_special_tokens=True).strip() for name, ids in spans.items()}
    return _SENTINELS.sub(lambda found: words.get(found[0]) or GAP, text)
