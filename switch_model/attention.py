"""T5 attention: no absolute positions, a learned bias for relative ones, no scaling of the scores.

Legend: B batch, T query tokens, S key tokens, D d_model, H heads, K d_kv. T5 (1910.10683) section 2.1.
"""

import math

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.dropout import dropout
from switch_model.layers import residual_scale


class RelativePositionBias(nn.Module):
    """A learned number per head and distance bucket, added to the attention scores of every layer of a stack."""

    def __init__(self, config: SwitchConfig, bidirectional: bool = True):
        super().__init__()
        self.bidirectional = bidirectional
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.relative_attention_bias = nn.Embedding(self.num_buckets, config.num_heads)
        self.relative_attention_bias.initial_std = config.d_model**-0.5

    def forward(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor:
        """(1, H, T, S) bias. The last query stands at the last key, as in incremental decoding."""
        keys_S = torch.arange(num_keys, device=device)
        queries_T = keys_S[num_keys - num_queries :]
        buckets_TS = self._bucket(keys_S[None, :] - queries_T[:, None])
        return self.relative_attention_bias(buckets_TS).permute(2, 0, 1).unsqueeze(0)

    def _bucket(self, distance: Tensor) -> Tensor:
        """Half of the buckets for exact small distances, the rest spaced logarithmically up to max_distance."""
        buckets = self.num_buckets
        offset = torch.zeros_like(distance)
        if self.bidirectional:
            buckets //= 2
            offset = (distance > 0).long() * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = buckets // 2
        scale = (buckets - exact) / math.log(self.max_distance / exact)
        far = exact + ((distance.clamp(min=1).float() / exact).log() * scale).long()
        return offset + torch.where(distance < exact, distance, far.clamp(max=buckets - 1))


class Attention(nn.Module):
    """Multi-head attention of queries over keys, through torch's scaled_dot_product_attention."""

    def __init__(self, config: SwitchConfig):
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.num_heads = config.num_heads
        self.dropout_rate = config.dropout_rate
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.q.initial_std = (config.d_model * config.d_kv) ** -0.5  # With the 1/√K that the scores lack.
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        self.o.initial_std = inner**-0.5 * residual_scale(config)

    def forward(self, hidden: Tensor, bias: Tensor, memory: Tensor | None = None) -> Tensor:
        """(B, T, D) queries over `memory` (B, S, D), or over themselves. `bias` (B or 1, H or 1, T, S) is added."""
        memory = hidden if memory is None else memory
        q_BHTK, k_BHSK, v_BHSK = (
            projection(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, states in ((self.q, hidden), (self.k, memory), (self.v, memory))
        )
        bias = bias.to(q_BHTK.dtype)
        if self.training and self.dropout_rate > 0 and not hidden.is_cuda:
            # What scaled_dot_product_attention does on a CPU that has to drop, with the quicker dropout.
            weights_BHTS = (q_BHTK @ k_BHSK.transpose(-1, -2) + bias).softmax(dim=-1)
            context_BHTK = dropout(weights_BHTS, self.dropout_rate, self.training) @ v_BHSK
        else:
            context_BHTK = nn.functional.scaled_dot_product_attention(
                q_BHTK,
                k_BHSK,
                v_BHSK,
                attn_mask=bias,
                dropout_p=self.dropout_rate if self.training else 0.0,
                scale=1.0,
            )
        return self.o(context_BHTK.transpose(1, 2).flatten(2))


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, 1, S) zero at real tokens, the dtype's lowest number at padding.

    Not -inf: a row of nothing but -inf (an all-padding sequence) has no softmax.
    """
    zero = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zero.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
