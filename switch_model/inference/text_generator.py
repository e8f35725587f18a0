"""TextGenerator: a model that writes -> its text, token by token, where each token went, and what might have followed.

Legend: S tokens of the source, T tokens of the answer, V tokens in the vocabulary.
`generate` is transformers' own and gives no records: they come from one pass over the finished text, with a cache, so
that the decoder drops as little as while it wrote. Try it: TextGenerator.from_checkpoint("a/model")("Once upon").text
"""

import math
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from switch_model.checkpoint import CheckpointError, load_checkpoint
from switch_model.inference.classifier import MAX_CHARACTERS
from switch_model.inference.decoding import Arrivals, Decoding, Draw, Stopped
from switch_model.inference.sentinels import restored, with_sentinels
from switch_model.inference.traces import CUT, Band, read_tokens, token_word, whole_text, written_tokens
from switch_model.interventions import Interventions
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.storage.tokenizer_io import target_of

# Candidates that are kept for each next token.
MAX_NEXT = 10
START = "<start>"


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes:
        text: the words written, without what they continue; with gaps to restore, the text with its gaps filled.
        source: what the encoder read; None for a model without one.
        answer: what the decoder read: the start token or the prompt, then every token written.
        next_tokens: for each token of `answer`, the likeliest tokens after it and their probabilities.
        chances: for each token of `answer`, the probability of the token that did follow; None after the last.
        log_probability: natural logarithm of the probability of all tokens written, the end token included.
        finished: whether the model ended the text itself.
    """

    text: str
    source: Band | None
    answer: Band
    next_tokens: list[list[tuple[str, float]]]
    chances: list[float | None]
    log_probability: float
    finished: bool

    @property
    def bands(self) -> tuple[Band, ...]:
        """The stacks in the order of the records: encoder first."""
        return (self.answer,) if self.source is None else (self.source, self.answer)

    @property
    def routing(self) -> tuple:
        """One record per sparse layer of both stacks, encoder first."""
        return tuple(record for band in self.bands for record in band.routing)

    @property
    def truncated(self) -> bool:
        return self.bands[0].truncated

    @property
    def new_tokens(self) -> int:
        """How many tokens were written."""
        return len(self.answer.tokens) - self.answer.written

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise per token written; 1 = the model was sure of each."""
        return math.exp(-self.log_probability / max(self.new_tokens, 1))


@dataclass(frozen=True)
class _Prompt:
    """A text as the model reads it: ids, readable tokens, and what was left out of the text."""

    text: str
    ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    truncated: bool


class TextGenerator:
    """Writes with a loaded model. Holds no state between calls; safe to share between threads."""

    def __init__(self, model: SwitchForConditionalGeneration | SwitchForCausalLM, tokenizer: PreTrainedTokenizerFast):
        self.model = model.eval()
        # One reads, and one writes: mostly the same.
        self.tokenizer, self.writer = tokenizer, target_of(tokenizer)
        self.has_encoder = isinstance(model, SwitchForConditionalGeneration)
        limit = tokenizer.model_max_length
        if model.config.position == "learned":
            limit = min(limit, model.config.max_positions - int(self.has_encoder and model.config.cls_token))
        # Once, not per call: the backend keeps truncation as state. A text to be continued keeps its end.
        direction = "right" if self.has_encoder else "left"
        tokenizer.backend_tokenizer.enable_truncation(limit, direction=direction)
        eos = model.config.eos_token_id
        self.end = self.writer.eos_token_id if eos is None else eos

    @classmethod
    def from_checkpoint(
        cls, folder_zip_or_hub_id: str | Path, device: str | torch.device | None = None, revision: str | None = None
    ) -> "TextGenerator":
        """Open a checkpoint. Raises CheckpointError when it can't, or does not write."""
        model, tokenizer = load_checkpoint(folder_zip_or_hub_id, device, revision)
        if not isinstance(model, (SwitchForConditionalGeneration, SwitchForCausalLM)):
            raise CheckpointError(f"This checkpoint is a {type(model).__name__}: it does not write text.")
        return cls(model, tokenizer)

    def __call__(
        self,
        text: str,
        *,
        max_new_tokens: int = 60,
        num_beams: int = 1,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        interventions: Interventions | None = None,
    ) -> Generation:
        """Answer or continue a text. The settings are those of `Decoding`.

        Args:
            interventions: changes to the routing of both stacks, while writing and in the records. In the decoder
                nothing is dropped, whatever capacity they name.

        Raises:
            ValueError: when the text has no tokens for an encoder, or settings or interventions do not fit.
        """
        decoding = Decoding(max_new_tokens, num_beams, do_sample, temperature, top_k, top_p, seed)
        return self.write(text, decoding, interventions)

    def write(self, text: str, decoding: Decoding, interventions: Interventions | None = None) -> Generation:
        """The same with the settings as one value."""
        prompt = self._read(text, decoding)
        return self._finished(prompt, self._generate(prompt, decoding, interventions), interventions)

    def stream(
        self,
        text: str,
        decoding: Decoding | None = None,
        interventions: Interventions | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        """Write and yield the text so far after every token (with beams once, at the end); returns the Generation.

        Args:
            stop: set it, or close the iterator, to end the text after the token that is being computed.

        Raises:
            ValueError: as `__call__`.
        """
        decoding, stop = decoding or Decoding(), stop or threading.Event()
        prompt = self._read(text, decoding)
        arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        outcome: list[list[int] | Exception] = []

        def work() -> None:
            try:
                outcome.append(self._generate(prompt, decoding, interventions, Arrivals(arrived), stop))
            except Exception as error:  # It is raised again where somebody waits for the text.
                outcome.append(error)
            arrived.put(None)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        ids: list[int] = []
        before = [] if self.has_encoder else prompt.ids
        shown = None
        try:
            while (token_id := arrived.get()) is not None:
                ids.append(token_id)
                shown = self._restored(prompt, ids) or written_text(self.writer, ids, before).rstrip(CUT)
                yield shown
        finally:
            stop.set()
        worker.join()
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        generation = self._finished(prompt, outcome[0], interventions)
        if shown != generation.text:
            yield generation.text
        return generation

    def _read(self, text: str, decoding: Decoding) -> _Prompt:
        text = whole_text(text)
        if self.model.config.restores_gaps:
            text = with_sentinels(text, self.tokenizer)
        encoding = self.tokenizer.backend_tokenizer.encode(text[:MAX_CHARACTERS])
        tokens, offsets = read_tokens(text, encoding)
        ids, truncated = list(encoding.ids), bool(encoding.overflowing) or len(text) > MAX_CHARACTERS
        if self.has_encoder:
            if not text.strip() or all(start == end for start, end in offsets):
                raise ValueError("The text is empty, or holds no visible character: there is nothing to read.")
            if self.model.config.cls_token:
                tokens, offsets, ids = ["[CLS]", *tokens], [(0, 0), *offsets], ids
            return _Prompt(text, ids, tokens, offsets, truncated)
        while ids and ids[-1] == self.end:  # A text to be continued has not ended.
            ids, tokens, offsets = ids[:-1], tokens[:-1], offsets[:-1]
        if not ids:
            # Nothing to continue: what stands before a text's first token opens one.
            openers = (self.model.config.bos_token_id, self.tokenizer.bos_token_id, self.end)
            first = next((one for one in openers if one is not None), None)
            if first is None:
                raise ValueError("The text is empty: this model needs some words to go on from.")
            ids, tokens, offsets = [first], [START], [(0, 0)]
        if self.model.config.position == "learned":
            # What is written needs places too: at most half of them.
            most = self.model.config.max_positions
            kept = max(most - min(decoding.max_new_tokens, most // 2), 1)
            truncated = truncated or len(ids) > kept
            ids, tokens, offsets = ids[-kept:], tokens[-kept:], offsets[-kept:]
        return _Prompt(text, ids, tokens, offsets, truncated)

    @torch.inference_mode()
    def _generate(
        self,
        prompt: _Prompt,
        decoding: Decoding,
        interventions: Interventions | None,
        streamer: BaseStreamer | None = None,
        stop: threading.Event | None = None,
    ) -> list[int]:
        """The token ids written, the end token included."""
        model, config, ids, room = self.model, self.model.config, prompt.ids, decoding.max_new_tokens
        if config.position == "learned":
            room = max(min(room, config.max_positions - (1 if self.has_encoder else len(ids))), 1)
        settings = GenerationConfig(
            max_new_tokens=room,
            num_beams=decoding.num_beams,
            do_sample=False,
            use_cache=True,
            max_time=decoding.max_seconds,
            pad_token_id=config.pad_token_id,
            bos_token_id=config.bos_token_id,
            eos_token_id=self.end,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        processors = LogitsProcessorList()
        if decoding.do_sample:
            processors.append(TemperatureLogitsWarper(float(decoding.temperature)))
            if decoding.top_k:
                processors.append(TopKLogitsWarper(decoding.top_k))
            if decoding.top_p < 1:
                processors.append(TopPLogitsWarper(decoding.top_p))
            processors.append(Draw(decoding.seed))
        input_ids = torch.tensor([ids], device=model.device)
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([Stopped(stop)] if stop else []),
            streamer=streamer if decoding.num_beams == 1 else None,
            **({"interventions": interventions} if interventions else {}),
        )
        written = output[0].tolist()[1 if self.has_encoder else len(ids) :]
        # Beams of different lengths end in padding.
        if self.end is not None and self.end in written:
            written = written[: written.index(self.end) + 1]
        return written

    @torch.inference_mode()
    def _finished(self, prompt: _Prompt, written: list[int], interventions: Interventions | None) -> Generation:
        """One pass over the whole text: records, and the probabilities of every next token."""
        model, unread, unwritten = self.model, self.tokenizer.unk_token_id, self.writer.unk_token_id
        head = [model.config.decoder_start_token_id] if self.has_encoder else prompt.ids
        decoder_ids = torch.tensor([[*head, *written]], device=model.device)
        common = {"use_cache": True, "interventions": interventions, "output_routing": True}
        if self.has_encoder:
            source_ids = torch.tensor([prompt.ids], device=model.device)
            output = model(source_ids, decoder_input_ids=decoder_ids, **common)
        else:
            output = model(decoder_ids, **common)
        records = [record.detached() for record in output.routing]
        next_tokens, chances, log_probability = self._followers(output.logits[0], decoder_ids[0], len(head))

        start = 0 if self.has_encoder else len(prompt.text)
        text, tokens, offsets = written_tokens(self.writer, written, [] if self.has_encoder else prompt.ids, start)
        source = None
        if self.has_encoder:
            ids = [None] * (len(prompt.tokens) - len(prompt.ids)) + prompt.ids
            source = Band(
                stack="encoder",
                text=prompt.text,
                tokens=prompt.tokens,
                offsets=prompt.offsets,
                unknown=[one == unread and one is not None for one in ids],
                truncated=prompt.truncated,
                routing=tuple(record for record in records if record.name.startswith("encoder")),
                written=len(prompt.tokens),
            )
        first = ([START], [(0, 0)]) if self.has_encoder else (prompt.tokens, prompt.offsets)
        answer = Band(
            stack="decoder",
            text=text if self.has_encoder else prompt.text + text,
            tokens=[*first[0], *tokens],
            offsets=[*first[1], *offsets],
            unknown=[one == unwritten and unwritten is not None for one in [*head, *written]],
            truncated=prompt.truncated and not self.has_encoder,
            routing=tuple(record for record in records if record.name.startswith("decoder")),
            written=len(head),
        )
        finished = bool(written) and written[-1] == self.end
        text = self._restored(prompt, written) or text
        return Generation(text, source, answer, next_tokens, chances, log_probability, finished)

    def _restored(self, prompt: _Prompt, written: list[int]) -> str | None:
        return restored(prompt.text, written, self.writer) if self.model.config.restores_gaps else None

    def _followers(
        self, logits_TV: Tensor, ids_T: Tensor, head: int
    ) -> tuple[list[list[tuple[str, float]]], list[float | None], float]:
        logits_TV = logits_TV.float()
        total_T = logits_TV.logsumexp(dim=-1)
        best = logits_TV.topk(min(MAX_NEXT, logits_TV.shape[-1]), dim=-1)
        shares = (best.values - total_T.unsqueeze(-1)).exp().cpu().tolist()
        names: dict[int, str] = {}
        for token_id in set(best.indices.flatten().tolist()):
            names[token_id] = token_word(self.writer, token_id)
        next_tokens = [
            [(names[token_id], share) for token_id, share in zip(ids, row, strict=True)]
            for ids, row in zip(best.indices.cpu().tolist(), shares, strict=True)
        ]
        logs_T = (logits_TV[:-1].gather(-1, ids_T[1:, None]).squeeze(-1) - total_T[:-1]).cpu()
        return next_tokens, [*logs_T.exp().tolist(), None], float(logs_T[head - 1 :].sum())


def written_text(tokenizer: PreTrainedTokenizerFast, ids: list[int], before: list[int]) -> str:
    """The text of `ids` alone, where they follow `before`."""
    backend = tokenizer.backend_tokenizer
    begin = len(backend.decode(before, skip_special_tokens=True)) if before else 0
    return backend.decode([*before, *ids], skip_special_tokens=True)[begin:]
