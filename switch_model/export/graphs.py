"""A model -> the graphs that it is exported as: modules with tensors in and out, and the names of those tensors.

Legend: B texts, T tokens, P earlier tokens in the cache, S tokens of the source, H heads, K d_kv.

- A classifier or masked model is one graph: input_ids, attention_mask -> logits.
- A causal model too, with a cache: input_ids, attention_mask (B, P + T), past_key_values.<layer>.key and .value ->
  logits, present.<layer>.key and .value.
- An encoder-decoder is two: encoder (input_ids, attention_mask -> last_hidden_state, present.<layer>.encoder.key and
  .value) and decoder (input_ids, encoder_attention_mask, past_key_values.<layer>.decoder.… and .encoder.… -> logits,
  present.<layer>.decoder.…).

The first call of a model that writes gets a cache of no tokens, so that one graph serves all steps.
Try it: [graph.name for graph in graphs_of(model)]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification
from switch_model.routing import Routing

# What one forward pass answers completely, and what writes token by token.
READERS = (SwitchForSequenceClassification, SwitchForMaskedLM)
EXPORTABLE = (*READERS, SwitchForCausalLM, SwitchForConditionalGeneration)
# Names of the dimensions that may have any size.
TEXTS, TOKENS, PAST, SOURCE = "texts", "tokens", "past_tokens", "source_tokens"
IDS_AND_MASK: dict[str, tuple[str | int, ...]] = {"input_ids": (TEXTS, TOKENS), "attention_mask": (TEXTS, TOKENS)}
# What the decoder reads of the source: its mask, and for each layer keys and values that the encoder computed.
SOURCE_MASK = "encoder_attention_mask"
PRESENT, EARLIER = "present", "past_key_values"


@dataclass(frozen=True)
class Graph:
    """A part of a model that is exported as one file.

    Attributes:
        name: of the file, without its ending.
        module: takes the inputs in order, and returns a tuple of the outputs in order.
        inputs: name -> dimensions: names of those of any size, or a sum of such ("past_tokens + tokens"), and numbers.
        outputs: their names; those of the routing come last.
    """

    name: str
    module: nn.Module
    inputs: dict[str, tuple[str | int, ...]]
    outputs: list[str]

    def run(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The module's outputs by name."""
        return dict(zip(self.outputs, self.module(*(inputs[name] for name in self.inputs)), strict=True))

    @property
    def is_whole(self) -> bool:
        """Whether one pass of this graph alone answers: it has no cache and computes none."""
        return not any(name.startswith((PRESENT, EARLIER)) for name in (*self.inputs, *self.outputs))

    @property
    def routing(self) -> list[str]:
        """Names of the outputs that tell of the routing: `<record>.expert` and `<record>.gate` of each sparse layer."""
        return [name for name in self.outputs if name.endswith((".expert", ".gate"))]

    def shape(self, name: str, sizes: dict[str, int]) -> list[int]:
        """The shape of an input for the sizes of those dimensions that may have any."""
        parts = (str(one).split(" + ") for one in self.inputs[name])
        return [sum(sizes[part] if part in sizes else int(part) for part in some) for some in parts]

    def empty_past(self, texts: int) -> dict[str, Tensor]:
        """The cache before the first token, of these many texts."""
        own = (name for name, shape in self.inputs.items() if name.startswith(EARLIER) and PAST in shape)
        return {name: torch.zeros(self.shape(name, {TEXTS: texts, PAST: 0})) for name in own}


def as_past(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys and values among the outputs of one call, as inputs of the next one."""
    return {EARLIER + name[len(PRESENT) :]: value for name, value in outputs.items() if name.startswith(PRESENT)}


def graphs_of(model: SwitchPreTrainedModel, with_routing: bool = False) -> list[Graph]:
    """The graphs of a model in EXPORTABLE, in evaluation mode, in the order in which they run.

    Args:
        with_routing: also give, for each sparse layer, the expert chosen for each token and its gate, (B, T) each; a
            model's CLS token comes first. At padding they mean nothing.
    """
    model.eval()
    config = model.config
    parts: list[tuple[Any, str, dict[str, tuple[str | int, ...]], list[str]]]
    keys = range(config.depth("decoder")) if "decoder" in model.stacks else ()
    if isinstance(model, SwitchForConditionalGeneration):
        own, crossed = _cached(keys, ".decoder"), _cached(keys, ".encoder")
        source = _cache_inputs(crossed, model, SOURCE if model.cls is None else f"{SOURCE} + 1")
        parts = [
            (_Encoder, "encoder", IDS_AND_MASK, ["last_hidden_state", *(f"{PRESENT}.{name}" for name in crossed)]),
            (
                _Decoder,
                "decoder",
                {
                    "input_ids": (TEXTS, TOKENS),
                    SOURCE_MASK: (TEXTS, SOURCE),
                    **_cache_inputs(own, model, PAST),
                    **source,
                },
                ["logits", *(f"{PRESENT}.{name}" for name in own)],
            ),
        ]
    elif isinstance(model, SwitchForCausalLM):
        own = _cached(keys, "")
        mask = {"input_ids": (TEXTS, TOKENS), "attention_mask": (TEXTS, f"{PAST} + {TOKENS}")}
        inputs = mask | _cache_inputs(own, model, PAST)
        parts = [(_Causal, "model", inputs, ["logits", *(f"{PRESENT}.{name}" for name in own)])]
    else:
        parts = [(_Reader, "model", IDS_AND_MASK, ["logits"])]
    return [
        Graph(name, kind(model, with_routing), inputs, [*outputs, *_routing_names(model, kind.stack, with_routing)])
        for kind, name, inputs, outputs in parts
    ]


def _cached(layers: Any, which: str) -> list[str]:
    return [f"{layer}{which}.{what}" for layer in layers for what in ("key", "value")]


def _cache_inputs(names: list[str], model: SwitchPreTrainedModel, length: str) -> dict[str, tuple[str | int, ...]]:
    shape = (TEXTS, model.config.num_heads, length, model.config.d_kv)
    return {f"{EARLIER}.{name}": shape for name in names}


def _routing_names(model: SwitchPreTrainedModel, stack: str | None, with_routing: bool) -> list[str]:
    """Names of the records of one stack, None = of all; empty without routing."""
    if not with_routing:
        return []
    one = torch.zeros(1, 1, dtype=torch.long)
    given = {"decoder_input_ids": one} if len(model.stacks) == 2 else {}
    with torch.no_grad():
        records = model(one, torch.ones_like(one), output_routing=True, **given).routing
    return [f"{one.name}.{what}" for one in _of_stack(records, stack) for what in ("expert", "gate")]


def _of_stack(records: tuple[Routing, ...], stack: str | None) -> Iterator[Routing]:
    return (record for record in records if stack is None or record.name.startswith(f"{stack}."))


class _Part(nn.Module):
    """A model with tensors in and a tuple of tensors out; `stack`: whose records it returns, None = all."""

    stack: str | None = None

    def __init__(self, model: SwitchPreTrainedModel, with_routing: bool):
        super().__init__()
        self.model: Any = model
        self.with_routing = with_routing

    def with_records(self, outputs: tuple[Tensor, ...], records: tuple[Routing, ...] | None) -> tuple[Tensor, ...]:
        if not self.with_routing:
            return outputs
        return *outputs, *(part for one in _of_stack(records or (), self.stack) for part in (one.expert, one.gate))


class _Reader(_Part):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        output = self.model(input_ids, attention_mask, output_routing=self.with_routing)
        return self.with_records((output.logits,), output.routing)


class _Causal(_Part):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        cache = _cache_of(past)
        output = self.model(input_ids, attention_mask, cache=cache, output_routing=self.with_routing)
        return self.with_records((output.logits, *_tensors_of(cache)), output.routing)


class _Encoder(_Part):
    """The source's states, and the keys and values that each of the decoder's layers attends to."""

    stack = "encoder"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        encoded = self.model.get_encoder()(input_ids, attention_mask)
        hidden = encoded.last_hidden_state
        crossed = (block.cross_attention.keys_and_values(hidden) for block in self.model.decoder.blocks)
        return self.with_records((hidden, *(part for pair in crossed for part in pair)), encoded.routing)


class _Decoder(_Part):
    stack = "decoder"

    def forward(self, input_ids: Tensor, encoder_attention_mask: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        half = len(past) // 2
        cache = EncoderDecoderCache(_cache_of(past[:half]), _cache_of(past[half:]))
        cache.is_updated = dict.fromkeys(range(half // 2), True)
        # The cache has all that is read of the source; of its states only the shape is.
        keys = past[half]
        hidden = keys.new_zeros(keys.shape[0], keys.shape[2], self.model.config.d_model)
        output = self.model(
            attention_mask=encoder_attention_mask,
            encoder_outputs=(hidden,),
            decoder_input_ids=input_ids,
            cache=cache,
            output_routing=self.with_routing,
        )
        return self.with_records((output.logits, *_tensors_of(cache.self_attention_cache)), output.routing)


def _cache_of(tensors: tuple[Tensor, ...]) -> DynamicCache:
    """transformers' cache of keys and values, two tensors a layer."""
    cache = DynamicCache()
    for keys, values in zip(tensors[::2], tensors[1::2], strict=True):
        layer = DynamicLayer()
        # As `update` would, which concatenates an empty tensor first: one node more for each in the graph.
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _tensors_of(cache: Any) -> list[Tensor]:
    return [part for layer in cache.layers for part in (layer.keys, layer.values)]
