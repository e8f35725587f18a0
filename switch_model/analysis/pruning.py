"""Which experts a model can do without: three scores of every expert, and what a model without some would lose.

Legend: N texts, B batch, T tokens, D d_model, E experts.
REAP (Router-weighted Expert Activation Pruning, 2510.13999) scores an expert by what it adds where it is chosen: the
mean, over its tokens, of its gate times the norm of its output. Beside it the load (share of tokens), and the loss
without the expert, which costs a pass each.
Try it: plan(expert_worths(model, batches_of(model, rows)), keep=6, by="reap")
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from switch_model.analysis.scoring import Batch, Scores, score
from switch_model.interventions import Interventions
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.sparse_mlp import SparseMLP
from switch_model.stepping import to_the_end

# What experts may be ranked by.
SCORES = ("reap", "load", "effect")


@dataclass(frozen=True)
class Worth:
    """What one expert is worth to its layer.

    Attributes:
        load: share of the layer's choices that it computes.
        reap: mean of its gate times its output's norm, over the tokens it computes; 0 without any.
        effect: what the loss grows by without it, in nats per label, all else unchanged.
    """

    load: float
    reap: float
    effect: float


# Layer -> one Worth for each expert.
Worths = Mapping[str, Sequence[Worth]]
# Layer -> the experts to remove.
Removed = Mapping[str, Sequence[int]]


def expert_worths(
    model: SwitchPreTrainedModel, batches: Sequence[Batch], progress: Callable[[int, int], None] | None = None
) -> dict[str, list[Worth]]:
    """Every expert's scores on some texts.

    Args:
        batches: of `scoring.batches_of`.
        progress: called with (experts done, total).

    Raises:
        ValueError: for a model without sparse MLPs of this package.
    """
    return to_the_end(worths_in_steps(model, batches), progress)


def worths_in_steps(
    model: SwitchPreTrainedModel, batches: Sequence[Batch]
) -> Generator[tuple[int, int], None, dict[str, list[Worth]]]:
    """`expert_worths` as a generator, to show progress: yields (experts done, total)."""
    check_prunable(model)
    with _added_by_experts(model) as added:
        plain = nats_per_label(score(model, batches))
    layers, experts = sorted(added, key=model.config.sparse_layers.index), model.config.num_experts
    worths: dict[str, list[Worth]] = {layer: [] for layer in layers}
    done, total = 0, len(layers) * experts
    for layer in layers:
        count_E, sum_E = added[layer]
        for expert in range(experts):
            yield done, total
            without = score(model, batches, Interventions(ablate={(layer, expert)}))
            tokens = int(count_E[expert])
            reap = float(sum_E[expert]) / tokens if tokens else 0.0
            load = tokens / max(int(count_E.sum()), 1)
            worths[layer].append(Worth(load, reap, nats_per_label(without) - plain))
            done += 1
    yield total, total
    return worths


def check_prunable(model: Any) -> None:
    """Raise ValueError for a model from which single experts can't be taken."""
    if not isinstance(model, SwitchPreTrainedModel):
        raise ValueError("Only models of this package can be made smaller: those of other families keep their experts.")
    if not any(isinstance(module, SparseMLP) for module in model.modules()):
        raise ValueError("This model has no sparse MLP: there are no experts to remove.")
    if model.config.attention_experts != "none":
        raise ValueError("This model has experts in attention too, as many as in its MLPs: they can't be removed.")


def nats_per_label(scores: Scores) -> float:
    """Mean loss of a label (a class, or a token) in nats."""
    return float(scores.nats.sum() / max(scores.asked.sum(), 1))


@contextmanager
def _added_by_experts(model: SwitchPreTrainedModel) -> Iterator[dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Layer -> (tokens (E,), sum of the norms of what the expert adds (E,)), of all passes within the context.

    The norm of an expert's output times its weight is the score of one token.
    """
    sums: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def note(mlp: Any, given: tuple[Any, ...], output: Any) -> None:
        hidden_BTD, (added_BTD, routing) = given[0], output
        for choice in range(routing.experts.shape[-1]):
            expert_BT, weight_BT = routing.experts[..., choice], routing.weights[..., choice]
            if mlp.config.router != "switch":  # The output is a sum: each choice's part is computed once more.
                parts = hidden_BTD.flatten(0, 1), expert_BT.reshape(-1, 1), weight_BT.reshape(-1, 1)
                added_BTD = mlp.experts(*parts).view_as(hidden_BTD)
            used_BT = weight_BT != 0
            expert, norm = expert_BT[used_BT].cpu(), added_BTD.float().norm(dim=-1)[used_BT].double().cpu()
            count_E = torch.bincount(expert, minlength=routing.num_experts).numpy()
            sum_E = torch.bincount(expert, norm, minlength=routing.num_experts).numpy()
            before = sums.get(routing.name, (0, 0))
            sums[routing.name] = before[0] + count_E, before[1] + sum_E

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, SparseMLP)]
    try:
        yield sums
    finally:
        for hook in hooks:
            hook.remove()


def plan(worths: Worths, keep: int, by: str) -> dict[str, list[int]]:
    """In each layer, the experts that are worth least, so that `keep` are left. Of equal ones the last.

    Args:
        by: one of SCORES.

    Raises:
        ValueError: for another score, or a number that leaves no expert, or all.
    """
    if by not in SCORES:
        raise ValueError(f"Experts are ranked by {', '.join(SCORES)}, not by {by!r}.")
    experts = len(next(iter(worths.values())))
    if not 1 <= keep < experts:
        raise ValueError(f"Of {experts} experts 1 to {experts - 1} can be kept, not {keep}.")
    removed = {}
    for layer, own in worths.items():
        order = sorted(range(experts), key=lambda expert: (-getattr(own[expert], by), expert))
        removed[layer] = sorted(order[keep:])
    return removed


def random_plan(worths: Worths, keep: int, seed: int) -> dict[str, list[int]]:
    """As many experts of each layer, drawn at random: what a score has to beat."""
    random = np.random.default_rng(seed)
    return {layer: sorted(random.permutation(len(own))[keep:].tolist()) for layer, own in worths.items()}


def predicted_loss(worths: Worths, removed: Removed) -> float:
    """What the loss grows by if every expert's effect were its own: the sum of single effects, in nats per label."""
    return sum(worths[layer][expert].effect for layer, experts in removed.items() for expert in experts)
