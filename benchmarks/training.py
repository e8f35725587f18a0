"""Training: the overhead of a run, and its speed against transformers' own Switch encoder in a Trainer.

python -m benchmarks.training
"""

import statistics
import tempfile
import time

import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import SwitchTransformersConfig, SwitchTransformersEncoderModel, Trainer, TrainingArguments

from benchmarks.report import Measurement, table
from switch_model import SwitchForSequenceClassification
from switch_model.layers.pooling import pool
from train.arguments.arguments import Arguments
from train.runs.process import StopRequest
from train.runs.run import Run
from train.tasks.collators import PaddingCollator
from train.tasks.registry import TASKS
from train.training.progress import ProgressCallback
from train.training.trainer import SwitchTrainer
from train.training.trainer_arguments import training_arguments

TOKENS, BATCH, STEPS, VOCABULARY, CLASSES, ROUNDS = 64, 32, 100, 8000, 4, 5
# The base model's size; dropless, so that both libraries compute every token.
SIZE = dict(d_model=128, d_kv=32, d_ff=256, num_layers=4, num_heads=4, num_experts=8)


def rows() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    count = BATCH * STEPS
    ids = torch.randint(10, VOCABULARY, (count, TOKENS), generator=generator).tolist()
    labels = torch.randint(CLASSES, (count,), generator=generator).tolist()
    columns = {"input_ids": ids, "labels": labels, "length": [TOKENS] * count, "row": list(range(count))}
    return Dataset.from_dict(columns)


class TheirClassifier(nn.Module):
    """transformers' Switch encoder, mean pooling, a linear layer: what a person would write without this project."""

    def __init__(self):
        super().__init__()
        config = SwitchTransformersConfig(
            vocab_size=VOCABULARY,
            **SIZE,
            num_sparse_encoder_layers=SIZE["num_layers"],
            expert_capacity=TOKENS,
            router_jitter_noise=0.0,
        )
        self.encoder = SwitchTransformersEncoderModel(config)
        self.classifier = nn.Linear(config.d_model, CLASSES)

    def forward(self, input_ids, attention_mask, labels):
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.classifier(pool(hidden, attention_mask.bool(), "mean"))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def our_trainer(folder: str) -> SwitchTrainer:
    arguments = Arguments.resolve(
        SIZE
        | {"optimizer": "adamw", "epochs": 1.0, "batch_size": BATCH, "eval_steps": 10**9, "capacity_factor": "inf"}
        # No router noise, as in transformers' model.
        | {"switch_dropout": 0.0, "router_noise_eps": 0.0}
    )
    arguments.train.output_dir = folder
    torch.manual_seed(0)
    collator = PaddingCollator(0)
    run = Run.create(arguments)
    return SwitchTrainer(
        run=run,
        task=TASKS["classification"],
        settings=arguments.train,
        keep_best=lambda model, metrics: None,
        eval_collator=collator,
        model=SwitchForSequenceClassification(arguments.config(VOCABULARY, 0, [str(n) for n in range(CLASSES)])),
        progress=ProgressCallback(run, StopRequest(run), max_minutes=None, resumed_from=None),
        args=training_arguments(arguments.train, TASKS["classification"], run, "cpu", None, logging_steps=50),
        train_dataset=rows(),
        eval_dataset=rows().select(range(BATCH)),
        data_collator=collator,
    )


def seconds_of_a_run() -> float:
    """STEPS steps of a whole run: loading, routing statistics and lines of metrics, but no evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = our_trainer(folder)
        trainer._save_checkpoint = lambda *_: None
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def seconds_of_a_bare_loop() -> float:
    """Forward, backward, clipping and the optimizer on the same batches, made beforehand."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = our_trainer(folder)
        trainer.create_optimizer_and_scheduler(STEPS)
        batches = list(trainer.get_train_dataloader())
        model = trainer.model.train()
        start = time.perf_counter()
        for batch in batches:
            model(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            trainer.optimizer.step()
            trainer.lr_scheduler.step()
            trainer.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def seconds_of_theirs() -> float:
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        trainer = Trainer(
            model=TheirClassifier(),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=BATCH,
                learning_rate=1e-3,
                logging_steps=50,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                remove_unused_columns=False,
            ),
            train_dataset=rows(),
            data_collator=PaddingCollator(0),
        )
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def measurements() -> list[Measurement]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_flush_denormal(True)
    times = {run: [] for run in (seconds_of_a_run, seconds_of_a_bare_loop, seconds_of_theirs)}
    for turn in range(ROUNDS + 1):
        for run, own in times.items():
            seconds = run()
            if turn:  # The first round warms up.
                own.append(seconds)
    ours, bare, theirs = times.values()
    efficiency = statistics.median(b / o for b, o in zip(bare, ours, strict=True))
    faster = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    note = f"{1000 * statistics.median(ours) / STEPS:.0f} ms a step of {BATCH} × {TOKENS} tokens"
    return [
        Measurement("bare forward, backward, optimizer / a training run's steps", efficiency, 0.85, 0.95, True, note),
        Measurement("transformers' Switch encoder in a Trainer / our training", faster, 1.3, 1.6, True),
    ]


if __name__ == "__main__":
    print(table(measurements()))
