"""Writes the nets and solvers of DHN: train_val.prototxt, deploy.prototxt and solver.prototxt of a dataset.

    python prototxt/net.py fashion_mnist [--variant dhn] [--bits 48] [--out FOLDER]

Runs with BVLC Caffe and with the embedded engine, from the repository root; the files it writes are valid there too.
Everything that depends on dataset, variant or bits is derived here from two tables, DATASETS and VARIANTS.
"""
from __future__ import annotations

import argparse
import json
import os
import re
from typing import Callable, NamedTuple

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2
from google.protobuf import text_format

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# similarity loss -> its weight. (s' - Theta / K)^2 weighted by K / 4 has the gradient of the pairwise cross-entropy at
# Theta = 0, so that one learning rate and one lambda suit both.
SIMILARITY_LOSSES = {"pairwise": lambda bits: 1, "squared_similarity": lambda bits: bits / 4}

# variant -> the similarity loss and whether the quantization loss joins it (Zhu et al., AAAI 2016, section on variants)
VARIANTS = {
    "dhn": ("pairwise", True),
    "dhn_q": ("pairwise", False),  # without quantization: lambda = 0
    "dhn_e": ("squared_similarity", True),  # squared error in place of the pairwise cross-entropy
    "dhn_b": ("pairwise", True),  # the net of dhn, scored by its real-valued codes
}


class Dataset(NamedTuple):
    """What a net and its recipe need to know of a dataset."""

    image: tuple  # channels, height, width that the net sees
    features: Callable  # (net spec) -> the top that the hash layer stands on
    hash_std: float  # of the hash layer's initial weights
    data: dict  # param_str keys shared by the training and the test data layer
    train: dict  # param_str keys of the training data layer
    test: dict  # param_str keys of the test data layer
    quantization_weight: float  # lambda
    solver: list  # (field, value, why: None where the value is Caffe's default or speaks for itself)


def _learned(weight_std: float | None = None, bias: float = 0, lr: float = 1) -> dict:
    """Fillers and multipliers of a layer with weights; weight_std None: xavier."""
    filler = dict(type="xavier") if weight_std is None else dict(type="gaussian", std=weight_std)
    return dict(weight_filler=filler, bias_filler=dict(type="constant", value=bias),
                param=[dict(lr_mult=lr, decay_mult=1), dict(lr_mult=2 * lr, decay_mult=0)])


def _convolution(n: caffe.NetSpec, index: int, bottom, pool: bool, **kwargs):
    """AlexNet's convolution and ReLU, with overlapping max pooling and LRN if `pool`."""
    conv = n[f"conv{index}"] = L.Convolution(bottom, **kwargs, **_learned())
    top = n[f"relu{index}"] = L.ReLU(conv, in_place=True)
    if pool:
        top = n[f"pool{index}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
        top = n[f"norm{index}"] = L.LRN(top, local_size=5, alpha=1e-4, beta=0.75)
    return top


def _inner_product(n: caffe.NetSpec, index: int, bottom, num_output: int, dropout: float):
    fc = n[f"fc{index}"] = L.InnerProduct(bottom, num_output=num_output, **_learned())
    relu = n[f"relu{index}"] = L.ReLU(fc, in_place=True)
    n[f"drop{index}"] = L.Dropout(relu, in_place=True, dropout_ratio=dropout)
    return n[f"drop{index}"]


def small_alexnet(n: caffe.NetSpec):
    """AlexNet's layers at the size of 28x28 grey images: three convolutions, two inner products with dropout."""
    top = _convolution(n, 1, n.data, pool=True, num_output=16, kernel_size=5, pad=2)
    top = _convolution(n, 2, top, pool=True, num_output=32, kernel_size=5, pad=2)
    top = _convolution(n, 3, top, pool=False, num_output=64, kernel_size=3, pad=1)
    top = _inner_product(n, 4, top, num_output=256, dropout=0.2)
    return _inner_product(n, 5, top, num_output=256, dropout=0.2)


DATASETS = {
    "fashion_mnist": Dataset(
        image=(1, 28, 28),
        features=small_alexnet,
        # Codes start far from 0, where the pairwise loss is flat; the released 0.01 suits features that are pretrained.
        hash_std=0.5,
        data={"mean_value": 73, "scale": 0.0078125},  # the mean grey value of the training images; 1 / 128
        train={"source": "data/fashion_mnist/train_lmdb", "batch_size": 64, "mirror": True},
        test={"source": "data/fashion_mnist/query_lmdb", "batch_size": 100},
        quantization_weight=1.0,
        solver=[
            ("test_iter", 10, "10 batches of 100 are the 1,000 query images"),
            ("test_interval", 500, "a look at the test losses costs less than 10 training iterations"),
            ("base_lr", 0.01, "the hash layer learns at 10 times that; 0.03 left few distinct codes"),
            ("lr_policy", "poly", "falls in a straight line to 0 at max_iter, which settles the codes"),
            ("power", 1, None),
            ("momentum", 0.9, "as dhn-caffe"),
            ("weight_decay", 0.0005, "as dhn-caffe"),
            ("clip_gradients", 5, "the first steps, which pull all codes apart, would else throw the convolutions off"),
            ("max_iter", 2000, "26 epochs of the 5,000 training images"),
            ("display", 50, "a line every few seconds"),
            ("snapshot", 500, "a killed training loses at most a minute"),
            ("random_seed", 1, "the same weights and dropout each time"),
            ("solver_mode", "CPU", "these images are small; `caffe train -gpu 0` overrides it"),
        ]),
}


def _python(module: str, layer: str, *bottoms, param_str: dict | None = None, **kwargs):
    python_param = dict(module=module, layer=layer)
    if param_str:
        python_param["param_str"] = json.dumps(param_str)
    return L.Python(*bottoms, python_param=python_param, **kwargs)


def _data(settings: dict, phase: int, spec: Dataset):
    return _python("multilabel_data", "MultiLabelDataLayer", ntop=2, include=dict(phase=phase),
                   param_str={**settings, **spec.data})


def _add_codes(n: caffe.NetSpec, spec: Dataset, bits: int) -> None:
    """The hash layer, which learns at 10 times the rate of the others as in dhn-caffe, and TanH, which bounds codes."""
    n.hash_layer = L.InnerProduct(spec.features(n), num_output=bits, **_learned(weight_std=spec.hash_std, lr=10))
    n.tanh = L.TanH(n.hash_layer, in_place=True)


def train_val(dataset: str, variant: str, bits: int):
    """The training and test net as a NetParameter."""
    spec = DATASETS[dataset]
    test = caffe.NetSpec()
    test.data, test.label = _data(spec.test, caffe.TEST, spec)
    n = caffe.NetSpec()
    n.data, n.label = _data(spec.train, caffe.TRAIN, spec)
    _add_codes(n, spec, bits)
    loss, quantized = VARIANTS[variant]
    camel = "".join(word.capitalize() for word in loss.split("_"))
    n[f"{loss}_loss"] = _python(f"{loss}_loss", f"{camel}LossLayer", n.tanh, n.label,
                              loss_weight=SIMILARITY_LOSSES[loss](bits))
    if quantized:
        n.quantization_loss = _python("quantization_loss", "QuantizationLossLayer", n.tanh,
                                      loss_weight=spec.quantization_weight)
    layers = list(n.to_proto().layer)
    layers.insert(1, test.to_proto().layer[0])
    return caffe_pb2.NetParameter(name=f"{dataset}_{variant}_{bits}", layer=layers)


def deploy(dataset: str, bits: int):
    """The net that turns images into codes (blob `hash_layer`) as a NetParameter."""
    spec = DATASETS[dataset]
    n = caffe.NetSpec()
    n.data = L.Input(input_param=dict(shape=dict(dim=[spec.test["batch_size"], *spec.image])))
    _add_codes(n, spec, bits)
    net = n.to_proto()
    net.name = f"{dataset}_{bits}"
    return net


def solver(dataset: str, folder: str, variant: str) -> str:
    """The text of the solver for the net in `folder`, a comment on each number that is a choice."""
    fields = [("net", f"{folder}/train_val.prototxt", None), *DATASETS[dataset].solver,
              ("snapshot_prefix", f"{folder}/{variant}", None)]
    lines = []
    for field, value, why in fields:
        written = json.dumps(value) if field in _SOLVER_STRINGS else str(value)
        lines += [f"# {why}"] * bool(why) + [f"{field}: {written}"]
    text = "\n".join(lines) + "\n"
    text_format.Parse(text, caffe_pb2.SolverParameter())  # a wrong field or value is found here
    return text


_SOLVER_STRINGS = ("net", "lr_policy", "snapshot_prefix", "regularization_type", "type")


def _text(message) -> str:
    """Prototxt; a param_str stands in single quotes, so that its JSON reads as JSON."""
    text = text_format.MessageToString(message)
    return re.sub(r'param_str: "(.*)"', lambda m: "param_str: '" + m[1].replace('\\"', '"') + "'", text)


def write(dataset: str, variant: str, bits: int, folder: str) -> list[str]:
    """Writes train_val.prototxt, deploy.prototxt and solver.prototxt into `folder` (made if missing).

    Paths in them are relative to the repository root where `folder` lies below it, absolute otherwise. Snapshots go to
    `folder`. Returns the three paths. Raises ValueError for an unknown dataset or variant, or bits below 1.
    """
    for kind, name, known in (("dataset", dataset, DATASETS), ("variant", variant, VARIANTS)):
        if name not in known:
            raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(known)}")
    if bits < 1:
        raise ValueError(f"bits must be at least 1; found {bits}")
    absolute = os.path.abspath(folder)
    inside = os.path.relpath(absolute, ROOT)
    shown = absolute if inside.startswith("..") else inside.replace(os.sep, "/")
    header = f"# Written by: python prototxt/net.py {dataset} --variant {variant} --bits {bits} --out {shown}\n"
    os.makedirs(absolute, exist_ok=True)
    files = {"train_val": _text(train_val(dataset, variant, bits)), "deploy": _text(deploy(dataset, bits)),
             "solver": solver(dataset, shown, variant)}
    paths = []
    for name, text in files.items():
        paths.append(os.path.join(absolute, f"{name}.prototxt"))
        with open(paths[-1] + ".tmp", "w", encoding="utf-8", newline="\n") as file:
            file.write(header + text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(paths[-1] + ".tmp", paths[-1])
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=sorted(DATASETS))
    parser.add_argument("--variant", choices=list(VARIANTS), default="dhn")
    parser.add_argument("--bits", type=int, default=48, help="length of the codes (default: 48)")
    parser.add_argument("--out", help="folder to write to (default: prototxt/<dataset>)")
    options = parser.parse_args(arguments)
    folder = options.out or os.path.join(ROOT, "prototxt", options.dataset)
    for path in write(options.dataset, options.variant, options.bits, folder):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
