"""Expert parallelism: each process keeps some experts of every layer, and tokens travel to their expert and back.

Two all-to-all exchanges a layer (GShard, 2006.16668; Switch Transformers, 2101.03961, section 5.4). Rows are exchanged,
not padded buffers: a dropped token and padding never leave their process.
Legend: K rows sorted by expert, R rows that arrive, D d_model, E experts, P processes of a group, L = E / P own ones.
Try it: model.spread_experts(ExpertGroup.of_launch(2)), in each of two processes
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from switch_model.layers.dispatch import inverse, permute_rows


@dataclass(frozen=True)
class ExpertGroup:
    """The processes that hold a layer's experts between them, as seen by one of them.

    Attributes:
        rank: number of this process in the group.
        count: P, processes in the group.
        exchanges: torch's process group for the exchanges.
        replicas: torch's process group of those with the same experts in other groups; None = there are no others.
        processes: processes of the whole training, by which gradients are averaged.
    """

    rank: int
    count: int
    exchanges: Any
    replicas: Any = None
    processes: int = 1

    def __deepcopy__(self, memo: dict) -> "ExpertGroup":
        return self  # A copy of a model talks to the same processes.

    @classmethod
    def of_launch(cls, count: int) -> "ExpertGroup":
        """The group of this process, of `count` with adjacent numbers. Every process must call it.

        Raises ValueError when the processes can't be divided into such groups.
        """
        processes, rank = dist.get_world_size(), dist.get_rank()
        if processes % count:
            raise ValueError(f"{processes} processes can't be divided into groups of {count}.")
        # Every process must take part in making every group.
        groups = [dist.new_group(range(first, first + count)) for first in range(0, processes, count)]
        replicas = [dist.new_group(range(place, processes, count)) for place in range(count) if processes > count]
        own = rank % count
        return cls(own, count, groups[rank // count], replicas[own] if replicas else None, processes)

    def own(self, whole: Tensor) -> Tensor:
        """This process's part of a tensor whose first dimension is the experts: a view."""
        return whole.chunk(self.count)[self.rank]

    def whole(self, own: Tensor, main: int = 0) -> Tensor | None:
        """The parts of all processes as one tensor on the CPU, in process `main` of the group; None in the others."""
        own = own.detach().contiguous()
        parts = [torch.empty_like(own) for _ in range(self.count)] if self.rank == main else None
        dist.gather(own, parts, group=self.exchanges, group_dst=main)
        return None if parts is None else torch.cat([part.cpu() for part in parts])

    def average_gradient(self, gradient: Tensor) -> Tensor:
        """An expert's gradient as DistributedDataParallel averages those of all other weights. The tokens of the
        group's processes are in it already; those of the other groups are added."""
        gradient = gradient / self.processes
        if self.replicas is not None:
            dist.all_reduce(gradient, group=self.replicas)
        return gradient


def computed_by_owners(
    hidden: Tensor, lengths: list[int], group: ExpertGroup, compute: Callable[[Tensor, list[int]], Tensor]
) -> Tensor:
    """Rows (K, D) sorted by expert -> (K, D), each computed by the process that has its expert. All processes of the
    group must call it, also with no rows; so does backward.

    Args:
        lengths: number of rows for each of the E experts.
        compute: rows sorted by own expert, and the number for each of the L own experts -> their outputs.
    """
    # 1. Every process says how many rows it has for each expert.
    own = len(lengths) // group.count
    leaving_PL = torch.tensor(lengths, device=hidden.device).view(group.count, own)
    coming_PL = torch.empty_like(leaving_PL)
    dist.all_to_all_single(coming_PL, leaving_PL, group=group.exchanges)
    leaving, coming = leaving_PL.sum(dim=1).tolist(), coming_PL.sum(dim=1).tolist()

    # 2. Rows travel to their experts. They arrive by sender, and by expert within each sender.
    arrived_RD = _Exchange.apply(hidden, leaving, coming, group.exchanges)

    # 3. The experts compute them, sorted by expert.
    expert_R = torch.arange(own, device=hidden.device).repeat(group.count).repeat_interleave(coming_PL.flatten())
    order_R = expert_R.argsort(stable=True)
    back_R = inverse(order_R, len(order_R))
    output_RD = compute(permute_rows(arrived_RD, order_R, back_R), coming_PL.sum(dim=0).tolist())

    # 4. Outputs travel back.
    return _Exchange.apply(permute_rows(output_RD, back_R, order_R), coming, leaving, group.exchanges)


class _Exchange(torch.autograd.Function):
    """apply(rows, rows for each process, rows from each process, process group); gradients travel the other way."""

    @staticmethod
    def exchange(rows: Tensor, leaving: list[int], coming: list[int], exchanges: Any) -> Tensor:
        arrived = rows.new_empty(sum(coming), rows.shape[1])
        dist.all_to_all_single(arrived, rows.contiguous(), coming, leaving, group=exchanges)
        return arrived

    @staticmethod
    def forward(ctx, rows: Tensor, leaving: list[int], coming: list[int], exchanges: Any) -> Tensor:
        ctx.leaving, ctx.coming, ctx.exchanges = leaving, coming, exchanges
        return _Exchange.exchange(rows, leaving, coming, exchanges)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.exchange(gradient, ctx.coming, ctx.leaving, ctx.exchanges), None, None, None
