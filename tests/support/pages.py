"""What the tests of the app share: tiny checkpoints with random weights, and the app on a free port.

Try it: save_tiny_checkpoint(folder)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from switch_model import (
    SwitchConfig,
    SwitchForCausalLM,
    SwitchForConditionalGeneration,
    SwitchForMaskedLM,
    SwitchForSequenceClassification,
    save_checkpoint,
)
from train.data.tokenizers import in_order

LABELS = ["World", "Sports", "Business", "Sci/Tech"]
WORDS = [
    "oil",
    "prices",
    "rose",
    "as",
    "traders",
    "worried",
    "about",
    "winter",
    "alert",
    "script",
    "the",
    "team",
    "won",
]
MAX_TOKENS = 32


def save_tiny_checkpoint(folder: Path, num_experts: int = 4, **settings) -> Path:
    """A model whose layers 1 and 3 are sparse and whose vocabulary knows a few words and every Latin letter."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [
        "[PAD]",
        "[UNK]",
        *WORDS,
        *letters,
        *(f"##{letter}" for letter in letters),
        *".,<>$(){}=/1234567890*`'\\:",
    ]
    backend = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=MAX_TOKENS, pad_token="[PAD]", unk_token="[UNK]"
    )
    settings = {"eval_capacity_factor": 1.0, "min_expert_capacity": 2, "encoder_sparse_step": 2} | settings
    config = SwitchConfig(
        vocab_size=len(pieces),
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_heads=2,
        num_layers=4,
        num_experts=num_experts,
        id2label=dict(enumerate(LABELS)),
        **settings,
    )
    torch.manual_seed(0)
    return save_checkpoint(SwitchForSequenceClassification(config), tokenizer, folder)


STORIES = ["Once upon a time there was a cat.", "The weather is nice today.", "मौसम आज बहुत अच्छा है।"]
_SHAPE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_experts": 4}


def save_tiny_translator(folder: Path, **settings) -> Path:
    """An encoder-decoder with a unigram tokenizer of both scripts; two sparse layers read, three write."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(STORIES * 3, trainer)
    backend = in_order(backend, len(special))  # Else the same weights would write another text at every run.
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = SwitchConfig(vocab_size=len(tokenizer), eos_token_id=1, num_decoder_layers=3, **_SHAPE | settings)
    return save_checkpoint(SwitchForConditionalGeneration(config), tokenizer, folder)


def save_tiny_storyteller(folder: Path, **settings) -> Path:
    """A causal language model with a byte-level tokenizer, of which some tokens are but a part of a character."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(STORIES * 3, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=64, pad_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    config = SwitchConfig(vocab_size=len(tokenizer), eos_token_id=0, tie_word_embeddings=False, **_SHAPE | settings)
    return save_checkpoint(SwitchForCausalLM(config), tokenizer, folder)


def save_tiny_mask_filler(folder: Path, **settings) -> Path:
    """A masked language model whose vocabulary is WORDS."""
    pieces = ["[PAD]", "[UNK]", "[MASK]", *WORDS]
    backend = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=32, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )
    torch.manual_seed(0)
    return save_checkpoint(
        SwitchForMaskedLM(SwitchConfig(vocab_size=len(pieces), **_SHAPE | settings)), tokenizer, folder
    )


@contextmanager
def running_app(checkpoint: Path | None, models_folder: Path, runs_folder: Path | None = None) -> Iterator[str]:
    """The app as app.py starts it, in this process; gives its address."""
    from ui.catalog.models import ModelShelf
    from ui.page import build_demo, launch_options
    from ui.server.workspace import Workspace

    shelf = ModelShelf.find(str(checkpoint) if checkpoint else None, "cpu", models_folder)
    demo = build_demo(shelf, Workspace(runs_folder or models_folder / "runs"))
    _, address, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **launch_options())
    try:
        yield address
    finally:
        demo.close()
