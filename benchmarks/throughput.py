"""Texts per second of a classifier with its routing records, beside transformers' Switch encoder of the same shape.

The encoder gets texts in batches of 32, as a transformers pipeline makes them, and gives no records; a mean over its
states and a linear layer stand for its head. Try it: python -m benchmarks.throughput [texts]
"""

import copy
import sys

import torch
from torch import nn
from transformers import SwitchTransformersConfig, SwitchTransformersEncoderModel

from benchmarks.report import Measurement, table
from benchmarks.timing import compare
from switch_model import Predictor
from train.data.errors import DataError
from train.data.loading import load_split
from train.data.source import DataSource

MODEL = "assets/models/ag_news"
BATCH, TEXTS = 32, 1024


class LibraryClassifier(nn.Module):
    """transformers' encoder in the shape of a model of ours."""

    def __init__(self, predictor: Predictor):
        super().__init__()
        own = predictor.model.config
        self.tokenizer = copy.deepcopy(predictor.tokenizer)  # Its padding is state, which a Predictor works around.
        self.encoder = SwitchTransformersEncoderModel(
            SwitchTransformersConfig(
                vocab_size=own.vocab_size, d_model=own.d_model, d_kv=own.d_kv, d_ff=own.d_ff, num_heads=own.num_heads,
                num_layers=own.num_layers, num_sparse_encoder_layers=own.num_layers, num_experts=own.num_experts,
                expert_capacity=10_000,
            )
        )  # fmt: skip
        self.head = nn.Linear(own.d_model, len(own.labels))

    def forward(self, texts: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        mask = tokens["attention_mask"]
        hidden = self.encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        return self.head((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).softmax(-1)


def measurements(texts: int = TEXTS) -> list[Measurement]:
    predictor = Predictor.from_checkpoint(MODEL, "cpu")
    library = LibraryClassifier(predictor).eval()
    try:
        split, _ = load_split(DataSource("ag_news", split="test"))
    except DataError as error:
        print(f"texts a second: {error}", file=sys.stderr)
        return []
    asked = list(split["text"][:texts])
    batches = [asked[begin : begin + BATCH] for begin in range(0, len(asked), BATCH)]

    @torch.inference_mode()
    def of_the_library() -> None:
        for batch in batches:
            library(batch)

    def in_batches() -> None:
        for batch in batches:
            predictor.batch(batch)

    contestants = {"library": of_the_library, "batches": in_batches, "all": lambda: predictor.batch(asked)}
    ratios = compare(contestants, "library", rounds=5, warmup=1)
    rate = len(asked) / (ratios["library ms"] / 1000)
    what = f"texts a second with records / transformers' encoder in batches of {BATCH}, {len(asked):,} texts"
    rows = []
    for name, how in (("all", "one call"), ("batches", f"a call for each {BATCH}")):
        note = f"{rate:.0f} → {rate / ratios[name]:.0f} a second"
        rows.append(Measurement(f"{what}: {how}", 1 / ratios[name], 1.4, 2, True, note))
    return rows


if __name__ == "__main__":
    print(table(measurements(*map(int, sys.argv[1:]))))
