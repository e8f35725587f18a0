"""SwitchForMaskedLM: predicts the token at each masked position.

Legend: B batch, T tokens, D d_model, V tokens in the vocabulary, M labelled positions.
Try it: SwitchForMaskedLM(SwitchConfig())(input_ids=torch.ones(1, 9, dtype=torch.long)).logits
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.models.encoder import EncoderPart, without_cls
from switch_model.models.outputs import SwitchMaskedLMOutput
from switch_model.models.pretrained import IGNORED_LABEL, as_int64, token_logits


class SwitchForMaskedLM(EncoderPart):
    """Masked language model: BERT's pretraining task (1810.04805, section 3.1).

    A small transform precedes the output layer, which is the embedding table or its own (tie_word_embeddings). With
    `inputs_embeds` it reads the states of any other encoder:
    SwitchForMaskedLM(config)(inputs_embeds=bert(**tokens).last_hidden_state).
    """

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.transform = nn.Linear(config.d_model, config.d_model)
        self.transform_norm = nn.RMSNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head or self.shared

    def set_output_embeddings(self, value: nn.Module) -> None:
        if self.lm_head is not None:
            self.lm_head = value

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """As in transformers; also resizes the bias, with zeros for new tokens."""
        table = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        added = table.num_embeddings - len(self.bias)
        if added:
            self.bias = nn.Parameter(nn.functional.pad(self.bias.data, (0, added)))
        return table

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:  # A checkpoint of an encoder alone does not have it.
            init.zeros_(self.bias)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchMaskedLMOutput | tuple:
        """Token logits for (B, T) token ids, or (B, T, D) embeddings.

        Args:
            labels: (B, T) token ids at masked positions, -100 = ignored; adds the loss. The logits are then those of
                the M labelled positions only, (M, V) in reading order: the others would take most of the time.
            The others as in SwitchForSequenceClassification.

        Raises:
            ValueError: without input, or when interventions do not fit.
        """
        extras = self._extras(output_attentions, output_hidden_states, others)
        encoded, mask_BT = self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)
        hidden_BTD = encoded.hidden
        if self.cls is not None:
            hidden_BTD = without_cls(hidden_BTD, mask_BT)
        if labels is not None:
            labels = as_int64(labels, "labels")
            hidden_BTD = hidden_BTD[labels != IGNORED_LABEL]
        inner = self.transform_norm(nn.functional.gelu(self.transform(hidden_BTD)))
        logits = token_logits(inner, self.lm_head, self.shared) + self.bias

        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED_LABEL])
        loss, routing_fields = self._with_auxiliary(loss, encoded.records, output_routing)
        output = SwitchMaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            **routing_fields,
        )
        return output if return_dict is None or return_dict else output.to_tuple()
