"""The processes of one training, started by torchrun or accelerate launch, and what they tell each other.

Each has the whole model and a share of every batch; torch's DistributedDataParallel, which the Trainer sets up,
averages their gradients. Only the main process, number 0, writes files. Without a launcher there is one process: every
function gives its own value back, and nothing waits.
Try it: torchrun --nproc_per_node 2 -m train --dataset toy --device cpu
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train.launch import cannot_train
from train.runs.run import RunError

Value = TypeVar("Value")
# How long a process waits for another: a run may be queued behind others for days.
LONGEST_WAIT = timedelta(days=7)
# Exit status of a process that ends because the main one has failed, and has said why.
MAIN_FAILED = 2


@dataclass(frozen=True)
class Processes:
    """This process among `count`: its number `rank`, and the device on which it exchanges tensors."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files and prints."""
        return self.rank == 0

    def by_main(self, work: Callable[[], Value]) -> Value:
        """The result of `work`, which only the main process does. When it fails there, all processes end."""
        if self.count == 1:
            return work()
        answer: list[Any] = [False, None]
        try:
            if self.is_main:
                answer = [True, work()]
        finally:
            dist.broadcast_object_list(answer, device=torch.device(self.device))
        if not answer[0]:
            sys.exit(MAIN_FAILED)
        return answer[1]

    def each(self, value: Value) -> list[Value]:
        """Every process's value, in the order of their numbers."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count == 1:
            return numbers
        summed = numbers.detach().to(self.device, copy=True)
        dist.all_reduce(summed)
        return summed.to(numbers.device)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether it is set in any process."""
        return [count > 0 for count in self.total(torch.tensor([float(flag) for flag in flags])).tolist()]

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Context in which the loss of another process is a RunError, not one of the library that connects them."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1 or not any(name in str(error) for name in ("gloo", "NCCL", "Connection")):
                raise
            raise RunError(
                "Another process of this run ended unexpectedly: killed, out of memory, or its machine went down."
            ) from error

    def share_weights(self, model: nn.Module) -> None:
        """Give every process the main one's weights and buffers."""
        if self.count > 1:
            for tensor in model.state_dict().values():
                there = tensor.to(self.device)
                dist.broadcast(there, 0)
                tensor.copy_(there)


@contextmanager
def processes_of_launch(wanted: str | None) -> Iterator[Processes]:
    """Context in which the processes of a launch are connected. All but the main one print no progress.

    Args:
        wanted: "cpu" or "cuda"; None = cuda where there is one. Each process takes a GPU of its own.

    Raises:
        ValueError: for processes that a launcher has started without telling each its number.
    """
    if said := cannot_train():
        raise ValueError(said)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    device = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=LONGEST_WAIT)
    here = Processes(dist.get_rank(), count, device)
    try:
        with open(os.devnull, "w") as nowhere, nullcontext() if here.is_main else redirect_stdout(nowhere):
            yield here
    finally:
        # Also after a failure: then the others see at once that this process is gone.
        dist.destroy_process_group()
