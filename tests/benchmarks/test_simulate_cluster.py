"""The simulated cluster counts as the models do, and as by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.simulate_cluster import (
    PAPER,
    STATE_BYTES,
    Device,
    Shape,
    choices,
    dropped,
    imbalance,
    model_of,
    parameters,
    step,
    work,
)

SMALL = Shape("small", d_model=32, d_ff=64, d_kv=16, heads=4, layers=2, gated=True, experts=4, every=2)


@pytest.mark.parametrize(("index", "experts"), [(0, 128), (1, 128), (2, 128), (3, 2048)])
def test_parameters_are_the_papers(index, experts):
    """Of Switch-XXL with the 128 experts of its published checkpoint, and not the table's 64."""
    shape, size, _ = PAPER[index]
    assert parameters(replace(shape, experts=experts))[0] == pytest.approx(size, rel=0.065)


def test_work_is_what_torch_counts():
    model = model_of(SMALL).eval()
    ids, labels = torch.randint(1, 100, (1, 24)), torch.randint(1, 100, (1, 10))
    # Experts one by one: a batched product pads the shorter ones.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=labels)
    found = work(SMALL, source=24, target=10)
    products = counter.get_flop_counts()["Global"][torch.ops.aten.mm]
    assert found.weights + found.crossing + found.logits + found.routers == products


def test_a_step_by_hand():
    device = Device(peak=1e9, efficiency=0.5, bandwidth=1e6)
    one, four = (step(SMALL, devices, 2, device, full=1.0) for devices in (1, 4))
    total, experts = parameters(SMALL)
    assert (one.state, four.state) == (STATE_BYTES * total, STATE_BYTES * (total - experts * 3 / 4))
    assert one.exchange == one.gradients == 0
    # A sparse layer in each stack; there and back, forward and backward; 32 numbers of two bytes, three quarters leave.
    assert four.bytes_per_token == 4 * 1 * 32 * 2 * 3 / 4
    assert four.exchange == pytest.approx(2 * 626 * four.bytes_per_token / 1e6)
    assert one.compute == four.compute == pytest.approx(3 * 2 * work(SMALL).all / 0.5e9)
    assert step(SMALL, 4, 2, device, full=2.0).compute > four.compute


def test_drops_and_imbalance_by_hand():
    count = np.array([[3, 1], [2, 2]])
    assert dropped(count, 1.0) == 1 / 8
    assert dropped(count, 1.5) == 0
    assert imbalance(count) == 5 / 4


def test_choices_vary_as_asked():
    loads = choices(100_000, 512, 1, 0.5)[0]
    assert loads.sum() == 100_000
    assert loads.std() / loads.mean() == pytest.approx(0.5, abs=0.05)
