"""Training with the experts of each layer spread over processes (--expert_parallel).

All other weights are in every process, as without the flag.
Try it: torchrun --nproc_per_node 2 -m train --expert_parallel 2 --optimizer adamw
"""

from collections.abc import Sequence

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from switch_model.layers.expert_parallel import ExpertGroup
from switch_model.layers.experts import Experts
from switch_model.models.pretrained import SwitchPreTrainedModel
from train.distributed.divided import Divided


class SpreadExperts(Divided):
    """A model's experts, spread over groups of `count` processes from now on. Every process must make it."""

    def __init__(self, model: SwitchPreTrainedModel, count: int):
        self.group = ExpertGroup.of_launch(count)
        model.spread_experts(self.group)
        # Other groups have the same experts.
        self.gathers, self.is_main = dist.get_rank() < count, dist.get_rank() == 0
        names = self.names(model)
        # Their gradients are averaged by the layer itself.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, sorted(names))
        self._ids = {id(weight) for name, weight in model.named_parameters() if name in names}

    def names(self, model: nn.Module) -> set[str]:
        return {
            f"{prefix}.{name}"
            for prefix, module in model.named_modules()
            if isinstance(module, Experts) and module.group is not None
            for name, _ in module.named_parameters(recurse=False)
        }

    def is_divided(self, weight: Tensor) -> bool:
        return id(weight) in self._ids

    def whole(self, own: Tensor) -> Tensor | None:
        return self.group.whole(own)

    def own(self, whole: Tensor, weight: nn.Parameter) -> Tensor:
        return self.group.own(whole) if len(whole) > len(weight) else whole

    def norm(self, weights: Sequence[nn.Parameter]) -> Tensor:
        squares = get_total_norm([weight.grad for weight in weights if self.is_divided(weight)]).square()
        dist.all_reduce(squares, group=self.group.exchanges)
        return (squares + get_total_norm([w.grad for w in weights if not self.is_divided(w)]).square()).sqrt()
