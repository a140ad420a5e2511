"""Writes the nets and solvers of DHN: train_val.prototxt, deploy.prototxt and solver.prototxt of a dataset.

    python prototxt/net.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--out FOLDER]

Runs with BVLC Caffe and with the embedded engine, from the repository root; the files it writes are valid there too.
Everything that depends on dataset, net, variant or bits is derived here from the tables DATASETS, NETS and VARIANTS.
A data set of your own (tools/dhn/datasets/recipes.py) has AlexNet or CaffeNet with the recipe of the paper's data sets.
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

from alexnet import alexnet, caffenet, learned

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# variant -> the similarity loss and whether the quantization loss joins it (Zhu et al., AAAI 2016, section on variants)
VARIANTS = {
    "dhn": ("pairwise", True),
    "dhn_q": ("pairwise", False),  # without quantization: lambda = 0
    "dhn_e": ("squared_similarity", True),  # squared error in place of the pairwise cross-entropy
    "dhn_b": ("pairwise", True),  # the net of dhn, scored by its real-valued codes
}


PRETRAINING = "pretraining"  # in a variant's place: the net as a classifier, whose weights a variant starts from


class Dataset(NamedTuple):
    """What a net and its recipe need to know of a dataset."""

    image: tuple  # channels, height, width that the net sees
    net: str  # of NETS, the one that is taken unless another is named
    hash_std: float  # of the hash layer's initial weights
    data: dict  # param_str keys shared by the training and the test data layer
    train: dict  # param_str keys of the training data layer
    test: dict  # param_str keys of the test data layer
    quantization_weight: float  # lambda
    solver: list  # (field, value, why: None where the value is Caffe's default or speaks for itself)
    normalization: str = "mean"  # of the quantization loss
    classes: int | None = None  # single labels that the net can learn to classify
    pretraining: tuple = ()  # what differs in the solver of the classifier; empty: none, weights come from elsewhere


def _convolution(n: caffe.NetSpec, index: int, bottom, pool: bool, **kwargs):
    """AlexNet's convolution and ReLU, with overlapping max pooling and LRN if `pool`."""
    conv = n[f"conv{index}"] = L.Convolution(bottom, **kwargs, **learned())
    top = n[f"relu{index}"] = L.ReLU(conv, in_place=True)
    if pool:
        top = n[f"pool{index}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=3, stride=2)
        top = n[f"norm{index}"] = L.LRN(top, local_size=5, alpha=1e-4, beta=0.75)
    return top


def _inner_product(n: caffe.NetSpec, index: int, bottom, num_output: int, dropout: float):
    fc = n[f"fc{index}"] = L.InnerProduct(bottom, num_output=num_output, **learned())
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


NETS: dict[str, Callable] = {  # (net spec) -> the top that the hash layer stands on
    "small_alexnet": small_alexnet,
    "alexnet": alexnet,
    "caffenet": caffenet,
}
FINE_TUNED = ("alexnet", "caffenet")  # nets for 227x227 colour images that start from ImageNet's weights


def fine_tuned(dataset: str, queries: int, net: str = "alexnet") -> Dataset:
    """AlexNet or CaffeNet on a data set, with the numbers of the paper and, where it states none, of dhn-caffe.

    queries: number of query images, of which the test net looks at about all.
    """
    batches = max(1, round(queries / 50))
    spec = Dataset(
        image=(3, 227, 227),
        net=net,
        hash_std=0.01,  # dhn-caffe's
        data={"gray": False, "resize": 256, "crop": 227, "mean_value": [104, 117, 123]},
        train={"source": f"data/{dataset}/train_lmdb", "batch_size": 64, "mirror": True, "threads": 4},
        test={"source": f"data/{dataset}/query_lmdb", "batch_size": 50},
        # dhn-caffe's q_gamma; its gradient is that of a sum over bits. The paper cross-validates lambda.
        quantization_weight=0.3,
        normalization="authors",
        solver=[
            (
                "test_iter",
                batches,
                f"{batches} batches of 50: the {queries:,} query images of the paper's split"
                if dataset in QUERIES
                else f"{batches} batches of 50: the {queries:,} query images",
            ),
            ("test_interval", 500, "where dhn-caffe's learning rate falls"),
            ("base_lr", 2e-5, "dhn-caffe's and hash-caffe's; the paper cross-validates it, from 1e-5 to 1e-2"),
            ("lr_policy", "step", "this policy and its two numbers are dhn-caffe's (hash-caffe's gamma is 0.5)"),
            ("gamma", 0.3, None),
            ("stepsize", 500, None),
            ("momentum", 0.9, "the paper's and dhn-caffe's"),
            ("weight_decay", 0.0005, "the paper's and dhn-caffe's"),
            ("max_iter", 10000, "dhn-caffe's; hash-caffe stops at 3000"),
            ("display", 20, "a line every few seconds on a GPU"),
            ("snapshot", 1000, "dhn-caffe's"),
            ("random_seed", 1, "the same hash layer and dropout each time"),
            ("solver_mode", "CPU", "so that it runs anywhere; `make train GPU=0` and `caffe train -gpu 0` override it"),
        ],
    )
    other = AT_FULL_SIZE.get(dataset, {})
    return spec._replace(
        **{
            **other,
            "data": {**spec.data, **other.get("data", {})},
            "solver": _changed(spec.solver, other.get("solver", ())),
        }
    )


def _changed(solver: list, changes: tuple) -> list:
    """A solver's fields with those of `changes` in their places; fields that it does not have come last."""
    by_field = {change[0]: change for change in changes}
    return [by_field.pop(entry[0], entry) for entry in solver] + list(by_field.values())


# What differs from `fine_tuned` for small images that the net sees at 227x227, and whose two steps both run here.
AT_FULL_SIZE = {
    "fashion_mnist": dict(
        data={"mean_value": 73},  # the mean grey value of the training images
        quantization_weight=1.0,
        normalization="mean",
        solver=(
            ("test_interval", 100, "20 batches take as long as 8 training iterations"),
            ("base_lr", 5e-5, "half of the classifier's; the hash layer learns at 10 times that"),
            ("lr_policy", "step", "the last third at a lower rate settles the codes"),
            ("stepsize", 100, None),
            ("max_iter", 150, "2 epochs of the 5,000 training images: minutes on two cores"),
            ("snapshot", 50, "a killed training loses at most some minutes"),
            ("type", "Adam", "from scratch SGD stayed at log(10) for 90 iterations or diverged, at every rate tried"),
        ),
        classes=10,
        pretraining=(
            ("base_lr", 1e-4, "Adam's usual tenth: the pixels are not scaled, as bvlc_alexnet's are not"),
            ("stepsize", 160, "the last fifth at a lower rate"),
            ("max_iter", 200, "2.5 epochs of the 5,000 training images"),
        ),
    ),
}


QUERIES = {"fashion_mnist": 1000, "cifar10": 1000, "nus_wide": 2100, "flickr25k": 1000}

DATASETS = {
    "fashion_mnist": Dataset(
        image=(1, 28, 28),
        net="small_alexnet",
        hash_std=0.01,  # dhn-caffe's
        data={"mean_value": 73, "scale": 0.0078125},  # the mean grey value of the training images; 1 / 128
        train={"source": "data/fashion_mnist/train_lmdb", "batch_size": 64, "mirror": True},
        test={"source": "data/fashion_mnist/query_lmdb", "batch_size": 100},
        quantization_weight=1.0,
        solver=[
            ("test_iter", 10, "10 batches of 100 are the 1,000 query images"),
            ("test_interval", 500, "a look at the test losses costs less than 10 training iterations"),
            ("base_lr", 0.003, "the hash layer learns at 10 times that; a third of it leaves codes further from +-1"),
            ("lr_policy", "step", "the last third at a lower rate settles the codes"),
            ("gamma", 0.3, None),
            ("stepsize", 400, None),
            ("momentum", 0.9, "as dhn-caffe"),
            ("weight_decay", 0.0005, "as dhn-caffe"),
            ("max_iter", 600, "8 epochs of the 5,000 training images"),
            ("display", 50, "a line every few seconds"),
            ("snapshot", 500, "a killed training loses at most a minute"),
            ("random_seed", 1, "the same weights and dropout each time"),
            ("solver_mode", "CPU", "these images are small; `caffe train -gpu 0` overrides it"),
        ],
        # The paper fine-tunes a net that learned to classify ImageNet. From scratch the pairwise loss draws the codes
        # of classes that the net cannot yet tell apart to 0; so here the net first learns to classify these images.
        classes=10,
        pretraining=(
            ("base_lr", 0.01, "from xavier weights, with momentum 0.9"),
            ("stepsize", 800, "the last fifth at a lower rate"),
            ("max_iter", 1000, "13 epochs of the 5,000 training images"),
        ),
    ),
    **{name: fine_tuned(name, QUERIES[name]) for name in ("cifar10", "nus_wide", "flickr25k")},
}


def recipe(dataset: str, net: str | None = None) -> Dataset:
    """What the table has for a data set, with another net if one is named; for one of your own, fine_tuned.

    Raises ValueError for an unknown net, one that the data set does not have, and for a data set that is neither in the
    table nor under data/ (where tools/get_data.py puts it).
    """
    if net is not None and net not in NETS:
        raise ValueError(f"unknown net {net!r}; there are {', '.join(NETS)}")
    spec = DATASETS.get(dataset)
    if spec is not None and net in (None, spec.net):
        return spec
    if net not in (None, *FINE_TUNED):
        raise ValueError(f"{dataset} has no net {net!r}; it has {', '.join(nets_of(dataset))}")
    queries = QUERIES.get(dataset)
    if queries is None:
        try:
            with open(os.path.join(ROOT, "data", dataset, "split.json"), encoding="utf-8") as file:
                queries = json.load(file)["counts"]["query"]
        except (OSError, ValueError, KeyError):
            raise ValueError(
                f"unknown dataset {dataset!r}; there are {', '.join(DATASETS)}, and those that "
                f"`make data DATASET=path/to/recipe` has made"
            ) from None
    return fine_tuned(dataset, queries, net or "alexnet")


def nets_of(dataset: str) -> tuple:
    """The nets that a data set can be trained with, its default first."""
    first = DATASETS[dataset].net if dataset in DATASETS else "alexnet"
    return (first, *(name for name in FINE_TUNED if name != first))


def _python(module: str, layer: str, *bottoms, param_str: dict | None = None, **kwargs):
    python_param = dict(module=module, layer=layer)
    if param_str:
        python_param["param_str"] = json.dumps(param_str)
    return L.Python(*bottoms, python_param=python_param, **kwargs)


def _data(settings: dict, phase: int, spec: Dataset):
    return _python(
        "multilabel_data", "MultiLabelDataLayer", ntop=2, include=dict(phase=phase), param_str={**settings, **spec.data}
    )


def _add_codes(n: caffe.NetSpec, spec: Dataset, bits: int) -> None:
    """The hash layer, which learns at 10 times the rate of the others as in dhn-caffe, and TanH, which bounds codes."""
    n.hash_layer = L.InnerProduct(NETS[spec.net](n), num_output=bits, **learned(weight_std=spec.hash_std, lr=10))
    n.tanh = L.TanH(n.hash_layer, in_place=True)


def _name(dataset: str, spec: Dataset, *parts) -> str:
    """A net's name; that of the net stands in it where there are several to choose from."""
    return "_".join(map(str, (dataset, *([spec.net] if spec.net in FINE_TUNED else []), *parts)))


def train_val(dataset: str, variant: str, bits: int, net: str | None = None, seed: int = 1):
    """The training and test net as a NetParameter. seed: of the images' order, crops and mirrors."""
    spec = recipe(dataset, net)
    test = caffe.NetSpec()
    test.data, test.label = _data(spec.test, caffe.TEST, spec)
    n = caffe.NetSpec()
    n.data, n.label = _data({**spec.train, **({} if seed == 1 else {"seed": seed})}, caffe.TRAIN, spec)
    if variant == PRETRAINING:
        _add_classes(n, spec)
    else:
        _add_losses(n, spec, variant, bits)
    layers = list(n.to_proto().layer)
    if variant == PRETRAINING and spec.net in FINE_TUNED:
        _from_scratch(layers)
    layers.insert(1, test.to_proto().layer[0])
    return caffe_pb2.NetParameter(name=_name(dataset, spec, variant, *([bits] if bits else [])), layer=layers)


def _add_classes(n: caffe.NetSpec, spec: Dataset) -> None:
    """A classifier: softmax over the classes, the label vector's largest entry being the class."""
    n.classes = L.InnerProduct(NETS[spec.net](n), num_output=spec.classes, **learned(weight_std=0.01, lr=10))
    n.label_index = L.ArgMax(n.label, axis=1)
    n.softmax_loss = L.SoftmaxWithLoss(n.classes, n.label_index)
    n.accuracy = L.Accuracy(n.classes, n.label_index, include=dict(phase=caffe.TEST))


def _from_scratch(layers: list) -> None:
    """Fillers to learn from scratch with: behind conv1, whose bottom are pixels, AlexNet's gaussians are so narrow, and
    its biases of 1 so large beside what they add to, that the loss stays at log(classes) for long."""
    for layer in layers:
        param = {"Convolution": layer.convolution_param, "InnerProduct": layer.inner_product_param}.get(layer.type)
        if param is not None and layer.name != "conv1":
            param.weight_filler.CopyFrom(caffe_pb2.FillerParameter(type="xavier"))
            param.bias_filler.CopyFrom(caffe_pb2.FillerParameter(type="constant"))


def _add_losses(n: caffe.NetSpec, spec: Dataset, variant: str, bits: int) -> None:
    _add_codes(n, spec, bits)
    loss, quantized = VARIANTS[variant]
    camel = "".join(word.capitalize() for word in loss.split("_"))
    n[f"{loss}_loss"] = _python(f"{loss}_loss", f"{camel}LossLayer", n.tanh, n.label, loss_weight=1)
    if quantized:
        settings = None if spec.normalization == "mean" else {"normalization": spec.normalization}
        n.quantization_loss = _python(
            "quantization_loss",
            "QuantizationLossLayer",
            n.tanh,
            param_str=settings,
            loss_weight=spec.quantization_weight,
        )


def deploy(dataset: str, bits: int, net: str | None = None):
    """The net that turns images into codes (blob `hash_layer`) as a NetParameter."""
    spec = recipe(dataset, net)
    n = caffe.NetSpec()
    n.data = L.Input(input_param=dict(shape=dict(dim=[spec.test["batch_size"], *spec.image])))
    _add_codes(n, spec, bits)
    message = n.to_proto()
    message.name = _name(dataset, spec, bits)
    return message


def solver(dataset: str, folder: str, variant: str, net: str | None = None, seed: int = 1) -> str:
    """The text of the solver for the net in `folder`, a comment on each number that is a choice."""
    spec = recipe(dataset, net)
    chosen = [
        (field, seed if field == "random_seed" else value, why)
        for field, value, why in _changed(spec.solver, spec.pretraining if variant == PRETRAINING else ())
    ]
    fields = [("net", f"{folder}/train_val.prototxt", None), *chosen, ("snapshot_prefix", f"{folder}/{variant}", None)]
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


def texts(dataset: str, variant: str, bits: int, folder: str, net: str | None = None, seed: int = 1) -> dict[str, str]:
    """The files of a run in `folder` by name, train_val.prototxt, deploy.prototxt and solver.prototxt: their texts.

    Paths in them are relative to the repository root where `folder` lies below it, absolute otherwise. Snapshots go to
    `folder`. net: of NETS, default: the data set's. seed: of the weights, of dropout, and of the images' order, crops
    and mirrors. With the variant "pretraining": train_val and solver.prototxt of the classifier whose weights the
    variants start from; bits is 0 then. Raises ValueError for an unknown dataset, net or variant, a dataset without
    pretraining, bits below 1, or a seed below 0.
    """
    spec = recipe(dataset, net)
    if variant not in (*VARIANTS, PRETRAINING):
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)} and {PRETRAINING}")
    if variant == PRETRAINING and not spec.pretraining:
        raise ValueError(f"{dataset} with {spec.net} has no pretraining here: its weights come from elsewhere")
    for what, value, least in (("bits", bits, 0 if variant == PRETRAINING else 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{what} must be at least {least}; found {value}")
    absolute = os.path.abspath(folder)
    inside = os.path.relpath(absolute, ROOT)
    shown = absolute if inside.startswith("..") else inside.replace(os.sep, "/")
    other = f" --net {spec.net}" if spec.net != nets_of(dataset)[0] else ""
    other += f" --seed {seed}" if seed != 1 else ""
    length = f" --bits {bits}" if bits else ""
    header = f"# Written by: python prototxt/net.py {dataset} --variant {variant}{length}{other} --out {shown}\n"
    files = {
        "train_val.prototxt": _text(train_val(dataset, variant, bits, net, seed)),
        "solver.prototxt": solver(dataset, shown, variant, net, seed),
    }
    if variant != PRETRAINING:
        files["deploy.prototxt"] = _text(deploy(dataset, bits, net))
    return {name: header + text for name, text in files.items()}


def write(dataset: str, variant: str, bits: int, folder: str, net: str | None = None, seed: int = 1) -> list[str]:
    """Writes `texts` into `folder` (made if missing), each file whole or not at all. Returns the paths."""
    files = texts(dataset, variant, bits, folder, net, seed)
    os.makedirs(folder, exist_ok=True)
    paths = []
    for name, text in files.items():
        paths.append(os.path.join(os.path.abspath(folder), name))
        with open(paths[-1] + ".tmp", "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(paths[-1] + ".tmp", paths[-1])
    return paths


def default_folder(dataset: str, net: str | None = None, variant: str = "dhn") -> str:
    """Where the committed files of a data set and net are."""
    other = [] if net in (None, nets_of(dataset)[0]) else [net]
    other += [PRETRAINING] if variant == PRETRAINING else []
    return os.path.join(ROOT, "prototxt", dataset, *other)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", help=f"{', '.join(DATASETS)}, or the name of one of your own that lies in data/")
    parser.add_argument("--variant", choices=[*VARIANTS, PRETRAINING], default="dhn")
    parser.add_argument("--bits", type=int, default=48, help="length of the codes (default: 48); pretraining has none")
    parser.add_argument("--net", choices=list(NETS), help="default: the data set's")
    parser.add_argument("--seed", type=int, default=1, help="of weights, dropout, images' order (default: 1)")
    parser.add_argument(
        "--out",
        help="folder to write to (default: prototxt/<dataset>, and in it /<net> for another net than the default one)",
    )
    options = parser.parse_args(arguments)
    folder = options.out or default_folder(options.dataset, options.net, options.variant)
    bits = 0 if options.variant == PRETRAINING else options.bits
    try:
        paths = write(options.dataset, options.variant, bits, folder, options.net, options.seed)
    except ValueError as error:
        parser.error(str(error))
    for path in paths:
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
