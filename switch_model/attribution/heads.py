"""From the residual stream after its final norm to the logits, for every head: linear once its scales are held fixed.

Legend: T tokens, P places that the head reads, K parts, D d_model, V outputs (tokens of the vocabulary, or classes).
Try it: head_of(model, ids, token)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from switch_model.adapters.model import AdaptedClassifier, AdaptedModel, AdaptedTokenClassifier
from switch_model.attribution.linear import LinearMap, NotSeparable, agree, factors, frozen_norm, gelu_gate
from switch_model.models.masked_lm import SwitchForMaskedLM
from switch_model.models.sequence_classification import SwitchForSequenceClassification


@dataclass(frozen=True, eq=False)
class Linearised:
    """A head at the true pass.

    Attributes:
        then: (P, K, D) parts -> (P, K, V) their parts of the logits.
        constants: what is added whatever the text, or beside the stack, by name: (V,) each.
        logits: (V,) of the true pass.
    """

    then: LinearMap
    constants: dict[str, Tensor]
    logits: Tensor


class Head:
    """A head that reads one token: its logits are a product with a weight for each output."""

    def __init__(self, model: Any, ids: Sequence[int], token: int):
        self.model, self.ids, self.places, self.token = model, ids, [token], token

    def linearised(self, normed: Tensor, output: Any) -> Linearised:
        """`normed`: (P, D) what the final norm gave; `output`: of the model."""
        weight_VD, bias_V = self.weights()
        return self._scaled(lambda parts: nn.functional.linear(parts, weight_VD), normed, bias_V, self.true(output))

    def true(self, output: Any) -> Tensor:
        """(V,) logits of the true pass."""
        return output.logits[0, self.token].float()

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """(V, D) and (V,)."""
        library = getattr(self.model, "library", self.model)
        return _weights_of(library.get_output_embeddings())

    def _scaled(self, then: LinearMap, normed: Tensor, bias_V: Tensor | None, logits_V: Tensor) -> Linearised:
        """Some families multiply the logits by a number, or bend them at a cap: that factor is held fixed too."""
        plain_V = then(normed.unsqueeze(1)).sum((0, 1)) + (0 if bias_V is None else bias_V)
        plain_V = plain_V[: len(logits_V)]
        dtype = next(self.model.library.parameters()).dtype if isinstance(self.model, AdaptedModel) else torch.float32
        factor: float | Tensor
        if found := factors(logits_V, [plain_V], dtype):
            factor = found[0]
        elif agree(cap := _capped(self.model, plain_V), logits_V, dtype):
            factor = torch.where(plain_V == 0, 1.0, cap / plain_V)
        else:
            raise NotSeparable("its logits are not what its output layer makes of the final norm")
        constants = {} if bias_V is None else {"bias": factor * bias_V}
        return Linearised(lambda parts: factor * then(parts)[..., : len(logits_V)], constants, logits_V)


class MaskedHead(Head):
    """A transform with gelu and a norm stands before the output layer: both frozen."""

    def __init__(self, model: Any, ids: Sequence[int], token: int):
        super().__init__(model, ids, token)
        self.token -= int(model.config.cls_token)
        if self.token < 0:
            raise ValueError("The model's own first token predicts nothing. Choose a token of the text.")

    def linearised(self, normed: Tensor, output: Any) -> Linearised:
        model = self.model
        weight_VD, _ = self.weights()
        inside = model.transform(normed)
        gate = gelu_gate(inside)
        norm = frozen_norm(model.transform_norm, inside * gate, model.transform_norm(inside * gate))

        def then(parts: Tensor) -> Tensor:
            return nn.functional.linear(norm(nn.functional.linear(parts, model.transform.weight) * gate), weight_VD)

        constant = nn.functional.linear(norm((model.transform.bias * gate).unsqueeze(1)), weight_VD)[0, 0]
        return Linearised(then, {"bias": constant + model.bias}, self.true(output))


class PooledHead(Head):
    """A Switch classifier that pools the residual stream of all tokens: weights and places of maxima are held fixed."""

    def __init__(self, model: SwitchForSequenceClassification, ids: Sequence[int], token: int):
        super().__init__(model, ids, token)
        self.places = list(range(len(ids) + int(model.config.cls_token)))

    def true(self, output: Any) -> Tensor:
        return output.logits[0].float()

    def linearised(self, normed: Tensor, output: Any) -> Linearised:
        model, mask_1P = self.model, torch.ones(1, len(self.places), dtype=torch.bool, device=normed.device)
        weights_1P = model._token_weights(normed.unsqueeze(0), mask_1P)
        weight, bias = model.classifier.weight, model.classifier.bias
        if model.hidden_layer is not None:
            pooled = model._pooled(normed.unsqueeze(0), mask_1P, weights_1P)
            gate = gelu_gate(model.hidden_layer(pooled))[0]
            bias = bias + weight @ (gate * model.hidden_layer.bias)
            weight = (weight * gate) @ model.hidden_layer.weight
        shares = [_shares(how, normed, weights_1P) for how in model.config.pooling.split("+")]

        def then(parts: Tensor) -> Tensor:
            pieces = weight.split(parts.shape[-1], dim=1)
            return sum(parts * share.unsqueeze(1) @ piece.t() for share, piece in zip(shares, pieces, strict=True))

        constants = {"bias": bias}
        if model.counts is not None:
            ids = torch.tensor([self.ids], device=normed.device)
            constants["word counts"] = model.counts(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        return Linearised(then, constants, self.true(output))


class LastTokenHead(Head):
    """A classifier of transformers, which reads the last token."""

    def __init__(self, model: AdaptedModel, ids: Sequence[int], token: int):
        super().__init__(model, ids, len(ids) - 1)

    def true(self, output: Any) -> Tensor:
        return output.logits[0].float()

    def weights(self) -> tuple[Tensor, Tensor | None]:
        return _classifier_of(self.model)


class TokenClassHead(Head):
    """A classifier of tokens of transformers."""

    def weights(self) -> tuple[Tensor, Tensor | None]:
        return _classifier_of(self.model)


def head_of(model: Any, ids: Sequence[int], token: int) -> Head:
    """The head of a model for a text of these ids, at the token whose prediction is asked for."""
    kinds = {
        SwitchForMaskedLM: MaskedHead,
        SwitchForSequenceClassification: PooledHead,
        AdaptedClassifier: LastTokenHead,
        AdaptedTokenClassifier: TokenClassHead,
    }
    return next((head for kind, head in kinds.items() if isinstance(model, kind)), Head)(model, ids, token)


def _weights_of(layer: Any) -> tuple[Tensor, Tensor | None]:
    if not isinstance(getattr(layer, "weight", None), Tensor):
        raise NotSeparable("it has no output layer with a weight for each output")
    bias = getattr(layer, "bias", None)
    return layer.weight.float(), None if bias is None else bias.float()


def _classifier_of(model: AdaptedModel) -> tuple[Tensor, Tensor | None]:
    layers = [one for one in model.library.children() if isinstance(one, nn.Linear)]
    if len(layers) != 1:
        raise NotSeparable("its classifier is not one linear layer")
    return _weights_of(layers[0])


def _capped(model: Any, plain: Tensor) -> Tensor:
    """Logits as Gemma caps them; unchanged without a cap."""
    config = getattr(model, "library", model).config.get_text_config()
    cap = getattr(config, "final_logit_softcapping", None)
    return plain if not cap else cap * torch.tanh(plain / cap)


def _shares(how: str, normed: Tensor, weights_1P: Tensor | None) -> Tensor:
    """(P, D) share of each place's states in the pooled vector."""
    if weights_1P is not None:
        return weights_1P[0].unsqueeze(-1).expand_as(normed)
    if how == "max":
        return torch.zeros_like(normed).scatter(0, normed.argmax(0, keepdim=True), 1.0)
    if how == "first":
        return torch.zeros_like(normed).index_fill(0, torch.tensor([0], device=normed.device), 1.0)
    return torch.full_like(normed, 1 / len(normed))
