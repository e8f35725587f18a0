"""Experts spread over processes compute what one process with all of them does, forward and backward."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from switch_model import SwitchConfig
from switch_model.layers.expert_parallel import ExpertGroup
from switch_model.sparse_mlp import SparseMLP

PROCESSES = 4
CONFIG = dict(d_model=8, d_ff=16, num_experts=8, expert_dropout=0.0, switch_dropout=0.0, router_noise_eps=0.0)


def compare_with_whole(rank: int, count: int, **more) -> None:
    """In one of four processes: the layer with its experts spread over groups of `count`, on this process's rows,
    beside the whole layer on all rows. The last process has padding only."""
    torch.manual_seed(0)
    config = SwitchConfig(**CONFIG, capacity_factor=1.0, eval_capacity_factor=0.5, min_expert_capacity=1, **more)
    layer = SparseMLP(config)
    hidden, direction = torch.randn(PROCESSES * 2, 9, 8), torch.randn(PROCESSES * 2, 9, 8)
    mask = torch.rand(PROCESSES * 2, 9) < 0.9
    mask[-2:] = False
    group = ExpertGroup.of_launch(count)
    own = copy.deepcopy(layer)
    own.experts.spread(group)
    assert len(own.experts.wo) == 8 // count
    rows = slice(2 * rank, 2 * rank + 2)

    for training in (True, False):
        layer.train(training), own.train(training)
        output, routing = layer(hidden, mask)
        assert config.router != "switch" or (routing.dropped.any() and routing.kept.any())
        here, _ = own(hidden[rows].requires_grad_(), mask[rows])
        torch.testing.assert_close(here, output[rows])

    # Each process's loss is its part of the whole, times the number of processes, as in training.
    layer.train(), own.train()
    whole = hidden.clone().requires_grad_()
    part = hidden[rows].detach().clone().requires_grad_()
    (layer(whole, mask)[0] * direction).sum().backward()
    (own(part, mask[rows])[0] * direction[rows]).sum().mul(PROCESSES).backward()
    torch.testing.assert_close(part.grad, PROCESSES * whole.grad[rows])
    for weight, of_all in zip(own.experts.weights, layer.experts.weights, strict=True):
        torch.testing.assert_close(weight.grad, group.own(of_all.grad))
        gathered = group.whole(weight)
        assert gathered is None if group.rank else torch.equal(gathered, of_all)

    # A copy knows its processes, and takes its own experts out of whole weights.
    again = copy.deepcopy(own)
    again.load_state_dict({name: tensor + 1 for name, tensor in layer.state_dict().items()})
    torch.testing.assert_close(again.experts.wo, group.own(layer.experts.wo) + 1)


def in_process(rank: int, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=PROCESSES)
    compare_with_whole(rank, 4)
    compare_with_whole(rank, 2, dense_act_fn="gated-gelu")  # Two groups, with the same experts.
    compare_with_whole(rank, 4, router="topk", num_experts_per_tok=2)
    with pytest.raises(ValueError, match="can't be divided"):
        ExpertGroup.of_launch(3)
    dist.destroy_process_group()


def test_experts_in_two_and_four_processes_compute_as_in_one(tmp_path):
    torch.multiprocessing.spawn(in_process, (str(tmp_path / "meeting"),), PROCESSES)
