"""Sizes that do well on any text data, and what was found to suit the named data sets (docs/experiments.md).

Try it: python -m train --dataset my.csv --preset small
"""

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "seq_len": 64,
        "vocab_size": 4000,
        "d_model": 64,
        "d_ff": 128,
        "num_layers": 2,
        "num_experts": 4,
        "bigram_buckets": 4000,
        "lr": 2e-3,
        "batch_size": 64,
        "epochs": 5.0,
        "max_steps": 310,
        "num_samples": 20_000,
    },
    "small": {
        "seq_len": 128,
        "vocab_size": 8000,
        "d_model": 128,
        "d_ff": 256,
        "num_layers": 2,
        "num_experts": 8,
        "bigram_buckets": 20_000,
        "lr": 1e-3,
        # A few thousand rows get all their epochs, a few hundred thousand one or less.
        "epochs": 40.0,
        "max_steps": 2400,
        "eval_steps": 240,
    },
    "base": {
        "seq_len": 128,
        "vocab_size": 8000,
        "d_model": 128,
        "d_ff": 256,
        "num_layers": 4,
        "num_experts": 8,
        "bigram_buckets": 20_000,  # 12 MB in half precision, all in all.
        "lr": 5e-4,
        "epochs": 40.0,
        "max_steps": 4815,  # Three epochs of AG News.
    },
}
# The same for every size: what keeps a small model from learning its training texts by heart.
_REGULARISED: dict[str, Any] = {
    "pooling": "mean+max",
    "dropout": 0.25,
    "token_dropout": 0.3,
    "expert_dropout": 0.2,
    "switch_dropout": 0.0,
    "capacity_factor": 2.0,
    "capacity_factor_eval": 4.0,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "ema_decay": 0.998,
}
# Where a data set wants something else than texts in general: data set -> preset -> arguments.
FOR_DATASET: dict[str, dict[str, dict[str, Any]]] = {
    "sst2": {
        "base": {
            "seq_len": 64,
            "batch_size": 64,
            "bigram_buckets": 0,
            "dropout": 0.3,
            "lr": 1e-3,
            "epochs": 2.0,
            "validation_size": 0.15,
            "eval_steps": 450,
        }
    },
    "imdb": {
        "base": {
            "seq_len": 512,
            "vocab_size": 16_000,
            "num_layers": 2,
            "token_dropout": 0.5,
            "bigram_buckets": 200_000,
            "epochs": 2.0,
            "validation_size": 0.08,
            "eval_steps": 359,
        },
        "small": {"seq_len": 256},
    },
}


def preset(name: str, dataset: str) -> dict[str, Any]:
    """The arguments that a preset sets for a data set."""
    return _REGULARISED | PRESETS[name] | FOR_DATASET.get(dataset, {}).get(name, {})


def default_preset(dataset: str) -> str | None:
    """What is used when nobody names a preset: nothing for the toy, whose texts have 16 words."""
    return None if dataset == "toy" else "small"
