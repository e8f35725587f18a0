"""Embeddings of token bigrams, hashed into a small table.

Legend: B batch, T tokens, D d_model. As in fastText (1607.01759, section 2.1).
"""

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.initial import start_with
from switch_model.tracing import is_exported

# Odd, with mixed bits: neighbouring ids must not fall into neighbouring buckets.
_PREVIOUS, _CURRENT = 0x9E3779B1, 0x85EBCA77
# How far the high bits are moved when they are mixed into the low ones.
_MIXED_BY = 17
# Bits of one digit of a number that is computed digit by digit: three digits of an id, four of each factor.
_DIGIT = 10


class HashedBigrams(nn.Module):
    """For each token, the embedding of the pair with the token before it; zero where there is none.

    Causal: a pair depends on earlier tokens only.
    """

    def __init__(self, config: SwitchConfig):
        super().__init__()
        self.table = nn.Embedding(config.bigram_buckets, config.d_model)
        # Zero, so that a pair never seen in training adds nothing.
        start_with(self.table, 0.0)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids and a (B, T) bool mask -> (B, T, D)."""
        both_BT = mask & mask.roll(1, dims=1)
        both_BT[:, :1] = False
        return self.table(self.bucket(input_ids)) * both_BT.unsqueeze(-1)

    def bucket(self, input_ids: Tensor) -> Tensor:
        """(B, T) row of the table for each token and the one before it; column 0 is meaningless."""
        input_ids = input_ids.long()  # The products overflow 32 bits.
        previous = input_ids.roll(1, dims=1)
        if is_exported():
            return bucket_by_digits(previous, input_ids, self.table.num_embeddings)
        return mixed(pair_number(previous, input_ids)) % self.table.num_embeddings


def pair_number(previous: Tensor, current: Tensor) -> Tensor:
    """One int64 number for two token ids."""
    return previous * _PREVIOUS + current * _CURRENT


def mixed(number: Tensor) -> Tensor:
    """Non-negative hash: the high bits mixed into the low ones.

    Otherwise the remainder would depend on the low bits of both ids alone.
    """
    return (number ^ (number >> _MIXED_BY)) & (2**62 - 1)


def bucket_by_digits(previous: Tensor, current: Tensor, buckets: int) -> Tensor:
    """`mixed(pair_number(previous, current)) % buckets` without bitwise operators, and with no number above 2**24 on
    the way (2**30 for more than 2**18 buckets).

    For exported graphs: OpenVINO's remainders are exact up to 2**24 only, and TensorRT has no bitwise operators. Ids
    and buckets are below 2**24, as SwitchConfig demands, so that the number of a pair is below 2**57.
    """
    size = 2**_DIGIT
    # 1. Products digit by digit: a digit of an id times one of a factor counts for the sum of their places.
    factors = [[(factor >> _DIGIT * place) % size for place in range(4)] for factor in (_PREVIOUS, _CURRENT)]
    ids = torch.stack([previous, current], dim=-1)
    digits = torch.cat([ids % size, ids // size % size, ids // size**2], dim=-1).unsqueeze(-1)
    shifted = [[0] * place + factor + [0] * (2 - place) for place in range(3) for factor in factors]
    sums = (digits * digits.new_tensor(shifted)).sum(dim=-2)
    # 2. Carries.
    number, carry = [], torch.zeros_like(previous)
    for one in sums.unbind(-1):
        carry = one + carry
        number.append(carry % size)
        carry = carry // size
    # 3. Bits, from the lowest: one is set where the remainder by the next power reaches its own.
    powers = current.new_tensor([2**bit for bit in range(_DIGIT)])
    bits = (torch.stack(number, dim=-1).unsqueeze(-1) % (2 * powers) >= powers).flatten(-2)
    bits = torch.cat([bits[..., :-_MIXED_BY] != bits[..., _MIXED_BY:], bits[..., -_MIXED_BY:]], dim=-1)
    # 4. The remainder, as the sum of those of the bits.
    shares = current.new_tensor([2**bit % buckets for bit in range(bits.shape[-1])])
    return (bits * shares).sum(dim=-1) % buckets
