"""SwitchForConditionalGeneration: an encoder-decoder language model. `generate` is transformers' own.

Legend: B batch, S tokens of the source, T tokens of the target, V tokens in the vocabulary.
T5's layout (1910.10683) with the sparse MLPs of Switch Transformers (2101.03961, section 2) in both stacks.
Try it: SwitchForConditionalGeneration(SwitchConfig(eos_token_id=1)).generate(torch.ones(1, 9, dtype=torch.long))
"""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.cache_utils import Cache

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.models.cache_name import the_cache
from switch_model.models.encoder_decoder import EncoderDecoder, of_both_stacks
from switch_model.models.language_model import LanguageModel
from switch_model.models.outputs import SwitchEncoderOutput, SwitchSeq2SeqLMOutput


class SwitchForConditionalGeneration(EncoderDecoder, LanguageModel):
    """Encoder-decoder language model: translation, span corruption, summarisation."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self._add_head()
        self.post_init()

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Any:
        """The mask where `generate` gets none. transformers masks pad_token_id, but with two vocabularies that id
        belongs to the output's: in the source it may be any word. Then all tokens are real."""
        if self.config.decoder_vocab_size is None:
            return super()._prepare_attention_mask_for_generation(inputs_tensor, generation_config, model_kwargs)
        return torch.ones(inputs_tensor.shape[:2], dtype=torch.long, device=inputs_tensor.device)

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
        labels: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchSeq2SeqLMOutput | tuple:
        """Logits (B, T, V) of each next target token, given a source (B, S).

        Args:
            input_ids, attention_mask, inputs_embeds: the source, as in SwitchForSequenceClassification.
            decoder_input_ids, decoder_inputs_embeds: the target from its start token on; made from `labels` when
                absent. `decoder_attention_mask` alone decides what is padding: a start token may equal padding.
            encoder_outputs: an earlier output of the encoder, instead of the source.
            cache, use_cache: transformers' cache, for incremental decoding; with one, the decoder drops nothing.
                past_key_values: its name before transformers 5.24.
            labels: (B, T) target tokens, -100 = ignored; adds the loss.
            interventions: one for all rows, or a list with one per row; they name layers of both stacks.
            output_routing: return the records too, the encoder's first.
            output_attentions, output_hidden_states, others: as in SwitchForSequenceClassification.

        Raises:
            ValueError: without input, or when interventions do not fit.
            TypeError: for an unknown keyword.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, decoder_attention_mask = self.shift_right(labels)
        cache = the_cache(cache, past_key_values, use_cache, crossed=True)
        extras = self._extras(output_attentions, output_hidden_states, others)
        source = self._encode_source(input_ids, attention_mask, inputs_embeds, encoder_outputs, interventions, extras)
        decoded = self._decode(
            source, decoder_input_ids, decoder_attention_mask, decoder_inputs_embeds, cache, interventions, extras
        )
        logits_BTV, loss = self._logits_and_loss(decoded.hidden, labels)
        records = (*source.encoded.records, *decoded.records)
        loss, routing_fields = self._with_auxiliary(loss, records, output_routing)
        output = SwitchSeq2SeqLMOutput(
            loss, logits_BTV, cache, **of_both_stacks(decoded, source.encoded), **routing_fields
        )
        return output if return_dict is None or return_dict else output.to_tuple()
