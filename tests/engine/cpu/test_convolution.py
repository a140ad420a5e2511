"""Each order of work of a convolution on a CPU gives what torch's own gives in double precision."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from caffe.cpu import convolution, kernels, pointwise, winograd, winograd_5x5
from caffe.cpu.geometry import Geometry, Wanted

COMPILED = pytest.mark.skipif(kernels.LIBRARY is None and shutil.which("cc") is None, reason="no C compiler: cc")

# channels, num_output, kernel, stride, pad, dilation, group, bias
CASES = {
    "one channel": (1, 5, (5, 5), (1, 1), (0, 0), (1, 1), 1, True),
    "one channel, filter, stride and pad of two lengths": (1, 3, (3, 2), (2, 1), (1, 0), (1, 1), 1, True),
    "one channel without bias": (1, 4, (4, 4), (3, 3), (2, 2), (1, 1), 1, False),
    "one channel, dilated": (1, 4, (2, 2), (1, 1), (0, 0), (2, 2), 1, True),
    "one value": (6, 9, (1, 1), (1, 1), (0, 0), (1, 1), 1, True),
    "one value without bias": (6, 9, (1, 1), (1, 1), (0, 0), (1, 1), 1, False),
    "one value, with a stride": (6, 9, (1, 1), (2, 2), (0, 0), (1, 1), 1, True),
    "one value, with padding": (6, 9, (1, 1), (1, 1), (1, 1), (1, 1), 1, True),
    "one value, grouped": (6, 9, (1, 1), (1, 1), (0, 0), (1, 1), 3, True),
    "channels that are no multiples of 8": (10, 12, (3, 3), (1, 1), (1, 1), (1, 1), 1, True),
    "channels that are multiples of 8": (8, 16, (3, 3), (2, 2), (1, 1), (1, 1), 2, True),
}
# by Winograd's products, whatever their size
TILED = {
    "3x3": (3, 4, (3, 3), (1, 1), (1, 1), (1, 1), 1, True),
    "3x3 without bias": (1, 2, (3, 3), (1, 1), (1, 1), (1, 1), 1, False),
    "3x3 without padding, grouped": (6, 4, (3, 3), (1, 1), (0, 0), (1, 1), 2, True),
    "3x3 with more than 16 channels": (40, 24, (3, 3), (1, 1), (1, 1), (1, 1), 1, True),
    "3x3 with much padding, grouped": (6, 9, (3, 3), (1, 1), (2, 2), (1, 1), 3, True),
}


def new_output(like, shape):
    return like.new_full(shape, torch.nan)  # every value must be written


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=COMPILED) for name in TILED)])
@pytest.mark.parametrize("copied", [convolution.COPIED, 300], ids=["whole", "by parts"])
@pytest.mark.parametrize("down", [True, False], ids=["to the bottom", "parameters alone"])
def test_top_and_gradients(name, copied, down, monkeypatch):
    monkeypatch.setattr(convolution, "COPIED", copied)
    monkeypatch.setattr(pointwise, "COPIED", copied)
    if name in TILED:
        for name_, value in (("CONVOLVED", copied // 60), ("SUMMED", copied // 30), ("SUMS", copied * 1000)):
            monkeypatch.setattr(winograd, name_, value)
        for least in ("CHANNELS", "TILES"):
            monkeypatch.setattr(winograd, least, 1)
    channels, outputs, kernel, stride, pad, dilation, group, has_bias = (CASES | TILED)[name]
    random = np.random.RandomState(0)
    x = torch.from_numpy(random.standard_normal((5, channels, 11, 9)))
    weight = torch.from_numpy(random.standard_normal((outputs, channels // group, *kernel)))
    bias = torch.from_numpy(random.standard_normal(outputs)) if has_bias else None
    leaves = [x, weight] + [bias] * has_bias
    for leaf, wanted in zip(leaves, (down, True, True), strict=False):
        leaf.requires_grad_(wanted)
    expected = F.conv2d(x, weight, bias, stride, pad, dilation, group)
    dy = torch.from_numpy(random.standard_normal(tuple(expected.shape)))
    asked = leaves[not down :]
    gradients = torch.autograd.grad(expected, asked, dy)

    geometry = Geometry(kernel=kernel, stride=stride, pad=pad, dilation=dilation, group=group, sizes=expected.shape[2:])
    assert winograd.is_applicable(geometry, x.float(), weight.float()) == (name in TILED)
    single = [leaf.detach().float().requires_grad_(leaf.requires_grad) for leaf in leaves]
    top = convolution.Convolve.apply(*single[:2], single[2] if has_bias else None, geometry, new_output)
    found = torch.autograd.grad(top, single[not down :], dy.float())
    for one, other in zip((expected, *gradients), (top, *found), strict=True):
        torch.testing.assert_close(other.double(), one, rtol=0, atol=2e-6 * float(one.detach().abs().max()))


@pytest.mark.parametrize("channels, size", [(1, 3), (4, 3), (4, 1)])
def test_a_bias_learns_beside_a_weight_that_does_not(channels, size):
    x, weight, bias = torch.randn(2, channels, 9, 9), torch.randn(3, channels, size, size), torch.zeros(3)
    top = 10 - size
    geometry = Geometry(kernel=(size, size), stride=(1, 1), pad=(0, 0), dilation=(1, 1), group=1, sizes=(top, top))
    dy = torch.randn(2, 3, top, top)
    y = convolution.Convolve.apply(x, weight, bias.requires_grad_(), geometry, new_output)
    (found,) = torch.autograd.grad(y, [bias], dy)
    torch.testing.assert_close(found, dy.sum((0, 2, 3)), rtol=0, atol=1e-4)


def test_which_are_products_of_matrices():
    def geometry(kernel=(1, 1), pad=(0, 0), group=1):
        return Geometry(kernel, (2, 1), pad, (1, 1), group, (8, 8))

    assert pointwise.is_applicable(geometry())
    for other in (geometry((1, 2)), geometry(pad=(0, 1)), geometry(group=2)):
        assert not pointwise.is_applicable(other)


@pytest.mark.parametrize("stride", [(1, 1), (2, 3)], ids=["each position", "with a stride"])
@pytest.mark.parametrize("joined", [True, False], ids=["images next to each other", "image by image"])
def test_products_of_large_weights_and_small_maps(stride, joined, monkeypatch):
    monkeypatch.setattr(pointwise, "COPIED", 300)
    monkeypatch.setattr(pointwise, "PRODUCT", 1)
    monkeypatch.setattr(pointwise, "CHANNELS", 1 if joined else 100)
    torch.manual_seed(0)
    x, weight = torch.randn(5, 6, 7, 7), torch.randn(4, 6, 1, 1)
    expected = F.conv2d(x.double(), weight.double(), None, stride)
    geometry = Geometry((1, 1), stride, (0, 0), (1, 1), 1, expected.shape[2:])
    dy = torch.randn(expected.shape)
    how = list(stride), [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    dx, dweight, _ = torch.ops.aten.convolution_backward(dy.double(), x.double(), weight.double(), None, *how)
    found = pointwise.gradients(geometry, new_output, dy, x, weight, Wanted(True, True, False))
    top = pointwise.convolve(geometry, new_output, x, weight)
    for one, other in zip((top, *found), (expected, dx, dweight), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5)


@COMPILED
@pytest.mark.parametrize("worked", [1, winograd_5x5.WORKED], ids=["by parts", "whole"])
@pytest.mark.parametrize("channels, outputs, pad, group", [(3, 9, 0, 1), (10, 4, 2, 2), (16, 24, 4, 1)])
def test_5x5_filters_by_winograds_products(channels, outputs, pad, group, worked, monkeypatch):
    for name, value in {"WORKED": worked, "CHANNELS": 1, "MAP": 1, "TILES": 1}.items():
        monkeypatch.setattr(winograd_5x5, name, value)
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(5, channels, 11, 9),
        torch.randn(outputs, channels // group, 5, 5),
        torch.ones(outputs),
    )
    exact = F.conv2d(x.double(), weight.double(), bias.double(), 1, pad, 1, group)
    geometry = Geometry((5, 5), (1, 1), (pad, pad), (1, 1), group, exact.shape[2:])
    assert winograd_5x5.is_applicable(geometry, x, weight)
    dy = torch.randn(exact.shape)
    how = [1, 1], [pad, pad], [1, 1], False, [0, 0], group, [True, True, True]
    expected = torch.ops.aten.convolution_backward(dy.double(), x.double(), weight.double(), [outputs], *how)
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    top = convolution.Convolve.apply(*leaves, geometry, new_output)
    found = torch.autograd.grad(top, leaves, dy)
    for one, other in zip((top, *found), (exact, *expected), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-5 * float(other.abs().max()))


@COMPILED
def test_which_5x5_filters_are_winograds():
    def served(channels=32, outputs=32, images=100, **other):
        spec = {"kernel": (5, 5), "stride": (1, 1), "pad": (2, 2), "dilation": (1, 1), "group": 1, "sizes": (8, 8)}
        x, weight = torch.zeros(images, channels, *other.get("sizes", (8, 8))), torch.zeros(outputs, channels, 5, 5)
        return winograd_5x5.is_applicable(Geometry(**{**spec, **other}), x, weight)

    assert served()
    assert not served(channels=31) and not served(outputs=31) and not served(images=99) and not served(group=2)
    for other in ({"kernel": (5, 3)}, {"stride": (1, 2)}, {"dilation": (2, 2)}, {"pad": (1, 2)}, {"pad": (5, 5)},
                  {"sizes": (7, 9)}, {"sizes": (8, 250)}):  # fmt: skip
        assert not served(**other), other


@COMPILED
def test_which_are_winograds():
    def served(channels=16, outputs=16, images=4, **other):
        spec = {"kernel": (3, 3), "stride": (1, 1), "pad": (1, 1), "dilation": (1, 1), "group": 1, "sizes": (8, 8)}
        x, weight = torch.zeros(images, channels, *(other.get("sizes", (8, 8)))), torch.zeros(outputs, channels, 3, 3)
        return winograd.is_applicable(Geometry(**{**spec, **other}), x, weight)

    assert served()
    assert not served(channels=15) and not served(outputs=15) and not served(images=3) and not served(group=2)
    for other in (
        {"kernel": (3, 1)},
        {"stride": (1, 2)},
        {"dilation": (2, 2)},
        {"pad": (1, 0)},
        {"pad": (3, 3)},
        {"sizes": (6, 9)},
    ):
        assert not served(**other), other


@COMPILED
def test_winograd_keeps_the_precision_of_float32():
    """The precision that winograd.py claims, on layers of AlexNet's kind."""
    torch.manual_seed(0)
    x, weight = torch.randn(16, 256, 13, 13), torch.randn(384, 256, 3, 3) / 48
    geometry = Geometry(kernel=(3, 3), stride=(1, 1), pad=(1, 1), dilation=(1, 1), group=1, sizes=(13, 13))
    assert winograd.is_applicable(geometry, x, weight)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    dy = torch.randn(exact.shape)
    how = [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    exact_dx, exact_dw, _ = torch.ops.aten.convolution_backward(dy.double(), x.double(), weight.double(), None, *how)
    y = convolution.convolve_tiles(winograd, geometry, new_output, x, weight, None)
    dx, dw = convolution.tiled_gradients(winograd, geometry, new_output, dy, x, weight, Wanted(True, True, True))
    for found, truth, most in ((y, exact, 2.8e-7), (dx, exact_dx, 2.8e-7), (dw, exact_dw, 3.3e-7)):
        assert (found - truth).square().mean().sqrt() < most * truth.square().mean().sqrt()
