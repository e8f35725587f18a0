"""A balance audit: is the balance loss that a model trains with the one that its papers describe?

The loss is computed anew from what the routers returned, in each of the ways in which it is known to go wrong, and
compared with the model's own.
Legend: B batch, T tokens, L layers, E experts, K choices.
Try it: print(audit_balance(AutoModelForCausalLM.from_pretrained("a/mixtral")).in_words)
"""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from switch_model.adapters.hooks import Hooks
from switch_model.adapters.model import AdaptedModel, routers_and_stacks
from switch_model.topk_routing import TopKRouting

TOLERANCE = 1e-4


@dataclass(frozen=True)
class BalanceAudit:
    """What was found.

    Attributes:
        own: the model's loss before its coefficient; None where it gives none.
        expected: mean over the layers of E · Σ fᵢPᵢ, over real tokens alone; 1 = balanced (Switch Transformers eq. 4,
            with f the share of the K assignments).
        coefficient: what the model multiplies it by; None = unknown.
        mistakes: each in a sentence; empty = none was found.
        scale: what else the model multiplies the loss by: k, the number of layers, or both; None = unknown.
    """

    own: float | None
    expected: float
    coefficient: float | None
    mistakes: tuple[str, ...]
    scale: float | None = None

    @property
    def in_words(self) -> str:
        """All of it, for a person."""
        own = "The model gives no balance loss" if self.own is None else f"The model's balance loss is {self.own:.4f}"
        scale = f", times {self.scale:g} by its convention" if self.scale not in (None, 1) else ""
        found = self.mistakes or ("No mistake was found.",)
        return " ".join((f"{own}; from its routing it should be {self.expected:.4f}{scale}.", *found))


def audit_balance(model: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None) -> BalanceAudit:
    """Audit the balance loss of a model of transformers.

    Args:
        model: with routers that can be read (docs/adapters.md), also as `from_checkpoint` opened it.
        input_ids, attention_mask: (B, T) tokens, padded so that it shows whether padding counts; None = random ones.

    Raises:
        ValueError: when the model has no routers that can be read.
    """
    model = model.library if isinstance(model, AdaptedModel) else model
    if input_ids is None:
        random = torch.Generator().manual_seed(0)
        vocabulary = model.config.get_text_config().vocab_size
        input_ids = torch.randint(vocabulary, (4, 32), generator=random).to(model.device)
        attention_mask = torch.ones_like(input_ids)
        attention_mask[1:, :20] = 0
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    routers, stacks = routers_and_stacks(model)
    if not routers:
        raise ValueError(f"{type(model).__name__} has no routers that can be read.")
    was_training, hooks = model.training, Hooks(routers, stacks, [])
    model.eval()
    try:
        with hooks.on(), torch.no_grad():
            asked = _loss_of(model(input_ids=input_ids, attention_mask=attention_mask, output_router_logits=True))
        with torch.no_grad():
            unasked = _loss_of(model(input_ids=input_ids, attention_mask=attention_mask))
    finally:
        model.train(was_training)
    return _audited(hooks.records(), asked, unasked is not None, getattr(model.config, "router_aux_loss_coef", None))


# Ways to compute the loss, each with what it means when the model does so; the right way first.
_SOFTMAX = (
    "",
    "Double softmax: the router's probabilities go through a second softmax, which makes them nearly even and the loss "
    "nearly constant.",
)
_PADDING = (
    "",
    "Padding is counted: tokens that mean nothing pull the routing of real ones. Pass the attention mask on.",
)
_LAYERS = (
    "",
    "All layers are pooled: shares are summed over the layers before they are multiplied, so that a layer that "
    "collapses can be hidden by the others. Compute the loss layer by layer and take the mean.",
)
_OFF = (
    "Switched off without a word: the model only adds the loss when router logits are asked for. Set "
    "model.config.output_router_logits = True before training."
)
_UNKNOWN = "It agrees with none of the ways that are known here: look at how it is computed."


def _audited(
    records: tuple[TopKRouting, ...], own: float | None, is_on: bool, coefficient: float | None
) -> BalanceAudit:
    expected = _balance(records, twice=False, padding=False, pooled=False)
    mistakes: list[str] = []
    scale = None
    if own is not None:
        # Fewest mistakes first; a scale of K, L or both is a convention, not a mistake.
        ways = sorted(itertools.product((False, True), repeat=3), key=sum)
        scales = {1.0, float(records[0].experts.shape[-1]), float(len(records))}
        scales |= {a * b for a in scales for b in scales}
        agreeing = (
            (way, scale)
            for way in ways
            for scale in sorted(scales)
            if abs(own - scale * _balance(records, *way)) <= TOLERANCE * max(abs(own), 1)
        )
        found, scale = next(agreeing, (None, None))
        if found is None:
            mistakes.append(_UNKNOWN)
        else:
            mistakes += [said[one] for said, one in zip((_SOFTMAX, _PADDING, _LAYERS), found, strict=True) if one]
        if not is_on and coefficient:
            mistakes.append(_OFF)
        if coefficient == 0:
            mistakes.append("Its coefficient is 0: it changes nothing.")
    return BalanceAudit(own, float(expected), coefficient, tuple(mistakes), scale)


def _balance(records: tuple[TopKRouting, ...], twice: bool, padding: bool, pooled: bool) -> float:
    """E · Σ fᵢPᵢ: `twice` with a second softmax, over `padding` too, over all layers `pooled`."""
    shares, chances = [], []
    for record in records:
        counted_BT = torch.ones_like(record.mask) if padding else record.mask
        chosen_NK, probs_NE = record.experts[counted_BT], _probabilities(record)[counted_BT]
        if twice:
            probs_NE = probs_NE.softmax(dim=-1)
        counts_E = torch.bincount(chosen_NK.flatten(), minlength=record.num_experts)
        shares.append(counts_E / chosen_NK.numel())
        chances.append(probs_NE.mean(dim=0))
    f, p = torch.stack(shares), torch.stack(chances)
    if pooled:
        f, p = f.mean(0, keepdim=True), p.mean(0, keepdim=True)
    return float(records[0].num_experts * (f * p).sum(-1).mean())


def _probabilities(record: TopKRouting) -> Tensor:
    """(B, T, E) of what the router returned, which in some families is probabilities already."""
    if record.logits is None:
        raise ValueError(f"{record.name}: its router returns no logits, so that its loss can't be computed.")
    scores = record.logits.float()
    if (scores >= 0).all() and torch.allclose(scores.sum(-1), torch.ones_like(scores[..., 0]), atol=1e-4):
        return scores
    return scores.softmax(dim=-1)


def _loss_of(output: Any) -> float | None:
    found = [getattr(output, name, None) for name in ("aux_loss", "encoder_aux_loss", "decoder_aux_loss")]
    losses = [float(one) for one in found if isinstance(one, Tensor)]
    return sum(losses) if losses else None
