"""Embeddings of token bigrams, hashed into a small table.

Legend: B batch, T tokens, D d_model. As in fastText (1607.01759, section 2.1).
"""

from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.initial import start_with

# Odd, with mixed bits: neighbouring ids must not fall into neighbouring buckets.
_PREVIOUS, _CURRENT = 0x9E3779B1, 0x85EBCA77


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
        return mixed(pair_number(input_ids.roll(1, dims=1), input_ids)) % self.table.num_embeddings


def pair_number(previous: Tensor, current: Tensor) -> Tensor:
    """One int64 number for two token ids."""
    return previous * _PREVIOUS + current * _CURRENT


def mixed(number: Tensor) -> Tensor:
    """Non-negative hash: the high bits mixed into the low ones.

    Otherwise the remainder would depend on the low bits of both ids alone.
    """
    return (number ^ (number >> 17)) & (2**62 - 1)
