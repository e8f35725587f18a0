"""Training with the experts of each layer spread over processes (--expert_parallel), in ordinary checkpoints.

The files of a run are those of one process: the main process gathers all experts, and their optimizer's state, whenever
it writes them, and every process takes its own out of them when the run is resumed. All other weights are in every
process, as without the flag.
Try it: torchrun --nproc_per_node 2 -m train --expert_parallel 2 --num_experts 8 --optimizer adamw
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from transformers import TrainerCallback

from switch_model.layers.expert_parallel import ExpertGroup
from switch_model.layers.experts import Experts
from switch_model.models.pretrained import SwitchPreTrainedModel


class SpreadExperts:
    """A model's experts, spread over groups of `count` processes from now on. Every process must make it.

    Attributes:
        group: the processes that share this one's experts.
    """

    def __init__(self, model: SwitchPreTrainedModel, count: int):
        self.group = ExpertGroup.of_launch(count)
        model.spread_experts(self.group)
        # Their gradients are averaged by the layer itself.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, sorted(_names(model)))
        self._parameters = {id(weight) for name, weight in model.named_parameters() if name in _names(model)}
        self._optimizer_state: dict[int, dict[str, Any]] = {}

    def is_spread(self, weight: nn.Parameter) -> bool:
        """Whether the model's weight is one of experts, of which other processes have theirs."""
        return id(weight) in self._parameters

    # Whole weights

    def whole_state(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The state dict with all experts in the main process; None in the others. Every process must call it."""
        if dist.get_rank() >= self.group.count:
            return None  # Other groups have the same experts.
        names = _names(model)
        state = {
            name: self.group.whole(tensor) if name in names else tensor for name, tensor in model.state_dict().items()
        }
        return state if self.group.rank == 0 else None

    def whole_model(self, model: SwitchPreTrainedModel) -> SwitchPreTrainedModel | None:
        """An ordinary model with the same weights in the main process; None in the others. Every process must call
        it."""
        state = self.whole_state(model)
        if state is None:
            return None
        with torch.device("meta"):
            whole = type(model)(model.config)
        whole.load_state_dict(state, strict=True, assign=True)
        return whole.eval().to(model.device)

    # The optimizer's state

    def watch(self, optimizer: Optimizer) -> None:
        """From now on the optimizer's state dict has what `gather` has gathered, and a whole one may be loaded."""
        optimizer.register_state_dict_post_hook(self._add_gathered)
        optimizer.register_load_state_dict_pre_hook(self._own_part)

    def gather(self, optimizer: Optimizer) -> None:
        """Gather the state of all experts in the main process, for its next state dict. Every process must call it."""
        if dist.get_rank() >= self.group.count:
            return
        for index in self._indices(optimizer):
            values = {}
            for name, value in optimizer.state[_parameters(optimizer)[index]].items():
                values[name] = self.group.whole(value) if _is_of_experts(value) else value
            if self.group.rank == 0:
                self._optimizer_state[index] = values

    def _indices(self, optimizer: Optimizer) -> list[int]:
        return [index for index, weight in enumerate(_parameters(optimizer)) if self.is_spread(weight)]

    def _add_gathered(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        # In a new dictionary: the inner ones are the optimizer's own.
        state_dict["state"] = state_dict["state"] | self._optimizer_state
        self._optimizer_state = {}

    def _own_part(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        state = dict(state_dict["state"])
        for index, weight in enumerate(_parameters(optimizer)):
            if index in state and self.is_spread(weight):
                state[index] = {
                    name: self.group.own(value) if _is_of_experts(value) and len(value) > len(weight) else value
                    for name, value in state[index].items()
                }
        return state_dict | {"state": state}


class ClipAll(TrainerCallback):
    """Clips gradients by their norm over the experts of all processes; the Trainer would take each process's own.

    Attributes:
        norm: the last norm before clipping.
    """

    def __init__(self, spread: SpreadExperts, limit: float):
        self.spread, self.limit, self.norm = spread, limit, 0.0

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        kept, group = [weight for weight in model.parameters() if weight.grad is not None], self.spread.group
        own = [weight.grad for weight in kept if self.spread.is_spread(weight)]
        shared = [weight.grad for weight in kept if not self.spread.is_spread(weight)]
        squares = get_total_norm(own).square()
        dist.all_reduce(squares, group=group.exchanges)
        norm = (squares + get_total_norm(shared).square()).sqrt()
        if self.limit > 0:
            clip_grads_with_norm_(kept, self.limit, norm)
        self.norm = float(norm)


def _names(model: nn.Module) -> set[str]:
    """Names of the weights that are spread."""
    return {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, Experts) and module.group is not None
        for name, _ in module.named_parameters(recurse=False)
    }


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """The weights in the order of the optimizer's state dict."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _is_of_experts(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
