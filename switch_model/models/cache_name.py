"""transformers' cache under both of its names: `cache` since 5.24, `past_key_values` before.

`generate` hands a cache to `forward`, and finds it in what `forward` returns, under one of the two, so that models must
take either and give back whichever the installed library reads. When 5.24 is the oldest that is supported, this file
goes: the fields of the outputs are called `cache` then.
"""

import inspect
from dataclasses import dataclass
from typing import dataclass_transform

from transformers import GenerationMixin
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, StaticCache

NEW, OLD = "cache", "past_key_values"
# Asked of the library itself, not of its version.
IS_NEW = NEW in inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters


@dataclass_transform()
def names_cache(output: type) -> type:
    """A dataclass whose field `cache` has the name that the library reads; `.cache` answers in either case."""
    if IS_NEW:
        return dataclass(output)
    output.__annotations__ = {OLD if name == NEW else name: kind for name, kind in output.__annotations__.items()}
    setattr(output, OLD, None)
    delattr(output, NEW)
    output = dataclass(output)
    setattr(output, NEW, property(lambda self: getattr(self, OLD)))
    return output


def the_cache(new: Cache | None, old: Cache | None, wanted: bool | None, crossed: bool) -> Cache | None:
    """The cache given under either name, of two the longer one, or an empty one where one is `wanted`.

    `crossed`: whether it also keeps the keys of an encoder's states. Raises ValueError for two of one length, and for
    one of a fixed size: these models' grow with the text.
    """
    if new is not None and old is not None and new is not old:
        # peft hands its prefix under the old name at every step, beside the cache of `generate`, which is empty at the
        # first one and begins with that prefix later.
        if new.get_seq_length() == old.get_seq_length():
            raise ValueError("cache and past_key_values are one thing under two names: give one of them.")
        new = max(new, old, key=lambda cache: cache.get_seq_length())
    cache = old if new is None else new
    own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    if isinstance(own, StaticCache):
        raise ValueError("The cache of these models grows with the text: leave cache_implementation out.")
    if cache is not None or not wanted:
        return cache
    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if crossed else DynamicCache()
