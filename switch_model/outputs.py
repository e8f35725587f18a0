"""What the models return: transformers' ModelOutput with the routing beside the logits."""

from dataclasses import dataclass

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from switch_model.cache_name import names_cache
from switch_model.routing import Routing


@dataclass
class SwitchClassifierOutput(ModelOutput):
    """Of SwitchForSequenceClassification, for B texts, C classes.

    Attributes:
        loss: scalar, cross-entropy + weighted auxiliary losses; only when labels were given.
        logits: (B, C).
        aux_loss, z_loss: scalars, each the mean over sparse layers; None in a dense model.
        routing: one record per sparse layer in depth order; only with output_routing=True.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@dataclass
class SwitchMaskedLMOutput(ModelOutput):
    """Of SwitchForMaskedLM, for B texts of T tokens, V tokens in the vocabulary.

    Attributes:
        loss: scalar, cross-entropy at the labelled places + weighted auxiliary losses; only when labels were given.
        logits: (B, T, V); with labels (M, V), those of the M labelled places.
        aux_loss, z_loss, routing: as in SwitchClassifierOutput.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@dataclass
class SwitchEncoderOutput(ModelOutput):
    """Of SwitchEncoderModel.

    Attributes:
        last_hidden_state: (B, T, D).
        aux_loss, z_loss, routing: as in SwitchClassifierOutput.
    """

    last_hidden_state: Tensor | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@names_cache
class SwitchModelOutput(ModelOutput):
    """Of SwitchModel, for B texts of S tokens and T tokens of answers.

    Attributes:
        last_hidden_state: (B, T, D) of the decoder.
        cache: the decoder's keys and values (past_key_values below transformers 5.24); only when it was asked for.
        encoder_last_hidden_state: (B, S, D).
        aux_loss, z_loss: scalars, each the mean over the sparse layers of both stacks.
        routing: one record per sparse layer, the encoder's first; only with output_routing=True.
    """

    last_hidden_state: Tensor | None = None
    cache: Cache | None = None
    encoder_last_hidden_state: Tensor | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@names_cache
class SwitchLMOutput(ModelOutput):
    """Of SwitchForConditionalGeneration and SwitchForCausalLM.

    Attributes:
        loss: scalar, cross-entropy per labelled token + weighted auxiliary losses; only when labels were given.
        logits: (B, T, V).
        encoder_last_hidden_state: (B, S, D); None without an encoder.
        cache, aux_loss, z_loss, routing: as in SwitchModelOutput.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    encoder_last_hidden_state: Tensor | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None
