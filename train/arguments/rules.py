"""Allowed values of the training arguments, beyond their types; SwitchConfig checks those of the model."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from train.arguments.groups import ONLY_FOR

# Tasks whose rows may be read as they come.
STREAMED = ("classification", "mlm", "span_corruption")


# Arguments that are about words, which vectors are not.
OF_WORDS = (
    "rare_token_dropout", "word_counts", "bigram_buckets", "teachers", "tokenizer", "vocab_size", "text_column",
    "probe", "streaming", "init_from", "total_batch_size",
)  # fmt: skip


def check_flags(flags: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise ValueError for a flag that would change nothing beside the others, with what to do.

    Args:
        flags: of a command line.
        given: those, and what a file of arguments says.
    """
    router = given.get("router", "switch")
    idle = {
        # With an initial model, its router.
        "switch": ((), "") if given.get("init_from") else (("top_k", "norm_topk_prob"), "sends a token to one expert"),
        "sigmoid_bias": (("balance",), "keeps loads even by a bias of its own"),
        "expert_choice": (("balance", "sequence_balance_coef"), "gives all experts equally many tokens"),
    }
    names, why = idle.get(router, ((), ""))
    for name in names:
        if name in flags:
            raise ValueError(f"--{name} changes nothing with --router {router}, which {why}: leave one of them out.")
    for name, other in (("lora_alpha", "lora_rank"), ("lora_on", "lora_rank"), ("teacher_coef", "teachers")):
        if name in flags and not given.get(other):
            raise ValueError(f"--{name} changes nothing without --{other}: leave it out.")
    if given.get("upcycle") and flags.get("num_experts", given["upcycle"]) != given["upcycle"]:
        raise ValueError("--num_experts can't be used with --upcycle, which is their number: leave one out.")


def check_vectors(*groups: Any) -> None:
    """Raise ValueError for arguments that can't be used with --features_column, with what to do."""
    given = {item.name: (getattr(group, item.name), item.default) for group in groups for item in fields(group)}
    if not given["features_column"][0]:
        return
    if given["dataset"][0] == "toy":
        raise ValueError("--features_column needs a parquet file of your own: name it with --dataset.")
    for name in OF_WORDS:
        value, default = given[name]
        if value and value != default:
            raise ValueError(f"--{name} can't be used with --features_column, whose rows are no texts: leave it out.")


def check_streaming(data: Any, train: Any) -> None:
    """Raise ValueError for arguments that can't be used with --streaming, with what to do."""
    if not data.streaming:
        return
    without = {
        "translation": "pairs that are too long are found in the whole table: leave --streaming out",
        "clm": "its texts are a stream already, which is packed into blocks on disk: leave --streaming out",
    }
    if train.task not in STREAMED:
        raise ValueError(f"--streaming can't be used with --task {train.task}: {without[train.task]}.")
    if data.dataset == "toy":
        raise ValueError("--streaming can't be used with the toy, which is generated: leave it out.")
    if train.max_steps is None and train.total_iters is None:
        raise ValueError("--streaming has no end: say with --max_steps or --total_iters how many steps to train.")
    if train.teachers and train.task == "classification":
        raise ValueError("--streaming can't be used with --teachers, which predict all rows beforehand: leave one out.")
    if train.train_only == "hot_experts":
        raise ValueError(
            "--streaming can't be used with --train_only hot_experts, which are found in rows from all over the data: "
            "take --train_only experts, or leave --streaming out."
        )
    if train.total_batch_size:
        raise ValueError(
            "--streaming can't be used with --total_batch_size, since lengths are not known beforehand: take "
            "--gradient_accumulation_steps."
        )


def check_values(data: Any, model: Any, train: Any) -> None:
    """Raise ValueError for a value that is not allowed, naming the flag and what is.

    Args:
        data, model, train: the three groups of train/arguments/groups.py.
    """
    accumulated, tokens_per_step = train.gradient_accumulation_steps, train.total_batch_size
    kept, rare = train.save_total_limit, train.rare_token_dropout
    rules = [
        ("seq_len", data.seq_len, 1 <= data.seq_len <= 32_768, "from 1 to 32768"),
        ("d_kv", model.d_kv, model.d_kv is None or model.d_kv >= 1, "at least 1"),
        ("device", train.device, train.device in (None, "cpu", "cuda"), "cpu or cuda"),
        ("validation_size", data.validation_size, 0 < data.validation_size < 1, "above 0 and below 1"),
        ("num_samples", data.num_samples, data.num_samples is None or data.num_samples >= 10, "at least 10"),
        ("shuffle_buffer", data.shuffle_buffer, data.shuffle_buffer >= 1, "at least 1"),
        ("num_classes", data.num_classes, 2 <= data.num_classes <= 50, "from 2 to 50"),
        ("vocab_size", data.vocab_size, data.vocab_size is None or data.vocab_size >= 50, "at least 50"),
        ("epochs", train.epochs, 0 < train.epochs < math.inf, "above 0"),
        ("max_steps", train.max_steps, train.max_steps is None or train.max_steps >= 1, "at least 1"),
        ("min_steps", train.min_steps, train.min_steps >= 0, "at least 0"),
        ("total_iters", train.total_iters, train.total_iters is None or train.total_iters >= 1, "at least 1"),
        ("total_batch_size", tokens_per_step, tokens_per_step is None or tokens_per_step >= 1, "at least 1"),
        ("eval_iters", train.eval_iters, train.eval_iters is None or train.eval_iters >= 1, "at least 1"),
        ("max_minutes", train.max_minutes, train.max_minutes is None or train.max_minutes > 0, "above 0"),
        ("batch_size", train.batch_size, 1 <= train.batch_size <= 1_000_000, "from 1 to 1000000"),
        ("gradient_accumulation_steps", accumulated, accumulated >= 1, "at least 1"),
        ("mlm_probability", train.mlm_probability, 0 < train.mlm_probability < 1, "above 0 and below 1"),
        ("residual_decay", train.residual_decay, 0 <= train.residual_decay < math.inf, "at least 0"),
        # Every new value of the residual would trigger a recompilation.
        ("compile", True, not (train.compile and train.residual_decay), "false with --residual_decay"),
        ("rare_token_dropout", rare, 0 <= rare < math.inf, "at least 0"),
        ("teacher_coef", train.teacher_coef, 0 <= train.teacher_coef < math.inf, "at least 0"),
        *_from_another_model(model, train),
        ("expert_parallel", train.expert_parallel, train.expert_parallel >= 1, "at least 1"),
        ("lr", train.lr, train.lr is None or 0 < train.lr < math.inf, "above 0"),
        ("warmup", train.warmup, train.warmup >= 0, "at least 0"),
        ("weight_decay", train.weight_decay, 0 <= train.weight_decay < math.inf, "at least 0"),
        ("grad_clip", train.grad_clip, train.grad_clip >= 0, "at least 0"),
        ("adafactor_clip_threshold", train.adafactor_clip_threshold, train.adafactor_clip_threshold > 0, "above 0"),
        ("seed", train.seed, 0 <= train.seed < 2**32, "from 0 to 4294967295"),
        ("ema_decay", train.ema_decay, 0 <= train.ema_decay < 1, "at least 0 and below 1"),
        ("eval_steps", train.eval_steps, train.eval_steps is None or train.eval_steps >= 1, "at least 1"),
        ("save_total_limit", kept, kept is None or kept >= 1, "at least 1, or none for all"),
        ("logging_steps", train.logging_steps, train.logging_steps is None or train.logging_steps >= 1, "at least 1"),
    ]
    for group in (data, model, train):
        for item in fields(group):
            value, task = getattr(group, item.name), ONLY_FOR.get(item.name, train.task)
            rules.append(
                (
                    item.name,
                    value,
                    task == train.task or not value or value == item.default,
                    _without(task, item.default),
                )
            )
    for name, value, allowed, words in rules:
        if not allowed:
            raise ValueError(f"--{name} {value} is not allowed: it must be {words}.")


_SPREAD = "all or router with --expert_parallel; --fsdp true divides experts too"
_NO_LORA = "0 without --init_from: beside random weights, adapters have nothing to adapt"


def _from_another_model(model: Any, train: Any) -> list[tuple[str, Any, bool, str]]:
    """Rules of what a run takes over from another model, and trains of it."""
    only, hot = train.train_only, train.train_only == "hot_experts"
    return [
        ("liger", True, not (train.liger and train.teachers), "false with --teachers: it keeps no logits"),
        ("upcycle", train.upcycle, train.upcycle == 0 or train.upcycle >= 2, "at least 2, or 0"),
        ("upcycle", train.upcycle, not train.upcycle or bool(train.init_from), "0 without --init_from"),
        ("hot_share", train.hot_share, 0 < train.hot_share <= 1, "above 0 and at most 1"),
        ("train_only", only, not hot or bool(train.init_from), "all, router or experts without --init_from"),
        # DistributedDataParallel wants a weight of its own to average.
        ("train_only", only, only in ("all", "router") or train.expert_parallel == 1, _SPREAD),
        # Decay would shrink the experts that are left out.
        ("weight_decay", train.weight_decay, not hot or train.weight_decay == 0, "0 with --train_only hot_experts"),
        ("lora_rank", train.lora_rank, train.lora_rank >= 0, "at least 1, or 0"),
        ("lora_rank", train.lora_rank, not train.lora_rank or bool(train.init_from), _NO_LORA),
        ("lora_alpha", train.lora_alpha, train.lora_alpha is None or 0 < train.lora_alpha < math.inf, "above 0"),
        ("train_only", only, not train.lora_rank or only == "all", "all with --lora_rank, which trains adapters"),
        ("compile", True, not (train.compile and train.lora_rank), "false with --lora_rank"),
        ("freeze_router", True, not train.freeze_router or only != "router", "false with --train_only router"),
        ("freeze_router", True, not train.freeze_router or model.balance != "bias", "false with --balance bias"),
    ]


def _without(task: str, default: Any) -> str:
    shown = f"{default:g}" if isinstance(default, float) else str(default).lower()
    return f"{shown} without --task {task}"
