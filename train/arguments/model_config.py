"""The model's configuration from the arguments, and the shape inherited with --init_from."""

import math
from dataclasses import fields
from typing import Any

from switch_model.config import SwitchConfig
from train.arguments.groups import FLAGS, DataArguments, ModelArguments
from train.arguments.presets import of_router

# Inherited from the initial model: flag -> field of SwitchConfig.
SHAPE = {
    "d_model": "d_model",
    "d_kv": "d_kv",
    "d_ff": "d_ff",
    "num_layers": "num_layers",
    "num_heads": "num_heads",
    "num_experts": "num_experts",
    "bigram_buckets": "bigram_buckets",
    "conv_width": "conv_width",
    "router": "router",
    "top_k": "num_experts_per_tok",
    "norm_topk_prob": "norm_topk_prob",
    "routed_scaling_factor": "routed_scaling_factor",
    "num_shared_experts": "num_shared_experts",
    "d_expert": "d_expert",
    "expert_groups": "expert_groups",
    "top_groups": "top_groups",
    "sparse_step": "encoder_sparse_step",
    "dense_act_fn": "dense_act_fn",
    "router_bias": "router_bias",
    "balance": "balance",
    "embedding_norm": "embedding_norm",
    "num_decoder_layers": "num_decoder_layers",
    "decoder_sparse_step": "decoder_sparse_step",
    "attention_experts": "attention_experts",
    "attention_sparse_step": "attention_sparse_step",
    "position": "position",
    "rope_theta": "rope_theta",
    "cls_token": "cls_token",
}

# Of these, which layers have experts, and how tokens get them: free where an initial model has none.
SPARSE_STEPS = {"sparse_step", "decoder_sparse_step"}
CHOICE = {"router", "top_k", "norm_topk_prob", "routed_scaling_factor", "expert_groups", "top_groups"}


def config_fields(data: DataArguments, model: ModelArguments) -> dict[str, Any]:
    """SwitchConfig's fields from the flags: those with the same name (or FLAGS'), and derived ones."""
    flags = {item.name: FLAGS.get(item.name, item.name) for item in fields(SwitchConfig)}
    d_ff = model.d_ff or 4 * model.d_model
    return {name: getattr(model, flag) for name, flag in flags.items() if hasattr(model, flag)} | dict(
        block_size=data.seq_len,
        max_positions=data.seq_len + 2,  # Room for an end-of-sequence and a CLS token.
        d_kv=model.d_kv or max(model.d_model // max(model.num_heads, 1), 1),
        d_ff=d_ff,
        num_experts=model.num_experts * model.expert_granularity,
        d_expert=_width_of_one(model, d_ff),
        expert_residual=1.0 if model.expert_residual is None else model.expert_residual,
        capacity_factor=None if model.capacity_factor == math.inf else model.capacity_factor,
        eval_capacity_factor=None if model.capacity_factor_eval == math.inf else model.capacity_factor_eval,
    )


def _width_of_one(model: ModelArguments, d_ff: int) -> int | None:
    """`d_expert`. Raises ValueError where the granularity does not fit it."""
    finer = model.expert_granularity
    if finer == 1:
        return model.d_expert
    if finer < 1 or d_ff % finer or model.d_expert is not None:
        wrong = f"--expert_granularity {finer} is not allowed: "
        if model.d_expert is not None:
            raise ValueError(f"{wrong}--d_expert {model.d_expert} says how wide an expert is. Give one of the two.")
        raise ValueError(f"{wrong}it must be at least 1 and divide d_ff, {d_ff}.")
    return d_ff // finer


def in_flags(error: ValueError) -> str:
    """SwitchConfig's error message, with the flag's name instead of the field's."""
    field_name, _, rest = str(error).partition("=")
    flag = FLAGS.get(field_name, field_name)
    for name, other in FLAGS.items():
        rest = rest.replace(f"{name}=", f"{other}=")
    none = "inf" if flag.startswith("capacity_factor") else "none"
    return f"--{flag} {rest.replace('or None (', f'or {none} (')}" if rest else str(error)


def adopt_shape(model: ModelArguments, implied: ModelArguments, source: SwitchConfig) -> None:
    """Give the arguments the shape of the initial model. Raises ValueError for a flag that contradicts it.

    Args:
        implied: the arguments without flags.
    """
    if model.expert_granularity != 1:
        raise ValueError(f"--expert_granularity {model.expert_granularity} does not fit --init_from: leave it out.")
    dense = model.sparse_step == 0 and implied.sparse_step != 0
    for name, field_name in SHAPE.items():
        own, theirs = getattr(model, name), getattr(source, field_name)
        if dense and name in SPARSE_STEPS:  # A dense student: all but the experts is taken over.
            setattr(model, name, 0 if name == "sparse_step" else None)
            continue
        asked = own is not None and own != getattr(implied, name)
        if asked and own != theirs:
            raise ValueError(
                f"--{name} {own} does not fit --init_from: that model has {theirs}. Leave it out, or give {theirs}."
            )
        setattr(model, name, theirs)
    for name, value in of_router(source.router).items():
        if getattr(model, name) == getattr(implied, name):
            setattr(model, name, value)
    # It does not change the shape of any weight, so a flag may differ.
    if model.expert_residual is None:
        model.expert_residual = source.expert_residual
