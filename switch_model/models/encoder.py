"""The encoder part shared by all models with an encoder, and SwitchEncoderModel, which is that part alone.

Legend: B batch, T tokens, D d_model.
Try it: SwitchEncoderModel(SwitchConfig())(input_ids=torch.ones(1, 9, dtype=torch.long)).last_hidden_state
"""

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import initialization as init

from switch_model.config import SwitchConfig
from switch_model.interventions import AnyInterventions
from switch_model.layers.hashed_bigrams import HashedBigrams
from switch_model.layers.initial import EMBEDDING_STD
from switch_model.layers.pooling import first_real
from switch_model.layers.word_counts import WordCounts
from switch_model.models.outputs import SwitchEncoderOutput
from switch_model.models.pretrained import SwitchPreTrainedModel, real_tokens
from switch_model.models.stack import Extras, Stack, StackOutput
from switch_model.storage.switch_transformers import import_switch_transformers


class EncoderPart(SwitchPreTrainedModel):
    """Token ids or embeddings -> hidden states: the part shared by all models with an encoder."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        config = self.config
        self.bigrams = HashedBigrams(config) if config.bigram_buckets else None
        self.cls = nn.Parameter(torch.empty(config.d_model)) if config.cls_token else None
        self.encoder = Stack(config, name="encoder")
        self.counts: WordCounts | None = None

    @classmethod
    def from_switch_transformers(
        cls, path_or_hub_id: str | Path, dtype: torch.dtype | None = torch.float32, revision: str | None = None
    ) -> Self:
        """The model with the weights of a transformers SwitchTransformers checkpoint; the logits are the same.

        Args:
            path_or_hub_id: a folder with config.json and model.safetensors (or its shards), or a hub repository's name.
            dtype: of the weights; None = as in the file.
            revision: of a hub repository: a branch, a tag, a commit, or refs/pr/N; None = main.

        Raises:
            CheckpointError: (switch_model.checkpoint) with the reason, and what to do.
        """
        return import_switch_transformers(cls, path_or_hub_id, dtype, revision)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.cls is not None:
            init.normal_(self.cls, std=EMBEDDING_STD * self.config.initializer_factor)

    def _encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        interventions: AnyInterventions,
        extras: Extras,
    ) -> tuple[StackOutput, Tensor]:
        """The encoder's output, and the mask (B, T) of the tokens it attended to; T + 1 with a CLS token."""
        pairs_of = input_ids
        if self.bigrams is not None or self.counts is not None:
            if input_ids is None:
                field = "bigram_buckets" if self.bigrams else "counted_rows"
                raise ValueError(
                    f"This model uses word pairs, which only token ids identify: give input_ids beside inputs_embeds, "
                    f"or make the model with {field}=0."
                )
            if inputs_embeds is not None:
                input_ids = None
        embeddings_BTD = self._embed(input_ids, inputs_embeds)
        self._check(interventions, embeddings_BTD.shape[0])
        mask_BT = real_tokens(attention_mask, embeddings_BTD.shape[:2], embeddings_BTD.device)
        mask_BT = self._hide_tokens(mask_BT)
        if self.bigrams is not None:
            embeddings_BTD = embeddings_BTD + self.bigrams(pairs_of, mask_BT)
        if self.cls is not None:
            embeddings_BTD, mask_BT = with_cls(self.cls, embeddings_BTD, mask_BT)
        return self.encoder(embeddings_BTD, mask_BT, interventions, extras=extras), mask_BT

    def _hide_tokens(self, mask_BT: Tensor) -> Tensor:
        """Token dropout, in training."""
        if not (self.training and self.config.token_dropout > 0):
            return mask_BT
        # In a text of ten tokens, a few masked tokens may be all that indicate the class.
        short_B1 = mask_BT.sum(dim=1, keepdim=True) < self.config.token_dropout_from
        visible_BT = torch.rand(mask_BT.shape, device=mask_BT.device) >= self.config.token_dropout
        visible_BT = (visible_BT & mask_BT) | (mask_BT & short_B1)
        # A text with every token masked out would only add noise.
        return torch.where(visible_BT.any(dim=1, keepdim=True), visible_BT, mask_BT)


def with_cls(cls_D: Tensor, embeddings_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Insert a CLS token (D,) right before the first real token, after any left padding: (B, T, D) and (B, T) ->
    (B, T + 1, D) and (B, T + 1)."""
    batch, tokens, width = embeddings_BTD.shape
    none_B1D, place_T = embeddings_BTD.new_zeros(batch, 1, width), torch.arange(tokens + 1, device=mask_BT.device)
    first_B1 = first_real(mask_BT).unsqueeze(1)
    plain_BTD = torch.cat([embeddings_BTD, none_B1D], dim=1)
    shifted_BTD = torch.cat([none_B1D, embeddings_BTD], dim=1)
    after_BT1, here_BT1 = (place_T > first_B1).unsqueeze(-1), (place_T == first_B1).unsqueeze(-1)
    joined_BTD = torch.where(here_BT1, cls_D, torch.where(after_BT1, shifted_BTD, plain_BTD))
    none_B1 = mask_BT.new_zeros(batch, 1)
    after_BT = place_T > first_B1  # Boolean operators: ONNX Runtime's Where does not select between bools.
    shifted_BT, plain_BT = torch.cat([none_B1, mask_BT], dim=1), torch.cat([mask_BT, none_B1], dim=1)
    moved_BT = (after_BT & shifted_BT) | (~after_BT & plain_BT)
    return joined_BTD, moved_BT | (place_T == first_B1)


def without_cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """(B, T + 1, D) -> (B, T, D): the states without the CLS token's."""
    place_T = torch.arange(hidden.shape[1] - 1, device=mask.device)
    before_BT1 = (place_T < first_real(mask).unsqueeze(1)).unsqueeze(-1)
    return torch.where(before_BT1, hidden[:, :-1], hidden[:, 1:])


class SwitchEncoderModel(EncoderPart):
    """Encoder without a head: the raw hidden states."""

    def __init__(self, config: SwitchConfig):
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        interventions: AnyInterventions = None,
        output_routing: bool = False,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SwitchEncoderOutput | tuple:
        """Hidden states (B, T, D) of (B, T) token ids, or of (B, T, D) embeddings; T + 1 with a CLS token.

        The arguments are those of SwitchForSequenceClassification.
        """
        extras = self._extras(output_attentions, output_hidden_states, others)
        encoded, _ = self._encode(input_ids, attention_mask, inputs_embeds, interventions, extras)
        losses = self._auxiliary(encoded.records, self.training or output_routing)
        output = SwitchEncoderOutput(
            last_hidden_state=encoded.hidden,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            aux_loss=losses.balance,
            z_loss=losses.z,
            routing=encoded.records if output_routing else None,
        )
        return output if return_dict is None or return_dict else output.to_tuple()
