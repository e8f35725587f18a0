"""The sparse layer against a reference in plain Python loops and float64, for every option of the router.

The reference follows the paper's words, one token at a time; it shares no code with the layer.
"""

import math

import pytest
import torch

from switch_model import SwitchConfig
from switch_model.layers import dispatch, experts
from switch_model.sparse_mlp import SparseMLP

B, T, D, F, E = 4, 13, 16, 24, 3
SHAPE = dict(vocab_size=10, d_model=D, d_ff=F, d_kv=8, num_heads=2, num_layers=1, num_experts=E, expert_dropout=0.0)


def make_mask() -> torch.Tensor:
    """Padding on the right, on the left, nowhere, and a row of nothing else."""
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[0, 9:] = False
    mask[1, :4] = False
    mask[3] = False
    return mask


def reference(layer, hidden, router_input, logit_noise, mask, factor, settings):
    """-> output (B, T, D), expert, slot, capacity as nested lists; float64 throughout."""
    weight = layer.router.classifier.weight.double()
    wi, wo = layer.experts.wi.double(), layer.experts.wo.double()
    probability, choice = {}, {}
    for b in range(B):
        for t in range(T):
            if mask[b, t]:
                logits = weight @ router_input[b, t].double() + logit_noise[b, t].double()
                probs = torch.exp(logits) / torch.exp(logits).sum()
                choice[b, t] = int(logits.argmax())
                probability[b, t] = float(probs[choice[b, t]])

    groups = [list(range(B))] if settings.get("capacity_group") == "batch" else [[b] for b in range(B)]
    slot = [[-1] * T for _ in range(B)]
    capacity = [0] * B
    for group in groups:
        tokens = [(b, t) for b in group for t in range(T) if mask[b, t]]
        if settings.get("expert_capacity"):
            room = settings["expert_capacity"]
        elif factor is None:
            room = 2**31 - 1
        else:
            room = max(settings.get("min_expert_capacity", 4), math.ceil(len(tokens) * factor / E - 1e-6))
        for b in group:
            capacity[b] = room
        if settings.get("router_priority") == "probability":
            tokens.sort(key=lambda token: -probability[token])
        filled = [0] * E
        for b, t in tokens:
            slot[b][t] = filled[choice[b, t]]
            filled[choice[b, t]] += 1

    output = torch.zeros(B, T, D, dtype=torch.float64)
    for (b, t), expert in choice.items():
        if slot[b][t] < capacity[b]:
            inner = torch.relu(wi[expert] @ hidden[b, t].double())
            output[b, t] = probability[b, t] * (wo[expert] @ inner)
    return output, choice, slot, capacity


CASES = {
    "factor 1": {},
    "factor 0.7, not dyadic": dict(factor=0.7),
    "factor 1.1, not dyadic": dict(factor=1.1),
    "dropless": dict(factor=None),
    "absolute": dict(expert_capacity=2),
    "minimum": dict(factor=0.3, min_expert_capacity=3),
    "probability": dict(router_priority="probability"),
    "batch": dict(capacity_group="batch", factor=0.6),
    "batch, probability": dict(capacity_group="batch", router_priority="probability", factor=0.6),
    "jitter": dict(router_jitter_noise=0.3),
    "gaussian": dict(router_noise_eps=0.5),
}


@pytest.mark.parametrize("way", ["tensors", "numpy", "padded"])
@pytest.mark.parametrize("case", CASES)
def test_every_option_against_the_reference(case, way, monkeypatch):
    monkeypatch.setattr(dispatch, "_by_numpy", lambda tensor: way != "tensors")
    monkeypatch.setattr(experts, "PADDED_TOKENS", 1_000 if way == "padded" else 0)
    settings = dict(min_expert_capacity=1) | CASES[case]
    factor = settings.pop("factor", 1.0)
    torch.manual_seed(0)
    config = SwitchConfig(**SHAPE, **settings, capacity_factor=factor, eval_capacity_factor=factor)
    noisy = "router_jitter_noise" in settings or "router_noise_eps" in settings
    layer = SparseMLP(config).train(noisy)
    hidden, mask = torch.randn(B, T, D), make_mask()

    # The same draw the layer will make: one kind of noise at a time.
    router_input, logit_noise = hidden, torch.zeros(B, T, E)
    torch.manual_seed(1)
    if size := settings.get("router_jitter_noise"):
        router_input = hidden * torch.empty(B, T, D).uniform_(1 - size, 1 + size)
    if size := settings.get("router_noise_eps"):
        logit_noise = torch.randn(B, T, E) * size
    torch.manual_seed(1)
    with torch.no_grad():
        output, routing = layer(hidden, mask)
        expected, choice, slot, capacity = reference(layer, hidden, router_input, logit_noise, mask, factor, settings)

    assert {token: int(routing.expert[token]) for token in choice} == choice
    assert routing.slot.tolist() == slot
    assert routing.capacity.tolist() == capacity
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=1e-4)
    if factor is not None:
        assert routing.dropped.any(), "a case in which nothing is dropped tests little"
