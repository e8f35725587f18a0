"""The output layer and the loss shared by the causal and the encoder-decoder language model.

Legend: B batch, T tokens, N = B·T tokens, D d_model, V tokens in the vocabulary.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers import GenerationMixin

from switch_model.models.pretrained import IGNORED_LABEL, SwitchPreTrainedModel, as_int64, token_logits


class LanguageModel(SwitchPreTrainedModel, GenerationMixin):
    """Hidden states -> token logits and loss.

    Attributes:
        fused_loss: (output weights (V, D), states (N, D), labels (N,)) -> loss, for training without logits in memory;
            None = compute logits. Set by the trainer, not part of the model.
    """

    fused_loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def _add_head(self) -> None:
        config = self.config
        # Tied: the embedding table itself is the output layer, so that no second tensor can differ from it.
        self.lm_head = None
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.d_model, config.decoder_vocab_size or config.vocab_size, bias=False)

    def get_output_embeddings(self) -> Any:
        return self.lm_head or getattr(self, "decoder_embedding", None) or self.shared

    def set_output_embeddings(self, value: nn.Module) -> None:
        if self.lm_head is not None:
            self.lm_head = value

    def _expand_inputs_for_generation(self, expand_size: int = 1, *args: Any, **inputs: Any) -> Any:
        """Repeats the interventions of each text for its beams or returned sequences."""
        interventions = inputs.get("interventions")
        if expand_size > 1 and isinstance(interventions, (list, tuple)):
            inputs["interventions"] = [row for row in interventions for _ in range(expand_size)]
        base: Any = super()
        return base._expand_inputs_for_generation(expand_size, *args, **inputs)

    def _logits_and_loss(self, hidden: Tensor, labels: Tensor | None, shift: int = 0) -> tuple[Tensor | None, ...]:
        """Token logits (B, T, V), None under a fused loss; and the loss, None without labels.

        `shift`: 1 where labels are the input ids, so that the state at t predicts label t + 1; else 0.
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
