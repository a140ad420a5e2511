"""More nets that must be refused when they are built: fields, counts and shapes, blobs in a prototxt, fillers."""

from __future__ import annotations

import math

from . import text
from .refused_layers import STEPS
from .refused_nets import IMAGE, layer
from .refusing import Refusal, build
from .text import INPUT, ip, source

VOLUME = source("data", 2, 3, 4, 5, 6)
SCALARS = INPUT + text.layer("sums", "Reduction", "data", "s") + text.layer("squares", "Reduction", "data", "r")
NO_SHAPE = text.layer("data", "Input", "", "data")


def convolution(fields, bottom=IMAGE):
    return bottom + layer("Convolution", more="convolution_param { num_output: 2 %s }" % fields)


def im2col(fields, bottom=IMAGE):
    return bottom + layer("Im2col", more="convolution_param { %s }" % fields)


def pooling(fields):
    return IMAGE + layer("Pooling", more="pooling_param { %s }" % fields)


def reshape(fields):
    return INPUT + layer("Reshape", more="reshape_param { shape { dim: 0 dim: -1 } %s }" % fields)


def dummy(fields, tops="x y z"):
    return layer("DummyData", "", tops, "dummy_data_param { %s }" % fields)


def blob(*dims, values=1):
    """A layer's blobs entry of a shape, with that many values of 1 (0: as many as the shape has)."""
    count = values or math.prod(dims)
    return "blobs { shape { %s } %s }" % (" ".join("dim: %d" % n for n in dims), "data: 1 " * count)


def contrastive(first, second, similar):
    return (
        source("data", *first)
        + source("other", *second)
        + source("similar", *similar)
        + layer("ContrastiveLoss", "data other similar")
    )


def lstm(bottoms, kind="LSTM", more="num_output: 2"):
    return layer(kind, bottoms, more="recurrent_param { %s }" % more)


def unit(first, second, third):
    return source("c", *first) + source("x", *second) + source("cont", *third) + layer("LSTMUnit", "c x cont", "p q")


def filled(fields, outputs="num_output: 3"):
    """An InnerProduct layer with a weight_filler."""
    return INPUT + layer("InnerProduct", more="inner_product_param { %s weight_filler { %s } }" % (outputs, fields))


# what: (the net's text, words of the message)
NETS = {
    "shape_over_int": (source("data", 65536, 65536), ("blob size exceeds INT_MAX",)),
    "reshape_in_place": (
        INPUT + layer("Reshape", "data", "data", "reshape_param { shape { dim: 12 } }"),
        ("Reshape Layer does not allow in-place computation",),
    ),
    "reshape_axis_before": (reshape("axis: -4"), ("axis -4 out of range",)),
    "reshape_axis_beyond": (reshape("axis: 3"), ("axis 3 out of range for 2-D input blob",)),
    "reshape_num_axes": (reshape("num_axes: -2"), ("num_axes must be >= 0, or -1 for all",)),
    "reshape_num_axes_beyond": (reshape("axis: 1 num_axes: 2"), ("end_axis = axis + num_axes is out of range",)),
    "flatten_in_place": (
        INPUT + layer("Flatten", "data", "data"),
        ("Flatten Layer does not allow in-place computation",),
    ),
    "flatten_end_before_axis": (IMAGE + layer("Flatten", more="flatten_param { axis: 2 end_axis: 0 }"), ()),
    "axis_before_the_first": (
        INPUT + layer("Softmax", more="softmax_param { axis: -3 }"),
        ("axis -3 out of range for 2-D Blob with shape 4 3 (12)",),
    ),
    "loss_of_no_axes": (SCALARS + layer("EuclideanLoss", "s r"), ("axis 0 out of range for 0-D Blob",)),
    "loss_of_no_axes_and_labels": (SCALARS + layer("HingeLoss", "s data"), ("axis 0 out of range for 0-D Blob",)),
    "labels_of_no_axes": (SCALARS + layer("SoftmaxWithLoss", "data s"), ("axis 0 out of range for 0-D Blob",)),
    "filter_of_no_axes": (SCALARS + layer("Filter", "s r"), ("axis 0 out of range for 0-D Blob",)),
    "dummy_shape_and_num": (dummy("shape { dim: 1 } num: 1", "x"), ("Both shape and legacy fields were specified",)),
    "dummy_num": (dummy("num: 1 num: 1"), ("Must specify 'num' once, or once per top blob (3); specified 2",)),
    "dummy_channels": (
        dummy("num: 1 channels: 1 channels: 1"),
        ("Must specify 'channels' once, or once per top blob (3); specified 2",),
    ),
    "dummy_height": (
        dummy("num: 1 channels: 1 height: 1 height: 1"),
        ("Must specify 'height' once, or once per top blob (3); specified 2",),
    ),
    "dummy_width": (
        dummy("num: 1 channels: 1 height: 1 width: 1 width: 1"),
        ("Must specify 'width' once, or once per top blob (3); specified 2",),
    ),
    "convolution_kernel_h_3d": (
        convolution("kernel_h: 2 kernel_w: 2", VOLUME),
        ("kernel_h & kernel_w can only be used for 2D convolution",),
    ),
    "convolution_kernel_0": (convolution("kernel_size: 0"), ("Filter dimensions must be nonzero",)),
    "convolution_stride_h_3d": (
        convolution("kernel_size: 2 stride_h: 2 stride_w: 2", VOLUME),
        ("stride_h & stride_w can only be used for 2D convolution",),
    ),
    "convolution_two_strides": (
        convolution("kernel_size: 2 stride: 2 stride_h: 2 stride_w: 2"),
        ("Either stride or stride_h/w should be specified; not both",),
    ),
    "convolution_stride_count": (
        convolution("kernel_size: 2 stride: 1 stride: 1 stride: 1"),
        ("stride must be specified once, or once per spatial dimension",),
    ),
    "convolution_stride_0": (convolution("kernel_size: 2 stride: 0"), ("Stride dimensions must be nonzero",)),
    "convolution_pad_h_3d": (
        convolution("kernel_size: 2 pad_h: 1 pad_w: 1", VOLUME),
        ("pad_h & pad_w can only be used for 2D convolution",),
    ),
    "convolution_two_pads": (
        convolution("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1"),
        ("Either pad or pad_h/w should be specified; not both",),
    ),
    "convolution_pad_count": (
        convolution("kernel_size: 2 pad: 1 pad: 1 pad: 1"),
        ("pad must be specified once, or once per spatial dimension",),
    ),
    "convolution_dilation_count": (
        convolution("kernel_size: 2 dilation: 1 dilation: 1 dilation: 1"),
        ("dilation must be specified once, or once per spatial dimension",),
    ),
    "convolution_kernel_over_image": (convolution("kernel_size: 8"), ()),
    "convolution_blob_count": (
        IMAGE
        + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 1 } " + blob(2, 3, 1, 1, values=6)),
        ("Incorrect number of weight blobs",),
    ),
    "convolution_weight_shape": (
        IMAGE
        + layer("Convolution", more="convolution_param { num_output: 2 kernel_size: 1 } %s %s" % (blob(1), blob(1))),
        ("Incorrect weight shape: expected shape 2 3 1 1 (6); instead, shape was 1 (1)",),
    ),
    "convolution_bias_shape": (
        IMAGE
        + layer(
            "Convolution",
            more="convolution_param { num_output: 2 kernel_size: 1 } %s %s" % (blob(2, 3, 1, 1, values=6), blob(1)),
        ),
        ("Incorrect bias shape: expected shape 2 (2); instead, shape was 1 (1)",),
    ),
    "im2col_kernel_h_3d": (
        im2col("kernel_h: 2 kernel_w: 2", VOLUME),
        ("kernel_h & kernel_w can only be used for 2D convolution",),
    ),
    "im2col_two_kernels": (
        im2col("kernel_size: 2 kernel_h: 2 kernel_w: 2"),
        ("Either kernel_size or kernel_h/w should be specified; not both",),
    ),
    "im2col_kernel_count": (
        im2col("kernel_size: 1 kernel_size: 1 kernel_size: 1"),
        ("kernel_size must be specified once, or once per spatial dimension",),
    ),
    "im2col_stride_h_3d": (
        im2col("kernel_size: 2 stride_h: 2 stride_w: 2", VOLUME),
        ("stride_h & stride_w can only be used for 2D convolution",),
    ),
    "im2col_two_strides": (
        im2col("kernel_size: 2 stride: 2 stride_h: 2 stride_w: 2"),
        ("Either stride or stride_h/w should be specified; not both",),
    ),
    "im2col_stride_count": (
        im2col("kernel_size: 2 stride: 1 stride: 1 stride: 1"),
        ("stride must be specified once, or once per spatial dimension",),
    ),
    "im2col_stride_0": (im2col("kernel_size: 2 stride: 0"), ("Stride dimensions must be nonzero",)),
    "im2col_pad_h_3d": (
        im2col("kernel_size: 2 pad_h: 1 pad_w: 1", VOLUME),
        ("pad_h & pad_w can only be used for 2D convolution",),
    ),
    "im2col_two_pads": (
        im2col("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1"),
        ("Either pad or pad_h/w should be specified; not both",),
    ),
    "im2col_pad_count": (
        im2col("kernel_size: 2 pad: 1 pad: 1 pad: 1"),
        ("pad must be specified once, or once per spatial dimension",),
    ),
    "im2col_dilation_count": (
        im2col("kernel_size: 2 dilation: 1 dilation: 1 dilation: 1"),
        ("dilation must be specified once, or once per spatial dimension",),
    ),
    "pooling_two_pads": (
        pooling("kernel_size: 2 pad: 1 pad_h: 1 pad_w: 1"),
        ("pad is pad OR pad_h and pad_w are required",),
    ),
    "pooling_two_strides": (
        pooling("kernel_size: 2 stride: 1 stride_h: 1 stride_w: 1"),
        ("Stride is stride OR stride_h and stride_w are required",),
    ),
    "pooling_kernel_h_0": (pooling("kernel_h: 0 kernel_w: 1"), ("Filter dimensions cannot be zero",)),
    "pooling_kernel_w_0": (pooling("kernel_h: 1 kernel_w: 0"), ("Filter dimensions cannot be zero",)),
    "pooling_global_stride": (
        pooling("global_pooling: true stride: 2"),
        ("With Global_pooling: true; only pad = 0 and stride = 1",),
    ),
    "pooling_stochastic_pad": (
        pooling("pool: STOCHASTIC kernel_size: 2 pad: 1"),
        ("Padding implemented only for average and max pooling",),
    ),
    "pooling_pad_w": (
        pooling("kernel_h: 4 kernel_w: 2 pad: 2"),
        (
            "pad",
            "kernel",
        ),
    ),
    "lrn_axes": (INPUT + layer("LRN"), ("Input must have 4 axes, corresponding to (num, channels, height, width)",)),
    "spp_height_0": (
        source("data", 2, 3, 0, 4) + layer("SPP", more="spp_param { pyramid_height: 2 }"),
        ("Input dimensions cannot be zero",),
    ),
    "spp_width_0": (
        source("data", 2, 3, 4, 0) + layer("SPP", more="spp_param { pyramid_height: 2 }"),
        ("Input dimensions cannot be zero",),
    ),
    "slice_dim_negative": (
        INPUT + layer("Slice", tops="x y", more="slice_param { slice_dim: 4294967295 }"),
        ("slice_dim",),
    ),
    "slice_dim_beyond": (
        INPUT + layer("Slice", tops="x y", more="slice_param { slice_dim: 2 }"),
        ("slice_dim out of range",),
    ),
    "slice_tops": (
        source("data", 2, 3)
        + layer("Slice", tops="x y z", more="slice_param { axis: 0 slice_point: 1 slice_point: 2 }"),
        (),
    ),
    "slice_point_beyond": (INPUT + layer("Slice", tops="x y", more="slice_param { slice_point: 5 }"), ()),
    "concat_axis_and_dim": (
        INPUT + layer("Concat", "data data", more="concat_param { axis: 0 concat_dim: 0 }"),
        ("Either axis or concat_dim should be specified; not both",),
    ),
    "concat_dim_negative": (
        INPUT + layer("Concat", "data data", more="concat_param { concat_dim: 4294967295 }"),
        ("concat_dim",),
    ),
    "concat_dim_beyond": (
        INPUT + layer("Concat", "data data", more="concat_param { concat_dim: 2 }"),
        ("concat_dim out of range",),
    ),
    "bias_bottom_axes": (
        INPUT + layer("Bias", "data data", more="bias_param { axis: 1 }"),
        ("bias blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] axis = 1",),
    ),
    "scale_num_axes": (
        INPUT + layer("Scale", more="scale_param { num_axes: -2 }"),
        ("num_axes must be non-negative, or -1 to extend to the end of bottom[0]",),
    ),
    "scale_bottom_axes": (
        INPUT + layer("Scale", "data data", more="scale_param { axis: 1 }"),
        ("scale blob's shape extends past bottom[0]'s shape when applied starting with bottom[0] axis = 1",),
    ),
    "log_base_infinite": (INPUT + layer("Log", more="log_param { base: inf }"), ("Inf result: log(base)",)),
    "exp_base_infinite": (INPUT + layer("Exp", more="exp_param { base: inf }"), ("Inf result: log(base)",)),
    "multinomial_label_height": (
        INPUT + source("label", 4, 1, 2) + layer("MultinomialLogisticLoss", "data label"),
        (),
    ),
    "multinomial_label_width": (
        INPUT + source("label", 4, 1, 1, 2) + layer("MultinomialLogisticLoss", "data label"),
        (),
    ),
    "contrastive_width": (contrastive((2, 3, 1, 2), (2, 3), (2,)), ("width",)),
    "contrastive_other_height": (contrastive((2, 3), (2, 3, 2, 1), (2,)), ("height",)),
    "contrastive_other_width": (contrastive((2, 3), (2, 3, 1, 2), (2,)), ("width",)),
    "contrastive_similar_channels": (contrastive((2, 3), (2, 3), (2, 2)), ()),
    "contrastive_similar_height": (contrastive((2, 3), (2, 3), (2, 1, 2)), ("height",)),
    "contrastive_similar_width": (contrastive((2, 3), (2, 3), (2, 1, 1, 2)), ("width",)),
    "contrastive_five_axes": (contrastive((2, 3, 1, 1, 1), (2, 3), (2,)), ("Cannot use legacy accessors",)),
    "rnn_num_output": (STEPS + layer("RNN", "data cont"), ("num_output must be positive",)),
    "lstm_cont_steps": (source("data", 3, 2, 4) + source("cont", 2, 2) + lstm("data cont"), ("bottom[1]",)),
    "lstm_cont_streams": (source("data", 3, 2, 4) + source("cont", 3, 3) + lstm("data cont"), ("bottom[1]",)),
    "lstm_static_axes": (
        STEPS + text.layer("static", "Input", "", "static", "input_param { shape { } }") + lstm("data cont static"),
        (),
    ),
    "lstm_static_streams": (STEPS + source("static", 3, 4) + lstm("data cont static"), ()),
    "lstm_unit_cont_axes": (unit((1, 2, 3), (1, 2, 12), (1, 2, 1)), ()),
    "lstm_unit_axes": (unit((1, 2, 3), (1, 2, 12, 1), (1, 2)), ()),
    "lstm_unit_steps": (unit((1, 2, 3), (2, 2, 12), (1, 2)), ()),
    "lstm_unit_streams": (unit((1, 2, 3), (1, 3, 12), (1, 2)), ()),
    "prelu_shared_blob": (
        INPUT + layer("PReLU", more="prelu_param { channel_shared: true } " + blob(2, values=2)),
        ("Negative slope size is inconsistent with prototxt config",),
    ),
    "max_bottoms": (INPUT + layer("Scale", "data data data"), ("Scale Layer takes at most 2 bottom blob(s) as input",)),
    "min_tops": (dummy("shape { dim: 1 }", ""), ("DummyData Layer produces at least 1 top blob(s) as output",)),
    "max_tops": (
        layer("Data", "", "x y z", 'data_param { source: "DATA/lmdb" batch_size: 2 backend: LMDB }'),
        ("Data Layer produces at most 2 top blob(s) as output",),
    ),
    "equal_bottoms_and_tops": (
        IMAGE + layer("Convolution", "data data", "x", "convolution_param { num_output: 1 }"),
        ("Convolution Layer produces one top blob as output for each bottom blob input",),
    ),
    "share_mode_unknown": (INPUT + ip("a", "data", more='param { name: "w" share_mode: LOOSE }'), ("LOOSE",)),
    "shape_axes": (source("data", *[1] * 33), ()),
    "shape_negative": (source("data", 2, -3), ()),
    "blob_values": (INPUT + layer("PReLU", more=blob(3, values=2)), ()),
    "blob_double_values": (INPUT + layer("PReLU", more="blobs { shape { dim: 3 } double_data: 1 }"), ()),
    "blob_diffs": (INPUT + layer("PReLU", more="blobs { shape { dim: 3 } data: 1 data: 1 data: 1 diff: 1 }"), ()),
    "blob_double_diffs": (
        INPUT + layer("PReLU", more="blobs { shape { dim: 3 } data: 1 data: 1 data: 1 double_diff: 1 }"),
        (),
    ),
    "filler_constant_nothing": (filled('type: "constant"').replace("dim: 3", "dim: 0"), ()),
    "filler_constant_sparse": (filled('type: "constant" sparse: 1'), ("Sparsity not supported by",)),
    "filler_uniform_nothing": (filled('type: "uniform"').replace("dim: 3", "dim: 0"), ()),
    "filler_uniform_sparse": (filled('type: "uniform" sparse: 1'), ("Sparsity not supported by",)),
    "filler_uniform_range": (filled('type: "uniform" min: 1 max: 0'), ()),
    "filler_gaussian_nothing": (filled('type: "gaussian"').replace("dim: 3", "dim: 0"), ()),
    "filler_gaussian_std": (filled('type: "gaussian" std: 0'), ()),
    "filler_gaussian_sparse": (filled('type: "gaussian" sparse: -2'), ()),
    "filler_gaussian_sparse_over": (filled('type: "gaussian" sparse: 4'), ()),
    "filler_positive_unitball_nothing": (filled('type: "positive_unitball"').replace("dim: 3", "dim: 0"), ()),
    "filler_positive_unitball_sparse": (filled('type: "positive_unitball" sparse: 1'), ("Sparsity not supported by",)),
    "filler_xavier_nothing": (filled('type: "xavier"').replace("dim: 3", "dim: 0"), ()),
    "filler_xavier_sparse": (filled('type: "xavier" sparse: 1'), ("Sparsity not supported by",)),
    "filler_msra_nothing": (filled('type: "msra"').replace("dim: 3", "dim: 0"), ()),
    "filler_msra_sparse": (filled('type: "msra" sparse: 1'), ("Sparsity not supported by",)),
    "filler_bilinear_axes": (filled('type: "bilinear"'), ("Blob must be 4 dim",)),
    "filler_bilinear_square": (convolution('kernel_h: 2 kernel_w: 3 weight_filler { type: "bilinear" }'), ("square",)),
    "filler_bilinear_sparse": (
        convolution('kernel_size: 2 weight_filler { type: "bilinear" sparse: 1 }'),
        ("Sparsity not supported by",),
    ),
}

CUDNN = {
    "convolution": convolution("kernel_size: 2 engine: CUDNN"),
    "deconvolution": convolution("kernel_size: 2 engine: CUDNN").replace('"Convolution"', '"Deconvolution"'),
    "pooling": pooling("kernel_size: 2 engine: CUDNN"),
    "lrn": IMAGE + layer("LRN", more="lrn_param { engine: CUDNN }"),
    "relu": INPUT + layer("ReLU", more="relu_param { engine: CUDNN }"),
    "sigmoid": INPUT + layer("Sigmoid", more="sigmoid_param { engine: CUDNN }"),
    "softmax": INPUT + layer("Softmax", more="softmax_param { engine: CUDNN }"),
    "tanh": INPUT + layer("TanH", more="tanh_param { engine: CUDNN }"),
}
LATER = "the shape may be given before the net is run"
OTHERS = {
    "no_shape_shared": (NO_SHAPE + layer("Eltwise", "data data"), LATER),
    "no_shape_reshaped": (NO_SHAPE + layer("Reshape", more="reshape_param { shape { dim: -1 } }"), LATER),
}
ENGINE = "a file for a GPU that says CUDNN is computed by torch on either device"

CASES = [Refusal("LayerRefusal/" + what, words, build(net)) for what, (net, words) in NETS.items()]
CASES += [Refusal("LayerRefusal/cudnn_" + what, (), build(net), accepted=ENGINE) for what, net in CUDNN.items()]
CASES += [Refusal("LayerRefusal/" + what, (), build(net), accepted=why) for what, (net, why) in OTHERS.items()]
