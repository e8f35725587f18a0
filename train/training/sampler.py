"""Length-grouped sampling that is reproducible after a resume."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback

# Steps whose rows are drawn together and sorted by length, at most; and indices that are made Python numbers at once.
STEPS_TOGETHER, AT_ONCE = 50, 10_000


class LengthGroupedOrder(Sampler):
    """Groups rows of similar length, in an order that depends on (seed, epoch) alone.

    As transformers' sampler, which uses the global random state, so that a run resumed in the middle of an epoch would
    get other batches than one that was never stopped, and lists of Python's numbers, which take more memory than the
    model where there are millions of rows.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, rows_per_step: int, seed: int):
        self.lengths, self.rows_per_step, self.seed = np.asarray(lengths, dtype=np.int32), rows_per_step, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        # 1. All rows in random order, in groups of several steps.
        rows = len(self.lengths)
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(rows, generator=generator).numpy()
        group = max(min(rows // (self.rows_per_step * 4), STEPS_TOGETHER), 1) * self.rows_per_step

        # 2. Each group sorted, the longest first; the longest of all in front, to run out of memory soon if at all.
        for start in range(0, rows, group):
            own = order[start : start + group]
            order[start : start + group] = own[np.argsort(-self.lengths[own], kind="stable")]
        longest = int(self.lengths[order[::group]].argmax()) * group
        order[[0, longest]] = order[[longest, 0]]
        return (row for start in range(0, rows, AT_ONCE) for row in order[start : start + AT_ONCE].tolist())


class SetEpoch(TrainerCallback):
    """Sets the epoch of the order and of the collator, on which the masks depend."""

    def __init__(self, order: LengthGroupedOrder, collator: Any):
        self.order, self.collator = order, collator

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.order.epoch = self.collator.epoch = int(state.epoch or 0)
