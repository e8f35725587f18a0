"""MaskFiller: a masked language model; text with blanks -> candidates for each blank, and the routing of every token.

Legend: K blanks, V tokens in the vocabulary.
Try it: MaskFiller.from_checkpoint("assets/models/tiny_stories_blanks")("The cat sat on the ___.").blanks[0].candidates
"""

import re
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerFast

from switch_model.checkpoint import CheckpointError
from switch_model.inference.pipeline import TextPipeline
from switch_model.inference.traces import Shown, token_word
from switch_model.interventions import Interventions
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.storage.errors import a_class, opened_by
from switch_model.token_trace import TokenTrace

# Candidates per blank.
MAX_CANDIDATES = 10
BLANK = "___"
_BLANKS = re.compile(r"_{3,}|\[MASK\]|<mask>", re.IGNORECASE)


def has_blank(text: str) -> bool:
    """Whether a text has a blank."""
    return bool(_BLANKS.search(text))


@dataclass(frozen=True)
class Blank:
    """One blank of a text.

    Attributes:
        token: index of the mask token.
        candidates: (token, probability), the most probable first; without special tokens.
    """

    token: int
    candidates: list[tuple[str, float]]


@dataclass(frozen=True)
class Filling(Shown):
    """A text with its blanks filled.

    Attributes:
        text: the text with the most probable token in each blank.
        blanks: in reading order.
        answer: the encoder's tokens and routing.
    """

    text: str
    blanks: list[Blank]
    answer: TokenTrace

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        return (self.answer,)


class MaskFiller(TextPipeline):
    """Fills blanks with a masked language model."""

    model: SwitchForMaskedLM

    def __init__(self, model: SwitchForMaskedLM, tokenizer: PreTrainedTokenizerFast):
        if tokenizer.mask_token_id is None:
            raise CheckpointError("This checkpoint’s tokenizer has no mask token: blanks can't be filled.")
        super().__init__(model, tokenizer)

    @classmethod
    def check_kind(cls, model: SwitchPreTrainedModel) -> None:
        """Raise CheckpointError unless the model is a masked language model."""
        if not isinstance(model, SwitchForMaskedLM):
            raise CheckpointError(
                f"This checkpoint is {a_class(model)}, not a masked language model.{opened_by(model)}"
            )

    @torch.inference_mode()
    def __call__(self, text: str, interventions: Interventions | None = None) -> Filling:
        """Fill the blanks of a text, written `___` or `[MASK]`, independently in one pass.

        Raises:
            ValueError: when the text, cut to the maximum length, has no blank, or when interventions do not fit.
        """
        # 1. Blanks become mask tokens.
        read = self.read(_BLANKS.sub(lambda _: self.tokenizer.mask_token, text))
        places = [index for index, token_id in enumerate(read.ids) if token_id == self.tokenizer.mask_token_id]
        if not places:
            cut = " within the model's maximum length" if has_blank(text) else ""
            raise ValueError(f"The text has no blank{cut}: write {BLANK} where a word is missing.")

        # 2. One pass.
        output = self.model(
            torch.tensor([read.ids], device=self.model.device), interventions=interventions, output_routing=True
        )
        probs_KV = output.logits[0, places].float().softmax(-1).cpu()
        probs_KV[:, self.tokenizer.all_special_ids] = 0.0
        best = probs_KV.topk(min(MAX_CANDIDATES, probs_KV.shape[-1]), dim=-1)

        # 3. Words, and the text with the first of them.
        blanks, filled, done = [], [], 0
        tokens = list(read.tokens)
        for place, ids, shares in zip(places, best.indices.tolist(), best.values.tolist(), strict=True):
            token = place + self.added
            words = [(token_word(self.tokenizer, one).strip(), share) for one, share in zip(ids, shares, strict=True)]
            blanks.append(Blank(token, words))
            start, end = read.offsets[token]
            filled += [read.text[done:start], words[0][0]]
            done = end
            tokens[token] = BLANK
        filled.append(read.text[done:])
        trace = replace(read, tokens=tokens).trace(tuple(record.detached() for record in output.routing))
        return Filling("".join(filled), blanks, trace)
