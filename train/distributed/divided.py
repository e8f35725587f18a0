"""A model whose weights are divided among processes, in ordinary checkpoints.

The files of a run are those of one process: the main process gathers all weights, and the optimizer's state, whenever
it writes them, and every process takes its own part out of them when the run is resumed.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer
from transformers import TrainerCallback

from switch_model.models.pretrained import SwitchPreTrainedModel


class Divided(ABC):
    """The division of one model, made in every process.

    Attributes:
        gathers: whether this process takes part in gathering.
        is_main: whether it gets what is gathered.
    """

    gathers: bool
    is_main: bool

    @abstractmethod
    def names(self, model: nn.Module) -> set[str]:
        """Names of the model's divided weights."""

    @abstractmethod
    def is_divided(self, weight: Tensor) -> bool:
        """Whether this parameter of the model is one of them."""

    @abstractmethod
    def whole(self, own: Tensor) -> Tensor | None:
        """A divided tensor on the CPU in the main process, None in others. All processes that gather must call it."""

    @abstractmethod
    def own(self, whole: Tensor, weight: nn.Parameter) -> Tensor:
        """This process's part of a tensor that is divided as the parameter is; a part remains as it is."""

    @abstractmethod
    def norm(self, weights: Sequence[nn.Parameter]) -> Tensor:
        """The norm of their gradients over all processes. Every process must call it."""

    def whole_state(self, model: nn.Module) -> dict[str, Tensor] | None:
        """The whole state dict in the main process; None in the others. Every process must call it."""
        if not self.gathers:
            return None
        names = self.names(model)
        state = {name: self.whole(tensor) if name in names else tensor for name, tensor in model.state_dict().items()}
        return state if self.is_main else None

    def whole_model(self, model: SwitchPreTrainedModel) -> SwitchPreTrainedModel | None:
        """An ordinary model with the same weights in the main process; None in the others. Every process must call
        it."""
        state = self.whole_state(model)
        if state is None:
            return None
        with torch.device("meta"):
            whole = self.class_of(model)(model.config)
        whole.load_state_dict(state, strict=True, assign=True)
        return whole.eval().to(model.device)

    def class_of(self, model: SwitchPreTrainedModel) -> type[SwitchPreTrainedModel]:
        """The class of the model, had it not been divided."""
        return type(model)

    # The optimizer's state

    def watch(self, optimizer: Optimizer) -> None:
        """From now on the optimizer's state dict has what `gather` has gathered, and a whole one may be loaded."""
        self._gathered: dict[int, dict[str, Any]] = {}
        optimizer.register_state_dict_post_hook(self._add_gathered)
        optimizer.register_load_state_dict_pre_hook(self._take_own)

    def gather(self, optimizer: Optimizer) -> None:
        """Gather the optimizer's state in the main process, for its next state dict. Every process must call it."""
        if not self.gathers:
            return
        for index, weight in enumerate(_parameters(optimizer)):
            if self.is_divided(weight):
                state = optimizer.state[weight].items()
                values = {name: self.whole(value) if _has_rows(value) else value for name, value in state}
                if self.is_main:
                    self._gathered[index] = values

    def _add_gathered(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
        # In a new dictionary: the inner ones are the optimizer's own.
        state_dict["state"] = state_dict["state"] | self._gathered
        self._gathered = {}

    def _take_own(self, optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        state = dict(state_dict["state"])
        for index, weight in enumerate(_parameters(optimizer)):
            if index in state and self.is_divided(weight):
                values = state[index].items()
                state[index] = {name: self.own(value, weight) if _has_rows(value) else value for name, value in values}
        return state_dict | {"state": state}


class ClipAll(TrainerCallback):
    """Clips gradients by their norm over all processes; the Trainer would take each process's own.

    Attributes:
        norm: the last norm before clipping.
    """

    def __init__(self, divided: Divided, limit: float):
        self.divided, self.limit, self.norm = divided, limit, 0.0

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        weights = [weight for weight in model.parameters() if weight.grad is not None]
        norm = self.divided.norm(weights)
        if self.limit > 0:
            clip_grads_with_norm_(weights, self.limit, norm)
        self.norm = float(norm)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    """The weights in the order of the optimizer's state dict."""
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
