"""The biases that keep loads even without a loss (SwitchConfig.balance), moved while a model trains."""

from torch import Tensor
from transformers import TrainerCallback

from switch_model.routing import Routing


class Rebalance(TrainerCallback):
    """Moves the routers' biases after every optimizer step, by what its batches chose; before the average sees them."""

    def __init__(self):
        self.choices: dict[str, Tensor] = {}

    def add(self, records: tuple[Routing, ...]) -> None:
        for record in records:
            self.choices[record.name] = self.choices.get(record.name, 0) + record.choices

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.rebalance(self.choices)
        self.choices = {}
