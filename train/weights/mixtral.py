"""Decoders of the plain kind as Mixtral models of transformers, and Mixtral models as ours, with the same logits.

Mixtral (2401.04088): a decoder with rotary positions, SwiGLU experts in every layer, and the top K by softmax, their
weights divided by their sum. Its attention scales scores by K^-½ (K d_kv); ours has that in the query weights.
Try it: as_mixtral(model).save_pretrained("mixtral")
"""

from typing import Any

import torch
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM

from switch_model.config import SwitchConfig
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.storage.errors import CheckpointError

# What a decoder of ours must be: field, value, as a flag of `python -m train`.
PLAIN: tuple[tuple[str, Any, str], ...] = (
    ("router", "topk", "--router topk"),
    ("norm_topk_prob", True, "--norm_topk_prob true"),
    ("position", "rotary", "--position rotary"),
    ("dense_act_fn", "gated-silu", "--dense_act_fn gated-silu"),
    ("embedding_norm", False, "--embedding_norm false"),
    ("encoder_sparse_step", 1, "--sparse_step 1"),
    ("num_shared_experts", 0, "--num_shared_experts 0"),
    ("routed_scaling_factor", 1.0, "--routed_scaling_factor 1"),
    ("expert_groups", 1, "--expert_groups 1"),
    ("expert_residual", 1.0, "--expert_residual 1"),
    ("router_bias", False, "--router_bias false"),
    ("balances_by_bias", False, "--balance loss"),
    ("bigram_buckets", 0, "--bigram_buckets 0"),
    ("inputs_embeds_size", None, "no inputs_embeds"),
    ("scale_decoder_outputs", False, "scale_decoder_outputs false"),
    ("eval_capacity_factor", None, "--capacity_factor_eval inf"),
    ("expert_capacity", None, "--expert_capacity none"),
)
# Ours -> theirs, in a block and around the blocks.
_IN_BLOCK = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "mlp.router.classifier": "mlp.gate",
}
_AROUND = {"shared": "model.embed_tokens", "decoder.final_norm": "model.norm"}


def as_mixtral(model: SwitchForCausalLM, max_positions: int | None = None) -> MixtralForCausalLM:
    """The same model as transformers' MixtralForCausalLM, float32, in evaluation mode.

    Args:
        max_positions: tokens of a text that its config names; None = the model's block size.

    Raises:
        CheckpointError: for a model that Mixtral's shape can't hold, naming everything that differs.
    """
    config = model.config
    if not isinstance(model, SwitchForCausalLM):
        raise CheckpointError("Only a causal language model (--task clm) can be saved as Mixtral, which is one.")
    other = [flag for name, value, flag in PLAIN if getattr(config, name) != value]
    if config.decoder_sparse_step not in (None, 1):
        other.append("--decoder_sparse_step none")
    if other:
        raise CheckpointError(
            f"Mixtral's shape can't hold this model: it would have to be trained with {' '.join(other)}."
        )
    theirs = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=config.expert_width,
            num_hidden_layers=config.depth("decoder"),
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            head_dim=config.d_kv,
            max_position_embeddings=max_positions or config.block_size,
            rms_norm_eps=config.layer_norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            sliding_window=None,
            num_local_experts=config.num_experts,
            num_experts_per_tok=config.num_experts_per_tok,
            router_aux_loss_coef=config.router_aux_loss_coef,
            tie_word_embeddings=config.tie_word_embeddings,
            pad_token_id=config.pad_token_id,
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_id,
        )
    )
    own = model.state_dict()
    weights = {f"{there}.weight": own[f"{here}.weight"] for here, there in _names(config)}
    weights["lm_head.weight"] = own["shared.weight" if config.tie_word_embeddings else "lm_head.weight"]
    for layer in range(config.depth("decoder")):
        here, there = f"decoder.blocks.{layer}", f"model.layers.{layer}"
        weights[f"{there}.self_attn.q_proj.weight"] = own[f"{here}.attention.q.weight"] * config.d_kv**0.5
        both = [own[f"{here}.mlp.experts.{name}"] for name in ("wi_0", "wi_1")]
        weights[f"{there}.mlp.experts.gate_up_proj"] = torch.cat(both, dim=1)
        weights[f"{there}.mlp.experts.down_proj"] = own[f"{here}.mlp.experts.wo"]
    theirs.load_state_dict(weights)
    return theirs.eval()


def of_mixtral(theirs: MixtralForCausalLM) -> SwitchForCausalLM:
    """A Mixtral of transformers as a model of this package, float32, in evaluation mode.

    Keys and values that several heads share are repeated for each. Raises CheckpointError for a sliding window, or
    positions that are scaled.
    """
    given = theirs.config
    rope = given.rope_parameters or {}
    if given.sliding_window is not None or rope.get("rope_type", "default") != "default":
        raise CheckpointError("A Mixtral with a sliding window, or with scaled rotary positions, can't be imported.")
    if given.hidden_act != "silu":
        raise CheckpointError(f"A Mixtral with hidden_act={given.hidden_act!r} can't be imported: it must be 'silu'.")
    heads, shared_by = given.num_attention_heads, given.num_attention_heads // given.num_key_value_heads
    head_dim = getattr(given, "head_dim", None) or given.hidden_size // heads
    eos = given.eos_token_id[0] if isinstance(given.eos_token_id, list) else given.eos_token_id
    try:
        config = SwitchConfig(
            **{name: value for name, value, _ in PLAIN if name != "balances_by_bias"},
            vocab_size=given.vocab_size,
            d_model=given.hidden_size,
            d_ff=given.intermediate_size,
            d_kv=head_dim,
            num_heads=heads,
            num_layers=given.num_hidden_layers,
            num_experts=given.num_local_experts,
            num_experts_per_tok=given.num_experts_per_tok,
            rope_theta=float(rope.get("rope_theta", 10_000.0)),
            layer_norm_epsilon=given.rms_norm_eps,
            router_aux_loss_coef=given.router_aux_loss_coef,
            router_jitter_noise=given.router_jitter_noise,
            capacity_factor=None,
            block_size=min(given.max_position_embeddings, 4096),
            tie_word_embeddings=given.tie_word_embeddings,
            pad_token_id=given.pad_token_id or 0,
            bos_token_id=given.bos_token_id,
            eos_token_id=eos,
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"This Mixtral can't be imported: {error}") from error
    model, own = SwitchForCausalLM(config), {name: weight.float() for name, weight in theirs.state_dict().items()}
    weights = {f"{here}.weight": own[f"{there}.weight"] for here, there in _names(config)}
    if not config.tie_word_embeddings:
        weights["lm_head.weight"] = own["lm_head.weight"]
    for layer in range(config.num_layers):
        here, there = f"decoder.blocks.{layer}", f"model.layers.{layer}"
        weights[f"{here}.attention.q.weight"] = own[f"{there}.self_attn.q_proj.weight"] * head_dim**-0.5
        for name in ("k", "v"):
            weights[f"{here}.attention.{name}.weight"] = _for_each_head(
                weights[f"{here}.attention.{name}.weight"], head_dim, shared_by
            )
        gate, up = own[f"{there}.mlp.experts.gate_up_proj"].chunk(2, dim=1)
        weights |= {f"{here}.mlp.experts.wi_0": gate, f"{here}.mlp.experts.wi_1": up}
        weights[f"{here}.mlp.experts.wo"] = own[f"{there}.mlp.experts.down_proj"]
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def largest_difference(ours: SwitchForCausalLM, theirs: MixtralForCausalLM) -> float:
    """Between the logits of both for random ids."""
    tokens = min(ours.config.block_size, 64)
    ids = torch.randint(ours.config.vocab_size, (2, tokens), generator=torch.Generator().manual_seed(0))
    return float((ours.eval()(ids).logits - theirs(ids).logits).abs().max())


def _names(config: SwitchConfig) -> list[tuple[str, str]]:
    """Modules whose weights are the same in both: ours, theirs."""
    blocks = range(config.depth("decoder"))
    inside = [
        (f"decoder.blocks.{i}.{ours}", f"model.layers.{i}.{their}") for i in blocks for ours, their in _IN_BLOCK.items()
    ]
    return [*_AROUND.items(), *inside]


def _for_each_head(weight: Tensor, head_dim: int, shared_by: int) -> Tensor:
    """(heads · K, D) from the (shared heads · K, D) that `shared_by` heads each use."""
    return weight.unflatten(0, (-1, head_dim)).repeat_interleave(shared_by, dim=0).flatten(0, 1)
