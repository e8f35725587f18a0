"""SwitchForCausalLM: a decoder-only language model. `generate` is transformers' own.

Legend: B batch, T tokens, V tokens in the vocabulary.
Try it: SwitchForCausalLM(SwitchConfig(eos_token_id=1)).generate(torch.ones(1, 9, dtype=torch.long))
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from switch_model.commands import command
from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.models.cache_name import the_cache
from switch_model.models.conditional_generation import SwitchForConditionalGeneration
from switch_model.models.encoder_decoder import SwitchModel
from switch_model.models.language_model import LanguageModel
from switch_model.models.outputs import SwitchCausalLMOutput
from switch_model.models.pretrained import real_tokens
from switch_model.models.stack import Stack


class SwitchForCausalLM(LanguageModel):
    """Decoder-only language model (as GPT) with Switch layers.

    Raises ValueError for the config of an encoder-decoder: its decoder would lose its cross-attention.
    """

    stacks = ("decoder",)
    base_model_prefix = "decoder"

    def __init__(self, config: SwitchConfig):
        for name in config.architectures or ():
            if name in (SwitchModel.__name__, SwitchForConditionalGeneration.__name__):
                raise ValueError(
                    f"This is a {name}: its decoder attends to an encoder, which a SwitchForCausalLM does not have. "
                    "Open it as a SwitchForConditionalGeneration, or train a decoder from it: "
                    f"{command()} --task clm --init_from FOLDER."
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
            labels: (B, T), usually input_ids themselves: they are shifted here; -100 = ignored.
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
        loss, routing_fields = self._with_auxiliary(loss, decoded.records, output_routing)
        output = SwitchCausalLMOutput(
            loss,
            logits_BTV,
            cache,
            hidden_states=decoded.hidden_states,
            attentions=decoded.attentions,
            **routing_fields,
        )
        return output if return_dict is None or return_dict else output.to_tuple()
