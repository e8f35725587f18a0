"""Whether a text is unlike those that a classifier was trained on, told from its tokens alone.

Four numbers of a text have bounds that all but one in 400 training texts keep to; training.json has them. A text beyond
a bound is unlike the training texts. One within all of them may still be about anything: fluent English is not told
from other fluent English.
Legend: N texts, with 4 numbers each.
Try it: TypicalTexts.at("assets/models/ag_news").reasons(predictor.token_ids("Hi"), predictor.tokenizer)
"""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import CheckpointError, read_training
from switch_model.inference.traces import CUT, token_word

# Key in training.json.
TYPICAL = "typical_texts"
# Share of the training texts beyond each bound.
BEYOND = 0.0025
# Bounds of fewer texts would be chance.
FEWEST_TEXTS = 200
# The fewest tokens are a bound that a complete text of the kind may well miss: one is called short below a third of it.
SHORT = 1 / 3
# Single unknown tokens, such as an emoji in a long text, say nothing.
FEW_UNKNOWN = 0.1


@dataclass(frozen=True)
class TypicalTexts:
    """The bounds of a classifier's training texts.

    Attributes:
        tokens: fewest tokens.
        unknown: largest share of unknown tokens.
        pieces: most tokens per word.
        punctuation: largest share of tokens that are punctuation or symbols.
    """

    tokens: float
    unknown: float
    pieces: float
    punctuation: float

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], tokenizer: PreTrainedTokenizerFast) -> "TypicalTexts | None":
        """The bounds of texts given as token ids; None for fewer than FEWEST_TEXTS."""
        kinds = _Kinds(tokenizer)
        numbers_N4 = np.array([kinds.numbers(ids) for ids in rows if len(ids)])
        if len(numbers_N4) < FEWEST_TEXTS:
            return None
        fewest = np.quantile(numbers_N4[:, 0], BEYOND)
        largest = np.quantile(numbers_N4[:, 1:], 1 - BEYOND, axis=0)
        return cls(*map(float, (fewest, *largest)))

    @classmethod
    def noted(cls, training: Mapping[str, Any]) -> "TypicalTexts | None":
        """The bounds in training.json; None where it has none, or damaged ones."""
        found = training.get(TYPICAL)
        bounds: list[Any] = [found.get(field.name) for field in fields(cls)] if isinstance(found, dict) else []
        return cls(*bounds) if bounds and all(map(_is_bound, bounds)) else None

    @classmethod
    def at(cls, checkpoint: str | Path) -> "TypicalTexts | None":
        """The bounds of a checkpoint folder; None where it has none, or none that can be read."""
        try:
            return cls.noted(read_training(checkpoint))
        except (CheckpointError, OSError):
            return None

    def to_note(self) -> dict[str, Any]:
        """For training.json."""
        return {TYPICAL: asdict(self)}

    def reasons(self, ids: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> tuple[str, ...]:
        """What makes a text, given as token ids, unlike the training texts, in words; () where it is like them."""
        if not len(ids):
            return ()
        tokens, unknown, pieces, punctuation = _Kinds(tokenizer).numbers(ids)
        said = []
        short = tokens < SHORT * self.tokens
        if short:
            said.append(
                f"{tokens} token{'s' if tokens > 1 else ''}, where nearly all of them have {self.tokens:.0f} or more"
            )
        if unknown > max(self.unknown, FEW_UNKNOWN):
            said.append(f"{100 * unknown:.3g}\u00a0% of its tokens are unknown to the model")
        # A few tokens make neither an average nor a share.
        if pieces > self.pieces and not short:
            said.append(f"{pieces:.3g} tokens per word, where nearly all of them have {self.pieces:.3g} or fewer")
        if punctuation > self.punctuation and not short:
            said.append(
                f"{100 * punctuation:.3g}\u00a0% of its tokens are punctuation, where nearly all of them have "
                f"{100 * self.punctuation:.3g}\u00a0% or less"
            )
        return tuple(said)


def unlike_in_words(reasons: Sequence[str]) -> str:
    """The end of a sentence about such a text."""
    return f"unlike the model's training texts ({'; '.join(reasons)}): its class says little."


def _is_bound(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS" and character != CUT


class _Kinds:
    """Which tokens of a vocabulary begin a word, and which are punctuation; looked up once each."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.tokenizer = tokenizer
        self.unknown = tokenizer.unk_token_id
        self.known: dict[int, tuple[bool, bool]] = {}

    def numbers(self, ids: Sequence[int]) -> tuple[int, float, float, float]:
        """(tokens, share of unknown ones, tokens per word, share of punctuation) of one text."""
        count = len(ids)
        kinds = [self._kind(token_id) for token_id in ids]
        unknown = sum(token_id == self.unknown for token_id in ids)
        words, punctuation = (sum(column) for column in zip(*kinds, strict=True))
        return count, unknown / count, count / max(words, 1), punctuation / count

    def _kind(self, token_id: int) -> tuple[bool, bool]:
        """(begins a word, is punctuation)."""
        if token_id not in self.known:
            word = token_word(self.tokenizer, token_id)
            # The unknown token stands for a whole word.
            begins = word.startswith(" ") or token_id == self.unknown
            signs = word.strip()
            self.known[token_id] = begins, bool(signs) and all(map(_is_sign, signs))
        return self.known[token_id]
