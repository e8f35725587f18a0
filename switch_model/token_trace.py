"""TokenTrace: the tokens of one stack and their routing.

Legend: T tokens of the stack.
Try it: TextGenerator.from_checkpoint("a/model")("Once upon a time").answer.tokens
"""

from dataclasses import dataclass, field

from switch_model.topk_routing import AnyRouting


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
