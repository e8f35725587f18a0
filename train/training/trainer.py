"""SwitchTrainer: transformers' Trainer with routing metrics and an average of the weights.

Loop, checkpoints, resume, logging and devices are the Trainer's.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers import ProgressCallback as ProgressBarCallback
from transformers.optimization import Adafactor, AdafactorSchedule

from switch_model.models.pretrained import IGNORED_LABEL, SwitchPreTrainedModel
from train.arguments.groups import TrainArguments
from train.distributed.divided import ClipAll, Divided
from train.distributed.global_batch import Counts, loss_of_share
from train.distributed.processes import Processes
from train.runs.run import Run
from train.runs.trainer_files import AVERAGE_FILE
from train.tasks.collators import TEACHER
from train.tasks.generation import SampleWriter
from train.tasks.registry import Task
from train.tasks.teaching import TokenTeachers, distillation_loss
from train.training.annealing import ResidualAnnealing
from train.training.balancing import Rebalance
from train.training.batch_totals import BatchTotals
from train.training.parts.lora import has_adapters, load_adapters, merged_model, merged_state, save_adapters
from train.training.progress import ProgressCallback, line_of_log
from train.training.sampler import LengthGroupedOrder, SetEpoch
from train.training.weight_averaging import UpdateAverage, warmed_up_average


class _Resume(TrainerCallback):
    """Restores the trainer's own state before the first step of a resumed run."""

    def __init__(self, trainer: "SwitchTrainer", checkpoint: Path):
        self.trainer, self.checkpoint = trainer, checkpoint

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.resume_from(self.checkpoint)


class SwitchTrainer(Trainer):
    """Adds to the Trainer: routing metrics per sparse layer, an exponential moving average of the weights, metrics as
    JSON lines, and a callback for every new best model.

    Args:
        run: the run to which metrics are written.
        task: the task.
        settings: the training arguments.
        eval_collator: rows -> a validation batch.
        keep_best: called with the (averaged) model and its metrics whenever they are the best so far.
        progress: writes progress, and stops the run.
        report: receives every line of metrics, for TensorBoard and W&B.
        probe: the (averaged) model -> routing of the probe text, recorded at every evaluation.
        resume_from: the checkpoint from which a run is resumed.
        tokens_before: tokens trained on before the resume.
        train_lengths: tokens of each training row; None = the rows' column `length`.
        sample_writer: generates and scores texts with the (averaged) model at every evaluation.
        characters_per_token: of the validation texts, for bits per character.
        teachers: models that a language model learns from.
        processes: the processes that share every batch; only the main one writes.
        divide: divides the model's weights among them; None = each has the whole model.
    """

    def __init__(
        self,
        *,
        run: Run,
        task: Task,
        settings: TrainArguments,
        keep_best: Callable[[SwitchPreTrainedModel, dict], None],
        eval_collator: Callable,
        progress: ProgressCallback,
        report: Callable[[dict[str, Any]], None] | None = None,
        probe: Callable[[SwitchPreTrainedModel], dict[str, Any]] | None = None,
        resume_from: Path | None = None,
        tokens_before: int = 0,
        train_lengths: list[int] | None = None,
        sample_writer: SampleWriter | None = None,
        characters_per_token: float | None = None,
        processes: Processes | None = None,
        teachers: TokenTeachers | None = None,
        divide: Callable[[SwitchPreTrainedModel], Divided] | None = None,
        **kwargs,
    ):
        # A search for weights without gradient costs time; only the last norm of these models has none.
        kwargs["args"].ddp_find_unused_parameters = kwargs["model"].config.readout == "experts"
        super().__init__(**kwargs)
        self.processes, self.teachers = processes or Processes(), teachers
        self.adapted = has_adapters(self.model)
        self._divide(divide)
        self.run = run
        self.task = task
        self.settings = settings
        self.keep_best = keep_best
        self.eval_collator = eval_collator
        self.progress = progress
        self.report = report
        self.probe = probe
        self.tokens: Tensor | int = tokens_before
        rows_per_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.processes.count
        lengths = list(self.train_dataset["length"]) if train_lengths is None else train_lengths
        self.sample_writer, self.characters_per_token = sample_writer, characters_per_token
        self.order = LengthGroupedOrder(lengths, rows_per_step, settings.seed)
        self.add_callback(SetEpoch(self.order, self.data_collator))
        self.best: float | None = None
        self.batches = BatchTotals()
        # Frozen routers keep their biases too.
        routers = any(weight.requires_grad for name, weight in self.model.named_parameters() if ".router." in name)
        self.rebalance = Rebalance(self.processes) if routers and self.model.config.balances_by_bias else None
        if self.rebalance is not None:
            self.add_callback(self.rebalance)
        if settings.residual_decay:
            self.add_callback(ResidualAnnealing(self.model, settings.residual_decay))
        self.average: AveragedModel | None = None
        if settings.ema_decay > 0:
            self.average = AveragedModel(self.model, multi_avg_fn=warmed_up_average(settings.ema_decay))
            self.add_callback(UpdateAverage(self.average))
        if resume_from is not None:
            self.add_callback(_Resume(self, resume_from))
        self.add_callback(progress)
        # `log` prints readable lines instead of their dictionaries.
        for printing in (PrinterCallback, ProgressBarCallback):
            self.remove_callback(printing)

    def _divide(self, divide: Callable[[SwitchPreTrainedModel], Divided] | None) -> None:
        """Divide the model's weights, and replace what the Trainer does with each process's own part."""
        self.divided = divide(self.model) if divide else None
        self.clipping = ClipAll(self.divided, self.args.max_grad_norm) if self.divided else None
        if self.divided:
            self.args.max_grad_norm = 0.0
            self.add_callback(self.clipping)
            # All weights divided: the Trainer must not average their gradients again.
            self.is_distributed_loading_by_transformers = all(map(self.divided.is_divided, self.model.parameters()))

    @property
    def kept_model(self) -> SwitchPreTrainedModel:
        """The model that is evaluated and kept: the weight average, if there is one."""
        return self.model if self.average is None else self.average.module

    def whole(self, model: SwitchPreTrainedModel) -> SwitchPreTrainedModel | None:
        """The ordinary model, with all its weights and without adapters, in the main process; where weights are
        divided, None in the others, and every process must call it."""
        return merged_model(model) if self.divided is None else self.divided.whole_model(model)

    # Losses and statistics

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = dict(inputs)
        own = self._own_rows(len(inputs["attention_mask"]), model.training)
        if model.training and own < len(inputs["attention_mask"]):
            inputs = {name: tensor[: max(own, 1)] for name, tensor in inputs.items()}
        teacher_BC = inputs.pop(TEACHER, None)
        outputs = model(**inputs, output_routing=True)
        if model.training:
            loss = outputs.loss
            if teacher_BC is not None:
                loss = loss + self.settings.teacher_coef * distillation_loss(outputs.logits, teacher_BC)
            if self.teachers is not None:
                loss = loss + self.settings.teacher_coef * self.teachers.loss(inputs, outputs.logits)
            loss = self._loss_in_training(loss, outputs, inputs, own)
        else:
            loss = outputs.loss
            self._count_own(model, outputs, inputs, own)
        return (loss, outputs) if return_outputs else loss

    def _own_rows(self, rows: int, training: bool) -> int:
        """How many of a batch's rows are this process's own. All processes get equally many batches of one size, for
        which the last one may repeat rows."""
        several, data = self.processes, self.train_dataset if training else self.eval_dataset
        if several.count == 1 or not self.accelerator.gradient_state.end_of_dataloader:
            return rows
        left = len(data) % (rows * several.count)
        return min(max(left - several.rank * rows, 0), rows) if left else rows

    def _loss_in_training(self, loss: Tensor, outputs, inputs, own: int) -> Tensor:
        """The loss of the batch, or this process's part of it; adds the batch to the totals."""
        records = outputs.routing or ()
        tokens = inputs["attention_mask"].sum()
        if self.task.model_class.stacks == ("encoder", "decoder"):
            tokens = tokens + (inputs["labels"] != IGNORED_LABEL).sum()
        predictions = self._count(outputs, inputs) if own else 0
        if own and self.rebalance is not None:
            self.rebalance.add(records)
        not_finite = ~torch.isfinite(outputs.loss.detach())
        if self.processes.count > 1:
            counts = Counts.of(outputs.loss, records, predictions, tokens)
            counts = counts if own else counts.of_nothing()
            whole = counts.total(self.processes)
            loss = loss_of_share(loss, records, self.model.config, counts, whole, self.processes.count)
            tokens, not_finite = whole.tokens, whole.not_finite > 0
        self.tokens = self.tokens + tokens
        if not_finite:
            raise FloatingPointError(
                f"The loss became {float(outputs.loss.detach())} at step {self.state.global_step}: try a lower --lr."
            )
        return loss

    def _count(self, outputs, inputs) -> int:
        """Add a batch to the totals; returns its number of predictions."""
        if outputs.logits is None:
            hits = None, int((inputs["labels"] != IGNORED_LABEL).sum())
        else:
            hits = self.task.hits(outputs.logits.detach(), inputs["labels"])
        self.batches.add(outputs.routing or (), *hits, self._cross_entropy(outputs))
        return hits[1]

    def _count_own(self, model, outputs, inputs, own: int) -> None:
        """Add the process's own rows of a batch of an evaluation to the totals."""
        rows = len(inputs["attention_mask"])
        last = self.divided is not None and self.accelerator.gradient_state.end_of_dataloader
        # With divided weights all must compute, for the one whose own rows are a part of the batch.
        if 0 < own < rows or (last and len(self.eval_dataset) % rows):
            inputs = {name: tensor[: max(own, 1)] for name, tensor in inputs.items()}
            with torch.no_grad():
                outputs = model(**inputs, output_routing=True)
        if own:
            self._count(outputs, inputs)

    def _cross_entropy(self, outputs) -> Tensor:
        """The loss without the auxiliary losses."""
        loss = outputs.loss.detach()
        return loss if outputs.auxiliary_loss is None else loss - outputs.auxiliary_loss.detach()

    def evaluation_loop(self, *args, **kwargs):
        """The Trainer's, with perplexity, bits per character and metrics of generated texts. Its loss is that of the
        task: with the auxiliary losses, runs that weigh them differently could not be compared."""
        output = super().evaluation_loop(*args, **kwargs)
        self.batches = self.batches.over(self.processes)
        metrics: dict[str, float] = {}
        if self.batches.seen:
            metrics["loss"] = nats = self.batches.nats
        if not self.task.labelled and self.batches.seen:
            metrics["perplexity"] = math.exp(min(nats, 700.0))
            if self.characters_per_token is not None:
                metrics["bits_per_character"] = nats / math.log(2) / self.characters_per_token
        if self.sample_writer is not None:
            metrics |= self.processes.by_main(partial(self._write_samples, self.whole(self.model)))
        output.metrics.update({f"eval_{name}": value for name, value in metrics.items()})
        return output

    def _write_samples(self, model: SwitchPreTrainedModel) -> dict[str, float]:
        """Generate texts, and record and print some; returns their metrics."""
        written, samples = self.sample_writer(model)
        self.run.append_metrics({"kind": "samples"} | self._when() | {"samples": samples})
        for sample in samples:
            print("\n".join(f"  {what}: {text}" for what, text in sample.items()), flush=True)
        if self.report is not None:
            self.report({"kind": "samples", "step": self.state.global_step, "samples": samples})
        return written

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        return self.order

    def get_eval_dataloader(self, eval_dataset=None):
        training, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        training, self.batches = self.batches, BatchTotals()
        model = self.model
        self.progress.set_phase("evaluating")
        try:
            if self.average is not None:
                self.model = self.model_wrapped = self.kept_model
            metrics = super().evaluate(*args, **kwargs)
            value = metrics[f"eval_{self.task.best}"]
            better = self.best is None or self.task.better(value, than=self.best)
            whole = self.whole(self.model) if better or self.probe is not None else None
            if better:
                self.best = value
                if self.processes.is_main:
                    self.keep_best(whole, metrics | {"step": self.state.global_step, "epoch": self.state.epoch})
            if self.probe is not None and self.processes.is_main:
                self.run.append_metrics({"kind": "probe"} | self._when() | self.probe(whole))
        finally:
            self.model = self.model_wrapped = model
            self.batches = training
        self.progress.set_phase("training")
        return metrics

    def _when(self) -> dict[str, Any]:
        return {
            "step": self.state.global_step,
            "epoch": self.state.epoch,
            "seconds": round(self.progress.seconds, 2),
            "tokens": int(self.tokens),
        }

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write a line of metrics to the run's folder, with routing metrics of the batches since the last one, and a
        readable line to its log."""
        kind = "eval" if any(key.startswith("eval_") for key in logs) else "end" if "train_runtime" in logs else "train"
        if kind == "train":  # Those of an evaluation are added up already.
            self.batches = self.batches.over(self.processes)
        if kind == "eval" and self.batches.seen:
            logs.setdefault("eval_accuracy", self.batches.accuracy)
        record: dict[str, Any] = {"kind": kind} | self._when()
        record |= {key.removeprefix("eval_"): value for key, value in logs.items() if _is_finite(value)}
        if kind == "train" and self.batches.seen and self.batches.counted:
            record["accuracy"] = self.batches.accuracy
        if kind == "train" and self.batches.seen:
            record["task_loss"] = self.batches.nats
        if "grad_norm" in record and self.clipping is not None:
            record["grad_norm"] = self.clipping.norm
        if kind != "end":
            record["routing"] = self.batches.routing.summary()
            self.batches = BatchTotals()
        if self.processes.is_main:
            self.run.append_metrics(record)
            print(line_of_log(record, self.state.max_steps), flush=True)
            if self.report is not None:
                self.report(record)
        super().log(logs, start_time)

    # Optimizer

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            settings = self.settings
            decayed, plain = [], []
            for parameter in self.model.parameters():
                (decayed if parameter.dim() >= 2 else plain).append(parameter)
            groups = [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ]
            if settings.optimizer == "adamw":
                self.optimizer = torch.optim.AdamW(groups, lr=settings.lr or 1e-3, fused=True)
            else:
                self.optimizer = Adafactor(
                    groups,
                    lr=settings.lr,
                    relative_step=settings.lr is None,
                    scale_parameter=settings.lr is None,
                    clip_threshold=settings.adafactor_clip_threshold,
                )
            if self.divided is not None:
                self.divided.watch(self.optimizer)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        if self.settings.optimizer == "adafactor" and self.settings.lr is None:
            # accelerate may have wrapped the optimizer; the schedule reads Adafactor's own state.
            self.lr_scheduler = AdafactorSchedule(getattr(self.optimizer, "optimizer", self.optimizer))
            return self.lr_scheduler
        return super().create_scheduler(num_training_steps, optimizer)

    # Average of the weights

    def save_model(self, output_dir: str | None = None, **options: Any) -> None:
        """Save the model's weights and, beside them, their average. Divided ones are gathered first, as is the
        optimizer's state, which the Trainer saves next."""
        folder = Path(output_dir or self.args.output_dir)
        if self.divided is None and not self.adapted:
            super().save_model(output_dir, **options)
        else:
            whole = self.whole(self.model)
            if self.args.should_save:
                whole.save_pretrained(str(folder))
        if self.divided is not None:
            self.divided.gather(getattr(self.optimizer, "optimizer", self.optimizer))
        if self.average is not None:
            state = merged_state(self.average) if self.divided is None else self.divided.whole_state(self.average)
            if self.args.should_save:
                save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / AVERAGE_FILE)
        if self.adapted and self.args.should_save:
            save_adapters(folder, self.model, self.average)

    def resume_from(self, checkpoint: Path) -> None:
        """Restore what the Trainer does not: the best metric so far, the weight average, and adapters."""
        for record in self.run.metrics("eval"):
            value = record.get(self.task.best)
            if value is not None and (self.best is None or self.task.better(value, than=self.best)):
                self.best = value
        if self.average is not None:
            self.average.load_state_dict(load_file(checkpoint / AVERAGE_FILE), strict=not self.adapted)
        if self.adapted:
            load_adapters(checkpoint, self.model, self.average)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
