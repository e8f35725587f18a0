"""Models that write: an encoder with a decoder over it, or a decoder alone. `generate` is transformers' own.

Legend: B batch, S tokens of the text, T tokens of the answer, D d_model, V tokens in the vocabulary.
T5's layout (1910.10683) with the sparse MLPs of Switch Transformers (2101.03961, section 2) in both stacks.
Try it: SwitchForConditionalGeneration(SwitchConfig(eos_token_id=1)).generate(torch.ones(1, 9, dtype=torch.long))
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.models.cache_name import the_cache
from switch_model.models.encoder_decoder import EncoderDecoder, SwitchModel, of_both_stacks
from switch_model.models.outputs import SwitchCausalLMOutput, SwitchEncoderOutput, SwitchSeq2SeqLMOutput
from switch_model.models.pretrained import (
    IGNORED_LABEL,
    SwitchPreTrainedModel,
    as_int64,
    plus,
    real_tokens,
    token_logits,
)
from switch_model.models.stack import Stack


class _LanguageModel(SwitchPreTrainedModel, GenerationMixin):
    """Hidden states -> token logits and the loss: the same for both models that write.

    Attributes:
        fused_loss: (output weights (V, D), states (N, D), labels (N,)) -> loss, for training without logits in memory;
            None = logits first. Not part of the model: whoever trains sets it.
    """

    fused_loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def _add_head(self) -> None:
        config = self.config
        # Tied, the embedding table itself is the output layer, and there is nothing to keep in step.
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.decoder_vocab_size or config.vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head or getattr(self, "decoder_embedding", None) or self.shared

    def set_output_embeddings(self, value: nn.Module) -> None:
        if self.lm_head is not None:
            self.lm_head = value

    def _expand_inputs_for_generation(self, expand_size: int = 1, **inputs: Any) -> tuple[Tensor, dict[str, Any]]:
        """Rows for beams and for several answers to a text: each with the interventions of its text."""
        given = inputs.get("interventions")
        if expand_size > 1 and isinstance(given, (list, tuple)):
            inputs["interventions"] = [row for row in given for _ in range(expand_size)]
        return super()._expand_inputs_for_generation(expand_size=expand_size, **inputs)

    def _logits_and_loss(self, hidden: Tensor, labels: Tensor | None, shift: int = 0) -> tuple[Tensor | None, ...]:
        """Token logits (B, T, V), None under a fused loss; and the loss, None without labels.

        `shift`: how many places after its state a label stands.
        """
        if self.config.scale_decoder_outputs:
            hidden = hidden * self.config.d_model**-0.5
        until, table = hidden.shape[1] - shift, getattr(self, "decoder_embedding", None) or self.shared
        if labels is not None:
            labels = as_int64(labels, "labels")[:, shift:]
            if self.training and self.fused_loss is not None:
                weight_VD = self.get_output_embeddings().weight
                return None, self.fused_loss(weight_VD, hidden[:, :until].flatten(0, 1), labels.flatten())
        logits_BTV = token_logits(hidden, self.lm_head, table)
        return logits_BTV, None if labels is None else self._token_loss(logits_BTV[:, :until], labels)

    def _token_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over labelled tokens."""
        smoothing = self.config.label_smoothing if self.training else 0.0
        return nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL, label_smoothing=smoothing
        )


class SwitchForConditionalGeneration(EncoderDecoder, _LanguageModel):
    """An encoder that reads and a decoder that writes: translation, span corruption, summaries."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self._add_head()
        self.post_init()

    def _prepare_attention_mask_for_generation(
        self, inputs_tensor: Tensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> Tensor:
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


class SwitchForCausalLM(_LanguageModel):
    """A decoder alone, which goes on writing: GPT's task with Switch layers.

    Raises ValueError for the files of a model with an encoder: its decoder would lose what it looks at.
    """

    stacks = ("decoder",)
    base_model_prefix = "decoder"

    def __init__(self, config: SwitchConfig):
        for name in config.architectures or ():
            if name in (SwitchModel.__name__, SwitchForConditionalGeneration.__name__):
                raise ValueError(
                    f"This is a {name}: its decoder looks at an encoder, which a SwitchForCausalLM has not. Open it as "
                    "a SwitchForConditionalGeneration, or train a decoder from it: "
                    "python -m train --task clm --init_from FOLDER."
                )
        super().__init__(config)
        self.decoder = Stack(self.config, name="decoder")
        self._add_head()
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
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
    ) -> SwitchCausalLMOutput | tuple:
        """Logits (B, T, V) of each next token.

        Args:
            attention_mask: (B, T), or (B, tokens in the cache + T); non-zero at real tokens.
            labels: (B, T) usually input_ids themselves: they are shifted here; -100 where none is asked for.
            The others as in SwitchForConditionalGeneration.

        Raises:
            ValueError: without input, or when interventions do not fit.
        """
        embeddings_BTD = self._embed(input_ids, inputs_embeds)
        self._check(interventions, embeddings_BTD.shape[0])
        cache = the_cache(cache, past_key_values, use_cache, crossed=False)
        mask_BS = real_tokens(attention_mask, embeddings_BTD.shape[:2], embeddings_BTD.device)
        extras = self._extras(output_attentions, output_hidden_states, others)
        decoded = self.decoder(embeddings_BTD, mask_BS, interventions, cache=cache, extras=extras)
        logits_BTV, loss = self._logits_and_loss(decoded.hidden, labels, shift=1)
        wanted = labels is not None or self.training or output_routing
        aux_loss, z_loss, auxiliary = self._auxiliary(decoded.records, wanted)
        output = SwitchCausalLMOutput(
            None if loss is None else plus(loss, auxiliary),
            logits_BTV,
            cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
            aux_loss=aux_loss,
            z_loss=z_loss,
            auxiliary_loss=None if loss is None else auxiliary,
            routing=decoded.records if output_routing else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()
