"""Writes the nets and solvers of DHN: train_val.prototxt, deploy.prototxt and solver.prototxt of a dataset.

    python prototxt/net.py fashion_mnist [--variant dhn] [--bits 48] [--net alexnet] [--seed 1] [--out FOLDER]
        [--set base_lr=0.01 --set batch_size=32 ...]

Runs with BVLC Caffe and with the embedded engine, from the repository root; the files it writes are valid there too.
Everything that depends on dataset, net, variant or bits is derived here from the tables DATASETS (dataset_table.py),
NETS (nets.py) and VARIANTS; --set has one number otherwise (run_settings.py), and the file says so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

import caffe
from caffe import layers as L
from caffe.net_spec import Top
from caffe.proto import caffe_pb2
from google.protobuf import text_format

import run_settings
from alexnet import learned
from dataset_table import DATASETS, ROOT, Dataset, nets_of, recipe
from nets import FINE_TUNED, NETS

# variant -> the similarity loss and whether the quantization loss joins it (Zhu et al., AAAI 2016, section on variants)
VARIANTS = {
    "dhn": ("pairwise", True),
    "dhn_q": ("pairwise", False),  # without quantization: lambda = 0
    "dhn_e": ("squared_similarity", True),  # squared error in place of the pairwise cross-entropy
    "dhn_b": ("pairwise", True),  # the net of dhn, scored by its real-valued codes
}


PRETRAINING = "pretraining"  # in a variant's place: the net as a classifier, whose weights a variant starts from


def _python(module: str, layer: str, *bottoms: Top, param_str: dict | None = None, **kwargs: Any) -> Any:
    """A Python layer; returns what NetSpec's layers return."""
    python_param = dict(module=module, layer=layer)
    if param_str:
        python_param["param_str"] = json.dumps(param_str)
    return L.Python(*bottoms, python_param=python_param, **kwargs)


def _data(settings: dict, phase: int, spec: Dataset) -> tuple[Top, Top]:
    return _python(
        "multilabel_data", "MultiLabelDataLayer", ntop=2, include=dict(phase=phase), param_str={**settings, **spec.data}
    )


def _add_codes(n: caffe.NetSpec, spec: Dataset, bits: int) -> None:
    """The hash layer, which learns at 10 times the rate of the others as in dhn-caffe, and TanH, which bounds codes."""
    n.hash_layer = L.InnerProduct(NETS[spec.net](n), num_output=bits, **learned(weight_std=spec.hash_std, lr=10))
    n.tanh = L.TanH(n.hash_layer, in_place=True)


def _name(dataset: str, spec: Dataset, *parts: object) -> str:
    """A net's name; that of the net stands in it where there are several to choose from."""
    return "_".join(map(str, (dataset, *([spec.net] if spec.net in (*FINE_TUNED, "cifar_quick") else []), *parts)))


Settings = Mapping[str, Any]  # by name, as run_settings.parse gives them


def train_val(
    dataset: str, variant: str, bits: int, net: str | None = None, seed: int = 1, settings: Settings | None = None
) -> caffe_pb2.NetParameter:
    """The training and test net. seed: of the images' order, crops and mirrors. settings: see run_settings.py."""
    spec = run_settings.applied(recipe(dataset, net), settings or {}, variant == PRETRAINING)
    test = caffe.NetSpec()
    test.data, test.label = _data(spec.test, caffe.TEST, spec)
    n = caffe.NetSpec()
    n.data, n.label = _data({**spec.train, **({} if seed == 1 else {"seed": seed})}, caffe.TRAIN, spec)
    if variant == PRETRAINING:
        _add_classes(n, spec)
    else:
        _add_losses(n, spec, variant, bits)
    layers = list(n.to_proto().layer)
    if variant == PRETRAINING and spec.net in ("alexnet", "caffenet"):
        _from_scratch(layers)
    layers.insert(1, test.to_proto().layer[0])
    return caffe_pb2.NetParameter(name=_name(dataset, spec, variant, *([bits] if bits else [])), layer=layers)


def _add_classes(n: caffe.NetSpec, spec: Dataset) -> None:
    """A classifier: softmax over the classes, the label vector's largest entry being the class. Where an image may
    carry several labels, each has a sigmoid of its own."""
    n.classes = L.InnerProduct(NETS[spec.net](n), num_output=spec.classes, **learned(weight_std=0.01, lr=10))
    if spec.multi_label:
        # an image without known labels has -1 throughout
        n.sigmoid_loss = L.SigmoidCrossEntropyLoss(n.classes, n.label, loss_param=dict(ignore_label=-1))
        return
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
    weighted = None if spec.similar_weight == 1 else {"similar_weight": spec.similar_weight}
    n[f"{loss}_loss"] = _python(f"{loss}_loss", f"{camel}LossLayer", n.tanh, n.label, param_str=weighted, loss_weight=1)
    if quantized:
        settings = None if spec.normalization == "mean" else {"normalization": spec.normalization}
        n.quantization_loss = _python(
            "quantization_loss",
            "QuantizationLossLayer",
            n.tanh,
            param_str=settings,
            loss_weight=spec.quantization_weight,
        )


def deploy(dataset: str, bits: int, net: str | None = None, settings: Settings | None = None) -> caffe_pb2.NetParameter:
    """The net that turns images into codes (blob `hash_layer`)."""
    spec = run_settings.applied(recipe(dataset, net), settings or {})
    n = caffe.NetSpec()
    n.data = L.Input(input_param=dict(shape=dict(dim=[spec.test["batch_size"], *spec.image])))
    _add_codes(n, spec, bits)
    message = n.to_proto()
    message.name = _name(dataset, spec, bits)
    return message


def solver(
    dataset: str, folder: str, variant: str, net: str | None = None, seed: int = 1, settings: Settings | None = None
) -> str:
    """The text of the solver for the net in `folder`, a comment on each number that is a choice."""
    spec = run_settings.applied(recipe(dataset, net), settings or {}, variant == PRETRAINING)
    chosen = [
        (field, seed if field == "random_seed" else value, why)
        for field, value, why in run_settings.changed(spec.solver, spec.pretraining if variant == PRETRAINING else ())
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


def _text(message: caffe_pb2.NetParameter) -> str:
    """Prototxt; a param_str stands in single quotes, so that its JSON reads as JSON."""
    text = text_format.MessageToString(message)
    return re.sub(r'param_str: "(.*)"', lambda m: "param_str: '" + m[1].replace('\\"', '"') + "'", text)


def texts(
    dataset: str,
    variant: str,
    bits: int,
    folder: str,
    net: str | None = None,
    seed: int = 1,
    settings: Settings | None = None,
) -> dict[str, str]:
    """The files of a run in `folder` by name, train_val.prototxt, deploy.prototxt and solver.prototxt: their texts.

    Paths in them are relative to the repository root where `folder` lies below it, absolute otherwise. Snapshots go to
    `folder`. net: of NETS, default: the data set's. seed: of the weights, of dropout, and of the images' order, crops
    and mirrors. With the variant "pretraining": train_val and solver.prototxt of the classifier whose weights the
    variants start from; bits is 0 then. settings: what is otherwise than in the tables, by name (run_settings.py); they
    stand in the command of the first line. Raises ValueError for an unknown dataset, net or variant, a dataset without
    pretraining, bits below 1, a seed below 0, or a setting that the variant has no place for.
    """
    spec = recipe(dataset, net)
    if variant not in (*VARIANTS, PRETRAINING):
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)} and {PRETRAINING}")
    if variant == PRETRAINING and not spec.pretraining:
        raise ValueError(f"{dataset} with {spec.net} has no pretraining here: its weights come from elsewhere")
    for what, value, least in (("bits", bits, 0 if variant == PRETRAINING else 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{what} must be at least {least}; found {value}")
    settings = settings or {}
    run_settings.fit(variant, variant != PRETRAINING and VARIANTS[variant][1], settings)
    absolute = os.path.abspath(folder)
    inside = os.path.relpath(absolute, ROOT)
    shown = absolute if inside.startswith("..") else inside.replace(os.sep, "/")
    other = f" --net {spec.net}" if spec.net != nets_of(dataset)[0] else ""
    other += f" --seed {seed}" if seed != 1 else ""
    other += "".join(f" --set {word}" for word in run_settings.words(settings))
    length = f" --bits {bits}" if bits else ""
    words = f"{dataset} --variant {variant}{length}{other} --out {shlex.quote(shown)}"
    header = f"# Written by: python prototxt/net.py {words}\n"
    notes = run_settings.applied(spec, settings, variant == PRETRAINING).notes
    files = {
        "train_val.prototxt": "".join(f"# {note}\n" for note in notes)
        + _text(train_val(dataset, variant, bits, net, seed, settings)),
        "solver.prototxt": solver(dataset, shown, variant, net, seed, settings),
    }
    if variant != PRETRAINING:
        files["deploy.prototxt"] = _text(deploy(dataset, bits, net, settings))
    return {name: header + text for name, text in files.items()}


def write(
    dataset: str,
    variant: str,
    bits: int,
    folder: str,
    net: str | None = None,
    seed: int = 1,
    settings: Settings | None = None,
) -> list[str]:
    """Writes `texts` into `folder` (made if missing), each file atomically. Returns the paths."""
    files = texts(dataset, variant, bits, folder, net, seed, settings)
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
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="otherwise than in the tables: a field of the solver (base_lr=0.01) or of the net (batch_size=32)",
    )
    options = parser.parse_args(arguments)
    if options.set and not options.out:
        parser.error("--set goes with --out: the files of prototxt/ are as the tables have them")
    folder = options.out or default_folder(options.dataset, options.net, options.variant)
    bits = 0 if options.variant == PRETRAINING else options.bits
    try:
        settings = run_settings.parse(options.set)
        paths = write(options.dataset, options.variant, bits, folder, options.net, options.seed, settings)
    except ValueError as error:
        parser.error(str(error))
    for path in paths:
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
