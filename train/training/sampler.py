"""Length-grouped sampling that is reproducible after a resume."""

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


class LengthGroupedOrder(Sampler):
    """Groups rows of similar length, in an order that depends on (seed, epoch) alone.

    transformers' sampler uses the global random state, so that a run resumed in the middle of an epoch would get other
    batches than one that was never stopped.
    """

    def __init__(self, lengths: list[int], rows_per_step: int, seed: int):
        self.lengths, self.rows_per_step, self.seed = lengths, rows_per_step, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.rows_per_step, generator=generator))
