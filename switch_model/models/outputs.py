"""What the models return: transformers' ModelOutput with the routing beside the logits."""

from dataclasses import dataclass

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from switch_model.models.cache_name import names_cache
from switch_model.routing import Routing

# What several outputs have, said once. B texts of T tokens, D d_model, H heads, S tokens looked at:
#   hidden_states: (B, T, D) each, what the first block is given, what every block but the last gives, and the last
#       hidden state; with output_hidden_states=True.
#   attentions: (B, H, T, S) each, the weights of every block's self-attention; with output_attentions=True.
#   aux_loss, z_loss: scalars, each the mean over the sparse layers of all stacks; None in a dense model.
#   auxiliary_loss: scalar, what `loss` holds besides the task's own loss, weighted; None without such losses.
#   routing: one record per sparse layer in depth order, an encoder's first; with output_routing=True.
#   cache: keys and values for the next tokens, where it was asked for; past_key_values below transformers 5.24.


@dataclass
class SwitchClassifierOutput(ModelOutput):
    """Of SwitchForSequenceClassification, for B texts, C classes.

    Attributes:
        loss: scalar, the classes' loss + weighted auxiliary losses; only when labels were given.
        logits: (B, C).
        votes: (B, T, C) what each token adds to the logits, which are their sum and the classifier's bias; zeros at
            padding and at dropped tokens. In evaluation, with readout="experts" and output_routing=True.
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
        loss: scalar, cross-entropy at the labelled places + weighted auxiliary losses; only when labels were given.
        logits: (B, T, V); with labels (M, V), those of the M labelled places.
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
    """Of SwitchModel, for B texts of S tokens and T tokens of answers.

    Attributes:
        last_hidden_state: (B, T, D) of the decoder.
        decoder_hidden_states, decoder_attentions, encoder_hidden_states, encoder_attentions: of each stack.
        cross_attentions: (B, H, T, S) each, of every block's attention over the encoder's states.
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
        loss: scalar, cross-entropy per labelled token + weighted auxiliary losses; only when labels were given.
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
