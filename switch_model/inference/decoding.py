"""Generation settings: greedy decoding, sampling or beam search, length, and stopping.

Try it: Decoding(max_new_tokens=40, do_sample=True, top_k=40, seed=1)
"""

import math
import queue
import threading
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

# Of one text; the page's limit is lower.
MAX_NEW_TOKENS, MAX_BEAMS = 2048, 16


@dataclass(frozen=True)
class Decoding:
    """Generation settings.

    Args:
        max_new_tokens: maximum number of generated tokens.
        num_beams: beams of a beam search; 1 = no beam search.
        do_sample: sample each token by its probability instead of taking the most probable one.
        temperature, top_k, top_p: for sampling: the logits are divided by the temperature, then the top_k most probable
            tokens are kept (0 = all), and of these the most probable ones that make up top_p (1 = all).
        seed: of sampling; the same seed gives the same text.
        max_seconds: time limit of generation; None = no limit.

    Raises:
        ValueError: naming the setting, its value and what is allowed.
    """

    max_new_tokens: int = 60
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    max_seconds: float | None = None

    def __post_init__(self):
        rules = {
            "max_new_tokens": (1 <= self.max_new_tokens <= MAX_NEW_TOKENS, f"from 1 to {MAX_NEW_TOKENS}"),
            "num_beams": (1 <= self.num_beams <= MAX_BEAMS, f"from 1 to {MAX_BEAMS}"),
            "temperature": (0 < self.temperature < math.inf, "above 0"),
            "top_k": (self.top_k >= 0, "at least 0"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "seed": (0 <= self.seed < 2**63, "at least 0"),
            "max_seconds": (self.max_seconds is None or self.max_seconds > 0, "above 0, or None"),
        }
        for name, (allowed, words) in rules.items():
            if not allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} is not allowed: it must be {words}.")
        if self.do_sample and self.num_beams > 1:
            raise ValueError("num_beams above 1 and do_sample=True exclude each other: choose beam search or sampling.")


class GumbelNoise(LogitsProcessor):
    """Gumbel noise on the logits: their argmax is then a sample from the softmax (1611.00712, section 2.1).

    With its own generator: `generate` would sample from the process's, which other threads advance too. Texts of a
    batch get the same noise, so that each is written as if it were alone.
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.empty(1, scores.shape[-1], dtype=torch.float64).exponential_(generator=self.generator).log_()
        return scores - noise.to(scores.device, torch.float32)


class StopWhenSet(StoppingCriteria):
    """Ends generation once an event is set, such as when the reader has left."""

    def __init__(self, stop: threading.Event):
        self.stop = stop

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        return torch.full((len(input_ids),), self.stop.is_set(), dtype=torch.bool, device=input_ids.device)


class TokenStreamer(BaseStreamer):
    """Passes every new token id to another thread. `generate` sends the prompt first, which is skipped."""

    def __init__(self, arrived: "queue.SimpleQueue[int | None]"):
        self.arrived, self.in_prompt = arrived, True

    def put(self, value: Tensor) -> None:
        if self.in_prompt:
            self.in_prompt = False
            return
        for token_id in value.flatten().tolist():
            self.arrived.put(token_id)

    def end(self) -> None:
        """Does nothing: the worker thread signals the end itself."""
