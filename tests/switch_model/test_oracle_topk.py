"""Layers with several experts against transformers' with the same weights: outputs, choices and gradients."""

import pytest
import torch
from torch import nn
from transformers import DeepseekV3Config, MixtralConfig, OlmoeConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock

from switch_model import SwitchConfig
from switch_model.sparse_mlp import SparseMLP

WIDTH, INNER, EXPERTS, CHOICES = 16, 24, 8, 3
SHAPE = dict(hidden_size=WIDTH, num_experts_per_tok=CHOICES)
OWN = dict(
    d_model=WIDTH, d_ff=99, d_expert=INNER, num_experts=EXPERTS, num_experts_per_tok=CHOICES, dense_act_fn="gated-silu",
    capacity_factor=None, expert_dropout=0.0, dropout_rate=0.0,
)  # fmt: skip
# Family -> their block and our settings.
BLOCKS = {
    "mixtral": (
        lambda: MixtralSparseMoeBlock(MixtralConfig(**SHAPE, intermediate_size=INNER, num_local_experts=EXPERTS)),
        dict(router="topk"),
    ),
    "olmoe": (
        lambda: OlmoeSparseMoeBlock(OlmoeConfig(**SHAPE, intermediate_size=INNER, num_experts=EXPERTS)),
        dict(router="topk", norm_topk_prob=False),
    ),
    "deepseek_v3": (
        lambda: DeepseekV3MoE(
            DeepseekV3Config(
                **SHAPE, moe_intermediate_size=INNER, n_routed_experts=EXPERTS, n_shared_experts=2, n_group=4,
                topk_group=2, routed_scaling_factor=2.5,
            )
        ),
        dict(
            router="sigmoid_bias", num_shared_experts=2, expert_groups=4, top_groups=2, routed_scaling_factor=2.5
        ),
    ),
}  # fmt: skip


def with_weights_of(theirs: nn.Module, settings: dict) -> SparseMLP:
    layer = SparseMLP(SwitchConfig(**OWN | settings), "encoder.0")
    with torch.no_grad():
        layer.router.classifier.weight.copy_(theirs.gate.weight)
        layer.experts.wi_0.copy_(theirs.experts.gate_up_proj[:, :INNER])
        layer.experts.wi_1.copy_(theirs.experts.gate_up_proj[:, INNER:])
        layer.experts.wo.copy_(theirs.experts.down_proj)
        if layer.shared_experts is not None:
            layer.router.balance_bias.copy_(theirs.gate.e_score_correction_bias)
            for own, name in (("wi_0", "gate_proj"), ("wi_1", "up_proj"), ("wo", "down_proj")):
                getattr(layer.shared_experts, own).load_state_dict(getattr(theirs.shared_experts, name).state_dict())
    return layer


@pytest.mark.parametrize("family", BLOCKS)
def test_outputs_choices_and_gradients_are_the_librarys(family):
    torch.manual_seed(0)
    theirs, settings = BLOCKS[family][0](), BLOCKS[family][1]
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.3)
    if family == "deepseek_v3":
        nn.init.normal_(theirs.gate.e_score_correction_bias, std=0.3)
    ours = with_weights_of(theirs, settings)
    one, two = (hidden.requires_grad_() for hidden in torch.randn(4, 7, WIDTH).repeat(2, 1, 1, 1))

    expected, (output, routing) = theirs(one), ours(two, torch.ones(4, 7))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    _, weights, indices = theirs.gate(one)
    chosen = torch.zeros(28, EXPERTS).scatter(1, indices, weights)
    again = torch.zeros(28, EXPERTS).scatter(1, routing.experts.flatten(0, 1), routing.weights.flatten(0, 1))
    torch.testing.assert_close(again, chosen)
    assert (routing.weights.diff(dim=-1) <= 0).all(), "the largest weight first"

    direction = torch.randn_like(output)
    (expected * direction).sum().backward()
    (output * direction).sum().backward()
    torch.testing.assert_close(two.grad, one.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.router.classifier.weight.grad, theirs.gate.weight.grad, atol=1e-4, rtol=1e-4)
    gradient = theirs.experts.gate_up_proj.grad
    torch.testing.assert_close(ours.experts.wi_0.grad, gradient[:, :INNER], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.experts.wo.grad, theirs.experts.down_proj.grad, atol=1e-4, rtol=1e-4)
