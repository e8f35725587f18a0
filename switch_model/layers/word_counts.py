"""Naive Bayes log-odds of words and word pairs, added to an encoder's logits.

Legend: B batch, T tokens, F features of a text (its words and pairs), N rows of the table, C classes. Log-odds as in
Wang and Manning (P12-2018, section 2.1); train/training/word_counts.py estimates them.
Try it: WordCounts(SwitchConfig(counted_rows=100, num_labels=3))(torch.ones(2, 9).long(), torch.ones(2, 9).bool())
"""

import torch
from torch import Tensor, nn

from switch_model.config import SwitchConfig
from switch_model.layers.hashed_bigrams import mixed, pair_number

# Linear probing: a feature is in the row of its hash or one of the next. With two rows per feature few find no row.
PROBES = 4
# A row identifies its feature by a mark: whole numbers that bfloat16 represents exactly, 0 for an empty row.
MARKS = 255
NO_FEATURE = -1


class WordCounts(nn.Module):
    """Sums the log-odds of each distinct word and pair of a text; unknown ones add nothing.

    The table is a buffer, not a parameter: it is counted, not learned.
    """

    marks: Tensor
    table: Tensor

    def __init__(self, config: SwitchConfig):
        super().__init__()
        self.register_buffer("marks", torch.zeros(config.counted_rows))
        self.register_buffer("table", torch.zeros(config.counted_rows, len(config.labels)))

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) token ids and a (B, T) bool mask -> (B, C)."""
        features_BF = text_features(input_ids, mask)
        home_BF, mark_BF = self._place(features_BF)
        odds_BC = self.table.new_zeros(features_BF.shape[0], self.table.shape[1])
        for probe in range(PROBES):
            row_BF = (home_BF + probe) % len(self.marks)
            known_BF = (self.marks[row_BF] == mark_BF) & (features_BF != NO_FEATURE)
            odds_BC = odds_BC + (self.table[row_BF] * known_BF.unsqueeze(-1)).sum(dim=1)
        return odds_BC

    @torch.no_grad()
    def fill(self, features: Tensor, odds: Tensor) -> None:
        """Store the (N, C) log-odds of (N,) distinct features. Of those with the same row, the first gets it; a few
        find none."""
        self.marks.zero_()
        self.table.zero_()
        home, mark = self._place(features)
        waiting = torch.arange(len(features))
        for probe in range(PROBES):
            row = (home[waiting] + probe) % len(self.marks)
            # Of those with the same row, the first; none where the row is taken.
            first = torch.full((len(self.marks),), len(features)).scatter_reduce_(0, row, waiting, "amin")
            placed = (first[row] == waiting) & (self.marks[row] == 0)
            self.marks[row[placed]] = mark[waiting[placed]].to(self.marks.dtype)
            self.table[row[placed]] = odds[waiting[placed]].to(self.table.dtype)
            waiting = waiting[~placed]

    def _place(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The first row that a feature may have, and its mark."""
        number = mixed(features.clamp(min=0))
        return number % len(self.marks), (number >> 20) % MARKS + 1


def text_features(input_ids: Tensor, mask: Tensor) -> Tensor:
    """(B, T) -> (B, 2 T) hashes of the distinct words and pairs of each text; NO_FEATURE elsewhere."""
    input_ids = input_ids.long()  # The products overflow 32 bits.
    both_BT = mask & mask.roll(1, dims=1)
    both_BT[:, :1] = False
    words_BT = torch.where(mask, pair_number(torch.zeros_like(input_ids), input_ids), NO_FEATURE)
    # Ids plus one: 0 as the previous token marks a single word.
    pairs_BT = torch.where(both_BT, pair_number(input_ids.roll(1, dims=1) + 1, input_ids), NO_FEATURE)
    sorted_BF = torch.cat([words_BT, pairs_BT], dim=1).sort(dim=1).values
    again_BF = sorted_BF == sorted_BF.roll(1, dims=1)
    again_BF[:, :1] = False
    return torch.where(again_BF, NO_FEATURE, sorted_BF)
