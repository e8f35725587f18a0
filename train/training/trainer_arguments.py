"""Our training arguments as the Trainer's."""

from transformers import TrainingArguments

from train.arguments.groups import TrainArguments
from train.runs.run import Run
from train.tasks.registry import Task


def compiles(arguments: TrainArguments, device: str) -> bool:
    """Whether to compile the model: as requested; by default on CUDA, unless the residual changes at every step,
    weights are divided among processes, or adapters are put to them at every step."""
    if arguments.compile is not None:
        return arguments.compile
    return device == "cuda" and not (arguments.residual_decay or arguments.divides or arguments.lora_rank)


def training_arguments(
    arguments: TrainArguments, task: Task, run: Run, device: str, max_steps: int | None, logging_steps: int
) -> TrainingArguments:
    """Our arguments -> the Trainer's. `max_steps` overrides the epochs; None = the epochs decide."""
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        num_train_epochs=arguments.epochs,
        max_steps=max_steps or -1,
        per_device_train_batch_size=arguments.batch_size,
        per_device_eval_batch_size=max(arguments.batch_size, 64),
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        bf16=arguments.precision == "bfloat16",
        fp16=arguments.precision == "float16",
        torch_compile=compiles(arguments, device),
        accelerator_config={
            # Of rows that are read as they come, each process reads all and takes its own.
            "dispatch_batches": False,
            # Divided gradients are added up after each batch, and not at full size until the step.
            **({"gradient_accumulation_kwargs": {"sync_each_batch": True}} if arguments.fsdp else {}),
        },
        learning_rate=arguments.lr or 1e-3,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(arguments.lr_schedule, arguments.lr_schedule),
        warmup_steps=arguments.warmup,
        weight_decay=arguments.weight_decay,
        max_grad_norm=arguments.grad_clip,
        eval_strategy="steps" if arguments.eval_steps else "epoch",
        eval_steps=arguments.eval_steps,
        save_strategy="steps" if arguments.eval_steps else "epoch",
        save_steps=arguments.eval_steps or 500,
        save_total_limit=arguments.save_total_limit,
        logging_steps=logging_steps,
        seed=arguments.seed,
        use_cpu=device == "cpu",
        prediction_loss_only=not task.labelled,
        report_to="none",
        label_names=["labels"],
        # Our collators select the model's inputs, and the sampler needs the lengths.
        remove_unused_columns=False,
    )
