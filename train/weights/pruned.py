"""A model without some of its experts: the others keep their weights, and the router their rows.

Try it: without_experts(model, {"encoder.1": [0, 5], "encoder.3": [2, 7]}).config.num_experts
"""

import copy

import torch
from torch import nn

from switch_model.analysis.pruning import Removed, check_prunable
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.stack import Block
from switch_model.sparse_mlp import SparseMLP


@torch.no_grad()
def without_experts(model: SwitchPreTrainedModel, removed: Removed) -> SwitchPreTrainedModel:
    """A smaller model; the given one is unchanged.

    Args:
        removed: for each layer with experts, those to remove: as many in every layer, for a model has one number.

    Raises:
        ValueError: for a model that can't be pruned, or another number in some layer.
    """
    check_prunable(model)
    counts = {len(set(removed.get(layer, ()))) for layer in model.config.sparse_layers}
    if len(counts) != 1:
        raise ValueError("The same number of experts must be removed in every sparse layer.")
    config = copy.deepcopy(model.config)
    config.num_experts -= counts.pop()
    config.validate()
    smaller = type(model)(config).to(model.device, model.dtype)
    weights = dict(model.state_dict())
    for path, block in model.named_modules():
        if isinstance(block, Block) and isinstance(block.mlp, SparseMLP):
            gone = set(removed[block.mlp.router.name])
            kept = [expert for expert in range(model.config.num_experts) if expert not in gone]
            for name in _rows_by_expert(block.mlp):
                weights[f"{path}.mlp.{name}"] = weights[f"{path}.mlp.{name}"][kept]
    smaller.load_state_dict(weights)
    return smaller.train(model.training)


def _rows_by_expert(mlp: nn.Module) -> list[str]:
    """The weights of a sparse MLP that have a row for each expert."""
    return [name for name in mlp.state_dict() if name.startswith(("router.", "experts."))]
