"""A sample: training iterations of a net's prototxt as plain PyTorch modules, with or without channels_last."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

import batch_nets
from torch_training import DECAY, iterating


def module(layer, channels: int) -> nn.Module | None:
    """The module of a layer that has parameters or a size; None of one that is a function."""
    if layer.type == "Convolution":
        p = layer.convolution_param
        kernel, stride, pad = ((list(each) or [default])[0] for each, default in
                               ((p.kernel_size, 1), (p.stride, 1), (p.pad, 0)))  # fmt: skip
        return nn.Conv2d(channels, p.num_output, kernel, stride, pad, groups=p.group, bias=p.bias_term)
    if layer.type == "InnerProduct":
        return nn.LazyLinear(layer.inner_product_param.num_output)
    if layer.type == "BatchNorm":
        return nn.BatchNorm2d(channels)  # with Caffe's Scale, which follows it
    if layer.type == "Dropout":
        return nn.Dropout(layer.dropout_param.dropout_ratio)
    return None


class Net(nn.Module):
    """The net of a NetParameter. Raises NotImplementedError for a type that it does not know."""

    def __init__(self, message):
        super().__init__()
        self.plan = [layer for layer in message.layer if layer.type != "Input"]
        self.parts = nn.ModuleDict()
        channels = {"data": 3}
        for layer in self.plan:
            count = sum(channels[bottom] for bottom in layer.bottom if layer.type == "Concat")
            count = count or channels[layer.bottom[0]]
            part = module(layer, count)
            if part is not None:
                self.parts[self.key(layer)] = part
                if layer.param and all(param.lr_mult == 0 for param in layer.param) and layer.type != "BatchNorm":
                    part.requires_grad_(False)
            channels[layer.top[0]] = getattr(part, "out_channels", count)

    @staticmethod
    def key(layer) -> str:
        return layer.name.replace(".", "_")  # a module's name has no dot

    def forward(self, data, label):
        """Pictures (B, 3, H, W) and labels (B,) -> the weighted sum of the losses."""
        blobs, loss = {"data": data, "label": label}, 0.0
        for layer in self.plan:
            bottoms = [blobs[name] for name in layer.bottom]
            if layer.type == "SoftmaxWithLoss":
                weight = layer.loss_weight[0] if layer.loss_weight else 1.0
                loss = loss + weight * F.cross_entropy(bottoms[0].flatten(1), bottoms[1])
            else:
                blobs[layer.top[0]] = self.top(layer, bottoms)
        return loss

    def top(self, layer, bottoms):
        x = bottoms[0]
        if layer.type == "InnerProduct":
            return self.parts[self.key(layer)](x.flatten(1))
        if self.key(layer) in self.parts:
            return self.parts[self.key(layer)](x)
        if layer.type == "ReLU":
            return F.relu(x, inplace=True)
        if layer.type == "Concat":
            return torch.cat(bottoms, 1)
        if layer.type == "Scale":
            return x  # BatchNorm2d's own
        if layer.type == "Eltwise":
            return bottoms[0] + bottoms[1]
        if layer.type == "LRN":
            p = layer.lrn_param
            return F.local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)
        if layer.type == "Pooling":
            p = layer.pooling_param
            if p.global_pooling:
                return F.adaptive_avg_pool2d(x, 1)
            pool = F.max_pool2d if p.pool == p.MAX else F.avg_pool2d
            return pool(x, p.kernel_size, p.stride, p.pad, ceil_mode=True)
        raise NotImplementedError("expected a layer that torch_nets.py knows, found %s" % layer.type)


def setup(folder: str, net: str, batch: int, iterations: int, channels_last: bool = False):
    """`seconds` is the time of one iteration. The first two, which allocate, are not measured."""
    torch.manual_seed(0)
    message = batch_nets.message(net, batch)
    shape = next(layer for layer in message.layer if layer.top[0] == "data").input_param.shape[0].dim
    pictures, labels = torch.randn(*shape), torch.randint(1000, (batch,))
    model = Net(message).train()
    with torch.no_grad():
        model(pictures[:2], labels[:2])  # LazyLinear's sizes
    if channels_last:
        model, pictures = model.to(memory_format=torch.channels_last), pictures.to(memory_format=torch.channels_last)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    update = torch.optim.SGD(learned, lr=1e-6, momentum=0.9, weight_decay=DECAY)

    return iterating(update, lambda: model(pictures, labels), iterations)
