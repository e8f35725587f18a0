"""Presets: sizes for any text data, and settings tuned for the named data sets (docs/experiments.md).

Try it: python -m train --dataset my.csv --preset small
"""

import math
from typing import Any

from train.arguments.groups import DEFAULT_TASK

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
        # For few, short texts: use word order, and do not memorise rare names.
        "conv_width": 3,
        "rare_token_dropout": 5.0,
        "token_dropout_from": 16,
        "word_counts": True,
        "lr": 1e-3,
        # A few hundred rows get 40 epochs, a few thousand 8, a few hundred thousand one or less.
        "epochs": 8.0,
        "min_steps": 600,
        "max_steps": 2400,
        "eval_steps": 200,
    },
    "base": {
        "seq_len": 128,
        "vocab_size": 8000,
        "d_model": 128,
        "d_ff": 256,
        "num_layers": 4,
        "num_experts": 8,
        "bigram_buckets": 20_000,  # The model then has 12 MB in half precision.
        "lr": 5e-4,
        "epochs": 40.0,
        "max_steps": 4815,  # Three epochs of AG News.
    },
}
# For every size: regularisation that keeps a small model from memorising its training texts.
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
# `small` on AG News and IMDB: large data sets, whose texts repeat word pairs.
_MANY_LONG_TEXTS: dict[str, Any] = {
    "conv_width": 0,
    "bigram_buckets": 20_000,
    "token_dropout_from": 0,
    "rare_token_dropout": 0.0,
    "word_counts": False,
    "eval_steps": 240,
}
# Classifiers whose experts alone make the prediction: no residual around the experts, and the classifier reads the last
# layer's expert outputs only. Dropout is lower, since its noise accumulates over layers.
_BY_EXPERTS: dict[str, Any] = {
    "readout": "experts",
    "expert_residual": 0.0,
    "layer_loss_coef": 0.5,
    "pooling": "mean",
    "label_smoothing": 0.0,
    "dropout": 0.1,
    "expert_dropout": 0.1,
    "capacity_factor": math.inf,
    "capacity_factor_eval": math.inf,
    "aux_loss_coef": 0.02,
    "lr": 1e-3,
}
# For some hundred rows: enough validation rows, and small batches.
_A_FEW_ROWS: dict[str, Any] = {
    "batch_size": 16,
    "bigram_buckets": 0,
    "epochs": 15.0,
    "validation_size": 0.2,
}
# The toy as a lesson: many small experts, no drops, and a learning rate so high that routing is unstable. The balance
# loss keeps their load even; without it, two of eight take nearly all tokens (tests/ui/test_lesson.py).
_ON_EDGE: dict[str, Any] = {
    "seq_len": 16,
    "vocab_size": None,
    "num_samples": 600,
    "d_model": 32,
    "d_ff": 64,
    "num_heads": 2,
    "num_experts": 8,
    "bigram_buckets": 0,
    "pooling": "mean",
    "dropout": 0.0,
    "token_dropout": 0.0,
    "expert_dropout": 0.0,
    "capacity_factor": math.inf,
    "capacity_factor_eval": math.inf,
    "router_bias": True,
    "aux_loss_coef": 0.5,
    "z_loss_coef": 0.0,
    "lr": 0.1,
    "lr_schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "ema_decay": 0.0,
    "batch_size": 32,
    "epochs": 6.0,
    "max_steps": None,
}
# Settings of single data sets: data set -> preset -> arguments.
FOR_DATASET: dict[str, dict[str, dict[str, Any]]] = {
    "toy": {"tiny": _ON_EDGE},
    "mini_news": {"tiny": _A_FEW_ROWS},
    "mini_reviews": {"tiny": _A_FEW_ROWS},
    "ag_news": {"small": _MANY_LONG_TEXTS, "base": _BY_EXPERTS},
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
        "small": {"seq_len": 256} | _MANY_LONG_TEXTS,
    },
}


# Language models: longer training, and a schedule that ends low.
_OF_TOKENS: dict[str, Any] = {
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "lr_schedule": "cosine",
    "switch_dropout": 0.0,
    "capacity_factor": 2.0,
    "capacity_factor_eval": 4.0,
    "ema_decay": 0.998,
    # With tied embeddings, language models that generate learn several times more slowly (docs/experiments.md).
    "tie_word_embeddings": False,
}
# By task: sizes, length of training, learning rate.
FOR_TASK: dict[str, dict[str, dict[str, Any]]] = {
    "translation": {
        "tiny": {
            "seq_len": 48,
            "vocab_size": 4000,
            "d_model": 96,
            "d_ff": 192,
            "num_layers": 2,
            "num_experts": 4,
            "lr": 3e-3,
            "batch_size": 64,
            "epochs": 4.0,
        },
        "small": {
            "seq_len": 32,
            "vocab_size": 4000,
            "d_model": 128,
            "d_ff": 256,
            "num_layers": 3,
            "num_experts": 4,
            "lr": 2e-3,
            "warmup": 0.0663,  # 300 steps of en_hi's 4,520.
            "batch_size": 128,
            "epochs": 16.0,
            "eval_steps": 565,
        },
        "base": {
            "seq_len": 128,
            "vocab_size": 16_000,
            "d_model": 256,
            "d_ff": 512,
            "num_layers": 4,
            "num_experts": 8,
            "dropout": 0.2,
            "lr": 7e-4,
            "warmup": 0.06,
            "batch_size": 64,
            "epochs": 30.0,
        },
    },
    "clm": {
        "tiny": {
            "seq_len": 128,
            "vocab_size": 2000,
            "d_model": 96,
            "d_ff": 192,
            "num_layers": 2,
            "num_experts": 4,
            "dropout": 0.0,
            "expert_dropout": 0.0,
            "lr": 3e-3,
            "batch_size": 16,
            "epochs": 1.0,
        },
        "small": {
            "seq_len": 256,
            "vocab_size": 2000,
            "d_model": 128,
            "d_ff": 256,
            "num_layers": 4,
            "num_experts": 4,
            "dropout": 0.0,
            "lr": 2e-3,
            "warmup": 0.078,  # 200 steps of TinyStories' 2,564.
            "batch_size": 8,
            "epochs": 4.0,
            "eval_steps": 350,
        },
        "base": {
            "seq_len": 512,
            "vocab_size": 16_000,
            "d_model": 256,
            "d_ff": 1024,
            "num_layers": 6,
            "num_experts": 8,
            "lr": 7e-4,
            "warmup": 0.06,
            "batch_size": 16,
            "epochs": 4.0,
            "eval_steps": 1000,
        },
    },
    "mlm": {
        "tiny": {
            "seq_len": 64,
            "vocab_size": 4000,
            "d_model": 96,
            "d_ff": 192,
            "num_layers": 2,
            "num_experts": 4,
            "relative_attention_slope": 1.0,
            "lr": 3e-3,
            "batch_size": 64,
            "epochs": 2.0,
            "max_steps": 1000,
        },
        "small": {
            "seq_len": 128,
            "vocab_size": 8000,
            "d_model": 128,
            "d_ff": 256,
            "num_layers": 4,
            "num_experts": 4,
            "mlm_probability": 0.25,
            "relative_attention_slope": 1.0,
            "lr": 2e-3,
            "warmup": 0.075,
            "batch_size": 32,
            "epochs": 40.0,
            "max_steps": 2400,
            "eval_steps": 600,
        },
        "base": {
            "seq_len": 256,
            "vocab_size": 16_000,
            "d_model": 256,
            "d_ff": 1024,
            "num_layers": 6,
            "num_experts": 8,
            "relative_attention_slope": 1.0,
            "lr": 7e-4,
            "warmup": 0.06,
            "batch_size": 64,
            "epochs": 20.0,
        },
    },
}
# A text in, a text out, as in translation, but of any texts.
FOR_TASK["span_corruption"] = {name: sizes | {"seq_len": 128} for name, sizes in FOR_TASK["translation"].items()}


def preset(name: str, dataset: str, task: str = DEFAULT_TASK) -> dict[str, Any]:
    """The arguments of a preset for a data set and a task."""
    if task in FOR_TASK:
        return _OF_TOKENS | FOR_TASK[task][name]
    return _REGULARISED | PRESETS[name] | FOR_DATASET.get(dataset, {}).get(name, {})


def of_router(router: str) -> dict[str, Any]:
    """Defaults of a kind of router, above those of the preset: with several experts for each token, nothing is dropped
    unless a capacity is asked for, as in the models that have such routers today."""
    return {} if router == "switch" else {"capacity_factor": math.inf, "capacity_factor_eval": math.inf}


def default_task(dataset: str) -> str:
    """The default task of a data set."""
    return {"en_hi": "translation", "samanantar": "translation", "tiny_stories": "clm"}.get(dataset, DEFAULT_TASK)


def default_preset(dataset: str) -> str | None:
    """The default preset: none for the toy, whose texts have 16 words; tiny for small data sets."""
    return None if dataset == "toy" else "tiny" if FOR_DATASET.get(dataset, {}).get("tiny") else "small"
