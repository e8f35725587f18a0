"""The tokens of a trace as the grids draw them.

Try it: tokens_value(prediction.trace)["tokens"]
"""

from typing import Any

from switch_model.token_trace import TokenTrace


def tokens_value(trace: TokenTrace) -> dict[str, Any]:
    """The tokens of a trace, and what is to be seen of each."""
    return {
        "tokens": [visible(token) for token in trace.tokens],
        "joined": joined_tokens(trace),
        "unknown": trace.unknown,
        "special": [start == end for start, end in trace.offsets],
    }


def joined_tokens(trace: TokenTrace) -> list[int]:
    """1 where a token continues the word of the one before it: both are letters or digits with nothing between."""
    joined, previous_end, previous_token = [], -1, ""
    for (start, end), token in zip(trace.offsets, trace.tokens, strict=True):
        touches = start == previous_end and end > start and token[:1].isalnum() and previous_token[-1:].isalnum()
        # Scripts without spaces would make one endless word, which could not wrap.
        joined.append(int(touches and token[:1] < "\u2e80"))
        previous_end, previous_token = end, token
    return joined


def visible(token: str) -> str:
    """A token without the space around it; a mark for one that is nothing else. Not escaped."""
    return token.strip() or "␣"
