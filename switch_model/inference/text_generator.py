"""TextGenerator: a causal or encoder-decoder language model; text -> generated text, routing, next-token probabilities.

Legend: S tokens of the source, T tokens of the target, V tokens in the vocabulary.
transformers' `generate` gives no records: they come from one pass over the finished text, with a cache, so that the
decoder drops nothing, as in generation. Try it: TextGenerator.from_checkpoint("a/model")("Once upon").text
"""

import math
import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

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

from switch_model.adapters.model import AdaptedCausalLM, AdaptedEncoderDecoder
from switch_model.checkpoint import CheckpointError
from switch_model.inference.batching import padded
from switch_model.inference.decoding import Decoding, GumbelNoise, StopWhenSet, TokenStreamer
from switch_model.inference.pipeline import AnyModel, ReadText, TextPipeline
from switch_model.inference.sentinels import restored, with_sentinels
from switch_model.inference.traces import CUT, Shown, token_word, written_tokens
from switch_model.interventions import AnyInterventions, Interventions
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.storage.errors import a_class, opened_by
from switch_model.storage.tokenizer_io import target_of
from switch_model.token_trace import TokenTrace
from switch_model.topk_routing import AnyRouting

ENCODER_DECODERS = (SwitchForConditionalGeneration, AdaptedEncoderDecoder)
WRITERS = (*ENCODER_DECODERS, SwitchForCausalLM, AdaptedCausalLM)
# Candidates for each next token.
MAX_NEXT = 10
START = "<start>"


@dataclass(frozen=True)
class Generation(Shown):
    """A generated text.

    Attributes:
        text: the generated text, without the prompt; under span corruption, the source with its gaps filled.
        source: the encoder's tokens and routing; None for a decoder-only model.
        answer: the decoder's tokens and routing: the start token or the prompt, then every generated token.
        next_tokens: for each token of `answer`, the most probable next tokens and their probabilities.
        chances: for each token of `answer`, the probability of the actual next token; None for the last.
        log_probability: log (natural) of the probability of all generated tokens, end of sequence included.
        finished: whether generation ended with the end-of-sequence token.
    """

    text: str
    source: TokenTrace | None
    answer: TokenTrace
    next_tokens: list[list[tuple[str, float]]]
    chances: list[float | None]
    log_probability: float
    finished: bool

    @property
    def traces(self) -> tuple[TokenTrace, ...]:
        """One per stack, encoder first."""
        return (self.answer,) if self.source is None else (self.source, self.answer)

    @property
    def new_tokens(self) -> int:
        """Number of generated tokens."""
        return len(self.answer.tokens) - self.answer.written

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-probability per generated token; at least 1."""
        return math.exp(-self.log_probability / max(self.new_tokens, 1))


class TextGenerator(TextPipeline):
    """Generates text with a causal or encoder-decoder language model."""

    def __init__(self, model: AnyModel, tokenizer: PreTrainedTokenizerFast):
        self.has_encoder = isinstance(model, ENCODER_DECODERS)
        # A prompt keeps its end.
        self.truncated_end = "right" if self.has_encoder else "left"
        super().__init__(model, tokenizer)
        # The output's tokenizer, usually the same as the input's.
        self.writer = target_of(tokenizer)
        eos = model.config.eos_token_id
        self.end = self.writer.eos_token_id if eos is None else eos
        # Some models have several tokens that end a text.
        self.ends = {self.end, *getattr(model.config, "eos_token_ids", ())} - {None}

    @property
    def opener(self) -> int | None:
        """The token that precedes a text's first one, where a prompt is empty."""
        openers = (self.model.config.bos_token_id, self.tokenizer.bos_token_id, self.end)
        return next((one for one in openers if one is not None), None)

    @classmethod
    def check_kind(cls, model: AnyModel) -> None:
        """Raise CheckpointError unless the model generates text."""
        if not isinstance(model, WRITERS):
            raise CheckpointError(f"This checkpoint is {a_class(model)}: it does not generate text.{opened_by(model)}")

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
        """Generate text from a source or prompt. Settings as in `Decoding`.

        Args:
            interventions: changes to the routing of both stacks, during generation and in the records. The decoder
                drops nothing, whatever their capacity.

        Raises:
            ValueError: when the text has no tokens for an encoder, or settings or interventions do not fit.
        """
        decoding = Decoding(max_new_tokens, num_beams, do_sample, temperature, top_k, top_p, seed)
        return self.write(text, decoding, interventions)

    def write(self, text: str, decoding: Decoding, interventions: Interventions | None = None) -> Generation:
        """As `__call__`, with the settings as one object."""
        prompt = self._prompt(text, decoding)
        [written] = self._generate([prompt], decoding, interventions)
        return self._finished(prompt, written, interventions)

    def batch(
        self, texts: Sequence[str], decoding: Decoding | None = None, interventions: AnyInterventions = None
    ) -> list[Generation]:
        """Write from several texts in one padded pass; each result is the same as for the text alone.

        Args:
            interventions: for all texts, or one for each; texts with the same ones share a pass.

        Raises:
            ValueError: as `__call__`, and when there are not as many interventions as texts.
            TypeError: for anything but a list of texts.
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("Give a list of texts, each a str.")
        decoding = decoding or Decoding()
        prompts = [self._prompt(text, decoding) for text in texts]
        changes = [interventions] * len(texts) if isinstance(interventions, Interventions | None) else interventions
        if len(changes) != len(texts):
            raise ValueError(f"There are {len(changes)} interventions for {len(texts)} texts: give one, or as many.")
        groups: dict[tuple[int, int], list[int]] = {}  # Learned positions leave a longer prompt less room.
        for index, prompt in enumerate(prompts):
            groups.setdefault((self._room(prompt, decoding), changes.index(changes[index])), []).append(index)
        written: dict[int, list[int]] = {}
        for (_, first), group in groups.items():
            given = self._generate([prompts[index] for index in group], decoding, changes[first])
            written |= dict(zip(group, given, strict=True))
        return [self._finished(prompt, written[index], changes[index]) for index, prompt in enumerate(prompts)]

    def stream(
        self,
        text: str,
        decoding: Decoding | None = None,
        interventions: Interventions | None = None,
        stop: threading.Event | None = None,
    ) -> Generator[str, None, Generation]:
        """Generate and yield the text so far after every token (with beams once, at the end); returns the Generation.

        Args:
            stop: set it, or close the iterator, to end generation after the current token.

        Raises:
            ValueError: as `__call__`.
        """
        decoding, stop = decoding or Decoding(), stop or threading.Event()
        prompt = self._prompt(text, decoding)
        arrived: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        outcome: list[list[int] | Exception] = []

        def work() -> None:
            try:
                outcome.extend(self._generate([prompt], decoding, interventions, TokenStreamer(arrived), stop))
            except Exception as error:  # Raised again in the calling thread.
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

    def _prompt(self, text: str, decoding: Decoding) -> ReadText:
        """The tokenized source of an encoder, or prompt of a decoder."""
        if self.model.config.restores_gaps:
            text = with_sentinels(text, self.tokenizer)
        read = self.read(text)
        if self.has_encoder:
            if not text.strip() or all(start == end for start, end in read.offsets):
                raise ValueError("The text is empty, or has no visible character: there is nothing to read.")
            return read
        ended = len(read.ids)
        while ended and read.ids[ended - 1] == self.end:  # A tokenizer may append it; a prompt has not ended.
            ended -= 1
        read = _cut(read, slice(ended))
        if not read.ids:
            first = self.opener
            if first is None:
                raise ValueError("The prompt is empty: this model needs at least one word.")
            unknown = [first == self.tokenizer.unk_token_id]
            read = replace(read, ids=[first], tokens=[START], offsets=[(0, 0)], unknown=unknown)
        if self.model.config.position == "learned":
            # Generated tokens need positions too: reserve at most half of them.
            most = self.model.config.max_positions
            kept = max(most - min(decoding.max_new_tokens, most // 2), 1)
            if len(read.ids) > kept:
                read = replace(_cut(read, slice(-kept, None)), truncated=True)
        return read

    def _room(self, prompt: ReadText, decoding: Decoding) -> int:
        """Most tokens that can be written after a prompt."""
        config, room = self.model.config, decoding.max_new_tokens
        if config.position == "learned":
            room = max(min(room, config.max_positions - (1 if self.has_encoder else len(prompt.ids))), 1)
        return room

    @torch.inference_mode()
    def _generate(
        self,
        prompts: list[ReadText],
        decoding: Decoding,
        interventions: Interventions | None,
        streamer: BaseStreamer | None = None,
        stop: threading.Event | None = None,
    ) -> list[list[int]]:
        """The generated token ids of prompts with the same room, end of sequence included."""
        model, config, room = self.model, self.model.config, self._room(prompts[0], decoding)
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
            processors.append(GumbelNoise(decoding.seed))
        # A decoder goes on after its prompt, so padding stands before that.
        input_ids, mask = padded([prompt.ids for prompt in prompts], config.pad_token_id, self.truncated_end)
        output = model.generate(
            input_ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=settings,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([StopWhenSet(stop)] if stop else []),
            streamer=streamer if decoding.num_beams == 1 else None,
            **({"interventions": interventions} if interventions else {}),
        )
        rows = output[:, 1 if self.has_encoder else input_ids.shape[1] :].tolist()
        return [self._ended(row) for row in rows]

    def _ended(self, written: list[int]) -> list[int]:
        """Generated ids without the padding after their end."""
        last = next((place for place, token_id in enumerate(written) if token_id in self.ends), len(written))
        return written[: last + 1]

    @torch.inference_mode()
    def _finished(self, prompt: ReadText, written: list[int], interventions: Interventions | None) -> Generation:
        """One pass over the whole text: records, and next-token probabilities."""
        model, unknown_id = self.model, self.writer.unk_token_id
        head = [model.config.decoder_start_token_id] if self.has_encoder else prompt.ids
        decoder_ids = torch.tensor([[*head, *written]], device=model.device)
        common = {"use_cache": True, "interventions": interventions, "output_routing": True}
        if self.has_encoder:
            source_ids = torch.tensor([prompt.ids], device=model.device)
            output = model(source_ids, decoder_input_ids=decoder_ids, **common)
        else:
            output = model(decoder_ids, **common)
        records = [record.detached() for record in output.routing]
        next_tokens, chances, log_probability = self._next_tokens(output.logits[0], decoder_ids[0], len(head))

        start = 0 if self.has_encoder else len(prompt.text)
        text, tokens, offsets = written_tokens(self.writer, written, [] if self.has_encoder else prompt.ids, start)
        first = ([START], [(0, 0)]) if self.has_encoder else (prompt.tokens, prompt.offsets)
        answer = TokenTrace(
            stack="decoder",
            text=text if self.has_encoder else prompt.text + text,
            tokens=[*first[0], *tokens],
            offsets=[*first[1], *offsets],
            unknown=[unknown_id is not None and token_id == unknown_id for token_id in [*head, *written]],
            truncated=prompt.truncated and not self.has_encoder,
            routing=_records_of("decoder", records),
            written=len(head),
            ids=[*head, *written],
        )
        return Generation(
            text=self._restored(prompt, written) or text,
            source=prompt.trace(_records_of("encoder", records)) if self.has_encoder else None,
            answer=answer,
            next_tokens=next_tokens,
            chances=chances,
            log_probability=log_probability,
            finished=bool(written) and written[-1] in self.ends,
        )

    def _restored(self, prompt: ReadText, written: list[int]) -> str | None:
        return restored(prompt.text, written, self.writer) if self.model.config.restores_gaps else None

    def _next_tokens(
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


def _cut(read: ReadText, kept: slice) -> ReadText:
    """A slice of the tokens."""
    own = {name: getattr(read, name)[kept] for name in ("ids", "tokens", "offsets", "unknown")}
    return replace(read, **own)


def _records_of(stack: str, records: list[AnyRouting]) -> tuple[AnyRouting, ...]:
    return tuple(record for record in records if record.name.startswith(stack))


def written_text(tokenizer: PreTrainedTokenizerFast, ids: list[int], before: list[int]) -> str:
    """The text of `ids` alone, decoded after `before`."""
    backend = tokenizer.backend_tokenizer
    begin = len(backend.decode(before, skip_special_tokens=True)) if before else 0
    return backend.decode([*before, *ids], skip_special_tokens=True)[begin:]
