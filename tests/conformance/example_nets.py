"""LeNet, CIFAR-10's full net, a siamese net, an autoencoder and a captioning LSTM, each written into a NetSpec.

The shapes and constants are those of BVLC's examples (examples/mnist, cifar10, siamese), of LRCN for the LSTM.
"""

from __future__ import annotations

from caffe import layers as L
from caffe import params as P

BATCH = 2


def inputs(n, data, label=None):
    n.data, n.label = L.Input(shape=[dict(dim=data)]), L.Input(shape=[dict(dim=label or [BATCH])])


def rates(*multipliers):
    return [dict(lr_mult=multiplier) for multiplier in multipliers]


def lenet(n):
    inputs(n, [BATCH, 1, 28, 28])
    n.conv1 = L.Convolution(n.data, num_output=20, kernel_size=5, param=rates(1, 2))
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.conv2 = L.Convolution(n.pool1, num_output=50, kernel_size=5, param=rates(1, 2))
    n.pool2 = L.Pooling(n.conv2, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, param=rates(1, 2))
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, param=rates(1, 2))
    n.loss = L.SoftmaxWithLoss(n.score, n.label)


def cifar10_full(n):
    inputs(n, [BATCH, 3, 32, 32])
    norm = dict(local_size=3, alpha=5e-5, beta=0.75, norm_region=P.LRN.WITHIN_CHANNEL)
    convolution = dict(pad=2, kernel_size=5, param=rates(1, 2))
    n.conv1 = L.Convolution(n.data, num_output=32, **convolution)
    n.pool1 = L.Pooling(n.conv1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    n.relu1 = L.ReLU(n.pool1, in_place=True)
    n.norm1 = L.LRN(n.relu1, **norm)
    n.conv2 = L.Convolution(n.norm1, num_output=32, **convolution)
    n.relu2 = L.ReLU(n.conv2, in_place=True)
    n.pool2 = L.Pooling(n.relu2, pool=P.Pooling.AVE, kernel_size=3, stride=2)
    n.norm2 = L.LRN(n.pool2, **norm)
    n.conv3 = L.Convolution(n.norm2, num_output=64, **convolution)
    n.relu3 = L.ReLU(n.conv3, in_place=True)
    n.pool3 = L.Pooling(n.relu3, pool=P.Pooling.AVE, kernel_size=3, stride=2)
    n.score = L.InnerProduct(n.pool3, num_output=10, param=[dict(lr_mult=1, decay_mult=250), dict(lr_mult=2)])
    n.loss = L.SoftmaxWithLoss(n.score, n.label)


def _tower(n, bottom, suffix):
    """A LeNet whose parameters have names, which the other tower's share."""

    def shared(name):
        return [dict(name=name + "_w", lr_mult=1), dict(name=name + "_b", lr_mult=2)]

    n["conv1" + suffix] = L.Convolution(bottom, num_output=20, kernel_size=5, param=shared("conv1"))
    n["pool1" + suffix] = L.Pooling(n["conv1" + suffix], pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n["conv2" + suffix] = L.Convolution(n["pool1" + suffix], num_output=50, kernel_size=5, param=shared("conv2"))
    n["pool2" + suffix] = L.Pooling(n["conv2" + suffix], pool=P.Pooling.MAX, kernel_size=2, stride=2)
    n["ip1" + suffix] = L.InnerProduct(n["pool2" + suffix], num_output=500, param=shared("ip1"))
    n["relu1" + suffix] = L.ReLU(n["ip1" + suffix], in_place=True)
    n["ip2" + suffix] = L.InnerProduct(n["relu1" + suffix], num_output=10, param=shared("ip2"))
    n["feat" + suffix] = L.InnerProduct(n["ip2" + suffix], num_output=2, param=shared("feat"))
    # without it the gradients of the last biases would cancel, and rounding alone would be compared
    n["bounded" + suffix] = L.TanH(n["feat" + suffix])
    return n["bounded" + suffix]


def siamese(n):
    n.pair_data = L.Input(shape=[dict(dim=[4, 2, 28, 28])])
    n.pair = L.Input(shape=[dict(dim=[4])])
    n.data, n.data_p = L.Slice(n.pair_data, slice_dim=1, slice_point=[1], ntop=2)
    n.loss = L.ContrastiveLoss(_tower(n, n.data, ""), _tower(n, n.data_p, "_p"), n.pair, margin=1)


def autoencoder(n):
    n.unit = L.Input(shape=[dict(dim=[BATCH, 1, 28, 28])])
    n.flat = top = L.Flatten(n.unit)
    sizes = (1000, 500, 250, 30, 250, 500, 1000, 784)
    for index, size in enumerate(sizes, 1):
        name = "code" if size == 30 else "decode" if size == 784 else "ip%d" % index
        n[name] = top = L.InnerProduct(top, num_output=size, param=[dict(lr_mult=1), dict(lr_mult=1, decay_mult=0)])
        if name not in ("code", "decode"):
            n[name + "_neuron"] = top = L.Sigmoid(top)
    n.cross_entropy_loss = L.SigmoidCrossEntropyLoss(top, n.flat, loss_weight=1)
    n.decode_neuron = L.Sigmoid(top)
    n.l2_error = L.EuclideanLoss(n.decode_neuron, n.flat, loss_weight=0)


def lstm(n):
    """A sentence of 10 words, two at a time: words in, `cont` 0 where one begins, the next words out."""
    time, vocabulary = 10, 60
    n.words, n.cont, n.label = (L.Input(shape=[dict(dim=[time, BATCH])]) for _ in range(3))
    n.embedded = L.Embed(n.words, input_dim=vocabulary, num_output=40, bias_term=False)
    n.lstm1 = L.LSTM(n.embedded, n.cont, recurrent_param=dict(num_output=48))
    n.lstm2 = L.LSTM(n.lstm1, n.cont, recurrent_param=dict(num_output=32))
    n.score = L.InnerProduct(n.lstm2, num_output=vocabulary, axis=2)
    n.loss = L.SoftmaxWithLoss(n.score, n.label, softmax_param=dict(axis=2), loss_param=dict(ignore_label=3))
