"""Nets and solvers saying what the released ones of dhn-caffe, hash-caffe and HashNet say, written anew for the tests.

`write(fork, folder)` puts train_val.prototxt, deploy.prototxt and solver.prototxt in a folder. `Size` says how large:
RELEASED is theirs (AlexNet's layers in CaffeNet's order on 227x227 images, batches of 64 or twice 256), TRIMMED has the
same data, hash and loss layers on one convolution, in batches of 8.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FORKS = ("dhn_caffe", "hash_caffe", "hashnet")


class Size(NamedTuple):
    """The size of a net. convolutions: (num_output, kernel_size, further parameters, bias, pooled and normalized)."""

    image: int
    crop: int
    batch: int | None  # None: the fork's own
    convolutions: tuple
    inner_products: tuple
    bits: int
    labels: int | None  # None: as many as the fork's data set has


RELEASED = Size(256, 227, None, (
    (96, 11, "stride: 4", 0, True), (256, 5, "pad: 2 group: 2", 1, True), (384, 3, "pad: 1", 0, False),
    (384, 3, "pad: 1 group: 2", 1, False), (256, 3, "pad: 1 group: 2", 1, True)), (4096, 4096), 48, None)  # fmt: skip
TRIMMED = Size(20, 17, 8, ((6, 5, "stride: 2", 0, True),), (12,), 6, 4)

LABELS = {"dhn_caffe": 21, "hash_caffe": 21, "hashnet": 81}
BATCH = {"dhn_caffe": 64, "hash_caffe": 64, "hashnet": 256}
MEAN = "mean_value: 104 mean_value: 117 mean_value: 123"
LOSS = {
    "dhn_caffe": "l_threshold: 15 q_threshold: 15 l_lambda: 1 q_gamma: 0.3",
    "hash_caffe": "threshold: 15",
    "hashnet": "l_threshold: 15 q_threshold: 15 l_lambda: 1 class_num: 5 sigmoid_param: 0.2 # 10 / bits\n"
    "    continous_similarity: false",
}
SOLVER = {  # base_lr, stepsize, gamma, max_iter, the rest
    "dhn_caffe": (2e-5, 500, 0.3, 10000, ""),
    "hash_caffe": (2e-5, 500, 0.5, 3000, "snapshot_after_train: false"),
    "hashnet": (5e-5, 2000, 0.5, 10000, ""),
}


def layer(name: str, kind: str, bottom: str, top: str, rest: str = "") -> str:
    """One layer's text; bottom and top: blob names with blanks between them."""
    blobs = [f'  bottom: "{blob}"' for blob in bottom.split()] + [f'  top: "{blob}"' for blob in top.split()]
    return "\n".join(["layer {", f'  name: "{name}"', f'  type: "{kind}"', *blobs, f"  {rest}", "}"])


def learned(lr: int, std: float, bias: float) -> str:
    """(param fields of the layer, fillers of its parameter message)."""
    return (
        f"param {{ lr_mult: {lr} decay_mult: 1 }} param {{ lr_mult: {2 * lr} decay_mult: 0 }}",
        f'weight_filler {{ type: "gaussian" std: {std} }} bias_filler {{ type: "constant" value: {bias} }}',
    )


def features(size: Size, bottom: str, std: float = 0.01, fc_std: float = 0.005) -> tuple[list[str], str]:
    """CaffeNet's layers, convolution - ReLU - pooling - LRN, of a size, and the top they end in."""
    layers = []
    for index, (outputs, kernel, further, bias, pooled) in enumerate(size.convolutions, 1):
        index = 5 if index == len(size.convolutions) else index
        param, filler = learned(1, std, bias)
        text = f"{param} convolution_param {{ num_output: {outputs} kernel_size: {kernel} {further} {filler} }}"
        layers += [
            layer(f"conv{index}", "Convolution", bottom, f"conv{index}", text),
            layer(f"relu{index}", "ReLU", f"conv{index}", f"conv{index}"),
        ]
        bottom = f"conv{index}"
        if pooled:
            layers += [
                layer(
                    f"pool{index}",
                    "Pooling",
                    bottom,
                    f"pool{index}",
                    "pooling_param { pool: MAX kernel_size: 3 stride: 2 }",
                )
            ]
            bottom = f"pool{index}"
        if pooled and index != 5:
            layers += [
                layer(
                    f"norm{index}",
                    "LRN",
                    bottom,
                    f"norm{index}",
                    "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }",
                )
            ]
            bottom = f"norm{index}"
    for index, outputs in enumerate(size.inner_products, 6):
        param, filler = learned(1, fc_std, 1)
        layers += [
            layer(
                f"fc{index}",
                "InnerProduct",
                bottom,
                f"fc{index}",
                f"{param} inner_product_param {{ num_output: {outputs} {filler} }}",
            ),
            layer(f"relu{index}", "ReLU", f"fc{index}", f"fc{index}"),
            layer(f"drop{index}", "Dropout", f"fc{index}", f"fc{index}", "dropout_param { dropout_ratio: 0.5 }"),
        ]
        bottom = f"fc{index}"
    return layers, bottom


def hash_layer(fork: str, size: Size, bottom: str) -> list[str]:
    """The layers that make codes, in place: the blob `hash_layer`, or HashNet's `fc8_code`."""
    param, filler = learned(10, 0.01, 0)
    name, top = ("fc8", "fc8_code") if fork == "hashnet" else ("hash_layer", "hash_layer")
    layers = [
        layer(name, "InnerProduct", bottom, top, f"{param} inner_product_param {{ num_output: {size.bits} {filler} }}")
    ]
    if fork == "hashnet":
        return [
            *layers,
            layer(
                "tanh8",
                "ScaleTanH",
                top,
                top,
                "scale_tanh_param { init_scale: 1 step_size: 200 gamma: 0.005 power: 0.5 }",
            ),
        ]
    return [*layers, layer("tanh8", "TanH", top, top)]


def data(fork: str, size: Size, source: str, mean: str) -> list[str]:
    """The training data layers; HashNet: two, joined."""
    batch, labels = size.batch or BATCH[fork], size.labels or LABELS[fork]
    transform = f"include {{ phase: TRAIN }}\n  transform_param {{ mirror: true crop_size: {size.crop} {mean} }}"
    read = f'source: "{source}" batch_size: {batch} shuffle: true new_height: {size.image} new_width: {size.image}'
    image = f"{transform}\n  image_data_param {{ {read} label_dim: {labels} }}"
    if fork == "dhn_caffe":
        return [layer("data", "ImageData", "", "data label", image)]
    if fork == "hash_caffe":
        return [
            layer(
                "data",
                "MultiLabelData",
                "",
                "data label",
                f"{transform}\n  multi_label_data_param {{ {read} label_num: {labels} }}",
            )
        ]
    return [
        layer("data1", "ImageData", "", "data1 label1", image),
        layer("data2", "ImageData", "", "data2 label2", image),
        layer("integrate data", "Concat", "data1 data2", "data", "concat_param { concat_dim: 0 }"),
    ]


def loss(fork: str, pairwise: str) -> list[str]:
    """The loss layers; pairwise: the fields of pairwise_param."""
    param = f"pairwise_param {{\n    {pairwise}\n  }}"
    if fork == "dhn_caffe":
        return [layer("pairwise_loss", "PairwiseLoss", "hash_layer label", "pairwise_loss", param)]
    if fork == "hash_caffe":
        return [
            layer("pairwise_loss", "PairwiseLoss", "hash_layer label", "pairwise_loss", f"loss_weight: 1 {param}"),
            layer(
                "quantization_loss",
                "QuantizationLoss",
                "hash_layer",
                "quantization_loss",
                "loss_weight: 0.2 quantization_param { threshold: 15 }",
            ),
        ]
    return [
        layer("slice output", "Slice", "fc8_code", "code1 code2", "slice_param { axis: 0 }"),
        layer("pairwise_loss", "PairwiseLoss", "code1 label1 code2 label2", "pairwise_loss", param),
    ]


def write(
    fork: str,
    folder: Path,
    source: str = "train.txt",
    size: Size = RELEASED,
    mean: str = MEAN,
    pairwise: str | None = None,
    **solver,
) -> Path:
    """Write the fork's three prototxts into `folder`; returns the solver's path.

    source: the image list; mean: fields of transform_param; pairwise: fields of pairwise_param in place of the released
    ones; solver: fields in place of the released solver's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    std = (0.01, 0.005) if size is RELEASED else (0.05, 0.1)  # small nets need larger weights to tell images apart
    layers, top = features(size, "data", *std)
    train = [
        f'name: "{fork}"',
        *data(fork, size, source, mean),
        *layers,
        *hash_layer(fork, size, top),
        *loss(fork, pairwise or LOSS[fork]),
    ]
    (folder / "train_val.prototxt").write_text("\n".join(train) + "\n")
    dims = " ".join(f"input_dim: {dim}" for dim in (50, 3, size.crop, size.crop))
    deploy = [f'name: "{fork}-deploy"', f'input: "data" {dims}', *layers, *hash_layer(fork, size, top)]
    (folder / "deploy.prototxt").write_text("\n".join(deploy) + "\n")
    base_lr, stepsize, gamma, max_iter, rest = SOLVER[fork]
    fields = {
        "net": f'"{folder / "train_val.prototxt"}"',
        "base_lr": base_lr,
        "lr_policy": '"step"',
        "gamma": gamma,
        "stepsize": stepsize,
        "display": 1,
        "max_iter": max_iter,
        "momentum": 0.9,
        "weight_decay": 0.0005,
        "snapshot": 1000,
        "snapshot_prefix": f'"{folder / fork}"',
        **solver,
    }
    (folder / "solver.prototxt").write_text("\n".join([f"{k}: {v}" for k, v in fields.items()] + [rest]) + "\n")
    return folder / "solver.prototxt"
