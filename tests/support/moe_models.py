"""Tiny random mixture-of-experts models of transformers' families, and folders of them as the hub holds them.

Try it: model = tiny("mixtral"); save_tiny(folder, "mixtral")
"""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

EXPERTS, CHOICES = 8, 2
WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "oil",
    "prices",
    "rose",
    "the",
    "team",
    "won",
    "rain",
    "fell",
    *"abcdefghijkl",
]
SIZES = dict(
    vocab_size=24,
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
# Families call the same numbers by different names.
LOCAL, PLAIN = dict(num_local_experts=EXPERTS), dict(num_experts=EXPERTS)
FEW = dict(num_experts_per_tok=CHOICES)
NARROW = dict(moe_intermediate_size=16)
GROUPED = dict(n_routed_experts=EXPERTS, n_group=2, topk_group=1, first_k_dense_replace=1) | FEW | NARROW
LATENT = dict(
    q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, num_key_value_heads=4
)
HEADS = dict(head_dim=8)
# Family -> the name of its classes, and its settings beside SIZES.
FAMILIES = {
    "mixtral": ("Mixtral", LOCAL | FEW),
    "olmoe": ("Olmoe", PLAIN | FEW),
    "qwen2_moe": ("Qwen2Moe", PLAIN | FEW | NARROW | dict(shared_expert_intermediate_size=16)),
    "qwen3_moe": ("Qwen3Moe", PLAIN | FEW | NARROW | HEADS | dict(norm_topk_prob=True)),
    "gpt_oss": ("GptOss", LOCAL | FEW | HEADS),
    "granitemoe": ("GraniteMoe", LOCAL | FEW),
    "phimoe": ("Phimoe", LOCAL | FEW),
    "minimax": ("MiniMax", LOCAL | FEW | HEADS),
    "jamba": ("Jamba", PLAIN | FEW | dict(attn_layer_period=2, attn_layer_offset=1)),
    "ernie4_5_moe": ("Ernie4_5_Moe", dict(moe_num_experts=EXPERTS, moe_k=CHOICES) | NARROW),
    "hunyuan_v1_moe": ("HunYuanMoEV1", PLAIN | HEADS | dict(moe_topk=CHOICES)),
    "cohere2_moe": ("Cohere2Moe", PLAIN | FEW | HEADS),
    "deepseek_v2": ("DeepseekV2", GROUPED | LATENT | dict(topk_method="group_limited_greedy")),
    "deepseek_v3": ("DeepseekV3", GROUPED | LATENT),
    "glm4_moe": ("Glm4Moe", GROUPED | HEADS),
    "dots1": ("Dots1", GROUPED | HEADS | dict(n_shared_experts=1)),
    "lfm2_moe": ("Lfm2Moe", PLAIN | FEW | NARROW | dict(layer_types=["full_attention"] * 3, num_dense_layers=1)),
    "llama4": ("Llama4", LOCAL | FEW | HEADS | dict(intermediate_size_mlp=32, moe_layers=[0, 1, 2])),
}


def tiny(family: str, head: str = "ForCausalLM", **settings):
    """A model of the family, every weight large enough to matter."""
    name, own = FAMILIES[family]
    config_class = getattr(transformers, f"{name}TextConfig" if family == "llama4" else f"{name}Config")
    return filled(getattr(transformers, f"{name}{head}")(config_class(**SIZES | own | settings)))


def filled(model):
    torch.manual_seed(0)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    for name, bias in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            nn.init.normal_(bias, std=0.3)
    return model.eval()


def tiny_filter():
    """A model that gives each token of a text a class, and looks both ways."""
    config = transformers.OpenAIPrivacyFilterConfig(**SIZES | LOCAL | FEW | HEADS, num_labels=3)
    return filled(transformers.OpenAIPrivacyFilterForTokenClassification(config))


def tiny_nllb():
    """An encoder-decoder with two choices and buffers large enough for all tokens."""
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in _OF_A_STACK.items()}
    config = transformers.NllbMoeConfig(
        **sides, vocab_size=24, d_model=32, num_experts=4, expert_capacity=64, max_position_embeddings=64
    )
    config.decoder_start_token_id = 2
    return filled(transformers.NllbMoeForConditionalGeneration(config))


_OF_A_STACK = dict(layers=2, ffn_dim=32, attention_heads=4, sparse_step=2)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def save_tiny(folder: Path, model) -> Path:
    """A folder of the model and a tokenizer of a few words."""
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
