"""What several processes can't do, in words, before a run starts.

Try it: torchrun --nproc_per_node 2 -m train --dataset toy --capacity_group batch
"""

from switch_model.commands import command
from switch_model.layers.experts import Experts
from switch_model.models.pretrained import SwitchPreTrainedModel
from train.arguments.arguments import Arguments
from train.arguments.groups import TrainArguments
from train.distributed.processes import Processes
from train.formatting import counted, pasted
from train.runs.run import Run, RunError


def check_several(processes: Processes, arguments: Arguments) -> None:
    """Raise ValueError for arguments that mean something else in several processes than in one, or need more of
    them."""
    if arguments.train.divides:
        _check_divided(processes, arguments.train)
    if processes.count == 1:
        return
    if arguments.model.capacity_group == "batch":
        raise ValueError(
            f"--capacity_group batch is not possible in {processes.count} processes: each sees only its share of the "
            "batch. Take --capacity_group sequence, or start one process."
        )


def _check_divided(processes: Processes, train: TrainArguments) -> None:
    over = train.expert_parallel
    flag, least = ("--fsdp", 2) if train.fsdp else (f"--expert_parallel {over}", over)
    if train.fsdp and over > 1:
        raise ValueError("--fsdp and --expert_parallel both divide the experts: take one of them.")
    if processes.count < least or (over > 1 and processes.count % over):
        raise ValueError(
            f"{flag} is not possible in {counted(processes.count, 'process', 'processes')}: it needs "
            f"{'several' if train.fsdp else f'{over}, or a multiple'}. Start them with: torchrun --nproc_per_node "
            f"{least} -m train …"
        )
    refused = [
        (train.optimizer == "adafactor", "--optimizer adafactor", "scales its steps by whole weights", "adamw"),
        (train.precision == "float16", "--precision float16", "decides in each process to skip a step", "bfloat16"),
        (train.lora_rank > 0, "--lora_rank", "trains adapters beside whole weights", "0"),
        (bool(train.compile), "--compile true", "wants a model that is not divided", "false"),
        (train.fsdp and train.ema_decay > 0, "--ema_decay", "needs a copy of the whole model", "0"),
    ]
    for found, other, why, instead in refused:
        if found:
            raise ValueError(f"{flag} is not possible with {other}, which {why}: take {other.split()[0]} {instead}.")


def check_experts(over: int, model: SwitchPreTrainedModel) -> None:
    """Raise ValueError when a model's experts can't be spread evenly over `over` processes."""
    experts = model.config.num_experts
    if over > 1 and not any(isinstance(module, Experts) for module in model.modules()):
        raise ValueError(f"--expert_parallel {over} is not possible: the model has no experts in its MLPs to spread.")
    if experts % over:
        raise ValueError(
            f"--expert_parallel {over} is not possible with {experts} experts: it must divide them evenly."
        )


def check_same_number(run: Run, began: int, now: int) -> None:
    """Raise RunError when a run is resumed by another number of processes than began it: its batches would differ."""
    if began == now:
        return
    words = "one process" if began == 1 else f"{began} processes"
    again = f"{command('resume')} {pasted(run.folder)}"
    if began > 1:
        again = f"torchrun --nproc_per_node {began} -m train resume {pasted(run.folder)}"
    raise RunError(
        f"{run.folder} was begun by {words}, and its batches depend on their number: resume it by as many. The "
        f"command: {again}"
    )


def several_in_words(processes: Processes, arguments: Arguments) -> str:
    """How large the global batch of several processes is."""
    own, several = arguments.train.batch_size, arguments.train.gradient_accumulation_steps
    texts = own * several * processes.count
    times = f" × {several} batches" if several > 1 else ""
    words = f"{processes.count} processes × {own} texts{times}: {texts:,} texts per step."
    if (over := arguments.train.expert_parallel) > 1:
        words += f" The experts of each layer are spread over {over} processes."
    if arguments.train.fsdp:
        words += " All weights are divided among them."
    return words
