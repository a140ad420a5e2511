"""A sample: training iterations of AlexNet or CaffeNet as one writes them in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import repeating

DECAY = 0.0005  # the solver's weight_decay


class Normalise(nn.Module):
    """Local response normalization as PyTorch has it."""

    def forward(self, x):
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)


class Pool(nn.Module):
    """Maxima of 3x3 windows, two apart, the last window cut at the edge as Caffe does."""

    def forward(self, x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)


class EngineLayer(nn.Module):
    """A layer of the engine as a module: its `compute`, recorded by autograd."""

    def __init__(self, prototxt: str):
        super().__init__()
        from caffe import layer
        from caffe.proto import caffe_pb2, text

        self.layer = layer.create(text.parse(prototxt, caffe_pb2.LayerParameter()))
        self.shape: tuple | None = None

    def forward(self, x):
        if self.shape != tuple(x.shape):
            from caffe.blob import Blob

            bottom, top = Blob(), Blob()
            bottom.reshape(*x.shape)
            self.layer.setup([bottom], [top])
            self.layer.reshape([bottom], [top])
            self.shape = tuple(x.shape)
        return self.layer.compute(x)


class EngineConvolution(nn.Conv2d):
    """A convolution that computes as the engine's layer does."""

    def forward(self, x):
        from caffe.cpu.convolution import Convolve
        from caffe.cpu.geometry import Geometry

        spaces = zip(x.shape[2:], self.kernel_size, self.stride, self.padding, strict=True)
        geometry = Geometry(
            kernel=self.kernel_size,
            stride=self.stride,
            pad=self.padding,
            dilation=self.dilation,
            group=self.groups,
            sizes=[(size + 2 * pad - kernel) // stride + 1 for size, kernel, stride, pad in spaces],
        )
        return Convolve.apply(x, self.weight, self.bias, geometry, torch.Tensor.new_empty)


LRN = 'name: "norm" type: "LRN" lrn_param { local_size: 5 alpha: 1e-4 beta: 0.75 }'
POOLING = 'name: "pool" type: "Pooling" pooling_param { pool: MAX kernel_size: 3 stride: 2 }'


class Net(nn.Module):
    """tests/conformance/large_nets.py's AlexNet (or CaffeNet, which pools before it normalises) with its classifier.

    kernels: the engine's convolution, LRN and pooling in the place of PyTorch's. Submodules have the names of the Caffe
    net's layers.
    """

    def __init__(self, name: str, kernels: bool = False, dropout: float = 0.5):
        super().__init__()
        normalise = (lambda: EngineLayer(LRN)) if kernels else Normalise
        convolution = EngineConvolution if kernels else nn.Conv2d
        pool = (lambda: EngineLayer(POOLING)) if kernels else Pool
        both = {"alexnet": (normalise, pool), "caffenet": (pool, normalise)}[name]
        self.conv1 = convolution(3, 96, 11, 4)
        self.after1 = nn.Sequential(*(make() for make in both))
        self.conv2 = convolution(96, 256, 5, padding=2, groups=2)
        self.after2 = nn.Sequential(*(make() for make in both))
        self.conv3 = convolution(256, 384, 3, padding=1)
        self.conv4 = convolution(384, 384, 3, padding=1, groups=2)
        self.conv5 = convolution(384, 256, 3, padding=1, groups=2)
        self.pool5 = pool()
        self.fc6, self.fc7, self.score = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000)
        self.dropout = dropout

    def forward(self, x):
        """Pictures (B, 3, 227, 227) -> scores (B, 1000)."""
        x = self.after1(F.relu(self.conv1(x), inplace=True))
        x = self.after2(F.relu(self.conv2(x), inplace=True))
        x = F.relu(self.conv3(x), inplace=True)
        x = F.relu(self.conv4(x), inplace=True)
        x = self.pool5(F.relu(self.conv5(x), inplace=True)).flatten(1)
        x = F.dropout(F.relu(self.fc6(x), inplace=True), self.dropout, self.training)
        x = F.dropout(F.relu(self.fc7(x), inplace=True), self.dropout, self.training)
        return self.score(x)


def optimizer(net: Net, rate: float = 1e-6) -> torch.optim.SGD:
    """The solver's SGD with the net's multipliers: a bias learns at twice the rate, and only the last one decays."""
    groups = []
    for name, parameter in net.named_parameters():
        bias = name.endswith("bias")
        decay = 0.0 if bias and not name.startswith("score") else DECAY
        groups.append({"params": [parameter], "lr": 2 * rate if bias else rate, "weight_decay": decay})
    return torch.optim.SGD(groups, lr=rate, momentum=0.9)


def iterating(update: torch.optim.Optimizer, forward, iterations: int):
    """A sampler of training iterations; forward() -> the loss. Two are done, which allocate."""

    def step():
        update.zero_grad()
        loss = forward()
        loss.backward()
        update.step()
        return loss.item()

    step(), step()
    return repeating.sampler(step, iterations)


def setup(folder: str, net: str, batch: int, iterations: int, kernels: bool = False):
    """`seconds` is the time of one iteration. The first two, which allocate, are not measured."""
    torch.manual_seed(0)
    model = Net(net, kernels).train()
    update = optimizer(model)
    pictures, labels = torch.randn(batch, 3, 227, 227), torch.randint(1000, (batch,))

    return iterating(update, lambda: F.cross_entropy(model(pictures), labels), iterations)
