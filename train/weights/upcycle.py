"""--upcycle: a dense model's MLPs as the first weights of experts.

Sparse Upcycling (2212.05055): each expert of a layer starts as a copy of the dense MLP, and the router at random. A
Switch layer multiplies an expert's output by its gate, about 1 / experts at first, which the dense model never saw: so
the copies' output weights are divided by the mean gate (with several experts for each token, by the mean sum of their
weights), and the first predictions are nearly the dense model's.

Legend: E experts, D d_model, F d_ff.
Try it: python -m train --init_from runs/dense --upcycle 8 --dataset my.csv
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from switch_model.config import SwitchConfig
from switch_model.models.pretrained import SwitchPreTrainedModel
from switch_model.models.stack import Block
from switch_model.sparse_mlp import SparseMLP
from train.arguments.groups import ModelArguments
from train.arguments.model_config import CHOICE, SHAPE
from train.weights.initial import InitialWeights

# A dense MLP's weight, or that of the only expert of a layer.
_MLP = re.compile(
    r"(?P<mlp>(?P<stack>encoder|decoder)\.blocks\.(?P<layer>\d+)\.mlp)\.(experts\.)?(?P<name>wi|wi_0|wi_1|wo)(\.weight)?"
)
_ROUTER = re.compile(r"(encoder|decoder)\.blocks\.\d+\.mlp\.router\..*")
# Random inputs of a router, by which its mean gate is measured.
_INPUTS = 4096


def with_experts(start: InitialWeights, experts: int, model: ModelArguments) -> InitialWeights:
    """A dense model as the start of a sparse one.

    Args:
        experts: E of each sparse layer.
        model: its `sparse_step` and `decoder_sparse_step` say which MLPs become experts, its `router` and the rest of
            CHOICE how tokens get them.

    Raises:
        ValueError: for a start that has experts, or steps that make no layer sparse.
    """
    source = start.config
    if source.sparse_layers and source.num_experts > 1:
        raise ValueError(
            f"--upcycle {experts} is for a dense model, and the layers of --init_from's have {source.num_experts} "
            "experts already: leave --upcycle out, or start from a model trained with --sparse_step 0."
        )
    config = copy.deepcopy(source)
    config.num_experts, config.encoder_sparse_step = experts, model.sparse_step
    if source.is_encoder_decoder:
        config.decoder_sparse_step = model.decoder_sparse_step
    for flag in CHOICE:
        setattr(config, SHAPE[flag], getattr(model, flag))
    config.validate()
    if not config.sparse_layers:
        raise ValueError(f"--upcycle {experts} needs a sparse layer: --sparse_step {model.sparse_step} leaves none.")
    return replace(start, config=config, weights=expert_weights(start.weights, config))


def expert_weights(dense: Mapping[str, Tensor], config: SwitchConfig) -> dict[str, Tensor]:
    """A dense model's weights by the names of a sparse one: (F, D) of an MLP becomes (E, F, D), E times the same."""
    weights = {}
    for name, weight in dense.items():
        found = _MLP.fullmatch(name)
        if found is None:
            if not _ROUTER.fullmatch(name):
                weights[name] = weight
            continue
        one = weight.reshape(weight.shape[-2:])
        if config.is_sparse(int(found["layer"]), found["stack"]):
            weights[f"{found['mlp']}.experts.{found['name']}"] = one.expand(config.num_experts, *one.shape)
        else:
            weights[f"{found['mlp']}.{found['name']}.weight"] = one
    return weights


@torch.no_grad()
def divide_by_gates(model: SwitchPreTrainedModel) -> None:
    """Divide every expert's output weights by the mean of what its router multiplies with, over random inputs of the
    size that the norm before it gives."""
    inputs_ND = torch.randn(_INPUTS, model.config.d_model, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, _INPUTS, dtype=torch.bool)
    was_training = model.training
    model.eval()  # Without noise.
    for block in model.modules():
        if isinstance(block, Block) and isinstance(block.mlp, SparseMLP):
            # A token dropped for want of room says nothing of a gate.
            routing = block.mlp.router(inputs_ND.unsqueeze(0) * block.mlp_norm.weight, mask)
            gates = routing.weights.sum(dim=-1)
            block.mlp.experts.wo /= gates[gates > 0].mean()
    model.train(was_training)
