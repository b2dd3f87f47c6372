"""Latency is a measurement: it says on what, how often and how spread."""

import time

import pytest
import torch
from torch import nn

from dovetail.costs import measure_latency
from dovetail.errors import PricingError


def test_a_pass_that_sleeps_takes_as_long_as_it_sleeps():
    def sleep(x):
        time.sleep(0.005)
        return x

    latency = measure_latency(sleep, (torch.zeros(3, 2),), warm_up_s=0.0, seconds=0.0, min_repeats=5)
    assert latency.repeats == 5
    assert latency.batch == 3
    assert latency.device == "cpu"
    assert 5.0 <= latency.minimum_ms <= latency.median_ms <= latency.p95_ms
    assert latency.samples_per_second == pytest.approx(3 / latency.median_ms * 1e3)


def test_passes_are_warmed_up_untimed_and_without_gradients():
    seen = []
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    latency = measure_latency(model, (torch.zeros(1, 2),), warm_up_s=0.0, seconds=0.0, min_repeats=4)
    assert len(seen) == latency.repeats + 2
    assert not any(seen)


def test_measuring_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measure_latency(model, (torch.zeros(1, 2),), warm_up_s=0.0, seconds=0.0)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_inputs_that_cannot_be_timed_are_errors():
    with pytest.raises(PricingError, match="must hold a tensor"):
        measure_latency(lambda x: x, (3,))
    with pytest.raises(PricingError, match="on one device"):
        measure_latency(nn.Linear(2, 2, device="meta"), (torch.zeros(1, 2),))
    with pytest.raises(PricingError, match="1 <= min <= max"):
        measure_latency(nn.Linear(2, 2), (torch.zeros(1, 2),), min_repeats=0)
