"""The encoder-decoder part shared by all models with two stacks, and SwitchModel, which is that part alone.

Legend: B batch, S tokens of the source, T tokens of the target, D d_model.
T5's layout (1910.10683) with the sparse MLPs of Switch Transformers (2101.03961, section 2) in both stacks.
Try it: SwitchModel(SwitchConfig())(input_ids=source, decoder_input_ids=target).last_hidden_state
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.layers.initial import EMBEDDING_STD, start_with
from switch_model.models.cache_name import the_cache
from switch_model.models.encoder import EncoderPart, with_cls
from switch_model.models.outputs import SwitchEncoderOutput, SwitchModelOutput
from switch_model.models.pretrained import IGNORED_LABEL, as_int64, real_tokens, require_tokens
from switch_model.models.stack import Extras, Stack, StackOutput


class _EncoderView:
    """A model's encoder as `generate` calls it: token ids in, hidden states out."""

    def __init__(self, model: "EncoderDecoder"):
        self.model = model

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        interventions: AnyInterventions = None,
        return_dict: bool | None = True,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> SwitchEncoderOutput:
        extras = self.model._extras(output_attentions, output_hidden_states, {})
        encoded, _ = self.model._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)
        return SwitchEncoderOutput(
            last_hidden_state=encoded.hidden,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            routing=encoded.records,
        )

    forward = __call__


class EncodedSource(NamedTuple):
    """The encoder's output for a source, and its mask (B, S): what cross-attention takes."""

    encoded: StackOutput
    mask: Tensor


class EncoderDecoder(EncoderPart):
    """Source and target -> the decoder's hidden states: the part shared by both models with two stacks."""

    stacks = ("encoder", "decoder")

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        self.decoder_embedding = None
        if not config.share_embeddings:
            self.decoder_embedding = nn.Embedding(config.decoder_vocab_size or config.vocab_size, config.d_model)
            start_with(self.decoder_embedding, EMBEDDING_STD)
        self.decoder = Stack(config, name="decoder", cross=True)

    def get_encoder(self, modality: str | None = None) -> _EncoderView:
        return _EncoderView(self)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As in transformers; also resizes the decoder's own table.

        Raises ValueError for a model with two vocabularies: one number can't give both sizes.
        """
        asked = new_num_tokens is not None or pad_to_multiple_of is not None
        if asked and self.config.decoder_vocab_size is not None:
            raise ValueError(
                "This model has an input and an output vocabulary: resize_token_embeddings can't know which is meant. "
                "Make a model of the new sizes, and copy the rows to keep."
            )
        table = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        if asked and self.decoder_embedding is not None:
            self.decoder_embedding = self._get_resized_embeddings(
                self.decoder_embedding, table.num_embeddings, mean_resizing=mean_resizing
            )
        return table

    def shift_right(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Labels (B, T) -> the decoder's input ids (B, T) and mask (B, T).

        Padding are inputs that would be an ignored label, and all after the last label.
        """
        labels = as_int64(labels, "labels")
        start = self.config.decoder_start_token_id
        first_B1 = torch.full_like(labels[:, :1], self.config.pad_token_id if start is None else start)
        before_BT = torch.cat([first_B1, labels[:, :-1]], dim=1)
        asked_BT = (labels != IGNORED_LABEL).long().flip(1).cumsum(dim=1).flip(1) > 0
        known_BT = before_BT != IGNORED_LABEL
        return before_BT.masked_fill(~known_BT, self.config.pad_token_id), known_BT & asked_BT

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What transformers' DataCollatorForSeq2Seq asks for: `shift_right` without its mask."""
        return self.shift_right(labels)[0]

    def _encode_source(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        encoder_outputs: SwitchEncoderOutput | tuple | None,
        interventions: AnyInterventions,
        extras: Extras,
    ) -> EncodedSource:
        """Run the encoder, or take its earlier `encoder_outputs`."""
        if encoder_outputs is None:
            return EncodedSource(*self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras))
        encoder_BSD = encoder_outputs[0]
        self._check(interventions, encoder_BSD.shape[0])
        encoded = StackOutput(
            encoder_BSD,
            getattr(encoder_outputs, "routing", None) or (),
            hidden_states=getattr(encoder_outputs, "hidden_states", None),
            attentions=getattr(encoder_outputs, "attentions", None),
        )
        mask_BS = real_tokens(attention_mask, encoder_BSD.shape[:2], encoder_BSD.device)
        if self.cls is not None and mask_BS.shape[1] < encoder_BSD.shape[1]:
            _, mask_BS = with_cls(self.cls, encoder_BSD[:, 1:], mask_BS)
        return EncodedSource(encoded, mask_BS)

    def _decode(
        self,
        source: EncodedSource,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        cache: Cache | None,
        interventions: AnyInterventions,
        extras: Extras,
    ) -> StackOutput:
        """The decoder's output for a target (B, T), as ids or embeddings. Raises ValueError without either."""
        encoder_BSD = source.encoded.hidden
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("The decoder has no input: give decoder_input_ids, decoder_inputs_embeds or labels.")
            require_tokens(input_ids)
            inputs_embeds = (self.decoder_embedding or self.shared)(as_int64(input_ids, "decoder_input_ids"))
        inputs_embeds = inputs_embeds.to(encoder_BSD.dtype)
        mask_BT = real_tokens(attention_mask, inputs_embeds.shape[:2], encoder_BSD.device)
        return self.decoder(inputs_embeds, mask_BT, interventions, encoder_BSD, source.mask, cache, extras)


def of_both_stacks(decoded: StackOutput, encoded: StackOutput) -> dict[str, Any]:
    """The output fields of the two stacks, under transformers' names."""
    return {
        "decoder_hidden_states": decoded.hidden_states,
        "decoder_attentions": decoded.attentions,
        "cross_attentions": decoded.cross_attentions,
        "encoder_last_hidden_state": encoded.hidden,
        "encoder_hidden_states": encoded.hidden_states,
        "encoder_attentions": encoded.attentions,
    }


class SwitchModel(EncoderDecoder):
    """Encoder and decoder without a head: the raw hidden states."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_outputs: SwitchEncoderOutput | tuple | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchModelOutput | tuple:
        """The decoder's states (B, T, D) for a source (B, S) and a target (B, T).

        The arguments are those of SwitchForConditionalGeneration.
        """
        cache = the_cache(cache, past_key_values, use_cache, crossed=True)
        extras = self._extras(output_attentions, output_hidden_states, others)
        source = self._encode_source(input_ids, attention_mask, inputs_embeds, encoder_outputs, interventions, extras)
        decoded = self._decode(
            source, decoder_input_ids, decoder_attention_mask, decoder_inputs_embeds, cache, interventions, extras
        )
        records = (*source.encoded.records, *decoded.records)
        losses = self._auxiliary(records, self.training or output_routing)
        output = SwitchModelOutput(
            decoded.hidden,
            cache,
            **of_both_stacks(decoded, source.encoded),
            aux_loss=losses.balance,
            z_loss=losses.z,
            routing=records if output_routing else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()
