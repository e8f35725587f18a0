"""What the tests of the app share: a tiny checkpoint with random weights, and the app on a free port.

Try it: save_tiny_checkpoint(folder)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from switch_model import SwitchConfig, SwitchForSequenceClassification, save_checkpoint

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


@contextmanager
def running_app(checkpoint: Path | None, models_folder: Path, runs_folder: Path | None = None) -> Iterator[str]:
    """The app as app.py starts it, in this process; gives its address."""
    from ui.demo import build_demo, launch_options
    from ui.models import ModelShelf
    from ui.workshop import Workshop

    shelf = ModelShelf.find(str(checkpoint) if checkpoint else None, "cpu", models_folder)
    demo = build_demo(shelf, Workshop(runs_folder or models_folder / "runs"))
    _, address, _ = demo.launch(server_name="127.0.0.1", prevent_thread_lock=True, **launch_options())
    try:
        yield address
    finally:
        demo.close()
