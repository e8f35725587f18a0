"""What the model would have predicted with another expert for one token, without an expert, or without a token.

Each question is one batched pass with one row per alternative. Pure functions of a predictor and a text; metrics as
defined in docs/metrics.md. Legend: T tokens, L sparse layers, E experts, R rows, C classes.
Try it: what_if(Predictor.from_checkpoint("assets/models/ag_news"), "Oil prices rose.", token=0, layer="encoder.1")
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from switch_model.inference.classifier import Prediction, Predictor
from switch_model.interventions import Interventions

# Rows per pass: more would cost memory and save little time.
MAX_ROWS = 128


@dataclass(frozen=True)
class WhatIf:
    """One token of one layer under each expert.

    Attributes:
        label: the class predicted without the change.
        expert: the expert that the router chose.
        probability: (E,) probability of `label` under each expert; None where the expert is switched off.
        labels: (E,) class predicted under each expert; None likewise.
    """

    label: str
    expert: int
    probability: list[float | None]
    labels: list[str | None]

    @property
    def best(self) -> int:
        """The expert under which the predicted class is most probable."""
        return max(range(len(self.probability)), key=lambda expert: self.probability[expert] or 0.0)

    @property
    def regret(self) -> float:
        """Probability of `label` under the best expert minus that under the router's choice; 0 = the router chose the
        best, or all experts are off."""
        now, best = self.probability[self.expert], self.probability[self.best]
        return 0.0 if now is None or best is None else best - now


def what_if(
    predictor: Predictor,
    text: str,
    token: int,
    layer: str,
    base: Interventions | None = None,
    actual: Prediction | None = None,
) -> WhatIf:
    """The prediction under each expert for `token` (counted from 0) of `layer` ("encoder.1").

    Args:
        base: interventions that are applied throughout.
        actual: the prediction with `base`, if already computed.

    Raises:
        ValueError: when the text has no such token, or the model no such layer.
    """
    base = base or Interventions()
    config = predictor.model.config
    Interventions(ablate={(layer, 0)}).check_layers(config.sparse_layers)
    actual = actual or predictor(text, base)
    if not 0 <= token < len(actual.tokens):
        raise ValueError(f"There is no token {token}: the text has {len(actual.tokens)} tokens.")
    chosen = int(next(record for record in actual.routing if record.name == layer).expert[0, token])
    others = {place: expert for place, expert in base.force.items() if place != (layer, token)}
    probability: list[float | None] = [None] * config.num_experts
    labels: list[str | None] = [None] * config.num_experts
    if (layer, chosen) not in base.ablate:  # Forcing the router's own choice changes nothing.
        probability[chosen], labels[chosen] = actual.scores[actual.label], actual.label
    asked = [expert for expert in range(config.num_experts) if expert != chosen and (layer, expert) not in base.ablate]
    rows = [replace(base, force=others | {(layer, token): expert}) for expert in asked]
    names, index = config.labels, config.labels.index(actual.label)
    for expert, scores_C in zip(asked, _scores(predictor, text, rows).tolist(), strict=True):
        probability[expert], labels[expert] = scores_C[index], names[scores_C.index(max(scores_C))]
    return WhatIf(actual.label, chosen, probability, labels)


def importance(
    predictor: Predictor, text: str, base: Interventions | None = None
) -> tuple[str, tuple[str, ...], Tensor]:
    """The predicted class, the L layers, and (L, E) the change of that class's probability when an expert is ablated.

    An expert that is already off changes nothing.
    """
    base = base or Interventions()
    config = predictor.model.config
    layers, experts = config.sparse_layers, range(config.num_experts)
    # No token can be forced to an ablated expert.
    rows = [
        replace(
            base,
            ablate=base.ablate | {(layer, expert)},
            force={place: forced for place, forced in base.force.items() if (place[0], forced) != (layer, expert)},
        )
        for layer in layers
        for expert in experts
    ]
    actual_C, *without = _scores(predictor, text, [base, *rows])
    label = int(actual_C.argmax())
    change = torch.tensor([float(scores_C[label] - actual_C[label]) for scores_C in without])
    return config.labels[label], layers, change.view(len(layers), len(experts))


def leave_one_out(predictor: Predictor, text: str, base: Interventions | None = None) -> tuple[str, Tensor]:
    """The predicted class, and (T,) the change of its probability when that one token is masked out.

    The model's own CLS token, the first where it has one, can't be masked: its change is 0.

    Args:
        base: interventions that are applied throughout. A token keeps its forced expert when another is masked.
    """
    base = base or Interventions()
    ids = torch.tensor(predictor.token_ids(text), device=predictor.model.device)
    tokens = len(ids)
    visible = torch.cat([torch.ones(1, tokens), 1 - torch.eye(tokens)]).long().to(ids.device)
    first = int(predictor.model.config.cls_token)
    changes = [base, *(replace(base, force=_force_without(base, first + token)) for token in range(tokens))]
    parts = []
    with torch.inference_mode():
        for start in range(0, len(visible), MAX_ROWS):
            rows = visible[start : start + MAX_ROWS]
            # A pass without interventions is faster.
            some = None if base == Interventions() else changes[start : start + MAX_ROWS]
            parts.append(predictor.model(ids.expand(len(rows), -1), rows, interventions=some).logits)
    actual, *without = torch.cat(parts).float().softmax(dim=-1).cpu()
    label = int(actual.argmax())
    change = torch.stack([scores[label] for scores in without]) - actual[label]
    return predictor.model.config.labels[label], torch.cat([torch.zeros(first), change])


def _force_without(base: Interventions, left_out: int) -> dict[tuple[str, int], int]:
    """The forced tokens when one is masked out: indices after it decrease by one."""
    return {
        (layer, token - (token > left_out)): expert
        for (layer, token), expert in base.force.items()
        if token != left_out
    }


def _scores(predictor: Predictor, text: str, rows: list[Interventions]) -> Tensor:
    """(R, C) class probabilities under each row of interventions; without records, which would double the cost."""
    ids = torch.tensor(predictor.token_ids(text), device=predictor.model.device)
    parts = [torch.empty(0, len(predictor.model.config.labels))]
    with torch.inference_mode():
        for start in range(0, len(rows), MAX_ROWS):
            some = rows[start : start + MAX_ROWS]
            logits_RC = predictor.model(ids.expand(len(some), -1), interventions=some).logits
            parts.append(logits_RC.float().softmax(dim=-1).cpu())
    return torch.cat(parts)
