"""Nets whose prototxts the fuzzer damages: between them they have nearly all layer types."""

from __future__ import annotations

_DATA = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } data_filler { type: "constant" value: 0.5 }
  data_filler { type: "constant" value: 1 } } }
"""


def _chain(*layers: str) -> str:
    """Layers of one bottom and one top, each given as `Type fields`, one after the other from `data`."""
    text, bottom = _DATA, "data"
    for number, layer in enumerate(layers):
        kind, _, fields = layer.partition(" ")
        top = f"{kind.lower()}{number}"
        text += f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {fields} }}\n'
        bottom = top
    return text


def _losses() -> str:
    text = _DATA + 'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {\n'
    text += '  num_output: 4 weight_filler { type: "msra" } bias_filler { type: "constant" } } }\n'
    text += 'layer { name: "sim" type: "DummyData" top: "other" top: "pair" dummy_data_param {\n'
    text += '  shape { dim: 2 dim: 4 } shape { dim: 2 } data_filler { type: "gaussian" std: 0.1 } } }\n'
    for kind, bottoms, fields in (
        (
            "SoftmaxWithLoss",
            "ip label",
            "loss_param { ignore_label: 3 normalization: VALID } softmax_param { axis: 1 }",
        ),
        ("EuclideanLoss", "ip other", "loss_weight: 0.5"),
        ("HingeLoss", "ip label", "hinge_loss_param { norm: L2 }"),
        ("SigmoidCrossEntropyLoss", "ip other", "loss_param { normalize: true }"),
        ("MultinomialLogisticLoss", "ip label", ""),
        ("ContrastiveLoss", "ip other pair", "contrastive_loss_param { margin: 1.0 legacy_version: false }"),
        ("Accuracy", "ip label", "accuracy_param { top_k: 2 axis: 1 ignore_label: 2 }"),
    ):
        names = " ".join(f'bottom: "{name}"' for name in bottoms.split())
        text += f'layer {{ name: "{kind}" type: "{kind}" {names} top: "{kind}" {fields} }}\n'
    return text


_HASHING = _DATA.replace('top: "label"', 'top: "labels"').replace("shape { dim: 2 } ", "shape { dim: 2 dim: 3 } ")
for _name, _module, _layer, _bottoms, _params in (
    ("pairwise", "pairwise_loss", "PairwiseLossLayer", "code labels", '{"similar_weight": 1.0}'),
    ("quantization", "quantization_loss", "QuantizationLossLayer", "code", "{}"),
    ("squared", "squared_similarity_loss", "SquaredSimilarityLossLayer", "code labels", "{}"),
):
    if _name == "pairwise":
        _HASHING += 'layer { name: "code" type: "InnerProduct" bottom: "data" top: "code" inner_product_param {\n'
        _HASHING += '  num_output: 8 weight_filler { type: "gaussian" std: 0.01 } } }\n'
    _names = " ".join(f'bottom: "{name}"' for name in _bottoms.split())
    _HASHING += f'layer {{ name: "{_name}" type: "Python" {_names} top: "{_name}" loss_weight: 1 python_param {{\n'
    _HASHING += f'  module: "{_module}" layer: "{_layer}" param_str: \'{_params}\' }} }}\n'

_FORKS_HASHING = """layer { name: "data" type: "DummyData" top: "code" top: "label" dummy_data_param {
  shape { dim: 2 dim: 4 } shape { dim: 2 dim: 3 } data_filler { type: "gaussian" std: 0.5 }
  data_filler { type: "constant" value: 1 } } }
layer { name: "pairs" type: "PairwiseLoss" bottom: "code" bottom: "label" top: "pairs"
  pairwise_param { l_threshold: 15 q_threshold: 1 l_lambda: 1 q_gamma: 0.1 axis: 1 } }
layer { name: "plain" type: "PairwiseLoss" bottom: "code" bottom: "label" top: "plain"
  pairwise_param { threshold: 15 } }
layer { name: "quantized" type: "QuantizationLoss" bottom: "code" top: "quantized" quantization_param { threshold: 1 } }
layer { name: "net" type: "PairwiseLoss" bottom: "code" bottom: "label" bottom: "code" bottom: "label" top: "net"
  pairwise_param { class_num: 10 sigmoid_param: 0.5 continous_similarity: true l_threshold: 15 l_lambda: 1 } }
"""
NETS = {
    "vision": _chain(
        "Convolution param { lr_mult: 1 decay_mult: 1 } convolution_param { num_output: 4 kernel_size: 3 pad: 1 "
        'stride: 1 dilation: 1 group: 1 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } }',
        "BatchNorm batch_norm_param { use_global_stats: false moving_average_fraction: 0.9 eps: 0.001 }",
        'Scale scale_param { axis: 1 bias_term: true filler { type: "uniform" min: 0.5 max: 2 } }',
        "LRN lrn_param { local_size: 3 alpha: 0.0001 beta: 0.75 norm_region: ACROSS_CHANNELS k: 1 }",
        "Pooling pooling_param { pool: MAX kernel_size: 2 stride: 2 pad: 0 }",
        "ReLU relu_param { negative_slope: 0.1 }",
        "Deconvolution convolution_param { num_output: 2 group: 2 kernel_h: 2 kernel_w: 2 stride: 2 "
        'weight_filler { type: "bilinear" } }',
        "PReLU prelu_param { channel_shared: false }",
        'SPP spp_param { pyramid_height: 2 pool: MAX }',
        "Dropout dropout_param { dropout_ratio: 0.5 }",
        "Bias bias_param { axis: 1 num_axes: -1 }",
    ),
    "neurons": _chain(
        "Power power_param { power: 2 scale: 0.5 shift: 1 }", "Exp exp_param { base: 2 scale: 0.1 shift: 0 }",
        "Log log_param { base: -1 scale: 1 shift: 2 }", "ELU elu_param { alpha: 1 }", "TanH", "Sigmoid", "BNLL",
        "AbsVal", "MVN mvn_param { normalize_variance: true across_channels: false eps: 1e-9 }",
        "Threshold threshold_param { threshold: 0.1 }",
    ),
    "shapes": _chain(
        "Im2col convolution_param { kernel_size: 3 stride: 2 pad: 1 dilation: 1 }",
        "Reshape reshape_param { shape { dim: 2 dim: 3 dim: 9 dim: -1 } axis: 0 num_axes: -1 }",
        "Tile tile_param { axis: 1 tiles: 2 }", "Flatten flatten_param { axis: 1 end_axis: 2 }",
        "Reduction reduction_param { operation: MEAN axis: 2 coeff: 2 }", "Softmax softmax_param { axis: -1 }",
        "ArgMax argmax_param { top_k: 2 axis: 1 out_max_val: false }",
        "Embed embed_param { input_dim: 60 num_output: 3 "
        'weight_filler { type: "positive_unitball" } }',
    ),
    "selection": _DATA + """layer { name: "slice" type: "Slice" bottom: "data" top: "a" top: "b" slice_param { axis: 1
  slice_point: 1 } }
layer { name: "concat" type: "Concat" bottom: "b" bottom: "a" top: "c" concat_param { axis: 1 } }
layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "data" top: "d"
  eltwise_param { operation: SUM coeff: 1 coeff: -1 } }
layer { name: "crop" type: "Crop" bottom: "d" bottom: "a" top: "e" crop_param { axis: 2 offset: 0 offset: 0 } }
layer { name: "reindex" type: "BatchReindex" bottom: "e" bottom: "label" top: "f" }
layer { name: "filter" type: "Filter" bottom: "f" bottom: "label" top: "g" }
layer { name: "split" type: "Split" bottom: "g" top: "h" top: "i" }
layer { name: "parameter" type: "Parameter" top: "p" parameter_param { shape { dim: 2 dim: 3 } } }
layer { name: "input" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "silence" type: "Silence" bottom: "h" bottom: "i" bottom: "x" bottom: "p" }
""",
    "output": """layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 } } }
layer { name: "out" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param { file_name: "out.h5" } }
""",
    "fields": _chain(  # that the others leave out
        "Convolution convolution_param { num_output: 2 kernel_h: 3 kernel_w: 2 pad_h: 1 pad_w: 0 stride_h: 1 "
        'stride_w: 2 engine: CAFFE force_nd_im2col: true weight_filler { type: "msra" variance_norm: AVERAGE } }',
        "Pooling pooling_param { pool: AVE kernel_h: 2 kernel_w: 2 pad_h: 1 pad_w: 0 stride_h: 2 stride_w: 1 "
        "round_mode: FLOOR engine: CAFFE }",
        "ReLU relu_param { engine: CAFFE }", "Sigmoid sigmoid_param { engine: CAFFE }",
        "TanH tanh_param { engine: CAFFE }", "Clip clip_param { min: -0.5 max: 0.5 }", "Swish swish_param { beta: 2 }",
        'Eltwise bottom: "swish6" eltwise_param { operation: MAX stable_prod_grad: true }',
        "Concat concat_param { concat_dim: 1 }",
        "Slice propagate_down: true slice_param { slice_dim: 1 }",
        "Softmax softmax_param { engine: CAFFE }", "Pooling pooling_param { pool: MAX global_pooling: true }",
        'InnerProduct inner_product_param { num_output: 3 transpose: true weight_filler { type: "gaussian" } }',
    ) + """layer { name: "dummy" type: "DummyData" top: "old"
  dummy_data_param { num: 2 channels: 3 height: 1 width: 1 } }
layer { name: "memory" type: "MemoryData" top: "m" top: "n"
  memory_data_param { batch_size: 2 channels: 3 height: 4 width: 4 }
  exclude { phase: TRAIN } exclude { phase: TEST min_level: 0 max_level: 3 not_stage: "x" } }
""",
    "forks": _chain(
        "Permute permute_param { order: 0 order: 2 order: 3 order: 1 }", "Interp interp_param { height: 5 width: 7 }",
        "Interp interp_param { zoom_factor: 2 pad_beg: 0 pad_end: 0 }", "Interp interp_param { shrink_factor: 2 }",
        'Normalize norm_param { across_spatial: false channel_shared: true eps: 1e-9 scale_filler { value: 2 } }',
        "ShuffleChannel shuffle_channel_param { group: 2 }",
        "DepthwiseConvolution convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 8 }",
        "ScaleTanH scale_tanh_param { init_scale: 1 step_size: 20 gamma: 0.005 power: 0.5 }",
    ) + """layer { name: "rois" type: "DummyData" top: "rois" top: "mask" dummy_data_param { shape { dim: 2 dim: 5 }
  shape { dim: 2 dim: 3 dim: 8 dim: 8 } data_filler { type: "constant" value: 1 } } }
layer { name: "roi" type: "ROIPooling" bottom: "data" bottom: "rois" top: "roi"
  roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 } }
layer { name: "up" type: "Upsample" bottom: "data" bottom: "mask" top: "up"
  upsample_param { scale: 2 pad_out_h: false upsample_h: 16 upsample_w: 16 } }
layer { name: "smooth" type: "SmoothL1Loss" bottom: "data" bottom: "mask" top: "smooth"
  smooth_l1_loss_param { sigma: 2 } }
""",
    "oldest": """name: "v0" input: "data" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 } state { level: 1 stage: "a" }
layers { layer { name: "conv" type: "conv" num_output: 4 kernelsize: 3 pad: 1 stride: 2 biasterm: true group: 1
  weight_filler { type: "gaussian" std: 0.1 } bias_filler { value: 1 } blobs_lr: 1 blobs_lr: 2 weight_decay: 1 }
  bottom: "data" top: "conv" }
layers { layer { name: "relu" type: "relu" } bottom: "conv" top: "conv" }
layers { layer { name: "norm" type: "lrn" local_size: 3 alpha: 0.0001 beta: 0.75 } bottom: "conv" top: "norm" }
layers { layer { name: "pool" type: "pool" pool: MAX kernelsize: 2 stride: 2 } bottom: "norm" top: "pool" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.5 } bottom: "pool" top: "pool" }
layers { layer { name: "ip" type: "innerproduct" num_output: 3 biasterm: false } bottom: "pool" top: "ip" }
layers { layer { name: "concat" type: "concat" concat_dim: 1 } bottom: "ip" bottom: "ip" top: "two" }
layers { layer { name: "prob" type: "softmax" } bottom: "two" top: "prob" }
""",
    "shared": _DATA + """layer { name: "a" type: "InnerProduct" bottom: "data" top: "a"
  param { name: "w" share_mode: STRICT lr_mult: 1 } param { name: "b" share_mode: PERMISSIVE }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "data" top: "b" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 4 } }
layer { name: "biased" type: "Bias" bottom: "data" top: "biased" bias_param { axis: 1 }
  blobs { shape { dim: 3 } data: 1 data: 2 data: 3 } }
layer { name: "information" type: "InfogainLoss" bottom: "a" bottom: "label" top: "information"
  infogain_loss_param { source: "infogain.binaryproto" axis: 1 } loss_param { ignore_label: 2 normalization: FULL } }
""",
    "forks_hashing": _FORKS_HASHING,
    "recurrent": """layer { name: "in" type: "DummyData" top: "x" top: "cont" dummy_data_param {
  shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } data_filler { type: "constant" value: 1 } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 3
  weight_filler { type: "uniform" min: -0.1 max: 0.1 } debug_info: false expose_hidden: false } }
layer { name: "rnn" type: "RNN" bottom: "h" bottom: "cont" top: "o" recurrent_param { num_output: 2
  weight_filler { type: "gaussian" std: 0.1 sparse: -1 } } }
""",
    "losses": _losses(),
    "hashing": _HASHING,
    "old": """name: "old" input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8 force_backward: true
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1
  convolution_param { num_output: 2 kernel_size: 3 } include { phase: TEST stage: "a" not_stage: "b" } }
layers { name: "pool" type: POOLING bottom: "data" top: "pool" pooling_param { pool: STOCHASTIC kernel_size: 2 } }
layers { name: "ip" type: INNER_PRODUCT bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
""",
}  # fmt: skip
READERS = {
    "data": 'type: "Data" data_param { source: "lmdb" batch_size: 2 backend: LMDB prefetch: 2 rand_skip: 0 }',
    "mean": 'type: "Data" data_param { source: "lmdb" batch_size: 2 backend: LMDB } '
    'transform_param { mean_file: "mean.binaryproto" crop_size: 6 mirror: false scale: 0.5 }',
    "list": 'type: "ImageData" image_data_param { source: "list.txt" batch_size: 7 new_height: 6 new_width: 6 '
    'is_color: true root_folder: "" rand_skip: 0 shuffle: false }',
    "hdf5": 'type: "HDF5Data" hdf5_data_param { source: "hdf5.txt" batch_size: 2 shuffle: false }',
    "window": 'type: "WindowData" window_data_param { source: "windows.txt" batch_size: 4 fg_threshold: 0.5 '
    "bg_threshold: 0.5 fg_fraction: 0.25 context_pad: 1 crop_mode: \"warp\" } transform_param { crop_size: 6 }",
    "multilabel": 'type: "Python" python_param { module: "multilabel_data" layer: "MultiLabelDataLayer" '
    'param_str: \'{"source": "lmdb", "batch_size": 2, "labels": 3, "resize": [7, 7], "crop": 6, "mirror": true, '
    '"mean_value": [1, 2, 3], "scale": 0.5, "seed": 1, "prefetch": 2, "threads": 1}\' }',
    "multilist": 'type: "Python" python_param { module: "multilabel_data" layer: "MultiLabelDataLayer" '
    'param_str: \'{"source": "labels.txt", "batch_size": 3, "resize": 8, "gray": false, "root": "."}\' }',
}  # fmt: skip


def reader(name: str) -> str:
    """The prototxt of a net that is one of READERS."""
    return f'layer {{ name: "in" top: "data" top: "label" {READERS[name]} }}\n'
