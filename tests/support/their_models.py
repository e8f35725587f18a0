"""Random checkpoints of transformers' SwitchTransformers, as the hub holds them.

Try it: theirs = save_theirs(folder, num_experts=3)
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
    T5Config,
)
from transformers.models.switch_transformers.modeling_switch_transformers import (
    SwitchTransformersDenseActDense,
    SwitchTransformersTop1Router,
)
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense

VOCABULARY = 50
SHAPE = dict(
    vocab_size=VOCABULARY,
    d_model=16,
    d_kv=8,
    d_ff=24,
    num_heads=2,
    num_layers=4,
    num_decoder_layers=2,
    num_sparse_encoder_layers=2,
    num_sparse_decoder_layers=1,
    num_experts=4,
    decoder_start_token_id=0,
)


def make_theirs(model_class=SwitchTransformersForConditionalGeneration, gated: bool = False, **settings):
    """A model of the library, every weight large enough to matter. `gated` puts T5's gated MLPs in, which it lacks."""
    torch.manual_seed(0)
    model = model_class(SwitchTransformersConfig(**SHAPE | settings))
    if gated:
        shape = T5Config(d_model=SHAPE["d_model"], d_ff=SHAPE["d_ff"], feed_forward_proj="gated-gelu")
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, SwitchTransformersDenseActDense):
                    setattr(module, name, T5DenseGatedActDense(shape))
        model.config.dense_act_fn = "gated-gelu"
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    return model.eval()


def save_theirs(folder: Path, shard: str = "5GB", **settings):
    """The same, saved with a tokenizer; returns the model."""
    model = make_theirs(**settings)
    model.save_pretrained(folder, max_shard_size=shard)
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", "oil", "team", "rose", "won"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.save(str(folder / "tokenizer.json"))
    return model


def routed(model: nn.Module, **inputs) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
    """What the library's model gives first, and for each of its routers (one-hot choices that were kept, gates)."""
    seen = []
    routers = [module for module in model.modules() if isinstance(module, SwitchTransformersTop1Router)]
    hooks = [
        router.register_forward_hook(lambda _, __, output: seen.append((output[0], output[1].squeeze(-1))))
        for router in routers
    ]
    with torch.no_grad():
        output = model(**inputs)
    for hook in hooks:
        hook.remove()
    return (output.logits if "logits" in output else output.last_hidden_state), seen


def texts() -> dict[str, torch.Tensor]:
    """Three texts with padding on the right, and what the decoder reads."""
    torch.manual_seed(1)
    ids, answer = torch.randint(2, VOCABULARY, (3, 11)), torch.randint(2, VOCABULARY, (3, 7))
    mask = torch.ones_like(ids)
    mask[1, 6:], mask[2, 9:], answer[:, 0] = 0, 0, 0
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": answer}
