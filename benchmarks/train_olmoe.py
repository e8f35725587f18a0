"""Train a small OLMoE, 8 of 32 experts per token, on TinyStories with transformers' own Trainer and RoutingMonitor.

It shows two things: that nothing of this package is needed to train a model that it can open, and what several experts
per token look like after training. Resumable: a second call goes on from the last checkpoint.
Run: python -m benchmarks.train_olmoe --output runs/olmoe --steps 2400
"""

import argparse
import json
import math
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import OlmoeConfig, OlmoeForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from switch_model.monitor import RoutingMonitor
from train.data.loading import load_split
from train.data.source import DataSource

VOCABULARY, BLOCK = 4_000, 256
END = "<|endoftext|>"


def texts_of(split: str, count: int | None = None) -> list[str]:
    """Stories without those whose quotation marks were damaged by a wrong decoding."""
    rows, _ = load_split(DataSource("tiny_stories", split=split), labelled=False)
    texts = [text for text in rows["text"] if "â" not in text]
    return texts[:count]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as OLMoE's own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=BLOCK)


def blocks(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Dataset:
    """The stories one after another, in rows of BLOCK tokens."""
    ids: list[int] = []
    for encoded in tokenizer.backend_tokenizer.encode_batch(texts):
        ids += [*encoded.ids, tokenizer.eos_token_id]
    rows = torch.tensor(ids[: len(ids) // BLOCK * BLOCK]).view(-1, BLOCK).tolist()
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


def new_model(tokenizer: PreTrainedTokenizerFast) -> OlmoeForCausalLM:
    end = tokenizer.eos_token_id
    config = OlmoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        num_experts=32,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        output_router_logits=True,
        router_aux_loss_coef=0.01,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return OlmoeForCausalLM(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/olmoe"))
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=2e-3)
    options = parser.parse_args()
    torch.manual_seed(0)
    stories = texts_of("train")
    tokenizer = train_tokenizer(stories)
    train_rows, validation = blocks(stories, tokenizer), blocks(texts_of("validation", 400), tokenizer)
    arguments = TrainingArguments(
        str(options.output),
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.lr,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.1,
        adam_beta2=0.95,
        logging_steps=20,
        eval_strategy="steps",
        eval_steps=300,
        save_steps=300,
        save_total_limit=1,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=0,
    )
    model = new_model(tokenizer)
    trainer = Trainer(
        model,
        arguments,
        train_dataset=train_rows,
        eval_dataset=validation,
        callbacks=[RoutingMonitor(options.output, data="tiny_stories")],
    )
    last = get_last_checkpoint(str(options.output)) if options.output.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    found = trainer.evaluate()
    best = options.output / "best"
    model.half().save_pretrained(best)
    tokenizer.save_pretrained(best)
    print(
        json.dumps(
            {
                "parameters": model.num_parameters(),
                "train_tokens": len(train_rows) * BLOCK,
                "perplexity": round(math.exp(found["eval_loss"]), 2),
                "bytes": sum(file.stat().st_size for file in best.iterdir()),
            }
        )
    )


if __name__ == "__main__":
    main()
