"""What each field of SwitchConfig may be, and in which words that is said.

Try it: python -c "from switch_model.config_rules import RULES; print(RULES['conv_width'][1])"
"""

import math
from collections.abc import Callable
from typing import Any

ACTIVATIONS = ("relu", "gelu", "gated-gelu")
PRIORITIES = ("position", "probability")
BALANCES = ("loss", "bias")
CAPACITY_GROUPS = ("sequence", "batch")
POOLINGS = ("mean", "first", "max", "mean+max", "attention")
# Those under which a pooled vector is a sum over tokens.
ADDING_POOLINGS = ("mean", "attention")
READOUTS = ("residual", "experts")
POSITIONS = ("relative", "sinusoidal", "learned")
HEADS = ("linear", "mlp")
ATTENTION_EXPERTS = ("none", "projections", "module")
# transformers' names of what a classifier learns; None = what its labels say.
PROBLEMS = (None, "single_label_classification", "multi_label_classification", "regression")
ROUTER_DTYPES = ("float32", "bfloat16", "float16")
# Of checkpoints from elsewhere: far above any model this package makes.
MAX_LAYERS, MAX_EXPERTS = 128, 1_024


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(low: int, high: int | None = None) -> tuple[Callable[[Any], bool], str]:
    words = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"
    return lambda value: is_int(value) and value >= low and (high is None or value <= high), words


def _number(low: float, below: float | None = None) -> tuple[Callable[[Any], bool], str]:
    words = f"a number of at least {low:g}" + ("" if below is None else f" and below {below:g}")
    return lambda value: _is_number(value) and value >= low and (below is None or value < below), words


def _above_zero() -> tuple[Callable[[Any], bool], str]:
    return lambda value: _is_number(value) and value > 0, "a number above 0"


def _one_of(*choices: Any) -> tuple[Callable[[Any], bool], str]:
    # `True == 1`, so membership alone would let a bool pass for a number.
    return (
        lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
        "one of " + ", ".join(repr(choice) for choice in choices),
    )


def _or_none(rule: tuple[Callable[[Any], bool], str], meaning: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value is None or rule[0](value), f"{rule[1]}, or None ({meaning})"


_PROBABILITY = _number(0.0, below=1.0)

# Field -> (is the value allowed?, what is allowed in words).
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "vocab_size": _whole(1),
    "decoder_vocab_size": _or_none(_whole(1), "as vocab_size"),
    "d_model": _whole(1),
    "d_kv": _whole(1),
    "d_ff": _whole(1),
    "num_heads": _whole(1),
    "num_layers": _whole(1),
    "num_experts": _whole(1),
    "bigram_buckets": _whole(0),
    "conv_width": _one_of(0, 3, 5, 7, 9),
    "counted_rows": _whole(0),
    "encoder_sparse_step": _whole(0),
    "num_decoder_layers": _or_none(_whole(1), "as many as num_layers"),
    "decoder_sparse_step": _or_none(_whole(0), "as encoder_sparse_step"),
    "is_decoder": _one_of(True, False),
    "block_size": _whole(1),
    "position": _one_of(*POSITIONS),
    "max_positions": _whole(1),
    "inputs_embeds_size": _or_none(_whole(1), "embeddings come in at d_model"),
    "attention_experts": _one_of(*ATTENTION_EXPERTS),
    "attention_sparse_step": _whole(0),
    "expert_residual": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "dense_act_fn": _one_of(*ACTIVATIONS),
    "dropout_rate": _PROBABILITY,
    "token_dropout": _PROBABILITY,
    "token_dropout_from": _whole(0),
    "expert_dropout": _PROBABILITY,
    "switch_dropout": _PROBABILITY,
    "router_jitter_noise": _PROBABILITY,
    "router_noise_eps": _number(0.0),
    "router_bias": _one_of(True, False),
    "router_dtype": _one_of(*ROUTER_DTYPES),
    "router_priority": _one_of(*PRIORITIES),
    "capacity_factor": _or_none(_above_zero(), "no token is dropped in training"),
    "eval_capacity_factor": _or_none(_above_zero(), "no token is dropped in evaluation"),
    "expert_capacity": _or_none(_whole(1), "capacity follows the factors"),
    "min_expert_capacity": _whole(0),
    "capacity_group": _one_of(*CAPACITY_GROUPS),
    "router_aux_loss_coef": _number(0.0),
    "router_z_loss_coef": _number(0.0),
    "balance": _one_of(*BALANCES),
    "balance_rate": _number(0.0),
    "sequence_balance_coef": _number(0.0),
    "layer_loss_coef": _number(0.0),
    "relative_attention_num_buckets": (
        lambda value: is_int(value) and value >= 4 and value % 2 == 0,
        "an even whole number of at least 4",
    ),
    "relative_attention_max_distance": _whole(2),
    "relative_attention_slope": _number(0.0),
    "layer_norm_epsilon": _above_zero(),
    "initializer_factor": _above_zero(),
    "readout": _one_of(*READOUTS),
    "pooling": _one_of(*POOLINGS),
    "cls_token": _one_of(True, False),
    "classifier_head": _one_of(*HEADS),
    "classifier_dropout": _PROBABILITY,
    "label_smoothing": _PROBABILITY,
    "problem_type": _one_of(*PROBLEMS),
    "embedding_norm": _one_of(True, False),
    "tie_word_embeddings": _one_of(True, False),
    "share_embeddings": _one_of(True, False),
    "scale_decoder_outputs": _one_of(True, False),
    "restores_gaps": _one_of(True, False),
    "pad_token_id": _whole(0),
    "bos_token_id": _or_none(_whole(0), "no token opens a text"),
    "eos_token_id": _or_none(_whole(0), "generation ends at its length alone"),
    "decoder_start_token_id": _or_none(_whole(0), "the padding token starts a decoder, as in T5"),
}
