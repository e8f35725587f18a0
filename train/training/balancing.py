"""Loss-free load balancing during training (SwitchConfig.balances_by_bias)."""

from torch import Tensor
from transformers import TrainerCallback

from switch_model.topk_routing import AnyRouting
from train.distributed.processes import Processes


class Rebalance(TrainerCallback):
    """Updates the routers' balance biases after every optimizer step, from its batches' choices, and before the weight
    average."""

    def __init__(self, processes: Processes):
        self.processes = processes
        self.choices: dict[str, Tensor] = {}

    def add(self, records: tuple[AnyRouting, ...]) -> None:
        """Count the choices of a batch's records."""
        for record in records:
            self.choices[record.name] = self.choices.get(record.name, 0) + record.choices

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.rebalance({name: self.processes.total(choices) for name, choices in self.choices.items()})
        self.choices = {}
