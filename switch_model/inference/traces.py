"""What all results have: traces that a notebook can draw; readable forms of tokens.

Try it: token_word(predictor.tokenizer, 7)
"""

from typing import Any

from transformers import PreTrainedTokenizerFast

from switch_model.grid.widget import show
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting

# Decoded form of an incomplete UTF-8 character.
CUT = "\ufffd"


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
    """A result with traces, which a notebook draws."""

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """One per stack, encoder first. Every subclass has its own."""
        raise NotImplementedError

    @property
    def routing(self) -> tuple[AnyRouting, ...]:
        """One record per sparse layer of all stacks, encoder first."""
        return tuple(record for trace in self.traces for record in trace.routing)

    @property
    def truncated(self) -> bool:
        """Whether the text was longer than the model's maximum length."""
        return self.traces[0].truncated

    def show(self, before: "Shown | None" = None) -> Any:
        """The routing as a widget for Jupyter, VS Code and Colab. Raises ImportError without anywidget.

        Args:
            before: the result for the same text before its routing was changed: other routes are marked.
        """
        return show(self, before)


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
