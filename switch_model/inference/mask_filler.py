"""MaskFiller: a masked language model and a text with blanks -> what fits into each, and where every token went.

Legend: T tokens, V tokens in the vocabulary.
Try it: MaskFiller.from_checkpoint("assets/models/tiny_stories_blanks")("The cat sat on the ___.").blanks[0].candidates
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import CheckpointError, load_checkpoint
from switch_model.inference.classifier import MAX_CHARACTERS
from switch_model.inference.traces import Band, read_tokens, token_word, whole_text
from switch_model.interventions import Interventions
from switch_model.models.masked_lm import SwitchForMaskedLM

# Candidates that are kept for each blank.
MAX_CANDIDATES = 10
BLANK = "___"
_BLANKS = re.compile(r"_{3,}|\[MASK\]|<mask>", re.IGNORECASE)


def has_blank(text: str) -> bool:
    """Whether a text has something to fill."""
    return bool(_BLANKS.search(text))


@dataclass(frozen=True)
class Blank:
    """One blank of a text.

    Attributes:
        token: its place among the tokens.
        candidates: what fits, the likeliest first, with probabilities; special tokens are left out.
    """

    token: int
    candidates: list[tuple[str, float]]


@dataclass(frozen=True)
class Filling:
    """A text with its blanks filled.

    Attributes:
        text: the text with the likeliest word in each blank.
        blanks: in reading order.
        answer: what the encoder read.
    """

    text: str
    blanks: list[Blank]
    answer: Band

    @property
    def bands(self) -> tuple[Band, ...]:
        return (self.answer,)

    @property
    def routing(self) -> tuple:
        """One record per sparse layer."""
        return self.answer.routing

    @property
    def truncated(self) -> bool:
        return self.answer.truncated


class MaskFiller:
    """Fills blanks with a loaded model. Holds no state between calls; safe to share between threads."""

    def __init__(self, model: SwitchForMaskedLM, tokenizer: PreTrainedTokenizerFast):
        if tokenizer.mask_token_id is None:
            raise CheckpointError("This checkpoint’s tokenizer has no mask token: there is nothing to put in a blank.")
        self.model = model.eval()
        self.tokenizer = tokenizer
        limit = tokenizer.model_max_length
        if model.config.position == "learned":
            limit = min(limit, model.config.max_positions - int(model.config.cls_token))
        # Once, not per call: the backend keeps truncation as state, which threads must not change under each other.
        tokenizer.backend_tokenizer.enable_truncation(limit)

    @classmethod
    def from_checkpoint(
        cls, folder_zip_or_hub_id: str | Path, device: str | torch.device | None = None, revision: str | None = None
    ) -> "MaskFiller":
        """Open a checkpoint. Raises CheckpointError when it can't, or is no masked language model."""
        model, tokenizer = load_checkpoint(folder_zip_or_hub_id, device, revision)
        if not isinstance(model, SwitchForMaskedLM):
            raise CheckpointError(f"This checkpoint is a {type(model).__name__}: it does not fill blanks.")
        return cls(model, tokenizer)

    @torch.inference_mode()
    def __call__(self, text: str, interventions: Interventions | None = None) -> Filling:
        """Fill the blanks of a text, each written `___` or `[MASK]`, all at once.

        Raises:
            ValueError: when there is no blank in what the model reads, or when interventions do not fit.
        """
        # 1. Blanks become mask tokens.
        text = whole_text(text)[:MAX_CHARACTERS]
        masked = _BLANKS.sub(lambda _: self.tokenizer.mask_token, text)
        encoding = self.tokenizer.backend_tokenizer.encode(masked)
        places = [index for index, one in enumerate(encoding.ids) if one == self.tokenizer.mask_token_id]
        if not places:
            beyond = " among the tokens that the model reads" if has_blank(text) else ""
            raise ValueError(f"There is no blank{beyond}: write {BLANK} where a word is missing.")

        # 2. One pass.
        output = self.model(
            torch.tensor([encoding.ids], device=self.model.device), interventions=interventions, output_routing=True
        )
        probs_KV = output.logits[0, places].float().softmax(-1).cpu()
        probs_KV[:, self.tokenizer.all_special_ids] = 0.0
        best = probs_KV.topk(min(MAX_CANDIDATES, probs_KV.shape[-1]), dim=-1)

        # 3. Words, and the text with the first of them.
        tokens, offsets = read_tokens(masked, encoding)
        blanks, filled, done = [], [], 0
        for place, ids, shares in zip(places, best.indices.tolist(), best.values.tolist(), strict=True):
            words = [(token_word(self.tokenizer, one).strip(), share) for one, share in zip(ids, shares, strict=True)]
            blanks.append(Blank(place, words))
            start, end = offsets[place]
            filled += [masked[done:start], words[0][0]]
            done = end
            tokens[place] = BLANK
        filled.append(masked[done:])
        unknown = [one == self.tokenizer.unk_token_id for one in encoding.ids]
        if self.model.config.cls_token:
            tokens, offsets, unknown = ["[CLS]", *tokens], [(0, 0), *offsets], [False, *unknown]
            blanks = [Blank(blank.token + 1, blank.candidates) for blank in blanks]
        answer = Band(
            stack="encoder",
            text=masked,
            tokens=tokens,
            offsets=offsets,
            unknown=unknown,
            truncated=bool(encoding.overflowing),
            routing=tuple(record.detached() for record in output.routing),
            written=len(tokens),
        )
        return Filling("".join(filled), blanks, answer)
