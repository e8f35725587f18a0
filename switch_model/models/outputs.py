"""What the models return: transformers' ModelOutput with the routing records."""

from dataclasses import dataclass

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from switch_model.models.cache_name import names_cache
from switch_model.routing import Routing

# Fields of several outputs. B texts of T tokens, D d_model, H heads, S keys:
#   hidden_states: (B, T, D) each: the first block's input, the output of every block but the last, and the last hidden
#       state; with output_hidden_states=True.
#   attentions: (B, H, T, S) each: self-attention weights of every block; with output_attentions=True.
#   aux_loss, z_loss: scalars, unweighted means over the sparse layers of all stacks; in training, and with labels; of
#       models without a head also with output_routing=True. None in a dense model.
#   auxiliary_loss: scalar, the weighted sum of all losses in `loss` besides the task's own; None without any.
#   routing: one record per sparse layer in depth order, an encoder's first; with output_routing=True.
#   cache: keys and values for the next tokens, with use_cache=True; past_key_values before transformers 5.24.


@dataclass
class SwitchClassifierOutput(ModelOutput):
    """Of SwitchForSequenceClassification, for B texts, C classes.

    Attributes:
        loss: scalar, the class loss + weighted auxiliary losses; only with labels.
        logits: (B, C).
        votes: (B, T, C) contribution of each token to the logits, which are the votes' sum plus the classifier's bias;
            zeros at padding and dropped tokens. In evaluation, with readout="experts" and output_routing=True.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    votes: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@dataclass
class SwitchMaskedLMOutput(ModelOutput):
    """Of SwitchForMaskedLM, for B texts of T tokens, V tokens in the vocabulary.

    Attributes:
        loss: scalar, cross-entropy at the labelled positions + weighted auxiliary losses; only with labels.
        logits: (B, T, V); with labels (M, V), those of the M labelled positions.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@dataclass
class SwitchEncoderOutput(ModelOutput):
    """Of SwitchEncoderModel.

    Attributes:
        last_hidden_state: (B, T, D).
    """

    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@names_cache
class SwitchModelOutput(ModelOutput):
    """Of SwitchModel, for B sources of S tokens and targets of T tokens.

    Attributes:
        last_hidden_state: (B, T, D) of the decoder.
        decoder_hidden_states, decoder_attentions, encoder_hidden_states, encoder_attentions: of each stack.
        cross_attentions: (B, H, T, S) each: cross-attention weights of every block.
        encoder_last_hidden_state: (B, S, D).
    """

    last_hidden_state: Tensor | None = None
    cache: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@names_cache
class SwitchSeq2SeqLMOutput(ModelOutput):
    """Of SwitchForConditionalGeneration.

    Attributes:
        loss: scalar, mean cross-entropy of labelled tokens + weighted auxiliary losses; only with labels.
        logits: (B, T, V).
        The others as in SwitchModelOutput.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None


@names_cache
class SwitchCausalLMOutput(ModelOutput):
    """Of SwitchForCausalLM; loss and logits as in SwitchSeq2SeqLMOutput."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    aux_loss: Tensor | None = None
    z_loss: Tensor | None = None
    auxiliary_loss: Tensor | None = None
    routing: tuple[Routing, ...] | None = None
