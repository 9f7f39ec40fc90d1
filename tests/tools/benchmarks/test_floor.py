"""Which convolutions a model calls, and calling them again."""

import pytest
import torch
from benchmarks.floor import ProductCall, record_products, replay
from benchmarks.models import pictures
from tiny import tiny_vfnet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from vfnet_yolof.layers.star_conv import StarConv2d


def test_calls_in_their_order() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.Flatten(), nn.Linear(4 * 4, 5)
    )
    calls = record_products(model, lambda: model(torch.zeros(3, 2, 4, 4)))
    assert calls == [
        ProductCall((3, 2, 4, 4), (4, 2, 3, 3), False, ((2, 2), (1, 1), (1, 1), 1)),
        ProductCall((3, 16), (5, 16), True, None),
    ]
    assert [x.flops for x in calls] == [2 * 3 * 4 * 2 * 2 * 2 * 9, 2 * 3 * 16 * 5]


def test_star_convolution_counts_as_a_dense_one() -> None:
    layer = StarConv2d(4, 6)
    model = nn.ModuleList([layer])
    run = lambda: layer(torch.zeros(1, 4, 5, 7), torch.zeros(1, 18, 5, 7))  # noqa: E731
    (call,) = record_products(model, run)
    assert call.flops == 2 * 5 * 7 * 6 * 4 * 9


def test_replay_computes_what_the_model_computes() -> None:
    model = tiny_vfnet().eval()
    inputs = pictures(1, (64, 96))

    @torch.inference_mode()
    def run() -> None:
        model(inputs)

    calls = record_products(model, run)
    stars = [x for x in model.modules() if isinstance(x, StarConv2d)]
    assert len(calls) == sum(isinstance(x, nn.Conv2d) for x in model.backbone.modules()) + 5 * (
        sum(isinstance(x, nn.Conv2d) for x in model.head.modules()) + len(stars)
    )
    for memory_format in (torch.channels_last, torch.contiguous_format):
        again = replay(calls, memory_format=memory_format)
        with FlopCounterMode(display=False) as counter:
            again()
        assert counter.get_total_flops() == sum(x.flops for x in calls)


def test_a_run_without_convolutions() -> None:
    with pytest.raises(ValueError, match="has called no convolution"):
        record_products(nn.Conv2d(1, 1, 1), lambda: None)
