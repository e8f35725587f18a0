"""Training with all weights, gradients and optimizer state divided among the processes (--fsdp): torch's FSDP2.

Each block's weights are gathered when it computes, and dropped afterwards. Sharded here by torch itself and not by
Trainer's `fsdp_config`, which accelerate ignores without a word on a CPU, and whose checkpoints are files of its own.
Try it: torchrun --nproc_per_node 2 -m train --fsdp true --optimizer adamw
"""

import warnings
from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from switch_model.layers.allocator import return_freed_memory
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.stack import Block
from train.distributed.divided import Divided


class ShardedWeights(Divided):
    """A model's weights, divided among all processes from now on. Every process must make it."""

    gathers = True

    def __init__(self, model: SwitchPreTrainedModel):
        self.is_main = dist.get_rank() == 0
        self._class = type(model)  # fully_shard gives the model another one.
        # What a block has gathered would stay with the process, once for each block.
        return_freed_memory()
        # Blocks return views, into which nothing here writes.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
        mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
        for module in model.modules():
            if isinstance(module, Block):
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        model.register_load_state_dict_pre_hook(_take_own)

    def names(self, model: nn.Module) -> set[str]:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # An evaluation leaves some weights gathered.
        return {name for name, weight in model.named_parameters() if isinstance(weight, DTensor)}

    def is_divided(self, weight: Tensor) -> bool:
        return isinstance(weight, DTensor)

    def whole(self, own: Tensor) -> Tensor | None:
        whole = own.detach().full_tensor()
        return whole.cpu() if self.is_main else None

    def own(self, whole: Tensor, weight: nn.Parameter) -> Tensor:
        return _own(whole, weight)

    def norm(self, weights: Sequence[nn.Parameter]) -> Tensor:
        return get_total_norm([weight.grad for weight in weights]).full_tensor()

    def class_of(self, model: SwitchPreTrainedModel) -> type[SwitchPreTrainedModel]:
        return self._class


def _own(whole: Tensor, weight: Tensor) -> Tensor:
    if isinstance(whole, DTensor):
        return whole
    # Every process has the whole tensor: nothing is sent.
    return distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements, src_data_rank=None)


def _take_own(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
    for name, weight in model.named_parameters():
        if prefix + name in state_dict and isinstance(weight, DTensor):
            state_dict[prefix + name] = _own(state_dict[prefix + name], weight)
