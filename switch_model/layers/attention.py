"""T5 attention: a learned bias for relative positions, no scaling of the scores.

Legend: B batch, T query tokens, S key tokens, D d_model, H heads, K d_kv. T5 (1910.10683) section 2.1.
"""

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.dropout import dropout
from switch_model.layers.initial import query_std, residual_scale, start_with
from switch_model.layers.positions import Rotation, rotated
from switch_model.tracing import is_exported

# Greatest distance that the initial bias distinguishes: an untrusted config may name any max_distance.
FARTHEST_START = 4096


class RelativePositionBias(nn.Module):
    """A learned bias per head and distance bucket, added to the attention scores of every layer of a stack."""

    def __init__(self, config: SwitchConfig, bidirectional: bool = True):
        super().__init__()
        self.bidirectional = bidirectional
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.relative_attention_bias = nn.Embedding(self.num_buckets, config.num_heads)
        slope = config.relative_attention_slope
        start_with(self.relative_attention_bias, config.d_model**-0.5, self._falling(slope) if slope else None)

    def _falling(self, slope: float) -> list[list[float]]:
        """(buckets, H) initial bias: minus slope times the bucket's smallest distance; the slope decreases from head to
        head, down to a sixteenth.

        Why: a flat bias moves by about the learning rate per step, so that it takes thousands of steps to tell
        neighbours apart, and a masked language model predicts the most frequent token until then (docs/experiments.md).
        """
        heads = self.relative_attention_bias.embedding_dim
        reach = min(self.max_distance, FARTHEST_START)
        distances = torch.arange(-reach, reach + 1, device="cpu")
        nearest = [float(self.max_distance)] * self.num_buckets
        for bucket, distance in zip(self._bucket(distances).tolist(), distances.abs().tolist(), strict=True):
            nearest[bucket] = min(nearest[bucket], float(distance))
        slopes = [slope * 2 ** (-4 * head / heads) for head in range(heads)]
        return [[-distance * steep for steep in slopes] for distance in nearest]

    def forward(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """(1, H, T, S) bias. The last query is at the position of the last key, as in incremental decoding."""
        keys_S = torch.arange(num_keys, device=device)
        queries_T = keys_S[num_keys - num_queries :]
        buckets_TS = self._bucket(keys_S[None, :] - queries_T[:, None])
        return self.relative_attention_bias(buckets_TS).permute(2, 0, 1).unsqueeze(0)

    def _bucket(self, distance: Tensor) -> Tensor:
        """(T, S) key minus query position -> bucket: half for exact small distances, the rest spaced logarithmically up
        to max_distance."""
        buckets = self.num_buckets
        offset = torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            offset = (distance > 0).long() * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = buckets // 2
        if is_exported():
            # Another runtime's logarithm may round differently, and put a distance on a border into the other bucket.
            first_F = torch.tensor(first_distances(buckets, self.max_distance), device=distance.device)
            far = exact + (distance.unsqueeze(-1) >= first_F).sum(dim=-1)
            return offset + torch.where(distance < exact, distance, far)
        # T5's order of operations: rounding decides the bucket of a distance on a border.
        share = (distance.clamp(min=1).float() / exact).log() / math.log(self.max_distance / exact)
        far = exact + (share * (buckets - exact)).long()
        return offset + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


@torch.compiler.assume_constant_result
def first_distances(buckets: int, max_distance: int) -> list[int]:
    """The smallest distance of each logarithmic bucket but the first.

    The float32 arithmetic of `RelativePositionBias._bucket`, one number at a time: a graph holds only the results.
    """
    exact, one = buckets // 2, np.float32

    def bucket(distance: int) -> int:
        share = one(math.log(one(distance) / one(exact))) / one(math.log(max_distance / exact))
        return exact + int(share * one(buckets - exact))

    # Searched below max_distance: at it, rounding may give one bucket less, which `_bucket` would clamp.
    return [bisect_left(range(max_distance), wanted, lo=exact, key=bucket) for wanted in range(exact + 1, buckets)]


# A layer's new keys and values -> all keys and values so far, the cache's first.
CacheUpdate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Multi-head attention of queries over keys, through torch's scaled_dot_product_attention."""

    def __init__(self, config: SwitchConfig):
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.num_heads = config.num_heads
        self.dropout_rate = config.dropout_rate
        self.q = nn.Linear(config.d_model, inner, bias=False)
        start_with(self.q, query_std(config))
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        start_with(self.o, inner**-0.5 * residual_scale(config))

    def keys_and_values(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, D) -> keys and values, each (B, H, S, K)."""
        return split_heads(self.k(hidden), self.num_heads), split_heads(self.v(hidden), self.num_heads)

    def forward(
        self,
        hidden: Tensor,
        bias: Tensor,
        keys_values: tuple[Tensor, Tensor] | None = None,
        update_cache: CacheUpdate | None = None,
        weights_wanted: bool = False,
        turned: Rotation | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Self-attention of (B, T, D), or cross-attention over `keys_values`, (B, H, S, K) each.

        Args:
            bias: (B or 1, H or 1, T, S), added to the scores.
            update_cache: prepends the keys and values of earlier tokens.
            weights_wanted: return the attention weights too.
            turned: rotation of these tokens' queries and keys; None = positions are encoded elsewhere.

        Returns:
            (B, T, D), and the attention weights (B, H, T, S) or None.
        """
        query_BHTK = split_heads(self.q(hidden), self.num_heads)
        key_BHSK, value_BHSK = self.keys_and_values(hidden) if keys_values is None else keys_values
        if turned is not None:
            query_BHTK, key_BHSK = rotated(query_BHTK, turned), rotated(key_BHSK, turned)
        if update_cache is not None:
            key_BHSK, value_BHSK = update_cache(key_BHSK, value_BHSK)
        rate = self.dropout_rate if self.training else 0.0
        context_BTI, weights_BHTS = attend(query_BHTK, key_BHSK, value_BHSK, bias, rate, weights_wanted)
        return self.o(context_BTI), weights_BHTS


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """(B, T, H·K) -> (B, H, T, K)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attend(
    query_BHTK: Tensor, key_BHSK: Tensor, value_BHSK: Tensor, bias: Tensor, rate: float, weights_wanted: bool = False
) -> tuple[Tensor, Tensor | None]:
    """(B, T, H·K): values weighted by the softmax of unscaled scores plus `bias`, with dropout `rate` on the weights;
    and the weights (B, H, T, S) before dropout, or None."""
    dtype = query_BHTK.dtype
    if dtype.itemsize < 4:
        # The lowest float32 number is -inf in half precision, and a row of nothing but -inf has no softmax.
        # Under autocast the bias may have a smaller range than the states, or a larger one.
        bias = bias.clamp(min=max(torch.finfo(dtype).min, torch.finfo(bias.dtype).min))
    bias = bias.to(dtype)
    weights_BHTS = None
    if weights_wanted or (rate > 0 and not query_BHTK.is_cuda):
        # The same as scaled_dot_product_attention with dropout on a CPU, with our faster dropout.
        weights_BHTS = (query_BHTK @ key_BHSK.transpose(-1, -2) + bias).softmax(dim=-1)
        context_BHTK = (dropout(weights_BHTS, rate, True) if rate > 0 else weights_BHTS) @ value_BHSK
    else:
        context_BHTK = nn.functional.scaled_dot_product_attention(
            query_BHTK, key_BHSK, value_BHSK, attn_mask=bias, dropout_p=rate, scale=1.0
        )
    return context_BHTK.transpose(1, 2).flatten(2), weights_BHTS if weights_wanted else None


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, S) bool mask -> (B, 1, 1, S): zero at real tokens, the dtype's lowest number at padding.

    Not -inf: a row of nothing but -inf (an all-padding sequence) has no softmax.
    """
    zero = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zero.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]


def causal_bias(num_queries: int, num_keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(1, 1, T, S) zero at keys up to the query's position, -inf after it. The last query is at the last key."""
    future_TS = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).triu(num_keys - num_queries + 1)
    return torch.zeros(future_TS.shape, dtype=dtype, device=device).masked_fill(future_TS, -math.inf)[None, None]
