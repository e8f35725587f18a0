"""What the tests of all heads share: one small model of each, and what goes into it.

Try it: model = make("causal", position="learned")
"""

import torch
from torch import nn

from switch_model import (
    SwitchConfig,
    SwitchEncoderModel,
    SwitchForCausalLM,
    SwitchForConditionalGeneration,
    SwitchForMaskedLM,
    SwitchForSequenceClassification,
    SwitchModel,
)
from switch_model.layers.word_counts import text_features

HEADS = {
    "encoder": SwitchEncoderModel,
    "classification": SwitchForSequenceClassification,
    "masked": SwitchForMaskedLM,
    "both": SwitchModel,
    "conditional": SwitchForConditionalGeneration,
    "causal": SwitchForCausalLM,
}
SHAPE = dict(
    vocab_size=50,
    d_model=32,
    d_kv=8,
    d_ff=40,
    num_heads=4,
    num_layers=2,
    num_decoder_layers=3,
    num_experts=4,
    num_labels=3,
    min_expert_capacity=1,
    eval_capacity_factor=1.0,
    pad_token_id=0,
    eos_token_id=1,
)


def make(head: str, **settings) -> nn.Module:
    """In evaluation mode, every weight large enough to matter, and counts of most words."""
    torch.manual_seed(0)
    model = HEADS[head](SwitchConfig(**SHAPE | settings)).eval()
    for name, weight in model.named_parameters():
        if not name.endswith("norm.weight"):
            nn.init.normal_(weight, std=0.3)
    if (counts := getattr(model, "counts", None)) is not None:
        every_word = torch.arange(SHAPE["vocab_size"]).unsqueeze(0)
        known = text_features(every_word, torch.ones_like(every_word).bool()).unique()[1:]
        counts.fill(known, torch.randn(len(known), SHAPE["num_labels"]))
    return model


def has_decoder_over_encoder(head: str) -> bool:
    return head in ("both", "conditional")


def tokens(rows: int, length: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, 50, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(short: torch.Tensor, length: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """One text among padding -> ids and mask, each (1, length)."""
    gap, real = torch.zeros(1, length - short.shape[1], dtype=torch.long), torch.ones_like(short)
    join = (gap, short), (gap, real)
    if side == "right":
        join = (short, gap), (real, gap)
    return torch.cat(join[0], 1), torch.cat(join[1], 1)
