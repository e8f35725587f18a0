"""transformers' Auto classes for this package's models.

Try it: register(); AutoModel.from_pretrained("assets/models/en_hi")
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from switch_model.config import SwitchConfig
from switch_model.models.causal_lm import SwitchForCausalLM
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.encoder import SwitchEncoderModel
from switch_model.models.encoder_decoder import SwitchModel
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.sequence_classification import SwitchForSequenceClassification

# By their names in a config's `architectures`.
MODEL_CLASSES: dict[str, type[SwitchPreTrainedModel]] = {
    "SwitchForSequenceClassification": SwitchForSequenceClassification,
    "SwitchForMaskedLM": SwitchForMaskedLM,
    "SwitchForConditionalGeneration": SwitchForConditionalGeneration,
    "SwitchForCausalLM": SwitchForCausalLM,
    "SwitchEncoderModel": SwitchEncoderModel,
    "SwitchModel": SwitchModel,
}


class SwitchBody:
    """What AutoModel opens: the stacks of a checkpoint without its head."""

    config_class = SwitchConfig

    @classmethod
    def from_pretrained(cls, *args, config: SwitchConfig, **kwargs) -> SwitchPreTrainedModel:
        return cls._body(config).from_pretrained(*args, config=config, **kwargs)

    @classmethod
    def _from_config(cls, config: SwitchConfig, **kwargs) -> SwitchPreTrainedModel:
        return cls._body(config)._from_config(config, **kwargs)

    @staticmethod
    def _body(config: SwitchConfig) -> type[SwitchPreTrainedModel]:
        """Raises ValueError for a decoder-only checkpoint, which has no class without a head."""
        named = [MODEL_CLASSES[name].stacks for name in config.architectures or () if name in MODEL_CLASSES]
        stacks = named[0] if named else config.stacks
        if stacks == ("decoder",):
            raise ValueError("This checkpoint is decoder-only: open it with AutoModelForCausalLM.")
        return SwitchModel if len(stacks) > 1 else SwitchEncoderModel


def register() -> None:
    """Register this package's models with transformers' Auto classes."""
    AutoConfig.register(SwitchConfig.model_type, SwitchConfig)
    AutoModelForSequenceClassification.register(SwitchConfig, SwitchForSequenceClassification)
    AutoModelForMaskedLM.register(SwitchConfig, SwitchForMaskedLM)
    AutoModelForSeq2SeqLM.register(SwitchConfig, SwitchForConditionalGeneration)
    AutoModelForCausalLM.register(SwitchConfig, SwitchForCausalLM)
    # The config's `architectures` selects one of them; the first where it names none.
    AutoModel.register(SwitchConfig, (SwitchBody, SwitchEncoderModel, SwitchModel))
