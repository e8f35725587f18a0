"""Base class of all pipelines: opens a checkpoint, and tokenizes a text as the model reads it.

Legend: T tokens of a text.
Try it: Predictor.from_checkpoint("assets/models/ag_news").read("Oil prices rose.").tokens
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import torch
from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from switch_model.adapters.loading import load_any
from switch_model.storage.errors import CheckpointError
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting

# A SwitchPreTrainedModel or an AdaptedModel: they are called in the same way, but share no class.
AnyModel: TypeAlias = Any

# Far above any model's maximum length: a pasted book costs no more than a long text.
MAX_CHARACTERS = 200_000
# Name of the learned token that the model puts before the text (SwitchConfig.cls_token).
CLS_NAME = "[CLS]"


def replace_surrogates(text: str) -> str:
    """The text with "?" for each lone UTF-16 surrogate, which UTF-8 can't encode; character offsets do not change."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class ReadText:
    """A text as the model reads it.

    Attributes:
        text: the whole text, lone surrogates replaced, to which the offsets refer.
        ids: token ids; the model's own CLS token has none.
        tokens: T readable tokens: the text's own characters, or a special token's name; a CLS token comes first.
        offsets: (start, end) character offsets of each token; empty for special tokens.
        unknown: for each token, whether the model reads it as the unknown token.
        truncated: whether the text is longer than the model's maximum length.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    unknown: list[bool]
    truncated: bool

    def trace(self, routing: tuple[AnyRouting, ...]) -> TokenTrace:
        """These tokens with an encoder's records."""
        return TokenTrace(
            stack="encoder",
            text=self.text,
            tokens=self.tokens,
            offsets=self.offsets,
            unknown=self.unknown,
            truncated=self.truncated,
            routing=routing,
            written=len(self.tokens),
            ids=self.ids,
        )


class TextPipeline:
    """A model and its tokenizer. Keeps no state between calls; safe to share between threads."""

    # Side on which a text that is too long is cut.
    truncated_end = "right"

    def __init__(self, model: AnyModel, tokenizer: PreTrainedTokenizerFast):
        if getattr(model.config, "inputs_embeds_size", None):
            raise CheckpointError(
                "This model takes vectors of numbers, not texts, so that this is not possible with it. Measure it with "
                "evaluate --features_column, or call it in Python with inputs_embeds."
            )
        self.model: AnyModel = model.eval()
        self.tokenizer = tokenizer
        config, limit = model.config, tokenizer.model_max_length
        # The model's own CLS token has no id, but takes a position.
        self.added = int(config.cls_token and "encoder" in model.stacks)
        if config.position == "learned":
            limit = min(limit, config.max_positions - self.added)
        # Once, not per call: truncation is state of the backend, which threads share.
        tokenizer.backend_tokenizer.enable_truncation(limit, direction=self.truncated_end)
        self.max_length = limit

    @classmethod
    def from_checkpoint(
        cls,
        folder_zip_or_hub_id: str | Path,
        device: str | torch.device | None = None,
        revision: str | None = None,
        dtype: str | None = None,
    ) -> Self:
        """Open a checkpoint of this package, or of a mixture-of-experts family of transformers (docs/adapters.md);
        arguments as `load_any`. Raises CheckpointError (switch_model.checkpoint) when it can't be opened, or holds
        another kind of model. Never for files that a visitor sent: those go through `load_checkpoint`."""
        model, tokenizer = load_any(folder_zip_or_hub_id, device, revision, dtype)
        cls.check_kind(model)
        return cls(model, tokenizer)

    @classmethod
    def check_kind(cls, model: AnyModel) -> None:
        """Raise CheckpointError for a model that this pipeline can't use."""
        raise NotImplementedError

    def read(self, text: str) -> ReadText:
        """Tokenize a text, cut to the model's maximum length."""
        text = replace_surrogates(text)
        return self._as_read(text, self.tokenizer.backend_tokenizer.encode(text[:MAX_CHARACTERS]))

    def read_all(self, texts: Sequence[str]) -> list[ReadText]:
        """`read` of several texts."""
        texts = [replace_surrogates(text) for text in texts]
        return [self._as_read(text, encoding) for text, encoding in zip(texts, self.encode_all(texts), strict=True)]

    def encode_all(self, texts: Sequence[str]) -> list[Encoding]:
        """What the tokenizer makes of texts without lone surrogates, on all cores; never padded."""
        backend, texts = self.tokenizer.backend_tokenizer, [text[:MAX_CHARACTERS] for text in texts]
        encodings = backend.encode_batch(texts)
        # Padding is state of the backend too: `tokenizer(texts, padding=True)` leaves it on.
        if any(0 in encoding.attention_mask for encoding in encodings):
            return [backend.encode(text) for text in texts]
        return encodings

    def _as_read(self, text: str, encoding: Encoding) -> ReadText:
        tokens = [
            text[start:end] or token for (start, end), token in zip(encoding.offsets, encoding.tokens, strict=True)
        ]
        unknown_id = self.tokenizer.unk_token_id
        unknown = [unknown_id is not None and token_id == unknown_id for token_id in encoding.ids]
        return ReadText(
            text=text,
            ids=list(encoding.ids),
            tokens=[CLS_NAME] * self.added + tokens,
            offsets=[(0, 0)] * self.added + list(encoding.offsets),
            unknown=[False] * self.added + unknown,
            truncated=bool(encoding.overflowing) or len(text) > MAX_CHARACTERS,
        )
