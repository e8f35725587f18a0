"""TokenTrace: the tokens of one stack and their routing; readable forms of tokens.

Legend: T tokens of the stack.
Try it: TextGenerator.from_checkpoint("a/model")("Once upon a time").answer.tokens
"""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from transformers import PreTrainedTokenizerFast

from switch_model.topk_routing import AnyRouting

# Decoded form of an incomplete UTF-8 character.
CUT = "\ufffd"


@dataclass(frozen=True)
class TokenTrace:
    """One stack's tokens with their routing.

    Attributes:
        stack: "encoder" or "decoder".
        text: the text to which the offsets refer.
        tokens: T readable tokens: the text's own characters, or a special token's name.
        offsets: (start, end) character offsets of each token; empty for special tokens.
        unknown: for each token, whether the model reads it as the unknown token.
        truncated: whether the text was longer than the model's maximum length.
        routing: one record per sparse layer of the stack, (1, T) each, on the CPU.
        written: index of the first generated token; T when there is none.
        ids: token ids, without one for a model's own CLS token; empty in a saved record.
    """

    stack: str
    text: str
    tokens: list[str]
    offsets: list[tuple[int, int]]
    unknown: list[bool]
    truncated: bool
    routing: tuple[AnyRouting, ...]
    written: int
    ids: list[int] = field(default_factory=list)


def written_tokens(
    tokenizer: PreTrainedTokenizerFast, ids: list[int], before: list[int], start: int = 0
) -> tuple[str, list[str], list[tuple[int, int]]]:
    """Token ids generated after `before` -> (their text, readable tokens, character offsets counted from `start`).

    A token's text is what it adds to the decoded text: incomplete bytes show as CUT, and the character belongs to the
    token that completes it.
    """
    backend = tokenizer.backend_tokenizer
    # Sentinels are special tokens too, but not among all_special_ids.
    special = {index for index, token in backend.get_added_tokens_decoder().items() if token.special}
    special |= set(tokenizer.all_special_ids)
    known = backend.decode(before, skip_special_tokens=True).rstrip(CUT) if before else ""
    begin, tokens, offsets = len(known), [], []
    for index, token_id in enumerate(ids):
        whole = known if token_id in special else backend.decode([*before, *ids[: index + 1]], skip_special_tokens=True)
        now = whole.rstrip(CUT)
        # A tokenizer's decoder may remove a space again; keep the common prefix.
        shared = _shared(known, now)
        piece = now[shared:]
        place = max(shared - begin, 0) + start
        offsets.append((place, place + len(piece)))
        if token_id in special:
            tokens.append(backend.id_to_token(token_id) or "")
        else:
            tokens.append(piece or (CUT if whole != now else " "))
        known = now
    text = backend.decode([*before, *ids], skip_special_tokens=True)[begin:] if ids else ""
    return text, tokens, offsets


def _shared(one: str, other: str) -> int:
    """Length of the common prefix of two texts."""
    if other.startswith(one):
        return len(one)
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def token_word(tokenizer: PreTrainedTokenizerFast, token_id: int) -> str:
    """Readable form of one token of the vocabulary; with a leading space where it begins a word."""
    backend = tokenizer.backend_tokenizer
    piece = backend.id_to_token(token_id)
    if piece is None:
        return ""  # The embedding may have more rows than the tokenizer has tokens.
    if token_id in tokenizer.all_special_ids:
        return piece
    kind = type(backend.model).__name__
    if kind == "WordPiece":
        prefix = backend.model.continuing_subword_prefix
        return piece.removeprefix(prefix) if piece.startswith(prefix) else f" {piece}"
    if type(backend.decoder).__name__ == "ByteLevel":
        return backend.decoder.decode([piece])
    if kind == "WordLevel":
        return f" {piece}"
    return piece.replace("\u2581", " ")


class Shown:
    """A result with traces, which a notebook can draw."""

    def show(self, before: "Shown | None" = None) -> Any:
        """The routing as a widget for Jupyter, VS Code and Colab. Raises ImportError without anywidget.

        Args:
            before: the result for the same text before its routing was changed: other routes are marked.
        """
        # By name: the grid knows the results that it draws, and they do not know the grid.
        return import_module("switch_model.grid.widget").show(self, before)


class OneTrace(Shown):
    """What an answer has of its only trace."""

    trace: TokenTrace

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """One per stack, as in a Generation."""
        return (self.trace,)

    @property
    def tokens(self) -> list[str]:
        """Readable tokens: the text's own characters, or a special token's name."""
        return self.trace.tokens

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """(start, end) character offsets of each token in the text."""
        return self.trace.offsets

    @property
    def unknown(self) -> list[bool]:
        """For each token, whether the model reads it as the unknown token."""
        return self.trace.unknown

    @property
    def truncated(self) -> bool:
        """Whether the text was longer than the model's maximum length."""
        return self.trace.truncated

    @property
    def routing(self) -> tuple[AnyRouting, ...]:
        """One record per sparse layer, for this text alone, on the CPU."""
        return self.trace.routing
