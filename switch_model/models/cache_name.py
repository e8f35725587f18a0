"""transformers' cache under both of its names: `cache` since 5.24, `past_key_values` before.

`generate` passes a cache to `forward`, and reads it from the output, under one of the two names, so models accept both
and return the one that the installed library reads. Once 5.24 is the oldest supported version, this file can go: then
the outputs' field is `cache`.
"""

import inspect
from dataclasses import dataclass
from typing import dataclass_transform

from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, StaticCache

NEW, OLD = "cache", "past_key_values"
# Detected from the library itself, not from its version.
IS_NEW = NEW in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters


@dataclass_transform()
def names_cache(output: type) -> type:
    """A dataclass whose field `cache` has the name that the library reads; `.cache` works in either case."""
    if IS_NEW:
        return dataclass(output)
    output.__annotations__ = {OLD if name == NEW else name: kind for name, kind in output.__annotations__.items()}
    setattr(output, OLD, None)
    delattr(output, NEW)
    output = dataclass(output)
    setattr(output, NEW, property(lambda self: getattr(self, OLD)))
    return output


def the_cache(new: Cache | None, old: Cache | None, wanted: bool | None, crossed: bool) -> Cache | None:
    """The cache given under either name (the longer of two), or a new empty one where it is `wanted`.

    `crossed`: whether a new one also holds cross-attention keys. Raises ValueError for two caches of the same length,
    and for a static cache: these models' caches grow with the text.
    """
    if new is not None and old is not None and new is not old:
        # At every step peft passes its prefix under the old name, beside the cache of `generate`, which is empty at the
        # first step and starts with that prefix later.
        if new.get_seq_length() == old.get_seq_length():
            raise ValueError("cache and past_key_values are two names of one argument: give one of them.")
        new = max(new, old, key=lambda cache: cache.get_seq_length())
    cache = old if new is None else new
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if isinstance(own, StaticCache):
        raise ValueError("The cache of these models grows with the text: leave cache_implementation out.")
    if cache is not None or not wanted:
        return cache
    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if crossed else DynamicCache()
