"""Residual annealing: the residual around the experts (SwitchConfig.expert_residual) decreases during training.

Without a residual, a chain of untrained experts learns slowly and less well. With one at first, the model learns like
any other, and the experts take over what the residual carried (measured in docs/experiments.md).
"""

from transformers import TrainerCallback

from switch_model.models.pretrained import SwitchPreTrainedModel


class ResidualAnnealing(TrainerCallback):
    """Decreases the residual linearly from 1 to the configuration's value.

    Between steps it is the configuration's value, so that the model is evaluated and saved as it will be used. It
    depends on the step number alone, so that a resumed run is the same as one that was never stopped.
    """

    def __init__(self, model: SwitchPreTrainedModel, decay: float):
        """`decay`: number of steps; below 1 a share of all steps."""
        self.model, self.decay = model, decay

    def on_step_begin(self, args, state, control, **kwargs):
        last = self.model.config.expert_residual
        steps = self.decay if self.decay >= 1 else self.decay * state.max_steps
        self.model.set_expert_residual(last + (1 - last) * max(0.0, 1 - state.global_step / steps))

    def on_step_end(self, args, state, control, **kwargs):
        self.model.set_expert_residual(self.model.config.expert_residual)
