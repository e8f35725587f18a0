"""What several processes can't do, in words, before a run starts.

Try it: torchrun --nproc_per_node 2 -m train --dataset toy --capacity_group batch
"""

from switch_model.commands import command
from train.arguments.arguments import Arguments
from train.distributed.processes import Processes
from train.formatting import pasted
from train.runs.run import Run, RunError


def check_several(processes: Processes, arguments: Arguments) -> None:
    """Raise ValueError for arguments that mean something else in several processes than in one."""
    if processes.count == 1:
        return
    if arguments.model.capacity_group == "batch":
        raise ValueError(
            f"--capacity_group batch is not possible in {processes.count} processes: each sees only its share of the "
            "batch. Take --capacity_group sequence, or start one process."
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
    return f"{processes.count} processes × {own} texts{times}: {texts:,} texts per step."
