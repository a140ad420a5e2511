"""Nets that must be refused when they are built, and words of BVLC's message that the engine's keeps too."""

from __future__ import annotations

from . import text
from .text import INPUT, LABEL, ip, softmax_loss, source


def layer(kind, bottoms="data", tops="top", more=""):
    """A layer named "it"."""
    return text.layer("it", kind, bottoms, tops, more)


IMAGE, OTHER = source("data", 2, 3, 5, 5), source("other", 2, 4)
LMDB = 'data_param { source: "DATA/%s" batch_size: 2 backend: LMDB } transform_param { %s }'
PYTHON = "python_param { module: '%s' layer: '%s' }"

# what: (the net's text, words of the message)
NETS = {
    "unknown_type": (layer("Nonsense", ""), ("Unknown layer type", "Nonsense")),
    "unknown_bottom": (layer("ReLU", "nowhere"), ("Unknown bottom blob", "nowhere", "it")),
    "top_twice": (INPUT + ip("a", "data", "t") + ip("b", "data", "t"), ("t", "multiple sources")),
    "broken_text": ('layer { name: "a" tpye: "ReLU" }', ("tpye",)),
    "broken_enum": (INPUT + layer("Pooling", more="pooling_param { pool: MIN }"), ("MIN",)),
    "too_few_bottoms": (
        layer("InnerProduct", "", more="inner_product_param { num_output: 1 }"),
        ("InnerProduct", "1 bottom"),
    ),
    "too_many_bottoms": (INPUT + OTHER + layer("ReLU", "data other"), ("ReLU", "1 bottom")),
    "too_many_tops": (INPUT + layer("ReLU", "data", "x y"), ("ReLU", "1 top")),
    "too_few_tops": (INPUT + layer("ReLU", "data", ""), ("ReLU", "1 top")),
    "loss_bottoms": (INPUT + layer("SoftmaxWithLoss", "data"), ("SoftmaxWithLoss", "2 bottom")),
    "loss_weights_count": (INPUT + layer("ReLU", more="loss_weight: 1 loss_weight: 2"), ("loss_weight",)),
    "propagate_down_count": (
        INPUT + layer("ReLU", more="propagate_down: true propagate_down: true"),
        ("propagate_down",),
    ),
    "params_count": (INPUT + ip("a", "data", more="param { } param { } param { }"), ("Too many params", "a")),
    "include_and_exclude": (
        INPUT + layer("ReLU", more="include { phase: TRAIN } exclude { phase: TEST }"),
        ("include", "exclude"),
    ),
    "shared_shape": (
        INPUT + ip("a", "data", more='param { name: "w" }') + ip("b", "a", outputs=4, more='param { name: "w" }'),
        ("Cannot share param 'w'", "shape mismatch"),
    ),
    "shared_count": (
        INPUT
        + ip("a", "data", more='param { name: "w" }')
        + ip("b", "a", outputs=4, more='param { name: "w" share_mode: PERMISSIVE }'),
        ("Cannot share param 'w'", "count mismatch"),
    ),
    "shared_lr_mult": (
        INPUT
        + ip("a", "data", more='param { name: "w" lr_mult: 1 }')
        + ip("b", "a", more='param { name: "w" lr_mult: 2 }'),
        ("Shared param 'w'", "lr_mult"),
    ),
    "shared_decay_mult": (
        INPUT
        + ip("a", "data", more='param { name: "w" decay_mult: 1 }')
        + ip("b", "a", more='param { name: "w" decay_mult: 2 }'),
        ("Shared param 'w'", "decay_mult"),
    ),
    "convolution_without_kernel": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 2 }"),
        ("kernel",),
    ),
    "convolution_two_kernels": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 3 kernel_h: 2 kernel_w: 2 }"),
        ("kernel_size", "kernel_h"),
    ),
    "convolution_without_num_output": (
        IMAGE + layer("Convolution", more="convolution_param { kernel_size: 3 }"),
        ("num_output",),
    ),
    "convolution_group": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 3 group: 2 }"),
        ("group",),
    ),
    "convolution_group_outputs": (
        IMAGE + layer("Convolution", more="convolution_param { num_output: 4 kernel_size: 3 group: 3 }"),
        ("group",),
    ),
    "convolution_kernel_count": (
        IMAGE
        + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 1 kernel_size: 1 kernel_size: 1 }"),
        ("kernel_size", "3"),
    ),
    "convolution_other_shapes": (
        IMAGE
        + source("other", 2, 3, 4, 4)
        + layer("Convolution", "data other", "x y", "convolution_param { num_output: 2 kernel_size: 3 }"),
        ("shape",),
    ),
    "pooling_without_kernel": (IMAGE + layer("Pooling"), ("kernel_size",)),
    "pooling_two_kernels": (
        IMAGE + layer("Pooling", more="pooling_param { kernel_size: 2 kernel_h: 2 kernel_w: 2 }"),
        ("kernel_size",),
    ),
    "pooling_global_kernel": (
        IMAGE + layer("Pooling", more="pooling_param { global_pooling: true kernel_size: 2 }"),
        ("global_pooling",),
    ),
    "pooling_pad": (IMAGE + layer("Pooling", more="pooling_param { kernel_size: 2 pad: 2 }"), ("pad",)),
    "pooling_two_axes": (INPUT + layer("Pooling", more="pooling_param { kernel_size: 2 }"), ("4",)),
    "lrn_even": (IMAGE + layer("LRN", more="lrn_param { local_size: 4 }"), ("odd", "local_size")),
    "inner_product_axis": (INPUT + ip("a", "data").replace("num_output: 3", "num_output: 3 axis: 2"), ("axis", "2")),
    "batch_norm_lr": (IMAGE + layer("BatchNorm", more="param { lr_mult: 1 }"), ("batch normalization statistics",)),
    "scale_shape": (INPUT + OTHER + layer("Scale", "data other", more="scale_param { axis: 0 }"), ("4", "2")),
    "scale_axes": (INPUT + layer("Scale", more="scale_param { axis: 1 num_axes: 2 }"), ("axis",)),
    "eltwise_shapes": (INPUT + OTHER + layer("Eltwise", "data other"), ("4", "3")),
    "eltwise_coeff_count": (INPUT + layer("Eltwise", "data data", more="eltwise_param { coeff: 1 }"), ("coeff",)),
    "eltwise_coeff_prod": (
        INPUT + layer("Eltwise", "data data", more="eltwise_param { operation: PROD coeff: 1 coeff: 2 }"),
        ("coeff",),
    ),
    "reshape_count": (INPUT + layer("Reshape", more="reshape_param { shape { dim: 5 } }"), ("count", "12", "5")),
    "reshape_two_inferred": (INPUT + layer("Reshape", more="reshape_param { shape { dim: -1 dim: -1 } }"), ("-1",)),
    "reshape_not_divisible": (INPUT + layer("Reshape", more="reshape_param { shape { dim: 5 dim: -1 } }"), ("12", "5")),
    "reshape_copy_beyond": (INPUT + layer("Reshape", more="reshape_param { shape { dim: 0 dim: 0 dim: 0 } }"), ("0",)),
    "flatten_axes": (IMAGE + layer("Flatten", more="flatten_param { axis: 2 end_axis: 5 }"), ("axis", "5")),
    "slice_uneven": (INPUT + layer("Slice", tops="x y"), ("3", "2")),
    "slice_points_count": (
        INPUT + layer("Slice", tops="x y", more="slice_param { slice_point: 1 slice_point: 2 }"),
        (),
    ),
    "slice_points_order": (
        INPUT + layer("Slice", tops="x y z", more="slice_param { slice_point: 2 slice_point: 1 }"),
        (),
    ),
    "slice_axis_and_dim": (
        INPUT + layer("Slice", tops="x y", more="slice_param { axis: 0 slice_dim: 0 }"),
        ("slice_dim", "axis"),
    ),
    "concat_shapes": (INPUT + source("other", 5, 3) + layer("Concat", "data other"), ("same shape",)),
    "concat_axes": (INPUT + source("other", 4, 3, 1) + layer("Concat", "data other"), ("axes",)),
    "softmax_loss_labels": (
        INPUT + source("label", 4, 2) + softmax_loss("data"),
        ("Number of labels must match number of predictions",),
    ),
    "loss_batch": (INPUT + source("label", 3) + softmax_loss("data"), ("same first dimension",)),
    "euclidean_shapes": (INPUT + source("other", 4, 5) + layer("EuclideanLoss", "data other"), ("same dimension",)),
    "euclidean_batch": (INPUT + source("other", 3, 3) + layer("EuclideanLoss", "data other"), ("same",)),
    "sigmoid_loss_count": (
        INPUT + source("other", 4, 5) + layer("SigmoidCrossEntropyLoss", "data other"),
        ("same count",),
    ),
    "accuracy_top_k": (INPUT + LABEL + layer("Accuracy", "data label", more="accuracy_param { top_k: 4 }"), ("top_k",)),
    "accuracy_labels": (
        INPUT + source("label", 3) + layer("Accuracy", "data label"),
        ("Number of labels must match number of predictions",),
    ),
    "dummy_shapes": (
        layer("DummyData", "", "x y z", "dummy_data_param { shape { dim: 1 } shape { dim: 2 } }"),
        ("shape",),
    ),
    "dummy_fillers": (
        layer("DummyData", "", "x", "dummy_data_param { shape { dim: 1 } data_filler { } data_filler { } }"),
        ("filler",),
    ),
    "input_shapes": (layer("Input", "", "x", "input_param { shape { dim: 1 } shape { dim: 2 } }"), ("shape",)),
    "unknown_filler": (
        INPUT + ip("a", "data").replace("num_output: 3", 'num_output: 3 weight_filler { type: "zero" }'),
        ("Unknown filler name", "zero"),
    ),
    "lmdb_missing": (layer("Data", "", "x", LMDB % ("nowhere", "")), ("No such file or directory",)),
    "crop_over_image": (layer("Data", "", "x", LMDB % ("lmdb", "crop_size: 12")), ("12",)),
    "mean_file_and_value": (
        layer("Data", "", "x", LMDB % ("lmdb", 'mean_value: 1 mean_file: "DATA/mean.binaryproto"')),
        ("mean_file", "mean_value"),
    ),
    "mean_file_missing": (
        layer("Data", "", "x", LMDB % ("lmdb", 'mean_file: "DATA/no.binaryproto"')),
        ("no.binaryproto",),
    ),
    "image_list_missing": (
        layer("ImageData", "", "x y", 'image_data_param { source: "DATA/no.txt" batch_size: 1 }'),
        (),
    ),
    "image_new_height_only": (
        layer("ImageData", "", "x y", 'image_data_param { source: "DATA/list.txt" batch_size: 1 new_height: 4 }'),
        ("new_height",),
    ),
    "image_unreadable": (
        layer(
            "ImageData", "", "x y", 'image_data_param { source: "DATA/list.txt" batch_size: 1 root_folder: "DATA/no/" }'
        ),
        ("Could not load", "list_0.png"),
    ),
    "memory_sizes": (
        layer("MemoryData", "", "x y", "memory_data_param { batch_size: 1 channels: 2 height: 3 }"),
        ("0",),
    ),
    "python_module": (INPUT + layer("Python", more=PYTHON % ("no_such_module", "X")), ()),
    "python_class": (INPUT + layer("Python", more=PYTHON % ("layers_in_python", "NoSuchLayer")), ()),
    "python_raises_in_setup": (
        INPUT + OTHER + layer("Python", "data other", more=PYTHON % ("layers_in_python", "Scaled")),
        ("Scaled takes one bottom",),
    ),
    "python_raises_in_reshape": (
        INPUT + OTHER + layer("Python", "data other", more=PYTHON % ("layers_in_python", "HalfSquaredError")),
        ("HalfSquaredError needs bottoms of one size",),
    ),
}
