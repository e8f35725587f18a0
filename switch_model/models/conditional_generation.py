"""SwitchForConditionalGeneration: an encoder that reads and a decoder that writes. `generate` is transformers' own.

Legend: B batch, S tokens of the text, T tokens of the answer, V tokens in the vocabulary.
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
from switch_model.models.pretrained import (
    plus,
)


class SwitchForConditionalGeneration(EncoderDecoder, LanguageModel):
    """An encoder that reads and a decoder that writes: translation, span corruption, summaries."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self._add_head()
        self.post_init()

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Any:
        """Where `generate` gets no mask: transformers takes pad_token_id for padding of the text, but with two
        vocabularies that is a token of what is written, and in a text any word. Then all tokens are real."""
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
        """Logits of each next token of an answer (B, T) to a text (B, S).

        Args:
            input_ids, attention_mask, inputs_embeds: the text, as in SwitchForSequenceClassification.
            decoder_input_ids, decoder_inputs_embeds: the answer, beginning with the start token; made of `labels` when
                absent. In the decoder too, what is padding follows from `decoder_attention_mask` alone: a start token
                that equals padding is a token.
            encoder_outputs: what the encoder gave before; instead of the text.
            cache, use_cache: transformers' cache, for tokens one after the other; with one, nothing is dropped in the
                decoder. past_key_values: its name below transformers 5.24.
            labels: (B, T) the answer's tokens, -100 where none is asked for; adds the loss.
            interventions: one for all rows, or a list with one per row; they name layers of both stacks.
            output_routing: return the records too, the encoder's first.
            output_attentions, output_hidden_states, others: as in SwitchForSequenceClassification.

        Raises:
            ValueError: without input, or when interventions do not fit.
            TypeError: for a keyword that no model of this family knows.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids, decoder_attention_mask = self.shift_right(labels)
        cache = the_cache(cache, past_key_values, use_cache, crossed=True)
        extras = self._extras(output_attentions, output_hidden_states, others)
        decoded, encoded = self._answer(
            input_ids,
            attention_mask,
            inputs_embeds,
            decoder_input_ids,
            decoder_attention_mask,
            decoder_inputs_embeds,
            encoder_outputs,
            cache,
            interventions,
            extras,
        )
        records = (*encoded.records, *decoded.records)
        logits_BTV, loss = self._logits_and_loss(decoded.hidden, labels)
        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(records, wanted)
        output = SwitchSeq2SeqLMOutput(
            None if loss is None else plus(loss, auxiliary),
            logits_BTV,
            cache,
            **of_both_stacks(decoded, encoded),
            aux_loss=aux_loss,
            z_loss=z_loss,
            auxiliary_loss=None if loss is None else auxiliary,
            routing=records if output_routing else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()
