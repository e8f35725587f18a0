"""Our sparse layer and attention against transformers' own with the same weights, in evaluation."""

import pytest
import torch
from transformers import SwitchTransformersConfig
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersSparseMLP

from switch_model import SwitchConfig
from switch_model.layers.attention import Attention, RelativePositionBias, padding_bias
from switch_model.sparse_mlp import SparseMLP

B, T, D, F, E = 3, 17, 24, 40, 5


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("capacity", [B * T, 3], ids=["ample", "binding"])
def test_same_weights_same_output_choices_and_gradients(activation, bias, capacity):
    torch.manual_seed(0)
    shape = dict(d_model=D, d_ff=F, num_experts=E, dense_act_fn=activation, router_bias=bias)
    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(**shape, expert_capacity=capacity, router_jitter_noise=0.0)
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = SparseMLP(SwitchConfig(**shape, d_kv=8, num_heads=3, expert_capacity=capacity)).eval()
    with torch.no_grad():
        ours.router.classifier.load_state_dict(theirs.router.classifier.state_dict())
        experts = [theirs.experts[f"expert_{e}"] for e in range(E)]
        ours.experts.wi.copy_(torch.stack([expert.wi.weight for expert in experts]))
        ours.experts.wo.copy_(torch.stack([expert.wo.weight for expert in experts]))

    hidden = torch.randn(B, T, D)
    own_input, their_input = (hidden.clone().requires_grad_() for _ in range(2))
    our_output, routing = ours(own_input, torch.ones(B, T, dtype=torch.bool))
    their_output = theirs(their_input)
    their_output = their_output[0] if isinstance(their_output, tuple) else their_output
    torch.testing.assert_close(our_output, their_output, atol=1e-5, rtol=1e-4)

    direction = torch.randn(B, T, D)
    (our_output * direction).sum().backward()
    (their_output * direction).sum().backward()
    torch.testing.assert_close(own_input.grad, their_input.grad, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        ours.router.classifier.weight.grad, theirs.router.classifier.weight.grad, atol=1e-4, rtol=1e-3
    )
    their_wi = torch.stack(
        [torch.zeros(F, D) if expert.wi.weight.grad is None else expert.wi.weight.grad for expert in experts]
    )
    torch.testing.assert_close(ours.experts.wi.grad, their_wi, atol=1e-4, rtol=1e-3)

    one_hot, gate, logits = theirs.router(hidden)
    assert torch.equal(routing.expert, logits.argmax(-1))
    assert torch.equal(routing.kept, one_hot.sum(-1) == 1) and routing.dropped.any() == (capacity == 3)
    torch.testing.assert_close(routing.gate, gate.squeeze(-1))


def test_attention_is_t5s_attention():
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    torch.manual_seed(0)
    shape = dict(d_model=D, d_kv=8, num_heads=3)
    theirs = T5Attention(T5Config(**shape, dropout_rate=0.0), has_relative_attention_bias=True, layer_idx=0).eval()
    config = SwitchConfig(**shape)
    ours, position = Attention(config).eval(), RelativePositionBias(config)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = theirs.state_dict()
    position.load_state_dict({"relative_attention_bias.weight": weights.pop("relative_attention_bias.weight")})
    ours.load_state_dict(weights)
    hidden, mask = torch.randn(B, T, D), torch.ones(B, T, dtype=torch.bool)
    mask[1, 9:] = False
    padding = padding_bias(mask, hidden.dtype)
    with torch.no_grad():
        expected = theirs(hidden, mask=padding)[0]
        output, _ = ours(hidden, position(T, T, hidden.device) + padding)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)
