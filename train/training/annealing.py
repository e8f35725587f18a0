"""Experts that take over step by step: what passes by them (SwitchConfig.expert_residual) falls while a model trains.

Without a residual, a chain of untrained experts learns slowly and less well. With one at first, the model learns as
any other does, and its experts take over what the residual carried (docs/experiments.md has what it brings).
"""

from transformers import TrainerCallback

from switch_model.models.pretrained import SwitchPreTrainedModel


class ResidualAnnealing(TrainerCallback):
    """Lets the share of a token that passes by its expert fall in a line from 1 to the configuration's.

    Between steps it is the configuration's: what is evaluated and saved is the model as it will be used. The share
    follows from the number of the step alone, so that a resumed run goes on as if it had never stopped.
    """

    def __init__(self, model: SwitchPreTrainedModel, decay: float):
        """`decay`: over how many steps; below 1 a share of all."""
        self.model, self.decay = model, decay

    def on_step_begin(self, args, state, control, **kwargs):
        last = self.model.config.expert_residual
        steps = self.decay if self.decay >= 1 else self.decay * state.max_steps
        self.model.set_expert_residual(last + (1 - last) * max(0.0, 1 - state.global_step / steps))

    def on_step_end(self, args, state, control, **kwargs):
        self.model.set_expert_residual(self.model.config.expert_residual)
